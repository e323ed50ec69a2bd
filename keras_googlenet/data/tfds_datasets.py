"""Data sets of TensorFlow Datasets: from a name to a builder whose data is on disk.

What cannot be used for image classification is refused before it is downloaded.
"""

import contextlib
import importlib
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import downloader
from tensorflow_datasets.core.utils import version as versions

from keras_googlenet.data import tfds_errors
from keras_googlenet.data.folder_splits import split_named
from keras_googlenet.data.image_files import READ_ERRORS
from keras_googlenet.data.listing import is_prepared, made_by_tfds, prepared_versions
from keras_googlenet.data.tfds_records import record_fetcher, record_opener
from keras_googlenet.errors import UserError
from keras_googlenet.labels import read_labels

RETRIES = 6  # of a download: 12 seconds; the 10 of TensorFlow Datasets take 200 silent seconds
CHANNELS = (1, 3, None)  # None: as each file has them
_UNLABELED = -1  # the label that TensorFlow Datasets gives to examples whose class is secret
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def open_builder(name: str, data_dir: str | None = None) -> tfds.core.DatasetBuilder:
    """Opens a data set for image classification, preparing it on first use.

    Args:
        name: What `tfds.builder` takes (`mnist`, `imagenette/160px-v2`, `cifar10:3.*.*`, …), or a
            folder that TensorFlow Datasets prepared, with its version (`mnist/3.0.1`) or without.
        data_dir: Where TensorFlow Datasets keeps its files, also `gs://…`; `TFDS_DATA_DIR` or
            `~/tensorflow_datasets` if not given.

    Returns:
        A builder whose features are an `image` and a `label`, and whose files are complete.

    Raises:
        UserError: If there is no such data set, it has no labeled images, or it cannot be
            downloaded, prepared or read.
    """
    importlib.import_module("keras_googlenet.data.shapes")  # registers the built-in builder
    name, data_dir = _expanded(name), data_dir and _expanded(data_dir)
    builder = _find_builder(name, data_dir)
    _check_features(builder, name)
    builder = _prepare(builder, name, lambda: _find_builder(name, data_dir))
    with _explained(lambda error: tfds_errors.preparing_error(error, name, builder)):
        _check_files(builder, name)
    if not builder.info.features["label"].num_classes:
        raise UserError(f"the data set {name} does not say what its classes are; give another.")
    return builder


def choose_splits(
    builder: tfds.core.DatasetBuilder, validation_split: float
) -> tuple[str | None, str]:
    """Returns the training set, if any, and the validation set, as TensorFlow Datasets writes them.

    Where a data set has neither `validation` nor `test`, the last whole percents of `train` are
    held out; with 0 all of it is evaluated. Raises UserError if no split has labels, or one of the
    two is empty.
    """
    splits = builder.info.splits
    training = _first_split(builder, "train")
    validation = _first_split(builder, "validation", "test")
    if validation is None and training and validation_split:
        cut = round(100 * (1 - validation_split))
        training, validation = f"{training}[:{cut}%]", f"{training}[{cut}%:]"
    elif validation is None:
        (*others, last) = splits
        only = last if not others and _is_labeled(builder, last) else None
        training, validation = None, training or only
    if validation is None:
        raise UserError(
            f"the data set {builder.info.full_name} has no split to evaluate; it has "
            f"{', '.join(splits)}, and train, validation or test with labels is needed."
        )
    for split in filter(None, (training, validation)):
        if not splits[split].num_examples:
            raise UserError(
                f"{split} of the data set {builder.name} holds no image; give another "
                "--validation-split, of whole percents."
            )
    return training, validation


def class_names(builder: tfds.core.DatasetBuilder) -> list[str]:
    """Returns the names of the classes from the file beside the data, where there is one.

    TensorFlow Datasets makes up names if the file is not exactly as it would write it. Raises
    UserError if the file names more or fewer classes than there are.
    """
    names = list(builder.info.features["label"].names)
    file = Path(builder.data_dir) / "label.labels.txt"
    if not file.is_file():
        return names
    labels = read_labels(file)
    if len(labels) != builder.info.features["label"].num_classes:
        raise UserError(
            f"{file} names {len(labels)} classes, but the data set has {len(names)}; prepare it "
            "again, or get another copy."
        )
    return labels


def _first_split(builder, *kinds: str) -> str | None:
    """Returns the split of the first kind that there is; of several the one with the shortest name.

    A validation set must have labels.
    """
    for kind in kinds:
        for split in sorted(builder.info.splits, key=lambda name: (len(name), name)):
            if split_named(split) == kind and (kind == "train" or _is_labeled(builder, split)):
                return split
    return None


def _is_labeled(builder, split: str) -> bool:
    """Whether the images of a split have labels: those of ImageNet's `test` do not."""
    if not builder.info.splits[split].num_examples:
        return False
    try:
        first = record_fetcher(builder, split)(tf.constant([0], tf.int64))[0]
        _, label = record_opener(builder)(first)
    except READ_ERRORS as error:
        raise UserError(
            f"the first record of {split} in {builder.data_path} cannot be read; check that "
            "its files can be opened, or prepare the data set again."
        ) from error
    return int(label) != _UNLABELED


def _expanded(path: str) -> str:
    return os.path.expanduser(path.removeprefix("file://"))


