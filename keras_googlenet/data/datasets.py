"""From the name of a data set to its two splits.

A data set is either one of TensorFlow Datasets, `shapes` among them, or a folder of class folders.
Both become a `Split`: numbered examples that can be read in any order.
"""

import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_googlenet.data import folders, tfds_datasets, tfds_records
from keras_googlenet.data.contents import MOST_NAMES, Contents, Skipped, SplitContents
from keras_googlenet.data.listing import file_name, is_prepared, made_by_tfds
from keras_googlenet.data.pillow_images import UPRIGHT, orientation_of

SAMPLED = 200  # images of a folder whose EXIF orientation is read


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """One split of a data set: numbered examples, any of which can be read by itself.

    Attributes:
        size: Number of examples.
        fetch: Maps indices of examples, `(n,)` int64, to what is read of them, `(n,)` strings:
            records, or paths of files. It runs in a graph, as `open` does.
        open: Maps one index and what was fetched for it to `(encoded image, label)`, scalar string
            and int64.
        source: What it is part of, if TFDS prepared it: "shapes/1.0.0 train[:90%]".
        files: Where the images of a folder are; `None` for TFDS.
        labels: Class of each file, `(size,)` int64; `None` for TFDS.
        class_names: Of a folder, in the order of the classes.
    """

    size: int
    fetch: Callable[[tf.Tensor], tf.Tensor]
    open: Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
    source: str = ""
    files: list[str] | None = None
    labels: np.ndarray | None = None
    class_names: Sequence[str] = ()

    def read(self, index: int) -> tuple[tf.Tensor, tf.Tensor]:
        """Reads one example: its encoded image and its label."""
        index = tf.constant(index, tf.int64)
        return self.open(index, self.fetch(index[None])[0])

    def name(self, index: int) -> str:
        """Returns the file of an example, or its index where the data set has no files."""
        return self.files[index] if self.files else f"example {index}"

    @functools.cached_property
    def hashes(self) -> np.ndarray:
        """A hash of class, file name and file size of each image, `(size,)` uint64.

        It is the same wherever the data set is. A prepared split has a single hash, `(1,)`.
        """
        if self.files is None:
            return np.array([_hash(f"{self.source} {self.size}".encode())])
        names = [name.encode() for name in self.class_names]
        images = zip(self.files, self.labels, strict=True)
        return np.array(
            [
                _hash(b"%s/%s %d" % (names[label], file_name(file), os.stat(file).st_size))
                for file, label in images
            ],
            "uint64",
        )

    def part(self, indices: np.ndarray) -> "Split":
        """Returns a split of some of the examples, numbered from 0."""
        if len(indices) == self.size:
            return self
        chosen = tf.constant(indices, tf.int64)
        part = dataclasses.replace(
            self,
            size=len(indices),
            fetch=lambda some: self.fetch(tf.gather(chosen, some)),
            open=lambda index, source: self.open(tf.gather(chosen, index), source),
            files=self.files and [self.files[index] for index in indices],
            labels=None if self.labels is None else self.labels[indices],
        )
        if self.files and "hashes" in vars(self):  # hashing stats every file
            vars(part)["hashes"] = self.hashes[indices]
        return part


class ImageDataset(NamedTuple):
    """A data set for classification.

    Attributes:
        labels: Class names in the order of the class indices.
        train: The training set; `None` for a data set that is evaluated whole.
        validation: The validation set.
        contents: What was found and what was skipped.
    """

    labels: list[str]
    train: Split | None
    validation: Split
    contents: Contents | None = None

    def validate_on(self, indices: np.ndarray) -> "ImageDataset":
        """Returns the data set with only some of the examples of its validation set."""
        summary = self.contents.validation._replace(images=len(indices))
        contents = self.contents._replace(validation=summary)
        return self._replace(validation=self.validation.part(indices), contents=contents)


