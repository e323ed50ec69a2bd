"""Which images a run was trained and validated on, saved in its run directory.

An image of a folder is known by its class, file name and file size: wherever the data set is, it is
the same image. Names and sizes can agree by chance, so checksums of a sample's contents are saved
too. A prepared data set is known by its splits.
"""

import json
import os
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_googlenet.atomic import replacing
from keras_googlenet.data.datasets import ImageDataset, Split
from keras_googlenet.run_files import CONTENTS_FILE, SPLIT_FILE

SAMPLED = 1000  # images of each split whose checksums are saved: those with the lowest hashes
_ENDS = 4096  # bytes at either end of a file that the checksum covers
_MOST_NAMED = 3  # images that a message names


class SplitRecord(NamedTuple):
    """The training set and the validation set of a run.

    Attributes:
        train: `(n,)` uint64, `Split.hashes` in ascending order.
        validation: The same of the validation set.
        sample: `(m, 2)` uint64, hashes of some images and checksums of their contents.
    """

    train: np.ndarray
    validation: np.ndarray
    sample: np.ndarray

    @property
    def train_only(self) -> np.ndarray:
        """Hashes of the training set that the validation set does not have, too."""
        return np.setdiff1d(self.train, self.validation)

    def resumed_on(self, new: "SplitRecord") -> "SplitRecord":
        """Returns the record of a run that is resumed on other images."""
        validation = np.setdiff1d(new.validation, self.train_only)
        sample = np.unique(np.concatenate([self.sample, new.sample]), axis=0)
        return SplitRecord(np.union1d(self.train, new.train), validation, sample)

    def same_as(self, other: "SplitRecord") -> bool:
        """Whether both splits hold the same images."""
        return all(np.array_equal(*pair) for pair in zip(self, other, strict=True))

    def is_trained_on(self, split: Split) -> np.ndarray:
        """Returns for each image of a folder's split whether the run was trained on it, `(size,)`.

        Images of the sample are compared by checksum. Where most of these differ, the others only
        have the same names and sizes by chance.
        """
        same_hash = np.isin(split.hashes, self.train_only)
        saved = dict(self.sample.tolist())
        sampled = [i for i in np.flatnonzero(same_hash) if int(split.hashes[i]) in saved]
        differ = [i for i in sampled if checksum(split.files[i]) != saved[int(split.hashes[i])]]
        if 2 * len(differ) > len(sampled):
            same = np.setdiff1d(sampled, differ).astype(int)
            return np.isin(np.arange(split.size), same)
        same_hash[differ] = False
        return same_hash


def record_of(dataset: ImageDataset) -> SplitRecord:
    """Returns the record of a data set; `train` is empty where it has no training set."""
    ordered, samples = [], [np.empty((0, 2), "uint64")]
    for split in (dataset.train, dataset.validation):
        hashes = np.empty(0, "uint64") if split is None else split.hashes
        order = np.argsort(hashes, kind="stable")
        ordered.append(hashes[order])
        if split is not None and split.files:
            sample = order[:SAMPLED]
            checksums = [checksum(split.files[index]) for index in sample]
            samples.append(np.stack([hashes[sample], np.array(checksums, "uint64")], axis=1))
    return SplitRecord(*ordered, np.unique(np.concatenate(samples), axis=0))


def checksum(file: str) -> int:
    """Returns a checksum of both ends of a file; 0 if it cannot be read."""
    try:
        with open(file, "rb") as opened:
            start = opened.read(_ENDS)
            opened.seek(-min(_ENDS, opened.seek(0, os.SEEK_END)), os.SEEK_END)
            return zlib.crc32(start + opened.read())
    except OSError:
        return 0


def write(folder: Path, dataset: ImageDataset, record: SplitRecord | None):
    """Writes to a run directory what a data set holds, and its record if it is known."""
    if record is not None:
        with replacing(folder / SPLIT_FILE) as file:
            np.savez_compressed(file, **record._asdict())
    with replacing(folder / CONTENTS_FILE) as file:
        beside = {"beside": os.path.relpath(dataset.contents.dataset, folder)}
        text = json.dumps(dataset.contents.as_json() | beside, indent=2)
        file.write_text(text + "\n", encoding="utf-8")


def read(folder: Path) -> SplitRecord | None:
    """Reads the record of a run; `None` where it is missing or damaged."""
    try:
        with np.load(folder / SPLIT_FILE) as arrays:
            return SplitRecord(*(arrays[name] for name in SplitRecord._fields))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def read_contents(folder: Path) -> dict:
    """Reads `Contents.as_json` of a run's data set; empty where it is missing or damaged."""
    try:
        contents = json.loads((folder / CONTENTS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return contents if isinstance(contents, dict) else {}


def without_trained(dataset: ImageDataset, before: SplitRecord | None) -> ImageDataset:
    """Removes from the validation set what a run has been trained on so far, unless it is all."""
    if before is None or dataset.validation.files is None:
        return dataset
    remaining = np.flatnonzero(~before.is_trained_on(dataset.validation))
    return dataset.validate_on(remaining) if len(remaining) else dataset


def describe_changes(before: SplitRecord, dataset: ImageDataset, now: SplitRecord) -> str:
    """Describes how a data set, whose record is `now`, differs from that of a run, `before`."""
    changes = []
    for name, field in (("training", "train"), ("validation", "validation")):
        split = getattr(dataset, field)
        old, current = getattr(before, field), getattr(now, field)
        new, gone = np.setdiff1d(current, old), np.setdiff1d(old, current)
        if len(new) and split.files is None:
            changes.append(f"its {name} set is now {split.source} of {split.size} images")
            continue
        if len(new):
            changes.append(f"{len(new)} new in its {name} set{_name_files(dataset, split, new)}")
        if len(gone):
            changes.append(f"{len(gone)} gone from its {name} set")
    return ", ".join(changes)


def in_both_splits(dataset: ImageDataset, record: SplitRecord) -> str:
    """Names images of the sample that are in both splits; empty if there are none."""
    if dataset.validation.files is None:
        return ""
    same_hash = np.intersect1d(record.train[:SAMPLED], record.validation[:SAMPLED])
    sampled, checksums = np.unique(record.sample[:, 0], return_counts=True)
    same = np.intersect1d(same_hash, sampled[checksums == 1])  # two where the contents differ
    return _name_files(dataset, dataset.validation, same) if len(same) else ""


def _name_files(dataset: ImageDataset, split: Split, hashes: np.ndarray) -> str:
    indices = np.flatnonzero(np.isin(split.hashes, hashes))[:_MOST_NAMED]
    root = dataset.contents.dataset
    names = ", ".join(os.path.relpath(split.files[index], root) for index in indices)
    return f" ({names}{', …' if len(hashes) > _MOST_NAMED else ''})"
