"""The input pipeline: from a split to batches of images.

A run's examples are numbered from its first to its last; epoch, position in the epoch's order and
every random choice are functions of that number and the seed. So the stream is the same whatever
the parallelism, starts at any step without reading what comes before, and each worker reads its
own share. Only MixUp and CutMix depend on the number of workers: each mixes its own part of a
batch.
"""

from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_googlenet.data import mixing, preprocessing
from keras_googlenet.data.datasets import Split

READERS = 4  # parallel reads, since storage on the network has a long latency
READ_SIZE = 16  # examples a read at most


class Worker(NamedTuple):
    """Which part of each batch this process makes: every `count`-th example from `index`."""

    index: int = 0
    count: int = 1


ONE_WORKER = Worker()


class Augmentation(NamedTuple):
    """How a training crop is made from an image.

    Attributes:
        area: Least and greatest share of the image's area in the crop.
        random_interpolation: Whether resizing picks one of four interpolations (section 6).
        distort_colours: Whether brightness, contrast and saturation change (section 6).
        randaugment: Whether Keras' RandAugment follows, which is not seeded by example.
        mixup: Alpha of MixUp over a batch; 0 for none.
        cutmix: Alpha of CutMix over a batch; 0 for none. With both, each batch gets one.
    """

    area: tuple[float, float] = (0.08, 1.0)  # section 6
    random_interpolation: bool = False
    distort_colours: bool = False
    randaugment: bool = False
    mixup: float = 0.0
    cutmix: float = 0.0