def open_dataset(
    name: str, data_dir: str | None = None, validation_split: float = 0.0, seed: int = 0
) -> ImageDataset:
    """Opens a data set by name or path, preparing it on first use.

    Args:
        name: A folder, or a name that TensorFlow Datasets knows ("shapes", "imagenet2012",
            "imagenette/160px-v2", "cifar10:3.*.*", …), or a folder that it prepared. A folder
            holds a folder for each split, recognized by its name, with class folders inside, or
            the class folders themselves.
        data_dir: Where TensorFlow Datasets keeps its files; `~/tensorflow_datasets` if not given.
        validation_split: Share that is held out where the data set has no validation set: of each
            class of a folder, by `seed`; of TensorFlow Datasets the last whole percents, whatever
            their classes. 0 evaluates all of it.
        seed: Decides which images of a folder are held out.

    Returns:
        The labels and the two splits.

    Raises:
        UserError: If there is no such data set, or something is missing from it.
    """
    folder = Path(folders.resolve_dataset(name))
    if folder.is_absolute() and not is_prepared(folder) and not made_by_tfds(folder):
        return _open_folder(folder, validation_split, seed)
    builder = tfds_datasets.open_builder(name, data_dir)
    chosen = tfds_datasets.choose_splits(builder, validation_split)
    train, validation = (split and _prepared_split(builder, split) for split in chosen)
    labels, skipped = tfds_datasets.class_names(builder), Skipped(name)
    names = labels if len(labels) <= MOST_NAMES else []
    summaries = [
        split and SplitContents(split.source, split.size, len(labels), names)
        for split in (train, validation)
    ]
    used = {split.partition("[")[0] for split in chosen if split}
    for split, info in builder.info.splits.items():
        if split not in used:
            reason = "image{s} (in a split that is not used)"
            skipped.add(reason, os.path.join(name, split), info.num_examples)
    contents = Contents(builder.info.full_name, *summaries, skipped)
    return ImageDataset(labels, train, validation, contents)


def _prepared_split(builder, split: str) -> Split:
    size = builder.info.splits[split].num_examples
    source = f"{builder.info.full_name} {split}"
    opener = tfds_records.record_opener(builder)
    fetch = tfds_records.record_fetcher(builder, split)
    return Split(size, fetch, lambda _, record: opener(record), source)


def _open_folder(root: Path, validation_split: float, seed: int) -> ImageDataset:
    splits = folders.find_splits(root, validation_split, seed)
    labels = sorted(splits.train or splits.validation)
    train = folder_split(splits.train, labels) if splits.train else None
    validation = folder_split(splits.validation, labels)
    rotated = _count_rotated([*(train.files if train else []), *validation.files])
    contents = Contents(str(root), *splits.contents, splits.skipped, rotated)
    return ImageDataset(labels, train, validation, contents)


def _count_rotated(files: list[str]) -> tuple[int, int]:
    """Counts the images of a sample that are not stored upright; returns the sample's size too."""
    sample = files[:: -(-len(files) // SAMPLED)]
    return sum(orientation_of(file) != UPRIGHT for file in sample), len(sample)


def folder_split(images: folders.Images, labels: list[str]) -> Split:
    """Makes a split of image files, class after class.

    Args:
        images: Files of each class.
        labels: Class names in the order of the class indices.
    """
    files = [file for some in images.values() for file in some]
    counts = [len(some) for some in images.values()]
    index_of = {name: index for index, name in enumerate(labels)}
    indices = np.repeat(np.array([index_of[name] for name in images], "int64"), counts)
    paths = tf.constant([os.fsencode(file) for file in files])
    classes = tf.constant(indices)
    return Split(
        len(files),
        lambda some: tf.gather(paths, some),
        lambda index, path: (tf.io.read_file(path), tf.gather(classes, index)),
        files=files,
        labels=indices,
        class_names=labels,
    )


def _hash(content: bytes) -> np.uint64:
    return np.frombuffer(hashlib.blake2b(content, digest_size=8).digest(), "uint64")[0]
