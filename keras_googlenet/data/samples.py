"""A few pictures of a data set, spread over all of it."""

from typing import NamedTuple

import numpy as np

from keras_googlenet.data import datasets, preprocessing
from keras_googlenet.data.contents import Contents, LeftOut, SplitContents
from keras_googlenet.data.corrupt_images import NAMED
from keras_googlenet.data.file_kinds import FIRST_BYTES
from keras_googlenet.data.image_files import READ_ERRORS, reason_of
from keras_googlenet.data.listing import has_images, scan
from keras_googlenet.errors import UserError
from keras_googlenet.labels import split_label


class Sample(NamedTuple):
    """Images and what is on them.

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
        count: SampleImages at most.

    Returns:
        Images with their classes among `labels`; classes are `None` if one is not among them.

    Raises:
        UserError: If images cannot be read; it names up to ten, each with the reason.
    """
    number_of = {_key(label): number for number, label in enumerate(labels)}
    known = [number_of.get(_key(name)) for name in names]
    images, classes, errors = [], [], []
    for number in range(0, split.size, -(-split.size // count)):
        encoded = b""
        try:
            encoded, label = split.read(number)
            image = preprocessing.decode(encoded)
        except READ_ERRORS as error:
            first_bytes = encoded and encoded.numpy()[:FIRST_BYTES]
            errors.append(f"{split.name(number)} ({reason_of(error, first_bytes)})")
            continue
        images.append(preprocessing.evaluation_crop(image, image_size).numpy())
        classes.append(known[int(label)])
    if errors:
        raise UserError(
            f"{len(errors)} of {len(images) + len(errors)} images cannot be read: "
            f"{', '.join(errors[:NAMED])}; repair or remove them."
        )
    return Sample(np.stack(images), None if None in known else np.asarray(classes, "int64"))


def open_images(folder: str) -> datasets.ImageDataset | None:
    """Opens a folder with images right inside as one class without a name.

    Returns:
        The data set; `None` if there are none right inside, which is known without a scan.
    """
    if not has_images(folder):
        return None
    left_out = LeftOut(folder)
    images = {"": scan(folder, left_out).all_images()}
    contents = Contents(folder, None, SplitContents("all of it", len(images[""]), 1), left_out)
    return datasets.ImageDataset([""], None, datasets.folder_split(images, [""]), contents)


def _key(label: str) -> str:
    wnid, name = split_label(label)
    return wnid or name
