"""What networks are to be measured on: images that none of them has learned from."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_googlenet.data import datasets, split_record
from keras_googlenet.data.folders import resolve_dataset
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
        note: Is given a sentence about images that a run learned from.

    Returns:
        The data set. Of one that a run was trained on, its validation split is what was held out.

    Raises:
        UserError: If nobody names a data set, it cannot be used, or two runs held out different
            images, so that one of them may have learned from what it would be measured on.
    """
    if dataset is None and not runs:
        raise UserError("a model file does not say what to measure it on; give --dataset.")
    own = next((run for run in runs if dataset is None or _is_of(run, dataset)), None)
    if own is not None:
        opened = _held_out(own, _place(own), data_dir, note)
    else:
        opened = datasets.open_dataset(dataset, data_dir)
        own = next((run for run in runs if _is_moved(run, opened)), None)
        if own is not None:
            opened = _held_out(own, dataset, data_dir, note)
    learned = warn_of_learned(runs, opened, note if dataset is not None else lambda text: None)
    if learned and dataset is None:
        raise UserError(
            "the runs were validated on different images, so that one may have learned from the "
            "other's; give --dataset with images that none of them has seen."
        )
    return opened


def warn_of_learned(
    runs: Sequence[Trained], opened: datasets.ImageDataset, note: Callable[[str], None]
) -> int:
    """Says how many of the images to measure on each run was trained on; returns the greatest."""
    counts = [_learned(run, opened) for run in runs]
    for run, learned in zip(runs, counts, strict=True):
        if learned:
            note(
                f"warning: {run.workdir} was trained on {learned} of these "
                f"{opened.validation.size} images; give --dataset with images that it has not seen."
            )
    return max(counts, default=0)


def _is_of(run: Trained, dataset: str) -> bool:
    return resolve_dataset(dataset) == resolve_dataset(run.recipe["dataset"])


def _is_moved(run: Trained, opened: datasets.ImageDataset) -> bool:
    """Whether a data set is a run's own in another place: most of its images are there."""
    if opened.validation.files is None:
        return opened.contents.dataset == split_record.read_contents(run.workdir).get("dataset")
    known = split_record.read(run.workdir)
    if known is None:
        return False
    try:
        there = split_record.record_of(_open(run, opened.contents.dataset, None))
    except UserError:  # too small to be split, for one
        return False
    parts = (there.train, known.train), (there.validation, known.validation)
    held = [np.isin(own, found).mean() for found, own in parts if len(own)]
    contents = dict(known.sample.tolist())
    equal = [contents[name] == seen for name, seen in there.sample.tolist() if name in contents]
    return min(held, default=0) > 0.5 and 2 * sum(equal) > len(equal)


def _place(run: Trained) -> str:
    """Returns where the data set of a run lies, also if both were moved together."""
    dataset = Path(run.recipe["dataset"])
    if not dataset.is_absolute() or dataset.exists():
        return run.recipe["dataset"]
    moved = run.workdir / split_record.read_contents(run.workdir).get("beside", "nowhere")
    if not moved.is_dir():
        raise UserError(
            f"the data set {dataset} of {run.workdir} is not there any more; give --dataset with "
            "where it lies now."
        )
    return str(moved)


def _open(run: Trained, dataset: str, data_dir: str | None) -> datasets.ImageDataset:
    recipe = run.recipe
    share, seed = recipe["validation_split"], recipe["seed"]
    return datasets.open_dataset(dataset, data_dir or recipe["data_dir"], share, seed)


def _held_out(run: Trained, dataset: str, data_dir, note) -> datasets.ImageDataset:
    """Opens the data set of a run, with exactly what it held out as the validation split."""
    opened, known = _open(run, dataset, data_dir), split_record.read(run.workdir)
    if known is None:
        note(
            f"warning: {run.workdir} does not say which images it held out; some of these may "
            "have been trained on."
        )
        return opened
    found = opened.validation.hashes
    kept = np.isin(found, known.validation)
    if not kept.any():
        raise UserError(
            f"{dataset} holds none of the images that {run.workdir} was validated on; give another "
            "--dataset."
        )
    gone = len(np.setdiff1d(known.validation, found))
    if opened.validation.files is None or (kept.all() and not gone):
        return opened
    note(
        f"warning: {dataset} is not what it was: {gone} of the images that {run.workdir} held out "
        f"are gone, and {np.sum(~kept)} are new or were learned from, and left out."
    )
    return opened.validate_on(np.flatnonzero(kept))


def _learned(run: Trained, opened: datasets.ImageDataset) -> int:
    """Counts the images to measure on that a run was trained on, as far as it says."""
    split = opened.validation
    if split.files is not None:
        known = split_record.read(run.workdir)
        return 0 if known is None else int(known.is_trained_on(split).sum())
    trained, held_out = (
        (split_record.read_contents(run.workdir).get(half) or {}).get("source", "")
        for half in ("train", "validation")
    )
    whole = split.source.partition("[")[0]  # data set and split, without the part of it
    return split.size if trained.partition("[")[0] == whole and split.source != held_out else 0
