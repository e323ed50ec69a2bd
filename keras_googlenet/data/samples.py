"""A few pictures of a data set, spread over all of it."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_googlenet.data import datasets, folders, preprocessing
from keras_googlenet.errors import UserError
from keras_googlenet.imagenet import split_label


class Sample(NamedTuple):
    """Pictures and what is on them.

    Attributes:
        images: `(n, size, size, 3)` float32 RGB in [0, 255], as they are evaluated.
        classes: `(n,)` int64, or `None` if the classes are not known.
    """

    images: np.ndarray
    classes: np.ndarray | None


def read_sample(
    split: datasets.Split, names: list[str], labels: list[str], image_size: int, count: int
) -> Sample:
    """Reads pictures at equal distances from a split.

    Args:
        split: What to read.
        names: Class names of the split.
        labels: Those of a model; classes are told apart by wnid where there is one.
        image_size: Side of the pictures.
        count: Pictures at most.

    Returns:
        Pictures with their classes among `labels`; classes are `None` if one is not among them.
    """
    numbers = {_key(label): number for number, label in enumerate(labels)}
    known = [numbers.get(_key(name)) for name in names]
    spread = split.examples.shard(-(-split.size // count), 0)
    images, classes = [], []
    for source, label in spread:
        try:
            image = preprocessing.decode(split.read(source))
        except tf.errors.OpError as error:
            raise UserError("an image of the data set cannot be decoded.") from error
        images.append(preprocessing.evaluation_view(image, image_size).numpy())
        classes.append(known[int(label)])
    return Sample(np.stack(images), None if None in known else np.asarray(classes, "int64"))


def open_pictures(folder: str) -> datasets.ImageDataset | None:
    """Opens a folder with images right inside as one class without a name.

    Returns:
        The data set; `None` if there are none right inside.
    """
    if not any(path.suffix.lower() in folders.SUFFIXES for path in Path(folder).iterdir()):
        return None
    images = {"": folders.list_images([folder])}
    return datasets.ImageDataset([""], None, datasets.folder_split(images, [""]))


def _key(label: str) -> str:
    wnid, name = split_label(label)
    return wnid or name
