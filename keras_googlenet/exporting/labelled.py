"""A file with the names of its classes beside it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import keras

from keras_googlenet.atomic import replacing
from keras_googlenet.errors import UserError
from keras_googlenet.imagenet import default_labels, labels_path, write_labels


@contextlib.contextmanager
def replacing_with_labels(path: Path, labels: list[str]) -> Iterator[Path]:
    """Does what `replacing` does for a file, and writes `<name>.labels.txt` beside it.

    Args:
        path: File to make.
        labels: Names of its classes.

    Yields:
        A path of the same name to write to.

    Raises:
        WriteError: If the place cannot be written to, or is full.
    """
    with replacing(labels_path(path)) as labels_file, replacing(path) as file:
        write_labels(labels_file, labels)
        yield file


def labels_of(model: keras.Model, labels: list[str] | None) -> list[str]:
    """Returns the names of a network's classes: `labels`, or `default_labels` if `None`.

    Raises:
        UserError: If there are more or fewer labels than classes.
    """
    classes = model.outputs[0].shape[-1]
    if labels is None:
        return default_labels(classes)
    if len(labels) != classes:
        raise UserError(f"{len(labels)} labels cannot name {classes} classes; give one for each.")
    return labels
