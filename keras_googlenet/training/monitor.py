"""What a run shows while it trains: progress, a warning for a stuck head, TensorBoard, curves."""

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

LINE_SECONDS = 60  # between two lines of an epoch, where there is no terminal for a bar
FLUSH_SECONDS = 60  # between two writes to TensorBoard within an epoch
STUCK = 0.02  # a head within 2% of ln(classes) has learned nothing
LEARNING = 0.1  # a head 10% below it has learned something
WINDOW = 200  # steps that a loss is averaged over
WINDOWS = 5  # how often in a row a head must be stuck: 1000 steps
_QUEUE = 100_000  # TensorBoard points between two writes; more than there are ever
_COLORS = ("#0072b2", "#e69f00", "#009e73")  # Okabe and Ito: distinct to color-blind eyes


class Progress:
    """A bar per epoch on a terminal, one line per minute elsewhere, and a line per epoch."""

    def __init__(self, batch_size: int, epochs: int, shown: bool = True):
        self.batch_size, self.epochs, self.shown = batch_size, epochs, shown
        self.images, self.seconds, self.waited = 0, 0.0, 0.0
        self.warm = False  # whether the first step, in which TensorFlow builds its graph, is done
        self.epoch, self.step, self.steps = 0, 0, 0
        self.updated_at, self.line_at, self.trained_at = 0.0, time.perf_counter(), None

    @property
    def images_per_second(self) -> float:
        """Training speed without the first step and validation; 0 before the second step."""
        return self.images / self.seconds if self.seconds else 0.0

    @property
    def input_wait(self) -> float:
        """Share of the training time that was spent waiting for images."""
        return self.waited / self.seconds if self.seconds else 0.0

    @contextlib.contextmanager
    def bar_of(self, epoch: int, first_step: int, steps: int) -> Iterator[None]:
        """Shows the bar of an epoch while it is trained, from its `first_step` of `steps` on."""
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
        self.updated_at = time.perf_counter()
        try:
            yield
        finally:
            self.bar.close()
            self.trained_at = time.perf_counter()

    def timed(self, batches: Iterable) -> Iterator:
        """Yields the batches, and measures the time spent waiting for them."""
        iterator = iter(batches)
        while True:
            asked_at = time.perf_counter()
            batch = next(iterator, None)
            if batch is None:
                return
            self.waited += time.perf_counter() - asked_at
            yield batch

    def update(self, steps: int, losses: dict[str, float]) -> float:
        """Shows the steps since the last call and their mean losses; returns their seconds."""
        now = time.perf_counter()
        seconds = now - self.updated_at
        if self.warm:
            self.images += steps * self.batch_size
            self.seconds += seconds
        else:
            self.warm, self.waited = True, 0.0
        self.updated_at = now
        self.step += steps
        self.bar.set_postfix_str(f"input wait {self.input_wait:.0%}", refresh=False)
        self.bar.update(steps * self.batch_size)
        if self.bar.disable and now - self.line_at >= LINE_SECONDS:
            self._step_line(losses)
        return seconds

    def _step_line(self, losses: dict[str, float]):
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
        """Prints the line of an epoch from its row of `history.csv`."""
        self.line_at = time.perf_counter()
        heads = "  ".join(
            f"{head} {row[f'{head}_accuracy']:.3f}/{row[f'val_{head}_accuracy']:.3f}"
            for head in HEADS
        )
        text = (
            f"epoch {row['epoch'] + 1}/{self.epochs}  "
            f"loss {row['loss']:.3f}/{row['val_loss']:.3f}  accuracy (train/validation) {heads}"
        )
        if self.seconds and self.trained_at is not None:
            # Of a whole epoch at this speed: this one may have been resumed in the middle.
            training = self.steps * self.batch_size / self.images_per_second
            epoch = training + time.perf_counter() - self.trained_at
            text += f"  {self._speed()}  {(self.epochs - row['epoch'] - 1) * epoch:.0f} s left"
        self.say(text)

    def _speed(self) -> str:
        return f"{self.images_per_second:.0f} images/s  input wait {self.input_wait:.0%}"

    def say(self, text: str):
        """Prints a line on standard error, if this process shows anything."""
        if self.shown:
            print(text, file=sys.stderr, flush=True)


