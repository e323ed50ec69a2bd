"""One training run: from a recipe to a trained network in its run directory."""

import contextlib
import sys
import time
from pathlib import Path

import keras
import tensorflow as tf

from keras_googlenet.atomic import replacing
from keras_googlenet.data import datasets, split_record
from keras_googlenet.errors import LostWorkerError, UserError, first_line
from keras_googlenet.run_files import CURVES_FILE, MODEL_FILE
from keras_googlenet.training import checkpoints, distribution, rundir
from keras_googlenet.training.loop import Run
from keras_googlenet.training.monitor import draw_curves
from keras_googlenet.training.optimizers import averaged
from keras_googlenet.training.recipe import Recipe
from keras_googlenet.training.signals import Signals
from keras_googlenet.training.train_steps import check_network, synchronize_batch_norm

_LOST = (  # raised where another worker does not answer, or has stopped
    tf.errors.UnavailableError,
    tf.errors.DeadlineExceededError,
    tf.errors.CancelledError,
    tf.errors.AbortedError,
)


def train(
    recipe: Recipe,
    workdir: Path,
    *,
    strategy: str = "auto",
    checkpoint_minutes: float = 10.0,
    recipe_of: str | None = None,
    weights: keras.Model | None = None,
    started: float | None = None,
) -> dict:
    """Trains a network and fills its run directory.

    Args:
        recipe: How to train.
        workdir: The run directory. An interrupted run in it is resumed from its last checkpoint; a
            finished one is only reported.
        strategy: Devices, as in `distribution.choose_strategy`.
        checkpoint_minutes: Minutes of training between checkpoints within an epoch.
        recipe_of: Which recipe to use if a resumed run has another one: "run" or "flags"; `None`
            refuses.
        weights: Network to start from, of the recipe's variant.
        started: `time.time()` at which `seconds` starts; now if not given.

    Returns:
        The content of `metrics.json`: validation metrics of the kept epoch with `val_` in front,
        `kept_epoch`, counted from 1, `epochs`, `seconds`, `images_per_second`, and `data`, the
        contents of the data set.

    Raises:
        UserError: If the data set cannot be used, `workdir` holds a run of another recipe, or the
            run fails in a way that its user can fix.
        LostWorkerError: If another worker is lost.
        SystemExit: If a signal stopped the run, with status 128 plus its number.
    """
    started = time.time() if started is None else started
    recipe = rundir.agreed_recipe(recipe, workdir, recipe_of)
    check_network(recipe)
    metrics = rundir.finished_metrics(recipe, workdir)
    if metrics is not None:
        print(f"{workdir} is already trained; give another --workdir.", file=sys.stderr)
        return metrics
    devices = distribution.choose_strategy(strategy)
    worker = distribution.this_worker(devices)
    distribution.check_recipe(recipe, devices)
    print(distribution.describe_devices(devices), file=sys.stderr)
    dataset = split_record.without_trained(open_for(recipe), rundir.previous_splits(workdir))
    if worker.index == 0:
        print(dataset.contents, file=sys.stderr)
    prepare_keras(recipe)  # after preparing the data, which draws random numbers of its own
    with contextlib.ExitStack() as stack:
        signals = stack.enter_context(Signals())
        if worker.index == 0:
            stack.enter_context(rundir.opened(recipe, workdir, dataset))
        stack.enter_context(_failures_as_sentences(worker.count))
        run = Run(recipe, workdir, dataset, devices, signals, 60 * checkpoint_minutes, weights)
        run.run_epochs()
        return _write_results(run, started)


def open_for(recipe: Recipe) -> datasets.ImageDataset:
    """Opens the data set of a recipe; `UserError` if a classifier cannot be trained on it."""
    dataset = datasets.open_dataset(
        recipe.dataset, recipe.data_dir, recipe.validation_split, recipe.seed
    )
    if dataset.train is None:
        raise UserError(
            f"{recipe.dataset} has no images to train on apart from the validation set; give "
            "--validation-split, for example 0.1."
        )
    if len(dataset.labels) < 2:
        raise UserError(
            f"{recipe.dataset} has one class, {dataset.labels[0]}; give a data set with two or "
            "more classes."
        )
    return dataset


def prepare_keras(recipe: Recipe):
    """Sets seed, precision and, if asked for, determinism for the whole process."""
    keras.utils.set_random_seed(recipe.seed)
    if recipe.deterministic:
        tf.config.experimental.enable_op_determinism()
        # The graph optimizer orders what it rewrites by memory addresses, so that gradients are
        # summed in another order in each process.
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    precision = recipe.precision
    keras.config.set_dtype_policy(precision if precision == "float32" else f"mixed_{precision}")


@contextlib.contextmanager
def _failures_as_sentences(workers: int):
    """Turns TensorFlow's errors for lack of memory and for a lost worker into sentences."""
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise UserError(
            "a device is out of memory; give a smaller --batch-size or --image-size. "
            f"({first_line(error)})"
        ) from error
    except _LOST as error:
        if workers == 1:
            raise
        raise LostWorkerError(
            "another worker was lost; start the same command again on all workers to resume from "
            f"the last checkpoint. ({first_line(error)})"
        ) from error


def _write_results(run: Run, started: float) -> dict:
    """Writes curves, the kept network and, last, the metrics, which mark the run as finished."""
    kept_epoch = run.epoch - 1 if run.kept_epoch is None else run.kept_epoch
    row, model = run.history[kept_epoch], run.model
    metrics = {key: value for key, value in row.items() if key.startswith("val_")} | {
        "kept_epoch": kept_epoch + 1,
        "epochs": run.epoch,
        "seconds": round(time.time() - started, 1),
        "images_per_second": round(run.progress.images_per_second, 1),
        "data": run.input.dataset.contents.as_json(),
    }
    synchronize_batch_norm(model, False)
    with averaged(model, run.optimizer):
        if run.kept:
            checkpoints.assign(checkpoints.weights_by_name(model), run.kept)
        if run.writes:
            draw_curves(run.history, run.workdir / CURVES_FILE)
            with replacing(run.workdir / MODEL_FILE) as file:
                model.save(file)
            rundir.write_metrics(metrics, run.workdir)
    return metrics
