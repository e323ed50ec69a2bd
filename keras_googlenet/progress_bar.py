"""What a person sees while an evaluation runs, on standard error."""

import sys
import time

from tqdm import tqdm

SECONDS_A_LINE = 60.0  # off a terminal


class Progress:
    """A bar on a terminal; everywhere else a line a minute.

    Args:
        total: Examples in all.
        done: Examples that an earlier attempt has measured.
    """

    def __init__(self, total: int, done: int = 0):
        self.total, self.done, self.here = total, done, 0
        self.began = self.said = time.perf_counter()
        self.bar = tqdm(
            total=total,
            initial=done,
            unit=" images",
            file=sys.stderr,
            disable=not sys.stderr.isatty(),
            leave=False,
        )

    def update(self, examples: int):
        """Counts examples."""
        self.done += examples
        self.here += examples
        self.bar.update(examples)
        now = time.perf_counter()
        if self.bar.disable and now - self.said > SECONDS_A_LINE:
            self.said = now
            left = (self.total - self.done) * (now - self.began) / self.here
            line = f"{self.done} of {self.total} images, {left:.0f} s left"
            print(line, file=sys.stderr, flush=True)

    def close(self):
        """Takes the bar away."""
        self.bar.close()
