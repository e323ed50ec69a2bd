"""Images that cannot be decoded: skipped, counted, and named with the reason.

TensorFlow ends a whole pipeline at such an image, and guarding each one costs more than decoding
it. So the pipeline runs unguarded; where it ends, what it was reading is searched by hand and the
pipeline built again from there on with the culprits left out.
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

GREATEST_SHARE = 0.01  # of a split; more is a broken data set and no accident
NAMED = 10  # unreadable images that the error names
SEARCH_SECONDS = 30  # that it looks for them
_TOGETHER = 64  # images that are looked at side by side


class CorruptImages:
    """The unreadable images of one split.

    Args:
        split: What is read.
        note: Is given a sentence for each image.
        parts: Workers that share the split, of which this is one.

    Attributes:
        numbers: Their numbers.
    """

    def __init__(self, split: Split, note: Callable[[str], None], parts: int = 1):
        self.split, self.note = split, note
        self.most = GREATEST_SHARE * split.size / parts
        self.numbers = set()
        self._named = {}

    def search(self, views: Iterable[tuple[int, Callable]], most: int | None = None) -> int:
        """Tries images one by one, and counts those that cannot be read.

        Args:
            views: Numbers of examples, each with the function that decodes it.
            most: Stop after so many.

        Returns:
            How many were found that were not known before.

        Raises:
            UserError: If they are more than 1% of the split; it names up to ten.
        """
        before = len(self.numbers)
        for number, view in views:
            if number not in self.numbers:
                try:
                    view()
                except READ_ERRORS as error:
                    self._add(number, error)
                    if len(self.numbers) > self.most:
                        raise self.refusal(f", more than {GREATEST_SHARE:.0%}") from error
            if most is not None and len(self.numbers) - before >= most:
                break
        return len(self.numbers) - before

    def _add(self, number: int, error: Exception):
        self.numbers.add(number)
        named = f"{self.split.name(number)} ({self._reason(number, error)})"
        self._named[number] = named
        self.note(f"warning: skipped an unreadable image: {named}; {len(self.numbers)} so far")

    def _reason(self, number: int, error: Exception) -> str:
        try:
            encoded, _ = self.split.read(number)
        except READ_ERRORS as unread:
            return reason_of(unread)
        return reason_of(error, encoded.numpy()[:FIRST_BYTES])

    def refusal(self, why: str = "") -> UserError:
        """Looks for more of them, so that all can be mended at once.

        Args:
            why: Goes on "cannot be read".

        Returns:
            An error that names up to ten, each with the reason.
        """
        until, least = time.monotonic() + SEARCH_SECONDS, ""
        with ThreadPoolExecutor() as pool:
            for start in range(0, self.split.size, _TOGETHER):
                if len(self._named) >= NAMED or time.monotonic() > until:
                    least = "at least "
                    break
                some = range(self.split.size)[start : start + _TOGETHER]
                some = [number for number in some if number not in self._named]
                for number, error in zip(some, pool.map(self._error_of, some), strict=True):
                    if error is not None:
                        self._add(number, error)
        return UserError(
            f"{least}{len(self.numbers)} of {self.split.size} images cannot be read{why}: "
            f"{', '.join(list(self._named.values())[:NAMED])}; repair or remove them."
        )

    def _error_of(self, number: int) -> Exception | None:
        try:
            decode(self.split, number)
        except READ_ERRORS as error:
            return error
        return None


def decode(split: Split, number: int) -> tf.Tensor:
    """Reads and decodes the whole image of an example, `(height, width, 3)` uint8."""
    encoded, _ = split.read(number)
    return preprocessing.decode(encoded)


class WithoutCorrupt:
    """The batches of a pass, past unreadable images; it can be gone through again.

    Args:
        build: Makes the batches from a step on, without the images known to be unreadable.
        views: Gives the numbers of the examples of a step that are read here, each with the
            function that decodes it.
        unreadable: Collects them.
        first_step: Step to begin with.
    """

    def __init__(
        self,
        build: Callable[[int], Iterable],
        views: Callable[[int], list[tuple[int, Callable]]],
        unreadable: CorruptImages,
        first_step: int = 0,
    ):
        self.build, self.views = build, views
        self.unreadable = unreadable
        self.first_step = first_step

    def __iter__(self) -> Iterator:
        """Yields the batches that are left.

        Raises:
            UserError: If no image of a batch can be read, or too many of the split cannot.
        """
        step = self.first_step
        iterator = iter(self.build(step))
        while True:
            try:
                batch = next(iterator)
            except StopIteration:
                return
            except READ_ERRORS as error:
                views = self.views(step)
                if not self.unreadable.search(views):
                    self._check_some_left(views, error)
                    raise
                iterator = iter(self.build(step))
            else:
                step += 1
                yield batch

    def _check_some_left(self, views, error: Exception):
        if all(number in self.unreadable.numbers for number, _ in views):
            raise UserError(
                "no image of a batch can be read, and nothing can stand in for them; give a "
                "greater --batch-size, or repair the data set."
            ) from error