class LossMonitor:
    """Warns once of each head that does not learn, and stops the run at a NaN or infinite loss."""

    def __init__(self, classes: int):
        self.chance = math.log(classes)  # cross-entropy of a head that guesses
        self.window = []  # losses of the newest steps, `(heads,)` each
        self.stuck_for = dict.fromkeys(HEADS, 0)
        self.warned = set()

    def update(self, losses: np.ndarray, epoch: int, last_step: int):
        """Checks losses `(steps, heads)` of the steps up to `last_step`, counted from 1."""
        finite = np.isfinite(losses).all(axis=1)
        if not finite.all():
            step = last_step - len(losses) + 1 + int(np.argmin(finite))
            raise not_finite("loss", f"epoch {epoch + 1}, step {step}")
        self.window += list(losses)
        while len(self.window) >= WINDOW:
            self._check_window(dict(zip(HEADS, np.mean(self.window[:WINDOW], axis=0), strict=True)))
            del self.window[:WINDOW]

    def _check_window(self, losses: dict[str, float]):
        another_learns = min(losses.values()) < (1 - LEARNING) * self.chance
        for head, loss in losses.items():
            stuck = another_learns and abs(loss / self.chance - 1) <= STUCK
            self.stuck_for[head] = self.stuck_for[head] + 1 if stuck else 0
            if self.stuck_for[head] == WINDOWS and head not in self.warned:
                self.warned.add(head)
                print(
                    f"warning: the head {head} has not learned for {WINDOW * WINDOWS} steps, while "
                    f"another head has: its loss is {loss:.3f}, that of guessing is ln(classes) = "
                    f"{self.chance:.3f}. A lower --learning-rate, --variant batchnorm, a longer "
                    "--warmup-epochs or a lower --aux-dropout helps.",
                    file=sys.stderr,
                    flush=True,
                )


def not_finite(what: str, where: str) -> UserError:
    """Returns the error of a run whose loss or weights are NaN or infinite."""
    return UserError(
        f"the {what} is not a finite number at {where}; earlier checkpoints are kept. Start again "
        "with a lower --learning-rate, with --clip-norm 1 or with --precision float32."
    )


class TensorBoard:
    """Writes scalars for TensorBoard, named and sorted into two folders as Keras does."""

    def __init__(self, folder: Path):
        self.folder, self.writers = folder, {}

    def add_steps(self, step: int, values: dict[str, float]):
        """Adds a point within an epoch at a global step."""
        with self._write_errors():
            for name, value in values.items():
                self._add("train", step, f"batch_{name}", value)

    def add_epoch(self, row: dict[str, float], images_per_second: float):
        """Adds a row of `history.csv` and the training speed, and writes all that is queued."""
        with self._write_errors():
            for key, value in (row | {"images_per_second": images_per_second}).items():
                part = "validation" if key.startswith("val_") else "train"
                if key != "epoch":
                    self._add(part, row["epoch"], f"epoch_{key.removeprefix('val_')}", value)
            for writer in self.writers.values():
                writer.flush()

    def _add(self, part: str, step: int, name: str, value: float):
        if part not in self.writers:
            path, milliseconds = str(self.folder / part), FLUSH_SECONDS * 1000
            self.writers[part] = tf.summary.create_file_writer(path, _QUEUE, milliseconds)
        with self.writers[part].as_default(step=step):
            tf.summary.scalar(name, value)

    @contextlib.contextmanager
    def _write_errors(self) -> Iterator[None]:
        try:
            yield
        except tf.errors.OpError as error:
            reason = f"{self.folder} cannot be written ({error.message}); free space."
            raise WriteError(reason) from error


def draw_curves(history: list[dict[str, float]], path: Path):
    """Draws `curves.png`: accuracy and loss of each head over the epochs of `history.csv`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    epochs = [row["epoch"] + 1 for row in history]
    for axes, quantity in zip(figure.subplots(1, 2), ("accuracy", "loss"), strict=True):
        for head, color in zip(HEADS, _COLORS, strict=True):
            training = [row[f"{head}_{quantity}"] for row in history]
            validation = [row[f"val_{head}_{quantity}"] for row in history]
            axes.plot(epochs, training, "-", color=color, alpha=0.5)
            axes.plot(epochs, validation, "o--", color=color, label=head)
        axes.set(xlabel="epoch", ylabel=quantity)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    axes.legend(title="— training   ●– validation", fontsize="small")
    with replacing(path) as file:
        figure.savefig(file, dpi=120)
