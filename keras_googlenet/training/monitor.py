"""What can go wrong while a network trains, said early."""

import math
import sys

import numpy as np

from keras_googlenet.errors import UserError
from keras_googlenet.googlenet import HEADS

STUCK = 0.02  # a head within 2% of ln(classes) has learned nothing
LEARNING = 0.1  # a head 10% below it has learned something
WINDOW = 200  # steps that a loss is averaged over
WINDOWS = 5  # how often in a row a head must be stuck: 1000 steps


class LossMonitor:
    """Looks at the losses of every training step, some steps at a time.

    Args:
        classes: Number of classes.

    Attributes:
        warned: Heads that have had their warning.
    """

    def __init__(self, classes: int):
        self.guess = math.log(classes)  # cross-entropy of a head that knows nothing
        self.window = []
        self.stuck_for = dict.fromkeys(HEADS, 0)
        self.warned = set()

    def update(self, losses: np.ndarray, epoch: int, last_step: int):
        """Takes in the losses of the newest steps.

        Args:
            losses: `(steps, heads)`.
            epoch: Number of the epoch, from 0.
            last_step: Number of the last of the steps in it, from 1.

        Raises:
            UserError: If a loss is no number.
        """
        finite = np.isfinite(losses).all(axis=1)
        if not finite.all():
            step = last_step - len(losses) + 1 + int(np.argmin(finite))
            raise no_number("loss", f"epoch {epoch + 1}, step {step}")
        self.window += list(losses)
        while len(self.window) >= WINDOW:
            self._judge(dict(zip(HEADS, np.mean(self.window[:WINDOW], axis=0), strict=True)))
            del self.window[:WINDOW]

    def _judge(self, losses: dict[str, float]):
        another_learns = min(losses.values()) < (1 - LEARNING) * self.guess
        for head, loss in losses.items():
            stuck = another_learns and abs(loss / self.guess - 1) <= STUCK
            self.stuck_for[head] = self.stuck_for[head] + 1 if stuck else 0
            if self.stuck_for[head] == WINDOWS and head not in self.warned:
                self.warned.add(head)
                print(
                    f"warning: the head {head} has not learned for {WINDOW * WINDOWS} steps: its "
                    f"loss is {loss:.3f}, that of guessing ln(classes) = {self.guess:.3f}, while "
                    "another head learns. A lower --learning-rate, --variant batchnorm, a longer "
                    "--warmup-epochs or a lower --aux-dropout helps.",
                    file=sys.stderr,
                    flush=True,
                )


def no_number(what: str, where: str) -> UserError:
    """Returns the error of a run whose loss or weights are infinite or not a number."""
    return UserError(
        f"the {what} is not a finite number at {where}; checkpoints from before it stay. Start "
        "again with a lower --learning-rate, with --clip-norm 1 or with --precision float32."
    )
