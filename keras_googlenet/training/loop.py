"""The training loop, from where a run stands to its end."""

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_googlenet.data.datasets import ImageDataset
from keras_googlenet.errors import WriteError
from keras_googlenet.googlenet import HEADS
from keras_googlenet.run_files import CHECKPOINTS, LOGS
from keras_googlenet.training import checkpoints, distribution, rundir, train_steps
from keras_googlenet.training.input_pipeline import InputPipeline
from keras_googlenet.training.monitor import LossMonitor, Progress, TensorBoard, no_number
from keras_googlenet.training.optimizers import averaged, make_optimizer
from keras_googlenet.training.recipe import Recipe
from keras_googlenet.training.signals import Signals

READ_STEPS = 10  # losses stay on the device for so many steps at least, …
READ_SECONDS = 1.0  # … and for so long, so that a GPU is never waited for
FLUSH_SECONDS = 60  # between two times that TensorBoard gets new points within an epoch
_KEPT = "kept/"  # before the names of the kept weights in a checkpoint


class Stopped(Exception):
    """A signal, here or on another worker, asks the run to end."""


class Run:
    """A network on its way: what is trained, on what, and how far it is.

    Args:
        recipe: What to do.
        workdir: The run directory.
        dataset: What to learn.
        strategy: Distributes the work.
        signals: Say when to stop.
        checkpoint_seconds: Time between checkpoints.
        weights: Network to begin from, of the recipe's variant; `None`: random weights.

    Attributes:
        epoch: Epochs done.
        step: Steps of the next one that are done.
        sums: What `train_steps.head_sums` says of these steps together, `(heads, 4)` float64.
        history: A row for each epoch done.
        kept_epoch: Index of the best one so far; `None` if the last is kept.
        kept: Its weights by name.
    """

    def __init__(
        self,
        recipe: Recipe,
        workdir: Path,
        dataset: ImageDataset,
        strategy: tf.distribute.Strategy,
        signals: Signals,
        checkpoint_seconds: float,
        weights: keras.Model | None = None,
    ):
        self.recipe, self.workdir, self.strategy, self.signals = recipe, workdir, strategy, signals
        self.checkpoint_seconds = checkpoint_seconds
        self.worker = distribution.this_worker(strategy)
        self.writes = self.worker.index == 0
        self.input = InputPipeline(recipe, dataset, strategy, lambda text: self.progress.say(text))
        self.progress = Progress(self.input.batch_size, self.input.epochs, shown=self.writes)
        self.tensorboard = TensorBoard(workdir / LOGS)
        self.monitor = LossMonitor(len(dataset.labels))
        self.checkpoints = checkpoints.Checkpoints(workdir / CHECKPOINTS)
        self._build(len(dataset.labels), weights)
        self.epoch, self.step, self.history = 0, 0, []
        self.sums = np.zeros((len(HEADS), 1 + len(train_steps.QUANTITIES)))
        self.kept_epoch, self.kept = None, {}
        self.saved, self.saved_at, self.flushed_at = "the beginning", time.monotonic(), 0.0
        self._restore()
        distribution.check_same_step(strategy, self.worker, self.global_step)

    def _build(self, classes: int, weights: keras.Model | None):
        recipe, say = self.input.used_recipe, self.progress.say
        with self.strategy.scope():
            self.model = train_steps.build_network(recipe, classes, weights, say)
            self.optimizer = make_optimizer(recipe, self.input.steps)
            self.optimizer.build(self.model.trainable_variables)
        self.variables = checkpoints.variables_by_name(self.model, self.optimizer)
        self.train_step = train_steps.make_train_step(
            self.model, self.optimizer, recipe, self.strategy, self.input.class_weights()
        )
        self.test_step = train_steps.make_test_step(self.model, recipe, self.strategy)

    @property
    def global_step(self) -> int:
        """Steps done since the run began."""
        return self.epoch * self.input.steps + self.step

    def run_epochs(self):
        """Trains and validates until the last epoch is done.

        Raises:
            SystemExit: If a signal asked to stop; the state is saved then, if there is room.
            WriteError: If an epoch cannot be saved; the last checkpoint stays.
        """
        batches = iter(self.input.train(self.global_step))
        try:
            while self.epoch < self.input.epochs:
                self._train_epoch(batches)
                validation = self.validate()
                self._record_epoch(validation)
        except Stopped:
            saved = self._save_if_possible()
            self.progress.say(f"stopped at {self._where()}" + (", and saved" if saved else ""))
            raise SystemExit(self.signals.status) from None

    def _train_epoch(self, batches: Iterator):
        """Takes the steps that are left of an epoch, and looks up from them now and then."""
        steps = self.input.steps_of(self.epoch)
        if self.step == steps:  # saved before its validation
            return
        pending, interval = [], 1  # sums of steps that are still on the device; when to read them
        with self.progress.bar_of(self.epoch, self.step, steps):
            for batch in self.progress.timed(itertools.islice(batches, steps - self.step)):
                pending.append(self.train_step(batch))
                self.step += 1
                if self._is_urgent() or len(pending) >= interval or self.step == steps:
                    step_seconds = self.read_losses(pending) / len(pending)
                    pending = []
                    interval = self._save_or_stop(step_seconds)

    def _is_urgent(self) -> bool:
        """Whether to stop or save right after this step; several workers agree when they read."""
        return self.worker.count == 1 and (self.signals.received is not None or self._save_is_due())

    def _save_is_due(self) -> bool:
        return time.monotonic() - self.saved_at >= self.checkpoint_seconds

    def read_losses(self, pending: list[tf.Tensor]) -> float:
        """Fetches the sums of some steps from the device; returns the seconds that they took."""
        sums = np.array([step.numpy() for step in pending], "float64")
        for step in sums:
            self.sums += step
        losses = sums[:, :, 1] / sums[:, :, 0]  # (steps, heads)
        self.monitor.update(losses, self.epoch, self.step)
        means = dict(zip(HEADS, losses.mean(axis=0), strict=True))
        seconds = self.progress.update(len(pending), means)
        if self.writes:
            self._log_steps(means, len(pending) * self.input.batch_size / seconds)
        return seconds

    def _log_steps(self, losses: dict[str, float], images_per_second: float):
        values = {f"{head}_loss": loss for head, loss in losses.items()}
        values["learning_rate"] = float(self.optimizer.learning_rate)
        self.tensorboard.add_steps(
            self.global_step, values | {"images_per_second": images_per_second}
        )
        if time.monotonic() - self.flushed_at >= FLUSH_SECONDS:
            self.flushed_at = time.monotonic()
            try:
                self.tensorboard.flush()
            except WriteError as error:
                self.progress.say(f"warning: {error}")

    def _save_or_stop(self, step_seconds: float) -> int:
        """Saves or stops if it is time to, on all workers at once; returns when to ask again."""
        wanted = max(READ_STEPS, READ_SECONDS / step_seconds)
        interval = max(1.0, min(wanted, self.checkpoint_seconds / step_seconds))
        asked = [self._save_is_due(), self.signals.received is not None, interval]
        due, stop, interval = distribution.mean_over_workers(self.strategy, self.worker, asked)
        if stop:
            raise Stopped
        if due and self.step < self.input.steps_of(self.epoch):  # else validation comes first
            self._save_if_possible()
        return round(interval)

    def validate(self) -> dict[str, float]:
        """Measures the averaged weights, and keeps them if they are the best so far."""
        sums = []
        with averaged(self.model, self.optimizer):
            for number, batch in enumerate(self.input.validation, 1):
                sums.append(self.test_step(batch))
                if self.worker.count == 1 or number % READ_STEPS == 0:
                    self._stop_if_asked()
            total = np.sum([step.numpy() for step in sums], axis=0, dtype="float64")
            validation = {
                f"val_{key}": value for key, value in train_steps.metrics_of(total).items()
            }
            if self.recipe.keep == "best" and self._is_best(validation):
                self.kept_epoch = self.epoch
                self.kept = checkpoints.values(checkpoints.weights_by_name(self.model))
        return validation

    def _stop_if_asked(self):
        """A validation is short enough to be done again."""
        asked = [self.signals.received is not None]
        if any(distribution.mean_over_workers(self.strategy, self.worker, asked)):
            raise Stopped

    def _is_best(self, validation: dict[str, float]) -> bool:
        """By accuracy of the main head; of two that are equal, by its loss."""
        if self.kept_epoch is None:
            return True

        def rank(row):
            return row["val_main_accuracy"], -row["val_main_loss"]

        return rank(validation) > rank(self.history[self.kept_epoch])

    def _record_epoch(self, validation: dict[str, float]):
        row = {"epoch": self.epoch} | train_steps.metrics_of(self.sums)
        row |= {"learning_rate": float(self.optimizer.learning_rate)} | validation
        self.history.append(row)
        self.epoch, self.step, self.sums = self.epoch + 1, 0, np.zeros_like(self.sums)
        self.save()
        if self.writes:
            rundir.write_history(self.history, self.workdir)
            self.tensorboard.add_epoch(row, self.progress.images_per_second)
            self.tensorboard.flush()
        self.progress.epoch_line(row)

    def _save_if_possible(self) -> bool:
        """Saves, or says what stands instead; the epoch's edge will tell whether the run ends."""
        try:
            self.save()
        except WriteError as error:
            self.progress.say(
                f"warning: no checkpoint was written, that of {self.saved} stays: {error}"
            )
            return False
        return True

    def save(self):
        """Writes a checkpoint.

        Raises:
            UserError: If a weight is no number.
            WriteError: If the disk refuses.
        """
        self.saved_at = time.monotonic()
        arrays = checkpoints.values(self.variables)
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise no_number("network", self._where())
        if self.writes:
            kept = {f"{_KEPT}{name}": array for name, array in self.kept.items()}
            self.checkpoints.save(arrays | kept, self._record())
        self.saved = self._where()

    def _record(self) -> dict:
        return {
            "epoch": self.epoch,
            "step": self.step,
            "steps": self.input.steps,
            "sums": self.sums.tolist(),
            "history": self.history,
            "kept_epoch": self.kept_epoch,
            "warned": sorted(self.monitor.warned),
        }

    def _restore(self):
        """Sets everything to where the run was saved last."""
        if self.writes:
            self.checkpoints.remove_leftovers()
        found = self.checkpoints.newest()
        if found is None:
            return
        arrays, record = found
        kept = {name for name in arrays if name.startswith(_KEPT)}
        checkpoints.assign(self.variables, {name: arrays[name] for name in arrays.keys() - kept})
        if kept and self.recipe.keep == "best":
            self.kept_epoch = record["kept_epoch"]
            self.kept = {name.removeprefix(_KEPT): arrays[name] for name in kept}
        self.epoch, self.step, self.history = record["epoch"], record["step"], record["history"]
        self.sums = np.array(record["sums"])
        self.monitor.warned |= set(record["warned"])
        if record["steps"] != self.input.steps:  # another batch size won
            self.step = self.step * self.input.steps // record["steps"]
            self.optimizer.iterations.assign(self.global_step)
        if self.history and self.writes:
            rundir.write_history(self.history, self.workdir)
        self.saved = self._where()
        self.progress.say(f"resumed at {self.saved}")

    def _where(self) -> str:
        return f"epoch {self.epoch + 1}, step {self.step}"
