"""The training loop: from the batches of an epoch to its validation and its checkpoint."""

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
from keras_googlenet.training.monitor import LossMonitor, Progress, TensorBoard, not_finite
from keras_googlenet.training.optimizers import averaged, make_optimizer
from keras_googlenet.training.recipe import Recipe
from keras_googlenet.training.signals import Signals

READ_STEPS = 10  # losses stay on the device for at least this many steps, …
READ_SECONDS = 1.0  # … and this long, so that a GPU never waits for Python
_KEPT = "kept/"  # prefix of the kept weights in a checkpoint


class Stopped(Exception):
    """A signal, to this worker or another, asks the run to stop."""


class Run:
    """A run: its network, its data, and its state, which a checkpoint saves and restores.

    Attributes:
        epoch: Epochs done.
        step: Steps done of the next epoch.
        sums: Sums of `train_steps.head_sums` over these steps, `(heads, 4)` float64.
        history: A row of metrics for each epoch done.
        kept_epoch: Index of the best epoch so far; `None` if the last one is kept.
        kept: Weights of that epoch by name.
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
        self.saved, self.saved_at = None, time.monotonic()  # position and time of the last save
        self._restore()
        distribution.check_same_step(strategy, self.worker, self.global_step)

    def _build(self, classes: int, weights: keras.Model | None):
        recipe = self.input.used_recipe
        with self.strategy.scope():
            self.model = train_steps.build_network(recipe, classes, weights, self.progress.say)
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

    @property
    def position(self) -> str:
        """The epoch, counted from 1, and the steps done of it, in words."""
        return f"epoch {self.epoch + 1}, step {self.step}"

    def run_epochs(self):
        """Trains and validates until the last epoch is done.

        Raises:
            SystemExit: If a signal asked to stop; a checkpoint is saved before, if possible.
            WriteError: If an epoch cannot be saved; the last checkpoint stays.
        """
        batches = iter(self.input.train(self.global_step))
        try:
            while self.epoch < self.input.epochs:
                self._train_epoch(batches)
                self._record_epoch(self.validate())
        except Stopped:
            saved = self._save_if_possible()
            self.progress.say(f"stopped at {self.position}" + (", and saved" if saved else ""))
            raise SystemExit(self.signals.status) from None

    def _train_epoch(self, batches: Iterator):
        """Trains the remaining steps of an epoch; now and then reads losses, saves or stops."""
        steps = self.input.steps_of(self.epoch)
        if self.step == steps:  # restored from between training and validation
            return
        pending, interval = [], 1  # sums that are still on the device; read when so many are there
        with self.progress.bar_of(self.epoch, self.step, steps):
            for batch in self.progress.timed(itertools.islice(batches, steps - self.step)):
                pending.append(self.train_step(batch))
                self.step += 1
                if self._is_urgent() or len(pending) >= interval or self.step == steps:
                    step_seconds = self.read_losses(pending) / len(pending)
                    pending = []
                    interval = self._save_or_stop(step_seconds)

    def _is_urgent(self) -> bool:
        """Whether to save or stop right after this step; several workers do so when they read."""
        return self.worker.count == 1 and (self._save_is_due() or self._stop_requested())

    def _save_is_due(self) -> bool:
        return time.monotonic() - self.saved_at >= self.checkpoint_seconds

    def _stop_requested(self) -> bool:
        return self.signals.received is not None

    def read_losses(self, pending: list[tf.Tensor]) -> float:
        """Reads the sums of some steps from the device; returns the seconds that they took."""
        sums = np.array([step.numpy() for step in pending], "float64")
        for step in sums:
            self.sums += step
        losses = sums[:, :, 1] / sums[:, :, 0]  # (steps, heads)
        self.monitor.update(losses, self.epoch, self.step)
        means = dict(zip(HEADS, losses.mean(axis=0), strict=True))
        seconds = self.progress.update(len(pending), means)
        if self.writes:
            values = {f"{head}_loss": loss for head, loss in means.items()}
            values["learning_rate"] = float(self.optimizer.learning_rate)
            values["images_per_second"] = len(pending) * self.input.batch_size / seconds
            try:
                self.tensorboard.add_steps(self.global_step, values)
            except WriteError as error:
                self.progress.say(f"warning: {error}")
        return seconds

    def _save_or_stop(self, step_seconds: float) -> int:
        """Saves or stops if it is time, on all workers at once; returns the steps to the next."""
        wanted = max(READ_STEPS, READ_SECONDS / step_seconds)
        interval = max(1.0, min(wanted, self.checkpoint_seconds / step_seconds))
        votes = [self._save_is_due(), self._stop_requested(), interval]
        due, stop, interval = distribution.mean_over_workers(self.strategy, self.worker, votes)
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
            metrics = train_steps.metrics_of(total)
            validation = {f"val_{key}": value for key, value in metrics.items()}
            if self.recipe.keep == "best" and self._is_best(validation):
                self.kept_epoch = self.epoch
                self.kept = checkpoints.values(checkpoints.weights_by_name(self.model))
        return validation

    def _stop_if_asked(self):
        """Stops within a validation, all workers at once; a resumed run repeats the validation."""
        votes = [self._stop_requested()]
        if any(distribution.mean_over_workers(self.strategy, self.worker, votes)):
            raise Stopped

    def _is_best(self, validation: dict[str, float]) -> bool:
        """Compares accuracies of the main head, then its losses."""
        if self.kept_epoch is None:
            return True
        ranks = [
            (row["val_main_accuracy"], -row["val_main_loss"])
            for row in (validation, self.history[self.kept_epoch])
        ]
        return ranks[0] > ranks[1]

    def _record_epoch(self, validation: dict[str, float]):
        row = {"epoch": self.epoch} | train_steps.metrics_of(self.sums)
        row |= {"learning_rate": float(self.optimizer.learning_rate)} | validation
        self.history.append(row)
        self.epoch, self.step, self.sums = self.epoch + 1, 0, np.zeros_like(self.sums)
        self.save()
        if self.writes:
            rundir.write_history(self.history, self.workdir)
            self.tensorboard.add_epoch(row, self.progress.images_per_second)
        self.progress.epoch_line(row)

    def _save_if_possible(self) -> bool:
        """Saves, or warns if the write fails, which ends the run only after an epoch."""
        try:
            self.save()
        except WriteError as error:
            last = f"the last one is from {self.saved}" if self.saved else "there is none yet"
            self.progress.say(f"warning: no checkpoint was written; {last}: {error}")
            return False
        return True

    def save(self):
        """Writes a checkpoint.

        Raises:
            UserError: If a weight is NaN or infinite.
            WriteError: If the write fails.
        """
        self.saved_at = time.monotonic()
        arrays = checkpoints.values(self.variables)
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise not_finite("network", self.position)
        if self.writes:
            kept = {f"{_KEPT}{name}": array for name, array in self.kept.items()}
            record = {
                "epoch": self.epoch,
                "step": self.step,
                "steps": self.input.steps,
                "sums": self.sums.tolist(),
                "history": self.history,
                "kept_epoch": self.kept_epoch,
                "warned": sorted(self.monitor.warned),
            }
            self.checkpoints.save(arrays | kept, record)
        self.saved = self.position

    def _restore(self):
        """Restores the newest checkpoint, if there is one."""
        if self.writes:
            self.checkpoints.remove_leftovers()
        newest = self.checkpoints.newest()
        if newest is None:
            return
        arrays, record = newest
        kept = {name for name in arrays if name.startswith(_KEPT)}
        checkpoints.assign(self.variables, {name: arrays[name] for name in arrays.keys() - kept})
        if kept and self.recipe.keep == "best":
            self.kept_epoch = record["kept_epoch"]
            self.kept = {name.removeprefix(_KEPT): arrays[name] for name in kept}
        self.epoch, self.step, self.history = record["epoch"], record["step"], record["history"]
        self.sums = np.array(record["sums"])
        self.monitor.warned |= set(record["warned"])
        if record["steps"] != self.input.steps:  # --recipe-of flags changed the batch size
            self.step = self.step * self.input.steps // record["steps"]
            self.optimizer.iterations.assign(self.global_step)
        if self.history and self.writes:
            rundir.write_history(self.history, self.workdir)
        self.saved = self.position
        self.progress.say(f"resumed at {self.position}")
