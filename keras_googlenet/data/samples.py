"""A few images from all over a data set, for calibrating and comparing exports."""

from typing import NamedTuple

import numpy as np

from keras_googlenet.data import corrupt_images, datasets, preprocessing
from keras_googlenet.data.contents import Contents, Skipped, SplitContents
from keras_googlenet.data.image_files import READ_ERRORS
from keras_googlenet.data.listing import has_images, scan
from keras_googlenet.labels import split_label


class Sample(NamedTuple):
    """Images `(n, size, size, 3)` float32 RGB in [0, 255], and classes `(n,)` int64 if known."""

    images: np.ndarray
    classes: np.ndarray | None


def read_sample(
    split: datasets.Split, names: list[str], labels: list[str], image_size: int, count: int
) -> Sample:
    """Reads at most `count` evenly spaced images of a split as central crops.

    `names` are the classes of the split, `labels` those of a model, which are matched by wnid where
    there is one; classes are `None` if a name is not among the labels. Raises UserError if an image
    is corrupt.
    """
    index_of = {_key(label): index for index, label in enumerate(labels)}
    class_of = [index_of.get(_key(name)) for name in names]
    images, classes, corrupt = [], [], []
    indices = range(0, split.size, -(-split.size // count))
    for index in indices:
        try:
            encoded, label = split.read(index)
            image = preprocessing.decode(encoded)
        except READ_ERRORS as error:
            corrupt.append(corrupt_images.describe(split, index, error))
            continue
        images.append(preprocessing.evaluation_crop(image, image_size).numpy())
        classes.append(class_of[int(label)])
    if corrupt:
        raise corrupt_images.corrupt_error(corrupt, str(len(corrupt)), len(indices))
    return Sample(np.stack(images), None if None in class_of else np.asarray(classes, "int64"))


def open_images(folder: str) -> datasets.ImageDataset | None:
    """Opens a folder of images as one class without a name; `None` if no image is right inside."""
    if not has_images(folder):
        return None
    skipped = Skipped(folder)
    images = {"": scan(folder, skipped).all_images()}
    contents = Contents(folder, None, SplitContents("all of it", len(images[""]), 1), skipped)
    return datasets.ImageDataset([""], None, datasets.folder_split(images, [""]), contents)


def _key(label: str) -> str:
    wnid, name = split_label(label)
    return wnid or name
