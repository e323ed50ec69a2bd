"""The run directory: which recipe it belongs to, which process may write, and its small files."""

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
    FILES,
    HISTORY_FILE,
    LABELS_FILE,
    LOGS,
    METRICS_FILE,
    RECIPE_FILE,
    RESULT_FILES,
)
from keras_googlenet.training.recipe import Recipe

_OF_SYSTEM = {"lost+found", "Thumbs.db", "desktop.ini"}


def agreed_recipe(recipe: Recipe, workdir: Path, winner: str | None) -> Recipe:
    """Returns the recipe that a run continues with.

    Args:
        recipe: The recipe of the flags.
        workdir: The run directory; it may not exist yet.
        winner: "run" for the recipe in `workdir`, "flags" for `recipe`; `None`: `recipe` if the
            run is new, has the same recipe, or gets more epochs and no other change.

    Raises:
        UserError: If the recipes differ otherwise, or `workdir` is not a run directory.
    """
    if not (workdir / RECIPE_FILE).exists():
        foreign = _foreign_files(workdir)
        if foreign:
            raise UserError(
                f"{workdir} is not a run directory (it contains {foreign[0].name}); give another "
                "--workdir."
            )
        return recipe
    before = _with_moved_dataset(Recipe.load(workdir), recipe, workdir)
    differences = recipe.differences(before)
    if winner == "run":
        return before
    if not differences or winner == "flags" or not _holds_training(workdir):
        return recipe
    if set(differences) == {"epochs"} and recipe.epochs > before.epochs:
        print(
            f"{workdir} is extended from {before.epochs} to {recipe.epochs} epochs, with the "
            f"schedule of {recipe.epochs}",
            file=sys.stderr,
        )
        return recipe
    changed = "; ".join(f"{name} was {old}, now {new}" for name, (old, new) in differences.items())
    raise UserError(
        f"{workdir} holds a run of another recipe ({changed}); give the same flags, another "
        "--workdir, or choose a recipe with --recipe-of run|flags."
    )


def _with_moved_dataset(before: Recipe, recipe: Recipe, workdir: Path) -> Recipe:
    """Updates the recipe of a run whose data set was moved, if all files are the same."""
    known = split_record.read(workdir)
    is_folder = Path(recipe.dataset).is_absolute() and Path(before.dataset).is_absolute()
    if before.dataset == recipe.dataset or not is_folder or known is None:
        return before
    there = dataclasses.replace(before, dataset=recipe.dataset)
    opened = open_dataset(there.dataset, there.data_dir, there.validation_split, there.seed)
    if not known.same_as(split_record.record_of(opened)):
        return before
    print(f"the data set of {workdir} has moved to {recipe.dataset}", file=sys.stderr)
    there.save(workdir)
    split_record.write(workdir, opened, known)
    return there


def _foreign_files(workdir: Path) -> list[Path]:
    """Lists what neither a run that was killed early nor system or shell have left."""
    if not workdir.exists():
        return []
    known = {CHECKPOINTS, LOGS, *_OF_SYSTEM}
    if (workdir / CHECKPOINTS).is_dir():
        known.add(LABELS_FILE)

    def is_known(path):
        is_log = path.suffix in (".log", ".out", ".err") or path.stem.startswith("log")
        return path.name in known or path.name.startswith(".") or (path.is_file() and is_log)

    return sorted(path for path in workdir.iterdir() if not is_known(path))


def _holds_training(workdir: Path) -> bool:
    results = any((workdir / name).exists() for name in RESULT_FILES)
    return results or any((workdir / CHECKPOINTS).glob("*.npz"))


def previous_splits(workdir: Path) -> split_record.SplitRecord | None:
    """Returns the splits that a run was trained on; `None` where nothing was trained yet."""
    return split_record.read(workdir) if _holds_training(workdir) else None


def finished_metrics(recipe: Recipe, workdir: Path) -> dict[str, float] | None:
    """Returns the content of `metrics.json` if the run of this recipe is finished."""
    if not (workdir / METRICS_FILE).exists() or Recipe.load(workdir) != recipe:
        return None
    try:
        return json.loads((workdir / METRICS_FILE).read_text())
    except ValueError:  # damaged: it is made again from the last checkpoint
        return None


@contextlib.contextmanager
def opened(recipe: Recipe, workdir: Path, dataset: ImageDataset) -> Iterator[None]:
    """Locks a run directory and writes recipe, labels and splits.

    If the block fails before anything was trained, all that is new in the directory is removed.
    `UserError` if another process trains there, or the run was trained on other classes.
    """
    ours = [workdir / name for name in (*FILES, CHECKPOINTS, LOGS)]
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
    """Removes files and folders of a run, then the folders around it that are empty."""
    for path in paths:
        if path in (workdir / CHECKPOINTS, workdir / LOGS):
            shutil.rmtree(path, ignore_errors=True)
        elif path.is_dir():
            with contextlib.suppress(OSError):  # not empty: it holds a log of the user
                path.rmdir()
        else:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Locks a run directory, made if needed; `UserError` if another process trains in it."""
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
    """Writes recipe, labels and splits; a run that is there must have the same classes."""
    file, holds_training = workdir / LABELS_FILE, _holds_training(workdir)
    if holds_training and file.exists() and read_labels(file) != dataset.labels:
        raise UserError(
            f"{workdir} was trained on other classes than {recipe.dataset} has; give another "
            "--workdir."
        )
    for name in FILES:
        remove_leftovers(workdir / name)
    (workdir / METRICS_FILE).unlink(missing_ok=True)
    recipe.save(workdir)  # first, because it is what marks a run directory
    with replacing(file) as temporary:
        write_labels(temporary, dataset.labels)
    now, before = split_record.record_of(dataset), split_record.read(workdir)
    if not holds_training:
        twice = split_record.in_both_splits(dataset, now)
        if twice:
            print(f"warning: images are in both splits{twice}", file=sys.stderr)
    elif before is None:
        now = None
        print(f"warning: {workdir} does not say which images it was trained on", file=sys.stderr)
    else:
        changed = split_record.describe_changes(before, dataset, now)
        if changed:
            print(f"warning: the data set has changed: {changed}", file=sys.stderr)
        now = before.resumed_on(now)
    split_record.write(workdir, dataset, now)


def write_history(history: list[dict[str, float]], workdir: Path):
    """Writes `history.csv`: a header, and a row for each epoch."""
    with replacing(workdir / HISTORY_FILE) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=history[0])
        writer.writeheader()
        writer.writerows(history)


def write_metrics(metrics: dict[str, float], workdir: Path):
    """Writes `metrics.json`, which marks a run as finished."""
    with replacing(workdir / METRICS_FILE) as temporary:
        temporary.write_text(json.dumps(metrics, indent=2) + "\n")
