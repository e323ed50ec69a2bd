"""The epochs of a run, from where it stands to its end."""

import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_googlenet.data.datasets import ImageDataset
from keras_googlenet.errors import WriteError
from keras_googlenet.googlenet import HEADS
from keras_googlenet.training import distribution, rundir
from keras_googlenet.training.checkpoints import Checkpoints
from keras_googlenet.training.feeding import Feeding
from keras_googlenet.training.network import EXACT_LOSS, exact_metrics
from keras_googlenet.training.optimizers import averaged, without_loss_scale
from keras_googlenet.training.progress import Progress, log_row
from keras_googlenet.training.recipe import Recipe
from keras_googlenet.training.signals import Signals
from keras_googlenet.training.watching import Watch, no_number


class Stopped(Exception):
    """A signal, here or on another worker, asks the run to end."""


class Run(keras.callbacks.Callback):
    """A network on its way: one call of `fit` and one of `evaluate` an epoch.

    `fit` begins with what is left of an epoch, and finds its metrics as they were saved; this
    callback saves and stops between two steps. All workers do so at the same step.

    Args:
        recipe: What to do.
        workdir: The run directory.
        dataset: What to learn.
        strategy: Spreads the work.
        signals: Say when to stop.
        checkpoint_seconds: Time between checkpoints.

    Attributes:
        epoch: Epochs done.
        step: Steps of the next one that are done.
        training: Its metrics, once all its steps are done.
        saved: Where the last checkpoint stands, in words.
        history: A row for each epoch done.
    """

    def __init__(
        self,
        recipe: Recipe,
        workdir: Path,
        dataset: ImageDataset,
        strategy: tf.distribute.Strategy,
        signals: Signals,
        checkpoint_seconds: float,
    ):
        super().__init__()
        self.recipe, self.workdir, self.strategy = recipe, workdir, strategy
        self.signals, self.checkpoint_seconds = signals, checkpoint_seconds
        self.worker = distribution.this_worker(strategy)
        self.writes = self.worker.index == 0
        self.feeding = Feeding(recipe, dataset, strategy, lambda text: self.progress.say(text))
        self.progress = Progress(self.feeding.batch_size, recipe.epochs, shown=self.writes)
        self.watch = Watch(len(dataset.labels))
        self.epoch, self.step, self.training, self.history = 0, 0, None, []
        self.saved, self.saved_at = "the beginning", time.monotonic()

    @property
    def place(self) -> int:
        """Steps done since the run began."""
        return self.epoch * self.feeding.steps + self.step

    def take(self, model: distribution.SpreadModel):
        """Takes a compiled network, and sets it to where the run was saved last."""
        self.set_model(model)
        model.build_metrics(self.feeding.element_spec)
        everything = (*model.variables, *model.optimizer.variables, *model.metrics_variables)
        state = list({id(variable): variable for variable in everything}.values())
        self.checkpoints = Checkpoints(self.workdir / rundir.CHECKPOINTS, state)
        if self.writes:
            self.checkpoints.remove_leftovers()
        self._resume()
        distribution.check_same_place(self.strategy, self.worker, self.place)

    def _resume(self):
        record = self.checkpoints.restore()
        if record is None:
            return
        self.epoch, self.step = record["epoch"], record["step"]
        self.training, self.history = record["training"], record["history"]
        self.watch.warned |= set(record["warned"])
        self.metric_values = [variable.numpy() for variable in self.model.metrics_variables]
        if record["steps"] != self.feeding.steps:  # another batch size won
            self.step = self.step * self.feeding.steps // record["steps"]
            without_loss_scale(self.model.optimizer).iterations.assign(self.place)
        if self.history and self.writes:
            rundir.write_history(self.history, self.workdir)
        self.saved = self._where()
        self.progress.say(f"resumed at {self.saved}")

    def go(self):
        """Trains and validates until the last epoch is done.

        Raises:
            SystemExit: If a signal asked to stop; the state is saved then, if there is room.
            WriteError: If an epoch cannot be saved; the last checkpoint stays.
        """
        try:
            while self.epoch < self.recipe.epochs:
                if self.training is None:
                    self.training = self._train()
                self._end_epoch(self._validate())
        except Stopped:
            saved = self._save_if_possible()
            self.progress.say(f"stopped at {self._where()}" + (", and saved" if saved else ""))
            raise SystemExit(self.signals.status) from None

    def _train(self) -> dict[str, float]:
        feed = self.feeding.train(self.epoch, self.step)
        self.model.fetch = self.progress.timed(feed)
        self.progress.begin(self.epoch, self.step, self.feeding.steps)
        try:
            done = self.model.fit(
                feed.batches(),
                initial_epoch=self.epoch,
                epochs=self.epoch + 1,
                steps_per_epoch=self.feeding.steps - self.step,
                shuffle=False,
                verbose=0,
                callbacks=[self],
            )
        finally:
            self.progress.end()
        return exact_metrics({name: values[-1] for name, values in done.history.items()})

    def on_epoch_begin(self, epoch, logs=None):
        """Gives the metrics, which `fit` has just reset, the values of the steps done before."""
        if self.step > 0:
            for variable, value in zip(
                self.model.metrics_variables, self.metric_values, strict=True
            ):
                variable.assign(value)
            self.watch.begin_epoch(_losses(self.model.get_metrics_result()), self.step)
        else:
            self.watch.begin_epoch(dict.fromkeys(HEADS, 0.0), 0)

    def on_train_batch_end(self, batch, logs=None):
        """Counts the step, looks at its losses, and saves or stops if it is time to."""
        self.step += 1
        self.progress.step()
        self.watch.see(_losses(logs), self.step, self._where())
        if self.step < self.feeding.steps:
            self._save_or_stop()

    def on_test_batch_end(self, batch, logs=None):
        """Stops if it is time to; a validation is short enough to be done again."""
        self._save_or_stop(save=False)

    def _save_or_stop(self, save: bool = True):
        due = save and time.monotonic() - self.saved_at >= self.checkpoint_seconds
        wishes = [due, self.signals.received is not None]
        due, stop = distribution.any_worker(self.strategy, self.worker, wishes)
        if stop:
            raise Stopped
        if due:
            self._save_if_possible()

    def _save_if_possible(self) -> bool:
        """Saves, or says what stands instead; the epoch's edge will tell whether the run ends."""
        try:
            self._save()
        except WriteError as error:
            self.progress.say(
                f"warning: no checkpoint was written, that of {self.saved} stays: {error}"
            )
            return False
        return True

    def _save(self):
        self.saved_at = time.monotonic()
        values = self.checkpoints.values()
        if not all(np.isfinite(value).all() for value in values):
            raise no_number("network", self._where())
        if self.writes:
            record = {"epoch": self.epoch, "step": self.step, "steps": self.feeding.steps}
            record |= {"training": self.training, "history": self.history}
            self.checkpoints.save(values, record | {"warned": sorted(self.watch.warned)})
        self.saved = self._where()

    def _validate(self) -> dict[str, float]:
        feed = self.feeding.validation()
        self.model.fetch = feed
        with averaged(self.model, self.model.optimizer):
            logs = self.model.evaluate(
                feed.batches(),
                steps=self.feeding.validation_steps,
                verbose=0,
                callbacks=[self],
                return_dict=True,
            )
        return exact_metrics(logs)

    def _end_epoch(self, validation: dict[str, float]):
        row = {"epoch": self.epoch} | self.training
        row |= {"learning_rate": float(self.model.optimizer.learning_rate)}
        row |= {f"val_{name}": value for name, value in validation.items()}
        self.history.append(row)
        self.epoch, self.step, self.training = self.epoch + 1, 0, None
        self._save()
        if self.writes:
            rundir.write_history(self.history, self.workdir)
            log_row(self.workdir / "logs", row, self.progress.images_per_second)
        self.progress.epoch_line(row)

    def _where(self) -> str:
        return f"epoch {self.epoch + 1}, step {self.step}"


def _losses(logs: dict[str, float]) -> dict[str, float]:
    """Picks each head's own loss."""
    return {head: float(logs[f"{head}_{EXACT_LOSS}"]) for head in HEADS}
