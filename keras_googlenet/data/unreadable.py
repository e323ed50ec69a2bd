"""Images that cannot be decoded: skipped, counted and named.

TensorFlow ends a whole pipeline at such an image, and guarding each one costs more than decoding
it. So the pipeline runs unguarded; where it ends, the batch is searched by hand and the pipeline
built again from that step on with the culprits left out.
"""

from collections.abc import Callable, Iterator

import tensorflow as tf

from keras_googlenet.data.datasets import Split
from keras_googlenet.errors import UserError

GREATEST_SHARE = 0.01  # of a split; more is a broken data set and no accident


class Unreadable:
    """The unreadable images of one split.

    Args:
        split: What is read.
        note: Is given a sentence for each image.
    """

    def __init__(self, split: Split, note: Callable[[str], None]):
        self.size = split.size
        self.by_path = split.read is tf.io.read_file
        self.note = note
        self.numbers = set()

    def add(self, index: tf.Tensor, source: tf.Tensor):
        """Counts an image; a path names it, or else its number.

        Raises:
            UserError: If they are more than 1% of the split.
        """
        self.numbers.add(int(index))
        name = source.numpy().decode() if self.by_path else f"example {int(index)}"
        self.note(f"warning: skipped an unreadable image: {name} ({len(self.numbers)} so far)")
        if len(self.numbers) > GREATEST_SHARE * self.size:
            raise UserError(
                f"{len(self.numbers)} of {self.size} images cannot be read, more than "
                f"{GREATEST_SHARE:.0%}, the last one {name}; repair the data set."
            )


class PastUnreadable:
    """The batches of one pass, past unreadable images.

    Args:
        build: Makes the batches from a step on, without the images known to be unreadable.
        examples: Gives the `(index, source, label)` of a step that are read here.
        view: Decodes `(index, source)`; raises for an image that cannot be.
        unreadable: Collects them.
        first_step: Step to begin with.
    """

    def __init__(
        self,
        build: Callable[[int], tf.data.Dataset],
        examples: Callable[[int], tf.data.Dataset],
        view: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
        unreadable: Unreadable,
        first_step: int = 0,
    ):
        self.build, self.examples, self.view = build, examples, view
        self.unreadable = unreadable
        self.step = first_step

    def __iter__(self) -> Iterator:
        """Yields the batches that are left.

        Raises:
            UserError: If no image of a batch can be read, or too many of the split cannot.
        """
        iterator = iter(self.build(self.step))
        while True:
            try:
                batch = next(iterator)
            except StopIteration:
                return
            except tf.errors.OpError as error:
                examples = list(self.examples(self.step))
                if not _search(examples, self.view, self.unreadable):
                    self._check_some_left(examples, error)
                    raise
                iterator = iter(self.build(self.step))
            else:
                self.step += 1
                yield batch

    def _check_some_left(self, examples, error: tf.errors.OpError):
        if all(int(index) in self.unreadable.numbers for index, *_ in examples):
            raise UserError(
                "no image of a batch can be read, and nothing can stand in for them; give a "
                "greater --batch-size, or repair the data set."
            ) from error


def _search(examples: list, view, unreadable: Unreadable) -> bool:
    """Tries every image of a step; says whether a new one was found."""
    before = len(unreadable.numbers)
    for index, source, _ in examples:
        if int(index) not in unreadable.numbers:
            try:
                view(index, source)
            except tf.errors.OpError:
                unreadable.add(index, source)
    return len(unreadable.numbers) > before
