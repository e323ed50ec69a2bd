"""Which examples are read when, and by whom."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf

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
        batch_size: Pictures a step over all workers; an epoch is as many whole steps as there are.
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
