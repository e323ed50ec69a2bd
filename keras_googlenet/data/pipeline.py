"""From a split to batches of pictures.

Images stay encoded until the worker that decodes them crops them too, and every random choice is
a function of (seed, epoch, number of the example): the stream is the same whatever the
parallelism, and begins at any step without decoding what it skips. Only MixUp and CutMix depend on
the number of workers: each mixes the pictures of its own part of a batch.
"""

from collections.abc import Collection, Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_googlenet.data import mixing, preprocessing
from keras_googlenet.data.datasets import Split
from keras_googlenet.errors import UserError


class Augmentation(NamedTuple):
    """How a training picture comes from an image.

    Attributes:
        area: Least and greatest share of the image that the crop shows.
        random_interpolation: Whether resizing picks one of four interpolations (section 6).
        distort_colours: Whether brightness, contrast and saturation change (section 6).
        randaugment: Whether Keras' RandAugment follows, which knows no seed by example.
        mixup: Alpha of MixUp over a batch; 0 leaves it out.
        cutmix: Alpha of CutMix over a batch; 0 leaves it out. With both, each batch gets one.
    """

    area: tuple[float, float] = (0.08, 1.0)  # section 6
    random_interpolation: bool = False
    distort_colours: bool = False
    randaugment: bool = False
    mixup: float = 0.0
    cutmix: float = 0.0


class Worker(NamedTuple):
    """Which part of each batch this process makes: every `count`-th example from `index`."""

    index: int = 0
    count: int = 1


ALONE = Worker()


def usable_batch_size(size: int, batch_size: int, parts: int = 1) -> int:
    """Returns the batch size for a split of `size`, in `parts` equal parts."""
    return min(batch_size, size) // parts * parts


