"""What a person sees while a network trains: lines on standard error, and TensorBoard."""

import contextlib
import math
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from keras_googlenet.atomic import replacing
from keras_googlenet.errors import UserError, WriteError
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


LINE_SECONDS = 60  # between two lines of an epoch, where there is no terminal for a bar


class Progress:
    """A bar an epoch on a terminal, a line a minute elsewhere, and everywhere a line an epoch.

    Args:
        batch_size: Images a step.
        epochs: Epochs of the whole run.
        shown: Whether to say anything.
    """

    def __init__(self, batch_size: int, epochs: int, shown: bool = True):
        self.batch_size = batch_size
        self.epochs = epochs
        self.shown = shown
        self.images, self.seconds, self.waited = 0, 0.0, 0.0
        self.warm = False  # whether the first step is done, in which TensorFlow builds its graph
        self.epoch, self.step, self.steps = 0, 0, 0
        self.read_at, self.line_at, self.ended = 0.0, time.perf_counter(), None

    @property
    def images_per_second(self) -> float:
        """Training speed so far, without the first step and validation; 0 before the second."""
        return self.images / self.seconds if self.seconds else 0.0

    @property
    def input_wait(self) -> float:
        """Share of the training time so far that was spent waiting for images."""
        return self.waited / self.seconds if self.seconds else 0.0

    @contextlib.contextmanager
    def bar_of(self, epoch: int, first_step: int, steps: int) -> Iterator[None]:
        """Inside the block an epoch is trained; after it validation begins.

        Args:
            epoch: Number of the epoch, from 0.
            first_step: Steps of it that were done before.
            steps: Steps of it in all.
        """
        self.epoch, self.step, self.steps = epoch, first_step, steps
        self.bar = tqdm(
            desc=f"epoch {epoch + 1}/{self.epochs}",
            total=steps * self.batch_size,
            initial=first_step * self.batch_size,
            unit=" images",
            file=sys.stderr,
            disable=not (self.shown and sys.stderr.isatty()),
            leave=False,
        )
        self.read_at = time.perf_counter()
        try:
            yield
        finally:
            self.bar.close()
            self.ended = time.perf_counter()

    def timed(self, batches: Iterable) -> Iterator:
        """Yields the batches, and counts the time that each one takes as waiting."""
        iterator = iter(batches)
        while True:
            began = time.perf_counter()
            batch = next(iterator, None)
            if batch is None:
                return
            self.waited += time.perf_counter() - began
            yield batch

    def update(self, steps: int, losses: dict[str, float]) -> float:
        """Shows the steps that are done since the last call.

        Args:
            steps: How many.
            losses: Of each head, over these steps.

        Returns:
            The seconds that they took.
        """
        now = time.perf_counter()
        took = now - self.read_at
        if self.warm:
            self.images += steps * self.batch_size
            self.seconds += took
        else:
            self.warm, self.waited = True, 0.0
        self.read_at = now
        self.step += steps
        self.bar.set_postfix_str(f"input wait {self.input_wait:.0%}", refresh=False)
        self.bar.update(steps * self.batch_size)
        if self.bar.disable and now - self.line_at >= LINE_SECONDS:
            self.step_line(losses)
        return took

    def step_line(self, losses: dict[str, float]):
        """Leaves a line in the middle of an epoch."""
        self.line_at = time.perf_counter()
        text = (
            f"epoch {self.epoch + 1}/{self.epochs}  step {self.step}/{self.steps}  loss "
            + "  ".join(f"{head} {loss:.3f}" for head, loss in losses.items())
        )
        if self.seconds:
            left = (self.steps - self.step) * self.batch_size / self.images_per_second
            text += f"  {self._speed()}  {left:.0f} s left in this epoch"
        self.say(text)

    def epoch_line(self, row: dict[str, float]):
        """Leaves one line an epoch.

        Args:
            row: A row of `history.csv`.
        """
        self.line_at = time.perf_counter()
        heads = "  ".join(
            f"{head} {row[f'{head}_accuracy']:.3f}/{row[f'val_{head}_accuracy']:.3f}"
            for head in HEADS
        )
        text = (
            f"epoch {row['epoch'] + 1}/{self.epochs}  "
            f"loss {row['loss']:.3f}/{row['val_loss']:.3f}  accuracy (train/validation) {heads}"
        )
        if self.seconds and self.ended is not None:
            # A whole epoch at this speed: the last one may have begun in the middle.
            training = self.steps * self.batch_size / self.images_per_second
            epoch = training + time.perf_counter() - self.ended
            text += f"  {self._speed()}  {(self.epochs - row['epoch'] - 1) * epoch:.0f} s left"
        self.say(text)

    def _speed(self) -> str:
        return f"{self.images_per_second:.0f} images/s  input wait {self.input_wait:.0%}"

    def say(self, text: str):
        """Prints a line, if anything is to be shown."""
        if self.shown:
            print(text, file=sys.stderr, flush=True)


class TensorBoard:
    """Writes the scalars of a run, as Keras names and sorts them.

    Args:
        folder: The logs: `train/` and `validation/` inside, made at the first flush.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.points, self.writers = [], {}

    def add_steps(self, step: int, values: dict[str, float]):
        """Takes in a point within an epoch; `step` counts from the beginning of the run."""
        self.points += [("train", step, f"batch_{name}", value) for name, value in values.items()]

    def add_epoch(self, row: dict[str, float], images_per_second: float):
        """Takes in a row of `history.csv`."""
        for key, value in (row | {"images_per_second": images_per_second}).items():
            part = "validation" if key.startswith("val_") else "train"
            if key != "epoch":
                name = f"epoch_{key.removeprefix('val_')}"
                self.points.append((part, row["epoch"], name, value))

    def flush(self):
        """Writes what came since the last time.

        Raises:
            WriteError: If the disk refuses; the points of this time are lost.
        """
        points, self.points = self.points, []
        try:
            for part, step, name, value in points:
                if part not in self.writers:
                    path = str(self.folder / part)
                    self.writers[part] = tf.summary.create_file_writer(path)
                with self.writers[part].as_default(step=step):
                    tf.summary.scalar(name, value)
            for writer in self.writers.values():
                writer.flush()
        except tf.errors.OpError as error:
            reason = f"{self.folder} cannot be written ({error.message}); make room."
            raise WriteError(reason) from error


_COLORS = ("#0072b2", "#e69f00", "#009e73")  # Okabe and Ito: told apart by color-blind eyes


def draw_curves(history: list[dict[str, float]], path: Path):
    """Draws `curves.png`.

    Args:
        history: One row of metrics an epoch, as in `history.csv`.
        path: Picture to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, quantity in zip(figure.subplots(1, 2), ("accuracy", "loss"), strict=True):
        for head, color in zip(HEADS, _COLORS, strict=True):
            if f"{head}_{quantity}" in history[0]:
                _draw_head(axes, history, f"{head}_{quantity}", head, color)
        axes.set(xlabel="epoch", ylabel=quantity)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    axes.legend(title="— training   ●– validation", fontsize="small")
    with replacing(path) as file:
        figure.savefig(file, dpi=120)


def _draw_head(axes, history, key: str, head: str, color: str):
    epochs = [row["epoch"] + 1 for row in history]
    axes.plot(epochs, [row[key] for row in history], "-", color=color, alpha=0.5)
    axes.plot(epochs, [row[f"val_{key}"] for row in history], "o--", color=color, label=head)
