"""Trains GoogLeNet with its three outputs on a data set.

    python train.py
    python train.py --dataset imagenet2012 --data-dir ~/tensorflow_datasets --workdir runs/imagenet

The run directory holds everything that comes out; the same command again goes on where it was.
"""

import dataclasses
import json
import time
from pathlib import Path

from keras_googlenet import cli
from keras_googlenet.run_files import RECIPE_FILE
from keras_googlenet.training.recipe import (
    Recipe,
    add_recipe_flags,
    recipe_from_flags,
)

BEGAN = time.time()
PATHS = {"dataset": cli.expanded, "data_dir": cli.expanded, "weights": cli.local}


def main():
    """Reads the flags and does what the docstring above says."""
    parser = cli.parser(__doc__)
    add_recipe_flags(parser, PATHS)
    parser.add_argument(
        "--workdir",
        type=cli.local_path,
        help="run directory (default: runs/ and the name of the data set)",
    )
    parser.add_argument(
        "--strategy",
        choices=("auto", "none", "mirrored", "multiworker"),
        default="auto",
        help="devices: those of TF_CONFIG, several GPUs, or one",
    )
    parser.add_argument(
        "--checkpoint-minutes",
        type=cli.not_negative,
        default=10.0,
        help="minutes between checkpoints: the most training that a kill costs; a validation that "
        "it cuts off begins again",
    )
    parser.add_argument(
        "--recipe-of",
        choices=("run", "flags"),
        help="which recipe wins where the run directory has another (default: refuse)",
    )
    parser.add_argument("--json", action="store_true", help="print the metrics as JSON")
    flags = parser.parse_args()
    recipe = recipe_from_flags(flags)
    workdir = flags.workdir or Path("runs") / Path(recipe.dataset).name

    cli.start_tensorflow()
    from keras_googlenet.training.trainer import Options, train

    if flags.recipe_of == "run" and (workdir / RECIPE_FILE).exists():
        recipe = Recipe.load(workdir)  # its weights, then, and not those of the flags
        flags.variant = recipe.variant
    recipe, weights = _begin_from_weights(recipe, flags.variant)
    options = Options(flags.strategy, flags.checkpoint_minutes, flags.recipe_of, weights)
    metrics = train(recipe, workdir, BEGAN, options)
    print(json.dumps(metrics) if flags.json else _last_line(metrics, workdir))


def _begin_from_weights(recipe: Recipe, variant: str | None):
    """Loads the network of `--weights`, whose variant becomes the recipe's."""
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
