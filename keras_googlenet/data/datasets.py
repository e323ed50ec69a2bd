"""From the name of a data set to its two splits.

A data set is either one of TensorFlow Datasets, `shapes` among them, or a folder of class folders.
Both become a `Split`: sources of encoded images with labels, in a fixed order.
"""

import contextlib
import importlib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from keras_googlenet.data import folders
from keras_googlenet.errors import UserError

_ENCODED_IN_MEMORY = 10_000  # images; ImageNet's take 1.1 GB


_NAME = re.compile(r"\w+(/[\w+-]+)?(:\d+\.\d+\.\d+)?")  # name/config:version, as TFDS has them


class Split(NamedTuple):
    """One half of a data set.

    Attributes:
        examples: `tf.data.Dataset` of `(source, label)` scalars in a fixed order.
        size: Number of examples.
        read: Turns a source into an encoded image: TFDS gives the image itself, a folder a path.
        files: Where the images of a folder are, in the order of `examples`; `None` for TFDS.
    """

    examples: tf.data.Dataset
    size: int
    read: Callable[[tf.Tensor], tf.Tensor]
    files: list[str] | None = None

    @property
    def shuffle_buffer(self) -> int:
        """Examples that a shuffled order is drawn from.

        All of a folder, whose paths weigh nothing and stand class by class; a part of what TFDS
        holds, which stands mixed.
        """
        return self.size if self.files else min(self.size, _ENCODED_IN_MEMORY)


class ImageDataset(NamedTuple):
    """A data set for classification.

    Attributes:
        labels: Class names in the order of the label numbers.
        train: The half to learn from; `None` for a data set that is evaluated whole.
        validation: The half to measure on.
    """

    labels: list[str]
    train: Split | None
    validation: Split


def open_dataset(
    name: str, data_dir: str | None = None, validation_split: float = 0.0, seed: int = 0
) -> ImageDataset:
    """Opens a data set by name or path, preparing it on first use.

    Args:
        name: A folder, or a name that TensorFlow Datasets knows ("shapes", "imagenet2012",
            "imagenette/160px-v2", "cifar10:3.0.2", …). A folder holds `train/` and `val/`,
            `validation/` or `test/` with a folder a class inside each, or the class folders
            themselves.
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
    path = Path(name).expanduser()
    if path.is_dir():
        return _open_folder(path, validation_split, seed)
    if not _NAME.fullmatch(name):
        raise UserError(f"there is no folder {name}; give one that holds a folder for each class.")
    return _open_tfds(name, data_dir, validation_split)


def _open_folder(root: Path, validation_split: float, seed: int) -> ImageDataset:
    train, validation = folders.find_splits(root, validation_split, seed)
    labels = sorted(train or validation)
    return ImageDataset(
        labels, folder_split(train, labels) if train else None, folder_split(validation, labels)
    )


def folder_split(images: folders.Images, labels: list[str]) -> Split:
    """Makes a split of image files.

    Args:
        images: Files of each class.
        labels: Class names in the order of the label numbers.

    Returns:
        A split with the files of one class after those of another.
    """
    pairs = [(file, labels.index(name)) for name, files in images.items() for file in files]
    files, numbers = zip(*pairs, strict=True)
    examples = tf.data.Dataset.from_tensor_slices((list(files), np.asarray(numbers, "int64")))
    return Split(examples, len(pairs), read=tf.io.read_file, files=list(files))


def _open_tfds(name: str, data_dir: str | None, validation_split: float) -> ImageDataset:
    importlib.import_module("keras_googlenet.data.shapes")  # registers the built-in builder
    builder = _prepared_builder(name, data_dir)
    features, splits = builder.info.features, builder.info.splits
    if not {"image", "label"} <= set(features) or not hasattr(features["label"], "names"):
        raise UserError(
            f"the data set {name} has no `image` with a class `label`; give one for image "
            f"classification. It has {', '.join(features)}."
        )
    training = "train"
    validation = next((split for split in folders.VALIDATION_NAMES if split in splits), None)
    if validation is None and validation_split:
        cut = round(100 * (1 - validation_split))
        training, validation = f"train[:{cut}%]", f"train[{cut}%:]"
    elif validation is None:
        training, validation = None, "train"
    return ImageDataset(
        labels=list(features["label"].names),
        train=_tfds_split(builder, training) if training else None,
        validation=_tfds_split(builder, validation),
    )


def _prepared_builder(name: str, data_dir: str | None):
    try:
        builder = tfds.builder(name, data_dir=data_dir and str(Path(data_dir).expanduser()))
    except (tfds.core.registered.DatasetNotFoundError, ValueError, AssertionError) as error:
        raise UserError(
            f"TensorFlow Datasets knows no data set {name!r}, and there is no such folder; "
            f"give one of its names or a folder that holds a folder for each class."
        ) from error
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(sys.stderr):
            builder.download_and_prepare()
    except (AssertionError, tf.errors.NotFoundError, FileNotFoundError) as error:
        if not builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
            raise
        instructions = " ".join(builder.MANUAL_DOWNLOAD_INSTRUCTIONS.split())
        levels = 2 if builder.builder_config else 1  # data_dir is root/name/config/version
        manual_dir = Path(builder.data_dir).parents[levels] / "downloads" / "manual"
        raise UserError(
            f"the data set {name} must be fetched by hand into {manual_dir}: {instructions}"
        ) from error
    return builder


def _tfds_split(builder, split: str) -> Split:
    size = builder.info.splits[split].num_examples
    if not size:
        raise UserError(
            f"{split} of the data set {builder.name} holds no image; give another "
            "--validation-split, of whole percents."
        )
    skip = tfds.decode.SkipDecoding()
    wanted = tfds.decode.PartialDecoding({"image": True, "label": True}, {"image": skip})
    examples = builder.as_dataset(split=split, decoders=wanted, shuffle_files=False)
    examples = examples.map(lambda example: (example["image"], example["label"]))
    return Split(examples, size, read=tf.identity)
