"""Trains GoogLeNet with its three outputs on a data set.

    python train.py
    python train.py --dataset imagenet2012 --data-dir ~/tensorflow_datasets --workdir runs/imagenet

All results are in the run directory. The same command resumes an interrupted run.
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path

from keras_googlenet import cli
from keras_googlenet.run_files import RECIPE_FILE
from keras_googlenet.training.recipe import Recipe, add_recipe_flags, recipe_from_flags

STARTED = time.time()
PATHS = {"dataset": cli.expanded, "data_dir": cli.expanded, "weights": cli.local}


def main():
    """Reads the flags, trains, and prints the metrics."""
    flags = parse_flags()
    recipe = recipe_from_flags(flags)
    workdir = flags.workdir or Path("runs") / Path(recipe.dataset).name

    cli.start_tensorflow()
    from keras_googlenet.training.trainer import train

    if flags.recipe_of == "run" and (workdir / RECIPE_FILE).exists():
        recipe = Recipe.load(workdir)  # before its --weights are loaded
        flags.variant = recipe.variant
    recipe, weights = _load_weights(recipe, flags.variant)
    metrics = train(
        recipe,
        workdir,
        strategy=flags.strategy,
        checkpoint_minutes=flags.checkpoint_minutes,
        recipe_of=flags.recipe_of,
        weights=weights,
        started=STARTED,
    )
    print(json.dumps(metrics) if flags.json else _last_line(metrics, workdir))


def parse_flags() -> argparse.Namespace:
    """Reads the command line."""
    parser = cli.parser(__doc__)
    run = add_recipe_flags(parser, PATHS)
    run.add_argument(
        "--workdir",
        type=cli.local_path,
        help="run directory (default: runs/ and the name of the data set)",
    )
    run.add_argument(
        "--strategy",
        choices=("auto", "none", "mirrored", "multiworker"),
        default="auto",
        help="devices. auto: the workers in TF_CONFIG, else several GPUs, else one device",
    )
    run.add_argument(
        "--checkpoint-minutes",
        type=cli.not_negative,
        default=10.0,
        help="minutes of training between checkpoints; each epoch ends with one, too",
    )
    run.add_argument(
        "--recipe-of",
        choices=("run", "flags"),
        help="recipe to use if the flags differ from the run in --workdir (default: refuse)",
    )
    run.add_argument("--json", action="store_true", help="print the metrics as JSON")
    return parser.parse_args()


def _load_weights(recipe: Recipe, variant: str | None):
    """Loads the network of `--weights`; the recipe gets its variant."""
    if recipe.weights is None:
        return recipe, None
    from keras_googlenet import models

    loaded = models.load(recipe.weights, variant, need_classifier=False)
    return dataclasses.replace(recipe, variant=loaded.variant), loaded.model


def _last_line(metrics: dict[str, float], workdir: Path) -> str:
    heads = ", ".join(
        f"{key.removeprefix('val_').removesuffix('_accuracy')} {value:.1%}"
        for key, value in metrics.items()
        if key.endswith("_accuracy")
    )
    epoch = f"epoch {metrics['kept_epoch']} of {metrics['epochs']}"
    return f"validation accuracy of {epoch}: {heads} in {metrics['seconds']:.0f} s -> {workdir}"
