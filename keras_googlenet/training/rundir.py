"""The run directory: whose it is, and what a run leaves in it."""

import contextlib
import csv
import fcntl
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from keras_googlenet.atomic import leftovers, remove_leftovers, replacing
from keras_googlenet.errors import UserError
from keras_googlenet.imagenet import read_labels, write_labels
from keras_googlenet.training.recipe import RECIPE_FILE, Recipe

CHECKPOINTS = "checkpoints"
LABELS_FILE = "labels.txt"
HISTORY_FILE = "history.csv"
CURVES_FILE = "curves.png"
MODEL_FILE = "model.keras"
METRICS_FILE = "metrics.json"
_FILES = (RECIPE_FILE, LABELS_FILE, HISTORY_FILE, CURVES_FILE, MODEL_FILE, METRICS_FILE)


def settle(recipe: Recipe, workdir: Path, winner: str | None) -> Recipe:
    """Decides by which recipe a run goes on.

    Args:
        recipe: What the flags ask for.
        workdir: The run directory; it may not exist yet.
        winner: "run" for the recipe in `workdir`, "flags" for `recipe`; `None` refuses to choose.

    Returns:
        `recipe` for a new run, for the same one, and for one that differs in more epochs only.

    Raises:
        UserError: If the recipes differ otherwise and there is no `winner`, or `workdir` holds
            something else than a run.
    """
    if not (workdir / RECIPE_FILE).exists():
        if workdir.exists() and set(workdir.iterdir()) - set(_begun(workdir)):
            raise UserError(f"{workdir} holds something else than a run; give another --workdir.")
        return recipe
    before = Recipe.load(workdir)
    differences = recipe.differences(before)
    if not differences or winner == "flags":
        return recipe
    if winner == "run":
        return before
    if set(differences) == {"epochs"} and recipe.epochs > before.epochs:
        print(
            f"{workdir} goes on from {before.epochs} to {recipe.epochs} epochs, with the schedule "
            f"of {recipe.epochs}",
            file=sys.stderr,
        )
        return recipe
    changed = "; ".join(f"{name} was {old}, now {new}" for name, (old, new) in differences.items())
    raise UserError(
        f"{workdir} holds a run of another recipe ({changed}); give the same flags, another "
        "--workdir, or say with --recipe-of run|flags which one wins."
    )


def _begun(workdir: Path) -> list[Path]:
    """What a run that was killed before it wrote its recipe may have left."""
    if not (workdir / CHECKPOINTS).is_dir():  # its lock comes first
        return []
    known = [workdir / CHECKPOINTS, workdir / LABELS_FILE]
    return known + [path for name in _FILES for path in leftovers(workdir / name)]


def finished_metrics(recipe: Recipe, workdir: Path) -> dict[str, float] | None:
    """Returns the content of `metrics.json` if the run of this recipe is finished."""
    if not (workdir / METRICS_FILE).exists() or Recipe.load(workdir) != recipe:
        return None
    try:
        return json.loads((workdir / METRICS_FILE).read_text())
    except ValueError:  # the disk damaged it: the last checkpoint makes it again
        return None


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Keeps other processes off a run directory, which is made when needed.

    Raises:
        UserError: If another process trains there.
    """
    folder = workdir / CHECKPOINTS
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(
                f"another process trains in {workdir}; wait for it or give another --workdir."
            ) from error
        yield


def claim(recipe: Recipe, workdir: Path, labels: list[str]):
    """Writes down what the run is, or checks that the one that is there has the same classes."""
    file = workdir / LABELS_FILE
    if (workdir / RECIPE_FILE).exists() and file.exists() and read_labels(file) != labels:
        raise UserError(
            f"{workdir} was trained on other classes than {recipe.dataset} has; give another "
            "--workdir."
        )
    for name in _FILES:
        remove_leftovers(workdir / name)
    (workdir / METRICS_FILE).unlink(missing_ok=True)
    recipe.save(workdir)  # before anything else: it is what tells a run directory
    with replacing(file) as temporary:
        write_labels(temporary, labels)


def write_history(history: list[dict[str, float]], workdir: Path):
    """Writes `history.csv`: a header and a row an epoch."""
    with replacing(workdir / HISTORY_FILE) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=history[0])
        writer.writeheader()
        writer.writerows(history)


def write_metrics(metrics: dict[str, float], workdir: Path):
    """Writes `metrics.json`, which marks a run as finished."""
    with replacing(workdir / METRICS_FILE) as temporary:
        temporary.write_text(json.dumps(metrics, indent=2) + "\n")