class Order(NamedTuple):
    """The order of a run's examples: every epoch is a permutation of the split, without a table.

    Attributes:
        size: Examples of the split.
        batch_size: Images a step over all workers; an epoch has as many whole steps as there are.
        seed: Decides the permutations, together with the epoch.
    """

    size: int
    batch_size: int
    seed: int

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return self.size // self.batch_size

    def at(self, positions: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Maps positions in the run to epochs and indices of examples, all `(n,)` int64."""
        length = self.steps * self.batch_size
        epochs, positions = positions // length, positions % length
        # `tf.random.experimental.index_shuffle` accepts only one seed (TensorFlow 2.21). Seeds that
        # differ in a bit or two give similar permutations: hence the hashes.
        texts, key = tf.strings.as_string(epochs), self.seed % 2**62
        words = [tf.strings.to_hash_bucket_strong(texts, 2**62, [key, i]) for i in range(3)]
        indices = tf.raw_ops.RandomIndexShuffle(
            index=positions,
            seed=tf.stack(words, axis=1),
            max_index=tf.constant(self.size - 1, tf.int64),
            rounds=4,
        )
        return epochs, indices

    def of_step(self, step: int) -> list[tuple[int, int]]:
        """Returns epoch and index of each example of a step of the run."""
        positions = tf.range(step * self.batch_size, (step + 1) * self.batch_size, dtype=tf.int64)
        return list(zip(*(values.numpy().tolist() for values in self.at(positions)), strict=True))


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
    worker: Worker = ONE_WORKER,
    corrupt: Collection[int] = (),
) -> tf.data.Dataset:
    """Returns the shuffled and augmented batches of a run, epoch after epoch.

    Args:
        split: What to read; at least `batch_size` examples.
        image_size: Side of the crops.
        batch_size: Images a step over all workers, a multiple of their number; the rest of an
            epoch that does not fill a batch is skipped.
        seed: Decides order and augmentation.
        augmentation: How crops are made.
        first_step: Step of the run of the first batch; nothing before it is read.
        steps: How many steps, of one epoch or of several; the rest of the epoch if not given.
        classes: Number of classes; with it labels are one-hot, which mixing needs.
        worker: Which part of each batch, n images, to make.
        corrupt: Indices of examples that another image of the batch stands in for.

    Returns:
        Dataset of `(images, labels)`: `(n, image_size, image_size, 3)` uint8 RGB, a quarter of
        the bytes of float32 on their way to a GPU, and `(n,)` int64 or `(n, classes)` float32.
    """
    order = Order(split.size, batch_size, seed)
    steps = order.steps - first_step % order.steps if steps is None else steps
    crop = train_crop(split, image_size, seed, augmentation)
    is_readable = _lookup(corrupt, split.size)
    blank = tf.zeros((image_size, image_size, 3), tf.uint8), tf.zeros((), tf.int64)

    def make_example(epoch, index, source):
        if not corrupt:
            return *crop(epoch, index, source), True, epoch, index
        readable = is_readable(index)
        image, label = tf.cond(readable, lambda: crop(epoch, index, source), lambda: blank)
        return image, label, readable, epoch, index

    def finish(images, labels, readable, epochs, indices):
        if corrupt:
            images, labels = replace_corrupt(images, labels, readable)
        if classes is None:
            return images, labels
        key = _key(seed, epochs[0], indices[0])
        return _mix(images, tf.one_hot(labels, classes), augmentation, key)

    start, end = first_step * batch_size, (first_step + steps) * batch_size
    positions = tf.data.Dataset.range(start + worker.index, end, worker.count)
    share = batch_size // worker.count
    return (
        fetch_examples(split, positions, share, order.at)
        .map(make_example, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(share, drop_remainder=True)
        .map(finish, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )


def fetch_examples(
    split: Split, positions: tf.data.Dataset, batch_size: int, order: Callable | None = None
) -> tf.data.Dataset:
    """Reads examples, several at a time, and not far ahead of the batches that they are for.

    `positions` is a dataset of indices of examples, or of what `order` maps to tensors of the same
    length, `(n,)`, of which the last holds indices. The result is a dataset of these scalars, each
    followed by what was read.
    """

    def fetch(positions):
        keys = (positions,) if order is None else order(positions)
        return *keys, split.fetch(keys[-1])

    read_size = min(READ_SIZE, max(1, batch_size // (2 * READERS)))
    return positions.batch(read_size).map(fetch, num_parallel_calls=READERS).unbatch()


def train_crop(split: Split, image_size: int, seed: int, augmentation: Augmentation):
    """Returns the function `(epoch, index, source) -> (crop, label)`; crops are uint8.

    Its random choices depend on `seed`, the epoch and the index of the example.
    """
    randaugment = _randaugment() if augmentation.randaugment else None

    def crop(epoch, index, source):
        keys = tf.unstack(tf.random.split(_key(seed, epoch, index), 4))
        crop_seed, flip_seed, resize_seed, color_seed = keys
        encoded, label = split.open(index, source)
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

    return crop


def replace_corrupt(images: tf.Tensor, labels: tf.Tensor, readable: tf.Tensor):
    """Replaces the images and labels of a batch where `readable`, `(n,)` booleans, is false.

    Raises `tf.errors.InvalidArgumentError` if no image is readable.
    """
    tf.debugging.Assert(tf.reduce_any(readable), ["no image of a batch is readable"])
    rows = tf.range(tf.shape(readable)[0])
    good = tf.boolean_mask(rows, readable)
    chosen = tf.where(readable, rows, tf.gather(good, rows % tf.size(good)))
    return tf.gather(images, chosen), tf.gather(labels, chosen)


def validation_batches(
    split: Split,
    image_size: int,
    batch_size: int,
    worker: Worker = ONE_WORKER,
    corrupt: Collection[int] = (),
    first_step: int = 0,
) -> tf.data.Dataset:
    """Returns one pass over a split in full batches, with arguments as for `train_batches`.

    Its batches are `(images, labels, weights)`: central crops, `(n, image_size, image_size, 3)`
    float32 RGB in [0, 255], `(n,)` int64 and `(n,)` float32, 1 for an example and 0 for a corrupt
    one and for what only fills the last batch.
    """
    is_readable = _lookup(corrupt, split.size)
    blank = tf.zeros((image_size, image_size, 3)), tf.zeros((), tf.int64)

    def make_example(index, source):
        counts = (index < split.size) & is_readable(tf.minimum(index, split.size - 1))
        image, label = tf.cond(
            counts, lambda: evaluation_image(split, index, source, image_size), lambda: blank
        )
        return image, label, tf.cast(counts, tf.float32)

    share = batch_size // worker.count
    start, padded = first_step * batch_size + worker.index, split.size + -split.size % batch_size
    end = max(start, split.size)
    real = tf.data.Dataset.range(start, end, worker.count)
    padding = tf.data.Dataset.range(end + (start - end) % worker.count, padded, worker.count)
    return (
        fetch_examples(split, real, share)
        .concatenate(padding.map(lambda index: (index, "")))
        .map(make_example, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(share, drop_remainder=True)
        .prefetch(tf.data.AUTOTUNE)
    )


def evaluation_batches(split: Split, image_size: int, batch_size: int) -> tf.data.Dataset:
    """Returns one pass over a split as it is evaluated: each example once, one central crop.

    Its batches are `(images, labels)`: `(n, image_size, image_size, 3)` float32 RGB in [0, 255]
    and `(n,)` int64; the last one may be smaller.
    """
    examples = fetch_examples(split, tf.data.Dataset.range(split.size), batch_size)
    images = examples.map(
        lambda index, source: evaluation_image(split, index, source, image_size),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    return images.batch(batch_size).prefetch(tf.data.AUTOTUNE)


def evaluation_image(split: Split, index: tf.Tensor, source: tf.Tensor, image_size: int):
    """Returns an example as it is evaluated, `(image_size, image_size, 3)` float32, and its label.

    `source` is what was fetched for the example.
    """
    encoded, label = split.open(index, source)
    return preprocessing.evaluation_crop(preprocessing.decode(encoded), image_size), label


def read_labels(split: Split, batch_size: int = 4096) -> Iterator[np.ndarray]:
    """Reads all of a split for the classes of its readable examples, `(n,)` int64 at a time."""
    examples = fetch_examples(split, tf.data.Dataset.range(split.size), batch_size)
    labels = examples.map(lambda *example: split.open(*example)[1], num_parallel_calls=READERS)
    return labels.ignore_errors().batch(batch_size).as_numpy_iterator()


def _key(seed: int, epoch: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    epoch = tf.cast(epoch, tf.int64)
    return tf.random.fold_in(tf.stack([tf.constant(seed, tf.int64), epoch]), index)


def _lookup(corrupt: Collection[int], size: int):
    """Returns the function that maps the index of an example to whether it is readable."""
    if not corrupt:
        return lambda index: tf.constant(True)
    readable = np.ones(size, bool)
    readable[list(corrupt)] = False
    readable = tf.constant(readable)
    return lambda index: tf.gather(readable, index)


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
