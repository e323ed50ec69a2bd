"""The run directory: whose it is, and what a run leaves in it."""

import contextlib
import csv
import dataclasses
import fcntl
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from keras_googlenet.atomic import remove_leftovers, replacing
from keras_googlenet.data import split_record
from keras_googlenet.data.datasets import ImageDataset, open_dataset
from keras_googlenet.errors import UserError
from keras_googlenet.labels import read_labels, write_labels
from keras_googlenet.run_files import (
    CHECKPOINTS,
    CONTENTS_FILE,
    CURVES_FILE,
    HISTORY_FILE,
    LABELS_FILE,
    LOGS,
    METRICS_FILE,
    MODEL_FILE,
    RECIPE_FILE,
    SPLIT_FILE,
)
from keras_googlenet.training.recipe import Recipe

_FILES = (
    *(RECIPE_FILE, LABELS_FILE, HISTORY_FILE, CURVES_FILE, MODEL_FILE, METRICS_FILE),
    *(CONTENTS_FILE, SPLIT_FILE),
)


def agreed_recipe(recipe: Recipe, workdir: Path, winner: str | None) -> Recipe:
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
        foreign = _foreign(workdir)
        if foreign:
            raise UserError(
                f"{workdir} holds something else than a run ({foreign[0].name}); give another "
                "--workdir."
            )
        return recipe
    before = _where_its_data_lies(Recipe.load(workdir), recipe, workdir)
    differences = recipe.differences(before)
    if winner == "run":
        return before
    if not differences or winner == "flags" or not _holds_training(workdir):
        return recipe
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


def _where_its_data_lies(before: Recipe, recipe: Recipe, workdir: Path) -> Recipe:
    """Corrects the recipe of a run whose data set was moved, if all files are the same."""
    known = split_record.read(workdir)
    is_folder = Path(recipe.dataset).is_absolute() and Path(before.dataset).is_absolute()
    if before.dataset == recipe.dataset or not is_folder or known is None:
        return before
    there = dataclasses.replace(before, dataset=recipe.dataset)
    opened = open_dataset(there.dataset, there.data_dir, there.validation_split, there.seed)
    if not known.same_as(split_record.record_of(opened)):
        return before
    print(f"the data set of {workdir} lies in {recipe.dataset} now", file=sys.stderr)
    there.save(workdir)
    split_record.write(workdir, opened, known)
    return there


def _foreign(workdir: Path) -> list[Path]:
    """What is neither left by a run that was killed early nor put there by system or shell."""
    if not workdir.exists():
        return []
    known = {CHECKPOINTS, LOGS, "lost+found", "Thumbs.db", "desktop.ini"}
    if (workdir / CHECKPOINTS).is_dir():
        known.add(LABELS_FILE)

    def is_known(path):
        is_log = path.suffix in (".log", ".out", ".err") or path.stem.startswith("log")
        return path.name in known or path.name.startswith(".") or (path.is_file() and is_log)

    return sorted(path for path in workdir.iterdir() if not is_known(path))


def _holds_training(workdir: Path) -> bool:
    """Whether something would be lost with the run directory."""
    results = (HISTORY_FILE, CURVES_FILE, MODEL_FILE, METRICS_FILE)
    return any((workdir / name).exists() for name in results) or any(
        (workdir / CHECKPOINTS).glob("*.npz")
    )


def learned_before(workdir: Path) -> split_record.SplitRecord | None:
    """Returns the halves of the run in a directory; `None` where nothing was trained yet."""
    return split_record.read(workdir) if _holds_training(workdir) else None


def finished_metrics(recipe: Recipe, workdir: Path) -> dict[str, float] | None:
    """Returns the content of `metrics.json` if the run of this recipe is finished."""
    if not (workdir / METRICS_FILE).exists() or Recipe.load(workdir) != recipe:
        return None
    try:
        return json.loads((workdir / METRICS_FILE).read_text())
    except ValueError:  # the disk damaged it: the last checkpoint makes it again
        return None


@contextlib.contextmanager
def opened(recipe: Recipe, workdir: Path, dataset: ImageDataset) -> Iterator[None]:
    """Keeps other processes off a run directory, and says in it what the run is.

    If the block fails before anything is worth keeping, nothing of the run is left.

    Raises:
        UserError: If another process trains there, or it was trained on other classes.
    """
    ours = [workdir / name for name in (*_FILES, CHECKPOINTS, LOGS)]
    new = [path for path in (*ours, workdir, *workdir.parents) if not path.exists()]
    with locked(workdir):
        try:
            _describe(recipe, workdir, dataset)
            yield
        except BaseException:
            if not _holds_training(workdir):
                _remove(new, workdir)
            raise


def _remove(paths: list[Path], workdir: Path):
    """Removes files and folders of a run, and the folders around it that are empty then."""
    for path in paths:
        if path in (workdir / CHECKPOINTS, workdir / LOGS):
            shutil.rmtree(path, ignore_errors=True)
        elif path.is_dir():
            with contextlib.suppress(OSError):  # a log of the user's stays
                path.rmdir()
        else:
            path.unlink(missing_ok=True)


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


def _describe(recipe: Recipe, workdir: Path, dataset: ImageDataset):
    """Writes down what the run is, or checks that the one that is there has the same classes."""
    file, holds_training = workdir / LABELS_FILE, _holds_training(workdir)
    if holds_training and file.exists() and read_labels(file) != dataset.labels:
        raise UserError(
            f"{workdir} was trained on other classes than {recipe.dataset} has; give another "
            "--workdir."
        )
    for name in _FILES:
        remove_leftovers(workdir / name)
    (workdir / METRICS_FILE).unlink(missing_ok=True)
    recipe.save(workdir)  # before anything else: it is what tells a run directory
    with replacing(file) as temporary:
        write_labels(temporary, dataset.labels)
    now, before = split_record.record_of(dataset), split_record.read(workdir)
    if not holds_training:
        twice = split_record.in_both_splits(dataset, now)
        if twice:
            print(f"warning: images lie in both halves{twice}", file=sys.stderr)
    elif before is None:
        now = None
        print(f"warning: {workdir} does not say which images it has learned from", file=sys.stderr)
    else:
        changed = split_record.describe_changes(before, dataset, now)
        if changed:
            print(f"warning: the data set is not what it was: {changed}", file=sys.stderr)
        now = before.resumed_on(now)
    split_record.write(workdir, dataset, now)


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
