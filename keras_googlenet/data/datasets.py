"""From the name of a data set to its two splits.

A data set is either one of TensorFlow Datasets, `shapes` among them, or a folder of class folders.
Both become a `Split`: numbered examples that can be read in any order.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_googlenet.data import folders, tfds_datasets, tfds_records
from keras_googlenet.data.contents import MOST_NAMES, Contents, LeftOut, SplitContents
from keras_googlenet.data.image_files import orientation_of
from keras_googlenet.data.listing import is_prepared, made_by_tfds

SAMPLED = 200  # images of a folder that are looked at for their EXIF orientation


class Split(NamedTuple):
    """One half of a data set: numbered examples, any of which can be read by itself.

    Attributes:
        size: Number of examples.
        fetch: Maps numbers of examples, `(n,)` int64, to what is read of them, `(n,)` strings:
            records, or paths of files. It runs in a graph, as `open` does.
        open: Maps one number and what was fetched for it to `(encoded image, label)`, scalar string
            and int64.
        source: What it is part of, if it was prepared by TFDS: "shapes/1.0.0 train[:90%]".
        files: Where the images of a folder are; `None` for TFDS.
        labels: Class of each example, `(size,)` int64, where it is known without reading; `None`
            for TFDS.
    """

    size: int
    fetch: Callable[[tf.Tensor], tf.Tensor]
    open: Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
    source: str = ""
    files: list[str] | None = None
    labels: np.ndarray | None = None

    def read(self, number: int) -> tuple[tf.Tensor, tf.Tensor]:
        """Reads one example: its encoded image and its label."""
        number = tf.constant(number, tf.int64)
        return self.open(number, self.fetch(number[None])[0])

    def name(self, number: int) -> str:
        """Returns the file of an example, or its number where the data set has no files."""
        return self.files[number] if self.files else f"example {number}"

    def part(self, numbers: np.ndarray) -> "Split":
        """Returns a split of some of the examples, which it counts from 0 on."""
        if len(numbers) == self.size:
            return self
        chosen = tf.constant(numbers, tf.int64)
        return Split(
            len(numbers),
            lambda numbers: self.fetch(tf.gather(chosen, numbers)),
            lambda number, source: self.open(tf.gather(chosen, number), source),
            self.source,
            self.files and [self.files[number] for number in numbers],
            None if self.labels is None else self.labels[numbers],
        )


class ImageDataset(NamedTuple):
    """A data set for classification.

    Attributes:
        labels: Class names in the order of the label numbers.
        train: The half to learn from; `None` for a data set that is evaluated whole.
        validation: The half to measure on.
        contents: What was taken for what.
    """

    labels: list[str]
    train: Split | None
    validation: Split
    contents: Contents | None = None

    def measured_on(self, numbers: np.ndarray) -> "ImageDataset":
        """Returns the data set with some of the examples of its validation half alone."""
        half = self.contents.validation._replace(images=len(numbers))
        return self._replace(
            validation=self.validation.part(numbers),
            contents=self.contents._replace(validation=half),
        )


def open_dataset(
    name: str, data_dir: str | None = None, validation_split: float = 0.0, seed: int = 0
) -> ImageDataset:
    """Opens a data set by name or path, preparing it on first use.

    Args:
        name: A folder, or a name that TensorFlow Datasets knows ("shapes", "imagenet2012",
            "imagenette/160px-v2", "cifar10:3.*.*", …), or a folder that it prepared. A folder
            holds one for each split, told by its name, with a folder a class inside, or the class
            folders themselves.
        data_dir: Where TensorFlow Datasets keeps its files; `~/tensorflow_datasets` if not given.
        validation_split: Share that is kept for validation where the data set has no such split:
            of each class of a folder, by `seed`; of TensorFlow Datasets the last whole percents,
            whatever their classes. 0 evaluates all of it.
        seed: Decides which images of a folder that share takes.

    Returns:
        The labels and the two splits.

    Raises:
        UserError: If there is no such data set, or something is missing from it.
    """
    folder = Path(folders.resolved(name))
    if folder.is_absolute() and not is_prepared(folder) and not made_by_tfds(folder):
        return _open_folder(folder, validation_split, seed)
    builder = tfds_datasets.open_builder(name, data_dir)
    training, validation = tfds_datasets.choose_splits(builder, validation_split)
    train = _prepared_split(builder, training) if training else None
    held = _prepared_split(builder, validation)
    labels, left_out = tfds_datasets.class_names(builder), LeftOut(name)
    names = labels if len(labels) <= MOST_NAMES else []
    halves = [s and SplitContents(s.source, s.size, len(labels), names) for s in (train, held)]
    for split, info in builder.info.splits.items():
        if split not in {used and used.partition("[")[0] for used in (training, validation)}:
            reason = "image{s} (in a split that is not used)"
            left_out.add(reason, os.path.join(name, split), info.num_examples)
    contents = Contents(builder.info.full_name, *halves, left_out)
    return ImageDataset(labels, train, held, contents)


def _prepared_split(builder, split: str) -> Split:
    size = builder.info.splits[split].num_examples
    source = f"{builder.info.full_name} {split}"
    opener = tfds_records.record_opener(builder)
    fetch = tfds_records.record_fetcher(builder, split)
    return Split(size, fetch, lambda _, record: opener(record), source)


def _open_folder(root: Path, validation_split: float, seed: int) -> ImageDataset:
    found = folders.find_splits(root, validation_split, seed)
    labels = sorted(found.train or found.validation)
    train = folder_split(found.train, labels) if found.train else None
    validation = folder_split(found.validation, labels)
    turned = _turned([split.files for split in (train, validation) if split])
    contents = Contents(str(root), *found.halves, found.left_out, turned)
    return ImageDataset(labels, train, validation, contents)


def _turned(halves: list[list[str]]) -> tuple[int, int]:
    """Counts the images of a sample that ask to be turned; returns them, and the sample's size."""
    files = [file for half in halves for file in half]
    sample = files[:: -(-len(files) // SAMPLED)]
    return sum(orientation_of(file) != 1 for file in sample), len(sample)


def folder_split(images: folders.Images, labels: list[str]) -> Split:
    """Makes a split of image files.

    Args:
        images: Files of each class.
        labels: Class names in the order of the label numbers.

    Returns:
        A split with the files of one class after those of another.
    """
    number_of = {name: number for number, name in enumerate(labels)}
    files = [file for found in images.values() for file in found]
    counts = [len(found) for found in images.values()]
    numbers = np.repeat(np.array([number_of[name] for name in images], "int64"), counts)
    paths = tf.constant([os.fsencode(file) for file in files])
    classes = tf.constant(numbers)

    def read_file(number, path):
        return tf.io.read_file(path), tf.gather(classes, number)

    return Split(
        len(files), lambda some: tf.gather(paths, some), read_file, files=files, labels=numbers
    )
