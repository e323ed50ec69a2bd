"""What a person sees while a network trains: lines on standard error, and TensorBoard."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import tensorflow as tf
from tqdm import tqdm

from keras_googlenet.errors import WriteError
from keras_googlenet.googlenet import HEADS


class Progress:
    """A bar an epoch on a terminal, with images/s and time left; everywhere a line an epoch.

    Args:
        batch_size: Pictures a step.
        epochs: Epochs of the whole run.
        shown: Whether to say anything.
    """

    def __init__(self, batch_size: int, epochs: int, shown: bool = True):
        self.batch_size = batch_size
        self.epochs = epochs
        self.shown = shown
        self.images, self.seconds, self.waited = 0, 0.0, 0.0
        self.warm = False  # whether the first step is done, in which TensorFlow builds its graph
        self.epoch_images, self.ended = 0, None

    @property
    def images_per_second(self) -> float:
        """Training speed so far, without the first step and validation; 0 before the second."""
        return self.images / self.seconds if self.seconds else 0.0

    @property
    def input_wait(self) -> float:
        """Share of the training time so far that was spent waiting for pictures."""
        return self.waited / self.seconds if self.seconds else 0.0

    def begin(self, epoch: int, first_step: int, steps: int):
        """Opens the bar of an epoch.

        Args:
            epoch: Number of the epoch, from 0.
            first_step: Steps of it that were done before.
            steps: Steps of a whole epoch.
        """
        self.epoch_images = steps * self.batch_size
        self.bar = tqdm(
            desc=f"epoch {epoch + 1}/{self.epochs}",
            total=self.epoch_images,
            initial=first_step * self.batch_size,
            unit=" images",
            file=sys.stderr,
            disable=not (self.shown and sys.stderr.isatty()),
            leave=False,
        )
        self.step_began = time.perf_counter()

    def timed(self, fetch: Callable) -> Callable:
        """Returns `fetch` with the time that it takes counted as waiting."""

        def fetch_in_time(iterator):
            began = time.perf_counter()
            batch = fetch(iterator)
            self.waited += time.perf_counter() - began
            return batch

        return fetch_in_time

    def step(self):
        """Counts a step that is done."""
        now = time.perf_counter()
        if self.warm:
            self.images += self.batch_size
            self.seconds += now - self.step_began
        else:
            self.warm, self.waited = True, 0.0
        self.step_began = now
        self.bar.set_postfix_str(f"input wait {self.input_wait:.0%}", refresh=False)
        self.bar.update(self.batch_size)

    def end(self):
        """Closes the bar; validation begins."""
        self.bar.close()
        self.ended = time.perf_counter()

    def epoch_line(self, row: dict[str, float]):
        """Leaves one line an epoch.

        Args:
            row: A row of `history.csv`.
        """
        heads = "  ".join(
            f"{head} {row[f'{head}_accuracy']:.3f}/{row[f'val_{head}_accuracy']:.3f}"
            for head in HEADS
        )
        text = (
            f"epoch {row['epoch'] + 1}/{self.epochs}  "
            f"loss {row['loss']:.3f}/{row['val_loss']:.3f}  accuracy (train/validation) {heads}"
        )
        if self.seconds:
            # A whole epoch at this speed: the last one may have begun in the middle.
            epoch = self.epoch_images / self.images_per_second + time.perf_counter() - self.ended
            text += (
                f"  {self.images_per_second:.0f} images/s  input wait {self.input_wait:.0%}  "
                f"{(self.epochs - row['epoch'] - 1) * epoch:.0f} s left"
            )
        self.say(text)

    def say(self, text: str):
        """Prints a line, if anything is to be shown."""
        if self.shown:
            print(text, file=sys.stderr, flush=True)


def log_row(folder: Path, row: dict[str, float], images_per_second: float):
    """Adds a row of `history.csv` to the TensorBoard logs, as Keras names and sorts them.

    Args:
        folder: The logs: `train/` and `validation/` inside.
        row: One epoch.
        images_per_second: Training speed.

    Raises:
        WriteError: If the disk refuses.
    """
    values = {key: value for key, value in row.items() if key != "epoch"}
    validation = {key[4:]: value for key, value in values.items() if key.startswith("val_")}
    training = {key: value for key, value in values.items() if not key.startswith("val_")}
    training["images_per_second"] = images_per_second
    try:
        for name, part in (("train", training), ("validation", validation)):
            writer = tf.summary.create_file_writer(str(folder / name))
            with writer.as_default(step=row["epoch"]):
                for key, value in part.items():
                    tf.summary.scalar(f"epoch_{key}", value)
            writer.close()
    except tf.errors.OpError as error:
        raise WriteError(f"{folder} cannot be written ({error.message}); make room.") from error
