"""What can go wrong while a network trains, said early."""

import math
import sys

from keras_googlenet.errors import UserError
from keras_googlenet.googlenet import HEADS

STUCK = 0.02  # a head within 2% of ln(classes) has learned nothing
LEARNING = 0.1  # a head 10% below it has learned something
WINDOW = 200  # steps that a loss is averaged over
WINDOWS = 5  # how often in a row a head must be stuck: 1000 steps


class Watch:
    """Looks at the losses of every training step.

    Args:
        classes: Number of classes.

    Attributes:
        warned: Heads that have had their warning.
    """

    def __init__(self, classes: int):
        self.guess = math.log(classes)  # cross-entropy of a head that knows nothing
        self.epoch_sums = dict.fromkeys(HEADS, 0.0)  # of this epoch up to the step before
        self.sums, self.steps = dict.fromkeys(HEADS, 0.0), 0  # of this window
        self.stuck_for = dict.fromkeys(HEADS, 0)
        self.warned = set()

    def begin_epoch(self, losses: dict[str, float], step: int):
        """Starts over where an epoch stands.

        Args:
            losses: Mean of each head's loss over the steps of the epoch that were done before.
            step: How many they are.
        """
        self.epoch_sums = {head: losses[head] * step for head in HEADS}

    def see(self, losses: dict[str, float], step: int, place: str):
        """Takes in a step.

        Args:
            losses: Mean of each head's loss over the steps of this epoch, as Keras reports it.
            step: How many they are.
            place: Where the run is, for a message.

        Raises:
            UserError: If a loss is no number.
        """
        if not all(math.isfinite(loss) for loss in losses.values()):
            raise no_number("loss", place)
        for head in HEADS:
            self.sums[head] += losses[head] * step - self.epoch_sums[head]
            self.epoch_sums[head] = losses[head] * step
        self.steps += 1
        if self.steps == WINDOW:
            self._judge({head: total / WINDOW for head, total in self.sums.items()})
            self.sums, self.steps = dict.fromkeys(HEADS, 0.0), 0

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


def no_number(what: str, place: str) -> UserError:
    """Returns the error of a run that has left the numbers."""
    return UserError(
        f"the {what} is not a finite number at {place}; the last good checkpoint is kept. Start "
        "again with a lower --learning-rate or with --precision float32."
    )
