"""Which images a run learns from and is measured on, written down in its run directory.

An image of a folder is known by its class, the name of its file and its size: wherever the data
set lies, it is the same image. Of a prepared data set the names of its splits say it all.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_googlenet.atomic import replacing
from keras_googlenet.data.datasets import ImageDataset, Split
from keras_googlenet.data.held_out import file_name

CONTENTS_FILE = "data.json"  # what was found, for people
HALVES_FILE = "data.npz"  # the images, for comparison
_NAMED = 3  # images that a sentence names


class Halves(NamedTuple):
    """The two halves of a data set.

    Attributes:
        train: `(n,)` uint64, a hash of each image, ascending; of a prepared data set one hash.
        validation: The same of what it is measured on.
    """

    train: np.ndarray
    validation: np.ndarray

    @property
    def learnt(self) -> np.ndarray:
        """What is in the training half alone: images of both halves may look the same from here."""
        return np.setdiff1d(self.train, self.validation)

    def followed_by(self, now: "Halves") -> "Halves":
        """Returns the halves of a run that goes on with other ones: what it learnt stays learnt."""
        validation = np.setdiff1d(now.validation, self.learnt)
        return Halves(np.union1d(self.train, now.train), validation)

    def same_as(self, other: "Halves") -> bool:
        """Says whether both halves hold the same images."""
        return all(np.array_equal(*pair) for pair in zip(self, other, strict=True))


def halves_of(dataset: ImageDataset) -> Halves:
    """Returns the halves of a data set, its training half empty where it has none."""
    train = np.empty(0, "uint64")
    if dataset.train is not None:
        train = np.sort(hashes(dataset.train, dataset.labels))
    return Halves(train, np.sort(hashes(dataset.validation, dataset.labels)))


def hashes(split: Split, labels: list[str]) -> np.ndarray:
    """Returns what tells images apart, `(size,)` uint64; of a prepared split, `(1,)`."""
    if split.files is None:
        return np.array([_hash(f"{split.source} {split.size}".encode())])
    images = zip(split.files, split.labels, strict=True)
    return np.array(
        [
            _hash(b"%s/%s %d" % (labels[label].encode(), file_name(file), os.stat(file).st_size))
            for file, label in images
        ],
        "uint64",
    )


def _hash(content: bytes) -> np.uint64:
    return np.frombuffer(hashlib.blake2b(content, digest_size=8).digest(), "uint64")[0]


def write(folder: Path, dataset: ImageDataset, halves: Halves):
    """Writes down in a run directory what a data set holds."""
    with replacing(folder / HALVES_FILE) as file:
        np.savez_compressed(file, **halves._asdict())
    with replacing(folder / CONTENTS_FILE) as file:
        beside = {"beside": os.path.relpath(dataset.contents.dataset, folder)}
        text = json.dumps(dataset.contents.as_json() | beside, indent=2)
        file.write_text(text + "\n", encoding="utf-8")


def read(folder: Path) -> Halves | None:
    """Reads the halves of a run; `None` where they are not there, or damaged."""
    try:
        with np.load(folder / HALVES_FILE) as found:
            return Halves(found["train"], found["validation"])
    except (OSError, ValueError, KeyError):
        return None


def place_beside(folder: Path) -> Path | None:
    """Returns where a run's data set would lie if it had been moved together with the run."""
    try:
        return folder / json.loads((folder / CONTENTS_FILE).read_text(encoding="utf-8"))["beside"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def changes(before: Halves, dataset: ImageDataset, now: Halves) -> str:
    """Says how a data set differs from what it was; nothing where it does not.

    Args:
        before: What a run was begun with.
        dataset: The data set as it is.
        now: Its halves.
    """
    said = []
    halves = ("training", "train"), ("validation", "validation")
    for name, field in halves:
        split = getattr(dataset, field)
        then, today = (getattr(side, field) for side in (before, now))
        new, gone = np.setdiff1d(today, then), np.setdiff1d(then, today)
        if len(new) and split.files is None:
            said.append(f"its {name} half is {split.source} of {split.size} images now")
            continue
        if len(new):
            said.append(f"{len(new)} new in its {name} half{_names(split, dataset.labels, new)}")
        if len(gone):
            said.append(f"{len(gone)} gone from its {name} half")
    learnt = np.intersect1d(before.learnt, now.validation)
    if len(learnt):
        names = _names(dataset.validation, dataset.labels, learnt)
        said.append(f"{len(learnt)} that it learnt from would be measured on{names}")
    return ", ".join(said)


def _names(split: Split, labels: list[str], chosen: np.ndarray) -> str:
    if split.files is None:
        return ""
    numbers = np.flatnonzero(np.isin(hashes(split, labels), chosen))[:_NAMED]
    named = ", ".join(os.path.relpath(split.files[number]) for number in numbers)
    return f" ({named}{', …' if len(chosen) > _NAMED else ''})"
