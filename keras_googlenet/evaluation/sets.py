"""What networks are to be measured on: images that none of them has learnt from."""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_googlenet.data import datasets, halves
from keras_googlenet.data.folders import resolved
from keras_googlenet.errors import UserError


class Trained(NamedTuple):
    """A run that a network comes from.

    Attributes:
        recipe: Content of its `recipe.json`.
        workdir: Its directory.
    """

    recipe: dict
    workdir: Path


def runs_of(networks: Sequence) -> list[Trained]:
    """Returns the runs that networks of `models.load` come from."""
    return [Trained(each.recipe, each.workdir) for each in networks if each.recipe is not None]


def dataset_for(
    runs: Sequence[Trained],
    dataset: str | None,
    data_dir: str | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> datasets.ImageDataset:
    """Opens what networks are to be measured on together.

    Args:
        runs: The runs that they come from, as far as they come from any.
        dataset: Name or folder that is asked for; the first run's if not given.
        data_dir: Where TensorFlow Datasets keeps its files; the run's if not given.
        note: Is given a sentence about images that a run learnt from.

    Returns:
        The data set. Of one that a run was trained on, its validation split is what was held out.

    Raises:
        UserError: If nobody names a data set, it cannot be used, or two runs held out different
            images, so that one of them may have learnt from what it would be measured on.
    """
    if dataset is None and not runs:
        raise UserError("a model file does not say what to measure it on; give --dataset.")
    own = next((run for run in runs if dataset is None or _is_of(run, dataset)), None)
    if own is not None:
        opened = _held_out(own, _place(own), data_dir, note)
    else:
        opened = datasets.open_dataset(dataset, data_dir)
        own = next((run for run in runs if _learnt(run, opened, data_dir)), None)
        if own is not None:
            with contextlib.suppress(UserError):  # another part of its data set
                opened = _held_out(own, dataset, data_dir, note)
    for run in runs:
        learnt = _learnt(run, opened, data_dir)
        if learnt and dataset is None:
            raise UserError(
                "the runs were validated on different images, so that one may have learnt from "
                "the other's; give --dataset with images that none of them has seen."
            )
        if learnt:
            note(
                f"warning: {run.workdir} was trained on {learnt} of these "
                f"{opened.validation.size} images; give --dataset with images that it has not seen."
            )
    return opened


def _is_of(run: Trained, dataset: str) -> bool:
    return resolved(dataset) == resolved(run.recipe["dataset"])


def _place(run: Trained) -> str:
    """Returns where the data set of a run lies, also if both were moved together."""
    dataset = Path(run.recipe["dataset"])
    if dataset.is_absolute() and not dataset.exists():
        moved = halves.place_beside(run.workdir)
        if moved is not None and moved.is_dir():
            return str(moved)
    return run.recipe["dataset"]


def _open(run: Trained, dataset: str, data_dir: str | None) -> datasets.ImageDataset:
    recipe = run.recipe
    share, seed = recipe["validation_split"], recipe["seed"]
    return datasets.open_dataset(dataset, data_dir or recipe["data_dir"], share, seed)


def _held_out(run: Trained, dataset: str, data_dir, note) -> datasets.ImageDataset:
    """Opens the data set of a run, with exactly what it held out as the validation split."""
    opened, known = _open(run, dataset, data_dir), halves.read(run.workdir)
    if known is None:
        note(f"warning: {run.workdir} does not say which images it held out; these are by recipe.")
        return opened
    found = halves.hashes(opened.validation, opened.labels)
    kept = np.isin(found, known.validation)
    if not kept.any():
        raise UserError(
            f"{dataset} holds none of the images that {run.workdir} was validated on; give another "
            "--dataset."
        )
    if opened.validation.files is None:
        return opened
    gone = len(np.setdiff1d(known.validation, found))
    if gone or not kept.all():
        note(
            f"warning: {dataset} is not what it was: {gone} of the images that {run.workdir} held "
            f"out are gone, and {np.sum(~kept)} are new or were learnt from, and left out."
        )
    return opened._replace(validation=opened.validation.part(np.flatnonzero(kept)))


def _learnt(run: Trained, opened: datasets.ImageDataset, data_dir: str | None) -> int:
    """Counts the images to measure on that a run was trained on."""
    known = halves.read(run.workdir)
    if known is None:
        known = halves.halves_of(_open(run, _place(run), data_dir))
    seen = np.isin(halves.hashes(opened.validation, opened.labels), known.learnt)
    return opened.validation.size if opened.validation.files is None and seen.all() else seen.sum()
