"""One training run: a recipe and a folder in, a trained network and its records out."""

import contextlib
import sys
import time
from pathlib import Path
from typing import NamedTuple

import keras
import tensorflow as tf

from keras_googlenet.atomic import replacing
from keras_googlenet.data import datasets, split_record
from keras_googlenet.errors import LostWorkerError, UserError
from keras_googlenet.run_files import CURVES_FILE, MODEL_FILE
from keras_googlenet.training import checkpoints, distribution, rundir
from keras_googlenet.training.loop import Run
from keras_googlenet.training.monitor import draw_curves
from keras_googlenet.training.optimizers import averaged
from keras_googlenet.training.recipe import Recipe
from keras_googlenet.training.signals import Signals
from keras_googlenet.training.train_steps import check_network, synchronize_batch_norm


class Options(NamedTuple):
    """What a run is told beside its recipe, and may be told otherwise when it resumes.

    Attributes:
        strategy: As `distribution.choose_strategy` takes it.
        checkpoint_minutes: Minutes of training between checkpoints; a validation is not saved.
        recipe_of: Which recipe wins where a resumed run has another: "run" or "flags".
        weights: Network to begin from, of the recipe's variant.
    """

    strategy: str = "auto"
    checkpoint_minutes: float = 10.0
    recipe_of: str | None = None
    weights: keras.Model | None = None


DEFAULTS = Options()
_LOST = (  # what TensorFlow raises where another worker does not answer, or has given up
    tf.errors.UnavailableError,
    tf.errors.DeadlineExceededError,
    tf.errors.CancelledError,
    tf.errors.AbortedError,
)


def train(recipe: Recipe, workdir: Path, began: float, options: Options = DEFAULTS) -> dict:
    """Trains a network and fills its run directory.

    Args:
        recipe: What to do.
        workdir: The run directory. A run that was cut off in it goes on where it was saved last;
            a finished one only reports.
        began: `time.time()` from which `seconds` counts.
        options: How to do it here and now.

    Returns:
        The content of `metrics.json`: metrics of the validation of the kept epoch with `val_` in
        front, the number `kept_epoch` of that epoch, from 1, `epochs`, `seconds`,
        `images_per_second`, and `data`: what was found in the data set.

    Raises:
        UserError: If the data set cannot be used, `workdir` holds a run of another recipe, or the
            run fails in a way that its user can mend.
        LostWorkerError: If another worker is gone.
        SystemExit: If a signal ended the run, with status 128 plus its number.
    """
    recipe = rundir.agreed_recipe(recipe, workdir, options.recipe_of)
    check_network(recipe)
    metrics = rundir.finished_metrics(recipe, workdir)
    if metrics is not None:
        print(f"{workdir} is already trained; give another --workdir.", file=sys.stderr)
        return metrics
    strategy = distribution.choose_strategy(options.strategy)
    worker = distribution.this_worker(strategy)
    distribution.check_recipe(recipe, strategy)
    print(distribution.describe_devices(strategy), file=sys.stderr)
    dataset = split_record.without_learned(open_for(recipe), rundir.learned_before(workdir))
    if worker.index == 0:
        print(dataset.contents, file=sys.stderr)
    prepare_keras(recipe)  # after preparing the data, which draws random numbers of its own
    with contextlib.ExitStack() as stack:
        signals = stack.enter_context(Signals())
        if worker.index == 0:
            stack.enter_context(rundir.opened(recipe, workdir, dataset))
        stack.enter_context(_naming_failures(worker.count))
        minutes, weights = options.checkpoint_minutes, options.weights
        run = Run(recipe, workdir, dataset, strategy, signals, 60 * minutes, weights)
        run.run_epochs()
        return _write_results(run, began)


def open_for(recipe: Recipe) -> datasets.ImageDataset:
    """Opens the data set of a recipe with the validation split that it was trained beside."""
    dataset = datasets.open_dataset(
        recipe.dataset, recipe.data_dir, recipe.validation_split, recipe.seed
    )
    if dataset.train is None:
        raise UserError(
            f"{recipe.dataset} has nothing to learn from beside what it is measured on; give "
            "--validation-split, for example 0.1."
        )
    if len(dataset.labels) < 2:
        raise UserError(
            f"{recipe.dataset} has one class, {dataset.labels[0]}; there is nothing to tell it "
            "from. Give two or more."
        )
    return dataset


def prepare_keras(recipe: Recipe):
    """Sets seed, precision and, if asked for, exactness for the whole process."""
    keras.utils.set_random_seed(recipe.seed)
    if recipe.deterministic:
        tf.config.experimental.enable_op_determinism()
        # The graph optimizer orders what it rewrites by memory addresses, so that sums of several
        # gradients come in another order in each process.
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    precision = recipe.precision
    keras.config.set_dtype_policy(precision if precision == "float32" else f"mixed_{precision}")


@contextlib.contextmanager
def _naming_failures(workers: int):
    """Turns what TensorFlow raises for want of memory or of another worker into sentences."""
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise UserError(
            "a device is out of memory; give a smaller --batch-size or --image-size. "
            f"({_first_line(error)})"
        ) from error
    except _LOST as error:
        if workers == 1:
            raise
        raise LostWorkerError(
            "another worker was lost; start the same command again on all of them, and the run "
            f"goes on from its last checkpoint. ({_first_line(error)})"
        ) from error


def _first_line(error: tf.errors.OpError) -> str:
    return error.message.partition("\n")[0][:200]


def _write_results(run: Run, began: float) -> dict:
    """Writes curves, the kept network alone and, last, what marks the run as done."""
    kept_epoch = run.epoch - 1 if run.kept_epoch is None else run.kept_epoch
    row, model = run.history[kept_epoch], run.model
    metrics = {key: value for key, value in row.items() if key.startswith("val_")} | {
        "kept_epoch": kept_epoch + 1,
        "epochs": run.epoch,
        "seconds": round(time.time() - began, 1),
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
