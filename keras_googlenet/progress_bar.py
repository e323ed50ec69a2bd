"""Progress through many images, on standard error."""

import sys
import time

from tqdm import tqdm

SECONDS_A_LINE = 60.0  # where there is no terminal


class Progress:
    """A bar on a terminal, elsewhere one line per minute.

    Args:
        total: Number of images.
        done: Images of an earlier attempt, which do not count for the speed.
    """

    def __init__(self, total: int, done: int = 0):
        self.total, self.first, self.done = total, done, done
        self.started = self.printed = time.perf_counter()
        hidden = not sys.stderr.isatty()
        self.bar = tqdm(
            total=total, initial=done, unit=" images", file=sys.stderr, disable=hidden, leave=False
        )

    def update(self, images: int):
        """Counts images."""
        self.done += images
        self.bar.update(images)
        now = time.perf_counter()
        if self.bar.disable and now - self.printed > SECONDS_A_LINE:
            self.printed = now
            left = (self.total - self.done) * (now - self.started) / (self.done - self.first)
            line = f"{self.done} of {self.total} images, {left:.0f} s left"
            print(line, file=sys.stderr, flush=True)

    def print(self, text: str):
        """Prints a result on standard output at once, above the bar."""
        with tqdm.external_write_mode():
            print(text, flush=True)

    def close(self):
        """Removes the bar."""
        self.bar.close()
