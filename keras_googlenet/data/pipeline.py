"""From a split to batches of pictures.

A run's examples are numbered from its first to its last; epoch, place in the epoch's order and
every random choice are functions of that number and the seed. So the stream is the same whatever
the parallelism, begins anywhere without reading what lies before, and each worker reads its own
share. Only MixUp and CutMix depend on the number of workers: each mixes the pictures of its own
part of a batch.
"""

from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_googlenet.data import mixing, preprocessing
from keras_googlenet.data.datasets import Split

READERS = 4  # reads at the same time: storage on the network answers late
TOGETHER = 16  # examples a read at most


class Worker(NamedTuple):
    """Which part of each batch this process makes: every `count`-th example from `index`."""

    index: int = 0
    count: int = 1


ALONE = Worker()


class Order(NamedTuple):
    """Which example comes when: every epoch is a permutation of the split, without a table.

    Attributes:
        size: Examples of the split.
        batch_size: Images a step over all workers; an epoch is as many whole steps as there are.
        seed: Decides the permutations, together with the number of the epoch.
    """

    size: int
    batch_size: int
    seed: int

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return self.size // self.batch_size

    def at(self, places: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Maps places in the run to epochs and the numbers of the examples, all `(n,)` int64."""
        length = self.steps * self.batch_size
        epochs, places = places // length, places % length
        # `tf.random.experimental.index_shuffle`, which takes one seed only (TensorFlow 2.21). Seeds
        # that differ in a bit or two give permutations that are alike: hence the hashes.
        texts, key = tf.strings.as_string(epochs), self.seed % 2**62
        words = [tf.strings.to_hash_bucket_strong(texts, 2**62, [key, i]) for i in range(3)]
        numbers = tf.raw_ops.RandomIndexShuffle(
            index=places,
            seed=tf.stack(words, axis=1),
            max_index=tf.constant(self.size - 1, tf.int64),
            rounds=4,
        )
        return epochs, numbers

    def of_step(self, step: int) -> list[tuple[int, int]]:
        """Returns `(epoch, number)` of each example of a step of the run."""
        places = tf.range(step * self.batch_size, (step + 1) * self.batch_size, dtype=tf.int64)
        return list(zip(*(found.numpy().tolist() for found in self.at(places)), strict=True))


def fetched(
    split: Split, places: tf.data.Dataset, batch_size: int, numbers_at: Callable | None = None
) -> tf.data.Dataset:
    """Reads examples, several at a time, and little ahead of what is asked for.

    Args:
        split: What to read.
        places: Dataset of int64 scalars: numbers of examples, or what `numbers_at` maps to them.
        batch_size: Of the batches that they are read for.
        numbers_at: Maps places, `(n,)`, to tensors of the same length, the numbers last.

    Returns:
        Dataset of scalars: what `numbers_at` gives, otherwise the number, and what was read.
    """

    def fetch(places):
        found = (places,) if numbers_at is None else numbers_at(places)
        return *found, split.fetch(found[-1])

    together = min(TOGETHER, max(1, batch_size // (2 * READERS)))
    return places.batch(together).map(fetch, num_parallel_calls=READERS).unbatch()


def read_labels(split: Split, together: int = 4096) -> Iterator[np.ndarray]:
    """Reads all of a split for the classes of its readable examples, `(n,)` int64 at a time."""
    examples = fetched(split, tf.data.Dataset.range(split.size), together)
    labels = examples.map(lambda *example: split.open(*example)[1], num_parallel_calls=READERS)
    return labels.ignore_errors().batch(together).as_numpy_iterator()


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


def usable_batch_size(size: int, batch_size: int, parts: int = 1) -> int:
    """Returns the batch size for a split of `size`, in `parts` equal parts."""
    return min(batch_size, size) // parts * parts


def train_batches(
    split: Split,
    image_size: int,
    batch_size: int,
    seed: int,
    augmentation: Augmentation,
    first_step: int = 0,
    steps: int | None = None,
    classes: int | None = None,
    worker: Worker = ALONE,
    unreadable: Collection[int] = (),
) -> tf.data.Dataset:
    """The stream of a run's shuffled and randomly changed pictures, epoch after epoch.

    Args:
        split: What to read; at least `batch_size` examples.
        image_size: Side of the pictures.
        batch_size: Images a step over all workers, a multiple of their number; the rest of an
            epoch that fills no batch is left out.
        seed: Decides order and changes.
        augmentation: How pictures come from images.
        first_step: Step of the run to begin with; nothing before it is read.
        steps: How many steps, of one epoch or of several; what is left of the epoch, if not given.
        classes: Number of classes; with it labels are one-hot, which mixing needs.
        worker: Which part of each batch to make.
        unreadable: Numbers of examples to skip. Another picture of the batch stands in for them,
            so that batches keep their size and the stream its place.

    Returns:
        Dataset of `(images, labels)`: `(n, image_size, image_size, 3)` uint8 RGB, a quarter of
        the bytes of float32 on their way to a GPU, and `(n,)` int64 or `(n, classes)` float32,
        where n is `batch_size / worker.count`.
    """
    order = Order(split.size, batch_size, seed)
    steps = order.steps - first_step % order.steps if steps is None else steps
    view = train_crop(split, image_size, seed, augmentation)
    is_readable = _readable(unreadable, split.size)
    blank = tf.zeros((image_size, image_size, 3), tf.uint8), tf.zeros((), tf.int64)

    def picture(epoch, number, source):
        if not unreadable:
            return *view(epoch, number, source), True, epoch, number
        readable = is_readable(number)
        image, label = tf.cond(readable, lambda: view(epoch, number, source), lambda: blank)
        return image, label, readable, epoch, number

    def finish(images, labels, readable, epochs, numbers):
        if unreadable:
            images, labels = stand_in(images, labels, readable)
        if classes is None:
            return images, labels
        return _mix(
            images, tf.one_hot(labels, classes), augmentation, _key(seed, epochs[0], numbers[0])
        )

    begin, end = first_step * batch_size, (first_step + steps) * batch_size
    places = tf.data.Dataset.range(begin + worker.index, end, worker.count)
    here = batch_size // worker.count
    return (
        fetched(split, places, here, order.at)
        .map(picture, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(here, drop_remainder=True)
        .map(finish, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )


def train_crop(split: Split, image_size: int, seed: int, augmentation: Augmentation):
    """Returns the function `(epoch, number, source) -> (picture, label)`; pictures are uint8.

    Args:
        split: What to read.
        image_size: Side of the picture.
        seed: Decides the changes, together with the epoch and the example's number.
        augmentation: Which changes.
    """
    randaugment = _randaugment() if augmentation.randaugment else None

    def view(epoch, number, source):
        keys = tf.unstack(tf.random.split(_key(seed, epoch, number), 4))
        crop_seed, flip_seed, resize_seed, color_seed = keys
        encoded, label = split.open(number, source)
        image = preprocessing.decode_random_crop(encoded, crop_seed, augmentation.area)
        if augmentation.random_interpolation:
            image = preprocessing.resize_randomly(image, image_size, image_size, resize_seed)
        else:
            image = preprocessing.resize_crop(image, image_size)
        image = preprocessing.random_flip(image, flip_seed)
        if augmentation.distort_colours:
            image = preprocessing.distort_colours(image, color_seed)
        if randaugment is not None:
            image = randaugment(image)
        return _rounded(tf.ensure_shape(image, (image_size, image_size, 3))), label

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
        batch_size: Images a step over all workers, a multiple of their number.
        worker: Which part of each batch to make.
        unreadable: Numbers of examples that have weight 0.
        first_step: Step to begin with.

    Returns:
        Dataset of `(images, labels, weights)`: `(n, image_size, image_size, 3)` float32 RGB in
        [0, 255], `(n,)` int64 and `(n,)` float32, 1 for an example and 0 for what only fills the
        last batch, where n is `batch_size / worker.count`.
    """
    is_readable = _readable(unreadable, split.size)
    blank = tf.zeros((image_size, image_size, 3)), tf.zeros((), tf.int64)

    def picture(number, source):
        counts = (number < split.size) & is_readable(tf.minimum(number, split.size - 1))
        image, label = tf.cond(
            counts, lambda: evaluation_image(split, number, source, image_size), lambda: blank
        )
        return image, label, tf.cast(counts, tf.float32)

    here = batch_size // worker.count
    begin, whole = first_step * batch_size + worker.index, split.size + -split.size % batch_size
    end = max(begin, split.size)
    real = tf.data.Dataset.range(begin, end, worker.count)
    padding = tf.data.Dataset.range(end + (begin - end) % worker.count, whole, worker.count)
    return (
        fetched(split, real, here)
        .concatenate(padding.map(lambda number: (number, "")))
        .map(picture, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(here, drop_remainder=True)
        .prefetch(tf.data.AUTOTUNE)
    )


def evaluation_image(split: Split, number: tf.Tensor, source: tf.Tensor, image_size: int):
    """Makes an example as it is evaluated: `(image_size, image_size, 3)` float32, and its label."""
    encoded, label = split.open(number, source)
    return preprocessing.evaluation_crop(preprocessing.decode(encoded), image_size), label


def _key(seed: int, epoch: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
    epoch = tf.cast(epoch, tf.int64)
    return tf.random.fold_in(tf.stack([tf.constant(seed, tf.int64), epoch]), number)


def _readable(unreadable: Collection[int], size: int):
    """Returns the function that says of an example's number whether it is not in `unreadable`."""
    if not unreadable:
        return lambda number: tf.constant(True)
    table = np.ones(size, bool)
    table[list(unreadable)] = False
    table = tf.constant(table)
    return lambda number: tf.gather(table, number)


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
        batch_size: SampleImages a batch; the last one may have fewer.

    Returns:
        Dataset of `(images, labels)`: `(n, image_size, image_size, 3)` float32 RGB in [0, 255]
        and `(n,)` int64.
    """
    examples = fetched(split, tf.data.Dataset.range(split.size), batch_size)
    pictures = examples.map(
        lambda number, source: evaluation_image(split, number, source, image_size),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    return pictures.batch(batch_size).prefetch(tf.data.AUTOTUNE)
