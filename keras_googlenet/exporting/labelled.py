"""A file with the names of its classes beside it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import keras

from keras_googlenet.atomic import replacing
from keras_googlenet.imagenet import default_labels, labels_path, write_labels


@contextlib.contextmanager
def replacing_with_labels(
    path: Path, model: keras.Model, labels: list[str] | None
) -> Iterator[Path]:
    """Does what `replacing` does for a file, and writes `<name>.labels.txt` beside it.

    Args:
        path: File to make.
        model: Whose main head has the classes.
        labels: Their names; `default_labels` if `None`.

    Yields:
        A path of the same name to write to.

    Raises:
        WriteError: If the place cannot be written to, or is full.
    """
    with replacing(labels_path(path)) as labels_file, replacing(path) as file:
        write_labels(labels_file, labels or default_labels(model.outputs[0].shape[-1]))
        yield file
