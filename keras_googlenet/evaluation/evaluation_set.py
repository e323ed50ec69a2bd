"""The images that networks are evaluated on: none that a network was trained on."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_googlenet.data import datasets, split_record
from keras_googlenet.data.folders import resolve_dataset
from keras_googlenet.errors import UserError


class Run(NamedTuple):
    """A training run: the content of its `recipe.json`, and its directory."""

    recipe: dict
    workdir: Path


def runs_of(networks: Sequence) -> list[Run]:
    """Returns the runs that networks of `models.load` come from."""
    return [Run(each.recipe, each.workdir) for each in networks if each.recipe is not None]


def dataset_for(
    runs: Sequence[Run],
    dataset: str | None,
    data_dir: str | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> datasets.ImageDataset:
    """Opens the data set that networks are evaluated on together.

    Args:
        runs: The runs that they come from, if any.
        dataset: Name or folder; the first run's data set if not given.
        data_dir: Where TensorFlow Datasets keeps its files; the run's if not given.
        note: Called with a warning about images that a run was trained on.

    Returns:
        The data set. If a run was trained on it, its validation split is what the run held out.

    Raises:
        UserError: If no data set is given, it cannot be used, or two runs held out different
            images, so that one may have been trained on images that the other is evaluated on.
    """
    if dataset is None and not runs:
        raise UserError("a model file does not name a data set to evaluate it on; give --dataset.")
    own = next((run for run in runs if dataset is None or _is_of(run, dataset)), None)
    if own is not None:
        opened = _held_out(own, _locate(own), data_dir, note)
    else:
        opened = datasets.open_dataset(dataset, data_dir)
        own = next((run for run in runs if _is_moved(run, opened)), None)
        if own is not None:
            opened = _held_out(own, dataset, data_dir, note)
    trained_on = warn_of_training_images(
        runs, opened, note if dataset is not None else lambda text: None
    )
    if trained_on and dataset is None:
        raise UserError(
            "the runs held out different images, so that one may have been trained on the "
            "other's; give --dataset with images that none of them was trained on."
        )
    return opened


def warn_of_training_images(
    runs: Sequence[Run], opened: datasets.ImageDataset, note: Callable[[str], None]
) -> int:
    """Warns of images that a run was trained on; returns the greatest count."""
    counts = [_count_trained(run, opened) for run in runs]
    for run, count in zip(runs, counts, strict=True):
        if count:
            note(
                f"warning: {run.workdir} was trained on {count} of these "
                f"{opened.validation.size} images; give --dataset with images that it was not "
                "trained on."
            )
    return max(counts, default=0)


def _is_of(run: Run, dataset: str) -> bool:
    return resolve_dataset(dataset) == resolve_dataset(run.recipe["dataset"])


def _is_moved(run: Run, opened: datasets.ImageDataset) -> bool:
    """Whether a data set is the run's own in another folder: most of its images are there."""
    if opened.validation.files is None:
        return opened.contents.dataset == split_record.read_contents(run.workdir).get("dataset")
    recorded = split_record.read(run.workdir)
    if recorded is None:
        return False
    try:
        now = split_record.record_of(_open(run, opened.contents.dataset, None))
    except UserError:  # too small to be split, for one
        return False
    parts = (now.train, recorded.train), (now.validation, recorded.validation)
    present = [np.isin(before, hashes).mean() for hashes, before in parts if len(before)]
    contents = dict(recorded.sample.tolist())
    equal = [contents[name] == seen for name, seen in now.sample.tolist() if name in contents]
    return min(present, default=0) > 0.5 and 2 * sum(equal) > len(equal)


def _locate(run: Run) -> str:
    """Returns the data set of a run, also where both were moved together."""
    dataset = Path(run.recipe["dataset"])
    if not dataset.is_absolute() or dataset.exists():
        return run.recipe["dataset"]
    moved = run.workdir / split_record.read_contents(run.workdir).get("beside", "nowhere")
    if not moved.is_dir():
        raise UserError(
            f"the data set {dataset} of {run.workdir} no longer exists; give --dataset "
            "with its folder."
        )
    return str(moved)


def _open(run: Run, dataset: str, data_dir: str | None) -> datasets.ImageDataset:
    share, seed = run.recipe["validation_split"], run.recipe["seed"]
    return datasets.open_dataset(dataset, data_dir or run.recipe["data_dir"], share, seed)


def _held_out(run: Run, dataset: str, data_dir, note) -> datasets.ImageDataset:
    """Opens the data set of a run, with exactly what it held out as the validation split."""
    opened, recorded = _open(run, dataset, data_dir), split_record.read(run.workdir)
    if recorded is None:
        note(
            f"warning: {run.workdir} does not record which images it held out; it may have been "
            "trained on some of these."
        )
        return opened
    hashes = opened.validation.hashes
    held_out = np.isin(hashes, recorded.validation)
    if not held_out.any():
        raise UserError(
            f"{dataset} holds none of the images that {run.workdir} held out; give another "
            "--dataset."
        )
    gone = len(np.setdiff1d(recorded.validation, hashes))
    if opened.validation.files is None or (held_out.all() and not gone):
        return opened
    note(
        f"warning: {dataset} has changed: {gone} of the images that {run.workdir} held out are "
        f"gone; {np.sum(~held_out)} that are new or were trained on are left out."
    )
    return opened.validate_on(np.flatnonzero(held_out))


def _count_trained(run: Run, opened: datasets.ImageDataset) -> int:
    """Counts the validation images that a run was trained on, as far as it recorded them."""
    split = opened.validation
    if split.files is not None:
        recorded = split_record.read(run.workdir)
        return 0 if recorded is None else int(recorded.is_trained_on(split).sum())
    trained, held_out = (
        (split_record.read_contents(run.workdir).get(name) or {}).get("source", "")
        for name in ("train", "validation")
    )
    whole = split.source.partition("[")[0]  # data set and split, without the part of it
    return split.size if trained.partition("[")[0] == whole and split.source != held_out else 0