def _find_builder(name: str, data_dir: str | None) -> tfds.core.DatasetBuilder:
    where = data_dir or str(tfds.core.constants.DATA_DIR)
    with _explained(lambda error: tfds_errors.opening_error(error, name, where)):
        builder = _builder_of(name, data_dir)
        _ = builder.info.features, builder.info.splits  # made on first access
    return builder


@contextlib.contextmanager
def _explained(explain: Callable[[Exception], UserError]):
    """Turns what TensorFlow Datasets raises, which may be anything, into a UserError."""
    try:
        with contextlib.redirect_stdout(sys.stderr):  # standard output is for results
            yield
    except UserError:
        raise
    except Exception as error:
        raise explain(error) from error


def _builder_of(name: str, data_dir: str | None) -> tfds.core.DatasetBuilder:
    """Opens a prepared folder, or else a name, or else a folder of prepared folders."""
    if _ADDRESS.match(name):
        return tfds.builder_from_directory(_remote_version(name))
    folder = Path(name)
    if is_prepared(folder):
        return tfds.builder_from_directory(folder)
    try:
        return tfds.builder(name, data_dir=data_dir)
    except (ValueError, AssertionError):
        if not made_by_tfds(folder):
            raise
    return tfds.builder_from_directory(_only_version(folder))


def _remote_version(address: str) -> str:
    """Returns the address of the newest version below an address, or the address itself."""
    below = versions.list_all_versions(address)
    return f"{address.rstrip('/')}/{max(below)}" if below else address


def _only_version(folder: Path) -> Path:
    prepared = prepared_versions(folder)
    if not prepared:
        raise UserError(
            f"{folder} holds a data set whose preparation was cut off; give its name and "
            f"--data-dir {folder.parent}, and it is prepared again."
        )
    if len(prepared) > 1:
        raise UserError(
            f"{folder} holds several data sets ({', '.join(map(str, prepared))}); give one of them."
        )
    return prepared[0]


def _check_features(builder, name: str):
    """Refuses a data set that is not of images with one class each."""
    features = builder.info.features
    has = dict(features) if isinstance(features, tfds.features.FeaturesDict) else {}
    image, label = has.get("image"), has.get("label")
    described = ", ".join(f"{name} ({type(feature).__name__})" for name, feature in has.items())
    if type(image) is not tfds.features.Image or type(label) is not tfds.features.ClassLabel:
        raise UserError(
            f"the data set {name} has no `image` with a class `label`, so it is not one for image "
            f"classification; give one that is. It has {described or features}."
        )
    if image.shape[-1] not in CHANNELS or image.np_dtype not in (np.uint8, np.uint16):
        raise UserError(
            f"the images of the data set {name} have {image.shape[-1]} channels of "
            f"{np.dtype(image.np_dtype)}; give one with color or gray images of 8 or 16 bits."
        )


def _prepare(builder, name: str, reopen: Callable[[], tfds.core.DatasetBuilder]):
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    with _explained(lambda error: tfds_errors.preparing_error(error, name, builder)):
        if builder.data_path.exists():
            return builder
        _check_version(builder, name)
        downloader.MAX_RETRIES = min(downloader.MAX_RETRIES, RETRIES)
        try:
            builder.download_and_prepare()
        except Exception:
            if not is_prepared(Path(builder.data_dir)):
                raise
            return reopen()  # another process prepared it first
    return builder


def _check_version(builder, name: str):
    """Refuses a version that can be read but no longer prepared, before it is downloaded."""
    newest = (builder.canonical_version, max(builder.versions))
    if builder.version not in newest or builder.version.tfds_version_to_prepare:
        can = ", ".join(dict.fromkeys(f"{builder.name}:{version}" for version in newest))
        raise UserError(
            f"version {builder.version} of the data set {name} is not in {builder.data_dir_root}, "
            f"and the installed TensorFlow Datasets can no longer prepare it; give {can}."
        )


def _check_files(builder, name: str):
    """Refuses a data set with missing or cut off files, before the first step."""
    folder, info = builder.data_path, builder.info
    present = {file.name for file in folder.iterdir()}
    again = f"remove {folder}, and the data set {name} is prepared again."
    if _ADDRESS.match(name) or os.path.isdir(name):
        again = "prepare it again, or get another copy."
    if "dataset_info.json" not in present or not info.splits:
        raise UserError(f"{folder} was not prepared completely; {again}")
    is_remote = bool(_ADDRESS.match(str(folder)))
    for split in info.splits.values():
        files = split.filepaths
        missing = [file.name for file in files if file.name not in present]
        if missing:
            raise UserError(
                f"{len(missing)} files of {folder} are missing, such as {missing[0]}; {again}"
            )
        sizes = [] if is_remote else [os.path.getsize(file) for file in files]
        lengths = zip(files, sizes, split.shard_lengths, strict=False)
        empty = [file.name for file, size, length in lengths if length and not size]
        if empty:
            raise UserError(f"{folder / empty[0]} is empty; {again}")
        if (
            sizes
            and info.file_format is tfds.core.FileFormat.TFRECORD
            and sum(sizes) < split.num_bytes
        ):
            raise UserError(
                f"the files of {split.name} in {folder} are cut off: {sum(sizes):,} of "
                f"{int(split.num_bytes):,} bytes; {again}"
            )