def train_batches(
    split: Split,
    image_size: int,
    batch_size: int,
    seed: int,
    augmentation: Augmentation,
    epoch: int = 0,
    first_step: int = 0,
    classes: int | None = None,
    worker: Worker = ALONE,
    unreadable: Collection[int] = (),
) -> tf.data.Dataset:
    """One epoch, or what is left of it, of shuffled and randomly changed pictures.

    Args:
        split: What to read; at least `batch_size` examples.
        image_size: Side of the pictures.
        batch_size: Pictures a step over all workers, a multiple of their number; the rest of an
            epoch that fills no batch is left out.
        seed: Decides order and changes.
        augmentation: How pictures come from images.
        epoch: Number of the epoch, from 0.
        first_step: Step to begin with; what lies before it is not decoded.
        classes: Number of classes; with it labels are one-hot, which mixing needs.
        worker: Which part of each batch to make.
        unreadable: Numbers of examples to skip. Another picture of the batch stands in for them,
            so that batches keep their size and the stream its place.

    Returns:
        Dataset of `(images, labels)`: `(n, image_size, image_size, 3)` uint8 RGB, a quarter of
        the bytes of float32 on their way to a GPU, and `(n,)` int64 or `(n, classes)` float32,
        where n is `batch_size / worker.count`.
    """
    view = train_view(split, image_size, seed, augmentation, epoch)
    skipped = _lookup(unreadable, split.size)
    blank = tf.zeros((image_size, image_size, 3), tf.uint8)

    def picture(index, source, label):
        if not unreadable:
            return view(index, source), label, True, index
        readable = tf.logical_not(tf.gather(skipped, index))
        return tf.cond(readable, lambda: view(index, source), lambda: blank), label, readable, index

    def finish(images, labels, readable, indices):
        if unreadable:
            images, labels = stand_in(images, labels, readable)
        if classes is None:
            return images, labels
        labels = tf.one_hot(labels, classes)
        return _mix(images, labels, augmentation, _key(seed, epoch, indices[0]))

    steps = split.size // batch_size
    return (
        _in_order(split, seed, epoch)
        .take(steps * batch_size)
        .skip(first_step * batch_size)
        .shard(worker.count, worker.index)
        .map(picture, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(batch_size // worker.count, drop_remainder=True)
        .map(finish, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )


def train_examples(split: Split, seed: int, epoch: int, begin: int, count: int) -> tf.data.Dataset:
    """Encoded examples of a shuffled epoch.

    Args:
        split: What to read.
        seed: Decides the order.
        epoch: Number of the epoch, from 0.
        begin: Place of the first one in the epoch's order.
        count: How many.

    Returns:
        Dataset of `(index, source, label)` scalars; `index` is the example's own number.
    """
    return _in_order(split, seed, epoch).skip(begin).take(count)


def train_view(split: Split, image_size: int, seed: int, augmentation: Augmentation, epoch: int):
    """Returns the function `(index, source) -> picture` of an epoch; pictures are uint8.

    Args:
        split: Says how a source is read.
        image_size: Side of the picture.
        seed: Decides the changes, together with `epoch` and the example's number.
        augmentation: Which changes.
        epoch: Number of the epoch, from 0.
    """
    randaugment = _randaugment() if augmentation.randaugment else None

    def view(index, source):
        keys = tf.unstack(tf.random.split(_key(seed, epoch, index), 4))
        crop_seed, flip_seed, resize_seed, colour_seed = keys
        encoded = split.read(source)
        image = preprocessing.decode_random_crop(encoded, crop_seed, augmentation.area)
        if augmentation.random_interpolation:
            image = preprocessing.resize_randomly(image, image_size, image_size, resize_seed)
        else:
            image = preprocessing.resize_crop(image, image_size)
        image = preprocessing.random_flip(image, flip_seed)
        if augmentation.distort_colours:
            image = preprocessing.distort_colours(image, colour_seed)
        if randaugment is not None:
            image = randaugment(image)
        return _rounded(tf.ensure_shape(image, (image_size, image_size, 3)))

    return view


def stand_in(images: tf.Tensor, labels: tf.Tensor, readable: tf.Tensor):
    """Puts readable pictures of a batch, with their labels, in the place of unreadable ones.

    Args:
        images: `(n, h, w, 3)`.
        labels: `(n,)`.
        readable: `(n,)` booleans.

    Returns:
        Images and labels of the same shapes.

    Raises:
        tf.errors.InvalidArgumentError: If none is readable.
    """
    tf.debugging.Assert(tf.reduce_any(readable), ["no image of a batch is readable"])
    places = tf.range(tf.shape(readable)[0])
    good = tf.boolean_mask(places, readable)
    substitutes = tf.gather(good, places % tf.size(good))
    chosen = tf.where(readable, places, substitutes)
    return tf.gather(images, chosen), tf.gather(labels, chosen)


def validation_batches(
    split: Split,
    image_size: int,
    batch_size: int,
    worker: Worker = ALONE,
    unreadable: Collection[int] = (),
    first_step: int = 0,
) -> tf.data.Dataset:
    """One pass over a split in full batches, where a weight says what counts.

    Args:
        split: What to read.
        image_size: Side of the pictures.
        batch_size: Pictures a step over all workers, a multiple of their number.
        worker: Which part of each batch to make.
        unreadable: Numbers of examples that have weight 0.
        first_step: Step to begin with.

    Returns:
        Dataset of `(images, labels, weights)`: `(n, image_size, image_size, 3)` float32 RGB in
        [0, 255], `(n,)` int64 and `(n,)` float32, 1 for an example and 0 for what only fills the
        last batch, where n is `batch_size / worker.count`.
    """
    skipped = _lookup(unreadable, split.size)
    blank = tf.zeros((image_size, image_size, 3))

    def picture(index, source, label):
        real = index < split.size
        readable = real & tf.logical_not(tf.gather(skipped, tf.minimum(index, split.size - 1)))
        image = tf.cond(
            readable, lambda: evaluation_picture(split, source, image_size), lambda: blank
        )
        return image, label, tf.cast(readable, tf.float32)

    examples = _numbered(split)
    padding = examples.take(1).repeat(-split.size % batch_size)
    padding = padding.map(lambda _, source, label: (tf.int64.max, source, label))
    return (
        examples.concatenate(padding)
        .skip(first_step * batch_size)
        .shard(worker.count, worker.index)
        .map(picture, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(batch_size // worker.count, drop_remainder=True)
        .prefetch(tf.data.AUTOTUNE)
    )


def validation_examples(split: Split, begin: int, count: int) -> tf.data.Dataset:
    """Encoded examples in order, `(index, source, label)`: `count` of them from `begin` on."""
    return _numbered(split).skip(begin).take(count)


def evaluation_picture(split: Split, source: tf.Tensor, image_size: int) -> tf.Tensor:
    """Reads one image as it is evaluated, `(image_size, image_size, 3)` float32."""
    return preprocessing.evaluation_view(preprocessing.decode(split.read(source)), image_size)


def _in_order(split: Split, seed: int, epoch: int) -> tf.data.Dataset:
    """Examples with their numbers, `(index, source, label)`, in the order of an epoch."""

    def shuffled(epoch):
        # `shuffle` mixes its seed with this graph's, which would else be TensorFlow's global one.
        tf.compat.v1.set_random_seed(seed + 1)
        return _numbered(split).shuffle(split.shuffle_buffer, seed=epoch)

    return tf.data.Dataset.range(epoch, epoch + 1).flat_map(shuffled)


def _numbered(split: Split) -> tf.data.Dataset:
    return split.examples.enumerate().map(lambda index, example: (index, *example))


def _key(seed: int, epoch: int, index: tf.Tensor) -> tf.Tensor:
    return tf.random.fold_in(tf.constant([seed, epoch], tf.int64), index)


def _lookup(numbers: Collection[int], size: int) -> tf.Tensor:
    """A boolean for each example: whether its number is among `numbers`."""
    table = np.zeros(size, bool)
    table[list(numbers)] = True
    return tf.constant(table)


def _rounded(images: tf.Tensor) -> tf.Tensor:
    """Rounds values in [0, 255] to uint8."""
    return tf.saturate_cast(images + 0.5, tf.uint8)


def _mix(images, labels, augmentation: Augmentation, key: tf.Tensor):
    choice_seed, mix_seed = tf.unstack(tf.random.split(key))

    def by_mixup():
        floats = tf.cast(images, tf.float32)
        mixed, mixed_labels = mixing.mixup(floats, labels, augmentation.mixup, mix_seed)
        return _rounded(mixed), mixed_labels

    def by_cutmix():
        return mixing.cutmix(images, labels, augmentation.cutmix, mix_seed)

    if augmentation.mixup and augmentation.cutmix:
        return tf.cond(tf.random.stateless_uniform((), choice_seed) < 0.5, by_mixup, by_cutmix)
    if augmentation.mixup:
        return by_mixup()
    return by_cutmix() if augmentation.cutmix else (images, labels)


def _randaugment():
    import keras

    return keras.layers.RandAugment(value_range=(0, 255), dtype="float32")


def evaluation_batches(split: Split, image_size: int, batch_size: int) -> tf.data.Dataset:
    """One pass over a split as it is evaluated: every example once, in order, one central crop.

    Args:
        split: What to read.
        image_size: Side of the pictures.
        batch_size: Pictures a batch; the last one may have fewer.

    Returns:
        Dataset of `(images, labels)`: `(n, image_size, image_size, 3)` float32 RGB in [0, 255]
        and `(n,)` int64.
    """

    def view(source, label):
        return evaluation_picture(split, source, image_size), label

    pictures = split.examples.map(view, num_parallel_calls=tf.data.AUTOTUNE)
    return pictures.batch(batch_size).prefetch(tf.data.AUTOTUNE)


def read_image(path: str) -> tf.Tensor:
    """Reads one image file.

    Args:
        path: JPEG, PNG, GIF or BMP.

    Returns:
        `(height, width, 3)` uint8, RGB.

    Raises:
        UserError: If the file is missing or no image.
    """
    try:
        return preprocessing.decode(tf.io.read_file(str(path)))
    except tf.errors.OpError as error:
        raise UserError(
            f"{path} cannot be read as a JPEG, PNG, GIF or BMP image; give another file."
        ) from error


class ViewBatch(NamedTuple):
    """Pictures with the files that they come from; `images` is `(n, size, size, 3)` float32."""

    files: list[str]
    images: np.ndarray


def view_batches(
    files: list[str], image_size: int, errors: list[UserError], batch_size: int = 32
) -> Iterator[ViewBatch]:
    """Reads image files as they are evaluated; one that cannot be read does not stop the rest.

    Args:
        files: Image files.
        image_size: Side of the pictures.
        errors: Is given an error for each file that cannot be read.
        batch_size: Pictures a batch at most.

    Yields:
        Batches of the others, in order.
    """
    for start in range(0, len(files), batch_size):
        read, views = [], []
        for file in files[start : start + batch_size]:
            try:
                views.append(preprocessing.evaluation_view(read_image(file), image_size).numpy())
                read.append(file)
            except UserError as error:
                errors.append(error)
        if views:
            yield ViewBatch(read, np.stack(views))
