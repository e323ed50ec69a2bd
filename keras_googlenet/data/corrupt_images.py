"""Images that cannot be decoded: skipped, counted, and named with the reason.

TensorFlow ends a whole pipeline at a corrupt image, and guarding every image costs more than
decoding it. So the pipeline runs unguarded; where it ends, the images that it was reading are
decoded one by one, and the pipeline is built again from that batch on without the corrupt ones.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import tensorflow as tf

from keras_googlenet.data import preprocessing
from keras_googlenet.data.datasets import Split
from keras_googlenet.data.file_kinds import FIRST_BYTES
from keras_googlenet.data.image_files import READ_ERRORS, reason_of
from keras_googlenet.errors import UserError

GREATEST_SHARE = 0.01  # of a split; more means a broken data set
_MOST_NAMED = 10  # corrupt images that an error names
_SEARCH_SECONDS = 30  # spent on finding them
_CHUNK = 64  # images that are decoded side by side


class CorruptImages:
    """The corrupt images of one split.

    Args:
        split: What is read.
        note: Is called with a sentence for each image.
        workers: Workers that share the split; each allows its part of `GREATEST_SHARE`.

    Attributes:
        indices: Examples of the split that are corrupt, as far as they are known.
    """

    def __init__(self, split: Split, note: Callable[[str], None], workers: int = 1):
        self.split, self.note = split, note
        self.most = GREATEST_SHARE * split.size / workers
        self.indices = set()
        self._descriptions = {}

    def search(self, examples: Iterable[tuple[int, Callable]], most: int | None = None) -> int:
        """Decodes examples one by one, and counts the corrupt ones that were not known before.

        Each is its index and the function that decodes it; `most` is how many to find. Raises
        UserError if more than 1% of the split is corrupt.
        """
        before = len(self.indices)
        for index, decode_example in examples:
            if index not in self.indices:
                try:
                    decode_example()
                except READ_ERRORS as error:
                    self._add(index, error)
                    if len(self.indices) > self.most:
                        raise self.refusal(f", more than {GREATEST_SHARE:.0%}") from error
            if most is not None and len(self.indices) - before >= most:
                break
        return len(self.indices) - before

    def _add(self, index: int, error: Exception):
        self.indices.add(index)
        self._descriptions[index] = describe(self.split, index, error)
        self.note(
            f"warning: skipped a corrupt image: {self._descriptions[index]}; "
            f"{len(self.indices)} so far"
        )

    def refusal(self, limit: str = "") -> UserError:
        """Looks for more corrupt images, and returns an error that names up to ten of them."""
        deadline, least = time.monotonic() + _SEARCH_SECONDS, ""
        with ThreadPoolExecutor() as pool:
            for start in range(0, self.split.size, _CHUNK):
                if len(self._descriptions) >= _MOST_NAMED or time.monotonic() > deadline:
                    least = "at least "
                    break
                chunk = range(self.split.size)[start : start + _CHUNK]
                chunk = [index for index in chunk if index not in self._descriptions]
                for index, error in zip(chunk, pool.map(self._error_of, chunk), strict=True):
                    if error is not None:
                        self._add(index, error)
        descriptions = list(self._descriptions.values())
        return corrupt_error(descriptions, f"{least}{len(self.indices)}", self.split.size, limit)

    def _error_of(self, index: int) -> Exception | None:
        try:
            decode(self.split, index)
        except READ_ERRORS as error:
            return error
        return None


def decode(split: Split, index: int) -> tf.Tensor:
    """Reads and decodes the whole image of an example, `(height, width, 3)` uint8."""
    return preprocessing.decode(split.read(index)[0])


def describe(split: Split, index: int, error: Exception) -> str:
    """Names an example that could not be decoded, with the reason in parentheses."""
    try:
        encoded, _ = split.read(index)
        reason = reason_of(error, encoded.numpy()[:FIRST_BYTES])
    except READ_ERRORS as read_error:
        reason = reason_of(read_error)
    return f"{split.name(index)} ({reason})"


def corrupt_error(descriptions: list[str], count: str, size: int, limit: str = "") -> UserError:
    """Returns the error about `count` of `size` images, as `describe` names them."""
    named = ", ".join(descriptions[:_MOST_NAMED])
    return UserError(
        f"{count} of {size} images cannot be read{limit}: {named}; repair or remove them."
    )


class WithoutCorrupt:
    """The batches of a pass over a split, without corrupt images; it can be iterated again.

    Args:
        build: Makes the batches from a step on, without the images known to be corrupt.
        examples_of: Gives the index of each example that this worker reads for a step, with the
            function that decodes it.
        corrupt: Collects the corrupt images.
        first_step: Step of the first batch.
    """

    def __init__(
        self,
        build: Callable[[int], Iterable],
        examples_of: Callable[[int], list[tuple[int, Callable]]],
        corrupt: CorruptImages,
        first_step: int = 0,
    ):
        self.build, self.examples_of = build, examples_of
        self.corrupt = corrupt
        self.first_step = first_step

    def __iter__(self) -> Iterator:
        """Yields the batches; raises UserError if a whole batch or too many images are corrupt."""
        step = self.first_step
        iterator = iter(self.build(step))
        while True:
            try:
                batch = next(iterator)
            except StopIteration:
                return
            except READ_ERRORS as error:
                examples = self.examples_of(step)
                if not self.corrupt.search(examples):
                    if all(index in self.corrupt.indices for index, _ in examples):
                        raise UserError(
                            "no image of a batch can be read, and nothing can stand in for them; "
                            "give a greater --batch-size, or repair the data set."
                        ) from error
                    raise
                iterator = iter(self.build(step))
            else:
                step += 1
                yield batch
