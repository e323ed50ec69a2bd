"""Which images a run learns from and is measured on, written down in its run directory.

An image of a folder is known by its class, the name of its file and its size: wherever the data
set lies, it is the same image. Names and sizes can agree by chance, so the contents of a sample
are kept too, and compared with where it matters. Of a prepared data set its splits say it all.
"""

import hashlib
import json
import os
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_googlenet.atomic import replacing
from keras_googlenet.data.datasets import ImageDataset, Split
from keras_googlenet.data.folders import file_name
from keras_googlenet.run_files import CONTENTS_FILE, SPLIT_FILE

SAMPLED = 1000  # images of each half whose contents are kept: those with the lowest hashes
_ENDS = 4096  # bytes at the beginning and at the end of a file that stand for its contents
_NAMED = 3  # images that a sentence names


class SplitRecord(NamedTuple):
    """The two halves of a data set.

    Attributes:
        train: `(n,)` uint64, a hash of each image, ascending; of a prepared data set one hash.
        validation: The same of what it is measured on.
        sample: `(m, 2)` uint64, hashes of some images and of their contents.
    """

    train: np.ndarray
    validation: np.ndarray
    sample: np.ndarray

    @property
    def learned(self) -> np.ndarray:
        """What is in the training half alone: images of both halves may look the same from here."""
        return np.setdiff1d(self.train, self.validation)

    def followed_by(self, now: "SplitRecord") -> "SplitRecord":
        """Returns the record of a run that goes on with other images."""
        validation = np.setdiff1d(now.validation, self.learned)
        sample = np.unique(np.concatenate([self.sample, now.sample]), axis=0)
        return SplitRecord(np.union1d(self.train, now.train), validation, sample)

    def same_as(self, other: "SplitRecord") -> bool:
        """Says whether both halves hold the same images."""
        return all(np.array_equal(*pair) for pair in zip(self, other, strict=True))

    def among_learned(self, split: Split, labels: list[str]) -> np.ndarray:
        """Says which images of a split were learned from, `(size,)` booleans.

        Those of the sample are told by their contents; the others by name, unless most of the
        sample only look alike.
        """
        found = hashes(split, labels)
        alike = np.isin(found, self.learned)
        contents = dict(self.sample.tolist())
        checked = [number for number in np.flatnonzero(alike) if int(found[number]) in contents]
        other = [n for n in checked if content_hash(split.files[n]) != contents[int(found[n])]]
        if 2 * len(other) > len(checked):
            same = np.setdiff1d(checked, other).astype(int)
            return np.isin(np.arange(split.size), same)
        alike[other] = False
        return alike


def record_of(dataset: ImageDataset) -> SplitRecord:
    """Returns the halves of a data set, its training half empty where it has none."""
    found, sampled = [], [np.empty((0, 2), "uint64")]
    for split in (dataset.train, dataset.validation):
        hashed = np.empty(0, "uint64") if split is None else hashes(split, dataset.labels)
        order = np.argsort(hashed, kind="stable")
        found.append(hashed[order])
        if split is not None and split.files:
            chosen = order[:SAMPLED]
            contents = [content_hash(split.files[number]) for number in chosen]
            sampled.append(np.stack([hashed[chosen], np.array(contents, "uint64")], axis=1))
    return SplitRecord(*found, np.unique(np.concatenate(sampled), axis=0))


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


def content_hash(file: str) -> int:
    """Returns a checksum of the ends of a file; 0 if it cannot be read."""
    try:
        with open(file, "rb") as opened:
            begin = opened.read(_ENDS)
            opened.seek(-min(_ENDS, opened.seek(0, os.SEEK_END)), os.SEEK_END)
            return zlib.crc32(begin + opened.read())
    except OSError:
        return 0


def _hash(content: bytes) -> np.uint64:
    return np.frombuffer(hashlib.blake2b(content, digest_size=8).digest(), "uint64")[0]


def write(folder: Path, dataset: ImageDataset, halves: SplitRecord | None):
    """Writes down in a run directory what a data set holds, and its halves if they are known."""
    if halves is not None:
        with replacing(folder / SPLIT_FILE) as file:
            np.savez_compressed(file, **halves._asdict())
    with replacing(folder / CONTENTS_FILE) as file:
        beside = {"beside": os.path.relpath(dataset.contents.dataset, folder)}
        text = json.dumps(dataset.contents.as_json() | beside, indent=2)
        file.write_text(text + "\n", encoding="utf-8")


def read(folder: Path) -> SplitRecord | None:
    """Reads the halves of a run; `None` where they are not there, or damaged."""
    try:
        with np.load(folder / SPLIT_FILE) as found:
            return SplitRecord(*(found[name] for name in SplitRecord._fields))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def read_contents(folder: Path) -> dict:
    """Reads what a run's data set held, as `Contents.as_json` gives it; empty if it is not said."""
    try:
        found = json.loads((folder / CONTENTS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def without_learned(dataset: ImageDataset, before: SplitRecord | None) -> ImageDataset:
    """Leaves out of the validation half what a run has learned from until now."""
    if before is None or dataset.validation.files is None:
        return dataset
    learned = before.among_learned(dataset.validation, dataset.labels)
    kept = np.flatnonzero(~learned)
    return dataset.measured_on(kept) if len(kept) else dataset


def changes(before: SplitRecord, dataset: ImageDataset, now: SplitRecord) -> str:
    """Says how a data set differs from what it was; nothing where it does not.

    Args:
        before: What a run was begun with.
        dataset: The data set as it is.
        now: Its halves.
    """
    said = []
    for name, field in (("training", "train"), ("validation", "validation")):
        split = getattr(dataset, field)
        then, today = (getattr(side, field) for side in (before, now))
        new, gone = np.setdiff1d(today, then), np.setdiff1d(then, today)
        if len(new) and split.files is None:
            said.append(f"its {name} half is {split.source} of {split.size} images now")
            continue
        if len(new):
            said.append(f"{len(new)} new in its {name} half{_names(dataset, split, new)}")
        if len(gone):
            said.append(f"{len(gone)} gone from its {name} half")
    return ", ".join(said)


def shared(dataset: ImageDataset, halves: SplitRecord) -> str:
    """Names images of the sample that lie in both halves; nothing if none does."""
    if dataset.validation.files is None:
        return ""
    alike = np.intersect1d(halves.train[:SAMPLED], halves.validation[:SAMPLED])
    ids, contents = np.unique(halves.sample[:, 0], return_counts=True)
    twice = np.intersect1d(alike, ids[contents == 1])  # one, where the two are the same
    return _names(dataset, dataset.validation, twice) if len(twice) else ""


def _names(dataset: ImageDataset, split: Split, chosen: np.ndarray) -> str:
    numbers = np.flatnonzero(np.isin(hashes(split, dataset.labels), chosen))[:_NAMED]
    root = dataset.contents.dataset
    named = ", ".join(os.path.relpath(split.files[number], root) for number in numbers)
    return f" ({named}{', …' if len(chosen) > _NAMED else ''})"
