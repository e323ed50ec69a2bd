"""What the export formats have in common: labels beside the file, optional packages."""

import contextlib
import importlib
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import keras

from keras_googlenet.atomic import replacing
from keras_googlenet.errors import UserError
from keras_googlenet.labels import default_labels, labels_path, write_labels


def optional(package: str) -> ModuleType:
    """Imports a package of requirements-serving.txt.

    Raises:
        UserError: If it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UserError(
            f"this format needs the package {package}; install it with "
            "`python -m pip install -r requirements-serving.txt`."
        ) from error


@contextlib.contextmanager
def converting(kind: str):
    """Runs a converter, which may not know an operation of the preprocessing inside a network.

    Args:
        kind: What is written, by name.

    Raises:
        UserError: If the block fails in any way but for the place that is written to.
    """
    try:
        yield
    except (UserError, OSError):
        raise
    except Exception as error:  # TensorFlow, tf2onnx and the runtimes raise almost anything
        reason = textwrap.shorten(str(error), 200, placeholder=" …")
        raise UserError(
            f"the network cannot be written as {kind} ({reason}); write a SavedModel, or take the "
            "preprocessing out of the network and apply it to the images."
        ) from error


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
