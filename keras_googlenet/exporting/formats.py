"""The export formats: one table, and what their modules share. Imports no TensorFlow."""

import contextlib
import importlib
import textwrap
from typing import NamedTuple

from keras_googlenet.errors import UserError
from keras_googlenet.labels import default_labels

# What a choice may change a probability by at most.
TOLERANCE = 1e-4  # float32
PRECISIONS = {"float32": TOLERANCE, "bfloat16": 0.1}
QUANTIZATIONS = {"none": TOLERANCE, "float16": 0.02, "dynamic": 0.25, "int8": 0.5}


class Option(NamedTuple):
    """An argument of an export function and flag of export.py; its default is the first value."""

    name: str
    values: tuple[str, ...]
    help: str


class Format(NamedTuple):
    """An export format, written by the function `export_<name>`.

    Attributes:
        title: What people call it.
        module: Module of this package that holds the function.
        suffix: Suffix of its file; empty for a folder of versions.
        options: Its own options.
        packages: What requirements-serving.txt must have installed.
    """

    title: str
    module: str
    suffix: str = ""
    options: tuple[Option, ...] = ()
    packages: tuple[str, ...] = ()


FORMATS = {
    "saved_model": Format(
        title="SavedModel",
        module="saved_model",
        options=(Option("precision", tuple(PRECISIONS), "precision of the convolutions"),),
    ),
    "litert": Format(
        title="LiteRT",
        module="litert",
        suffix=".tflite",
        options=(
            Option(
                "quantize",
                tuple(QUANTIZATIONS),
                "float16 or dynamic (int8) weights, or int8 arithmetic throughout",
            ),
            Option("io", ("float32", "uint8", "int8"), "type of input and output with int8"),
        ),
    ),
    "onnx": Format("ONNX", "onnx_file", ".onnx", packages=("tf2onnx", "onnxruntime")),
    "openvino": Format("OpenVINO", "openvino_file", ".xml", packages=("openvino",)),
}


def check_installed(kind: str):
    """Raises `UserError` if a package that a format needs is not installed."""
    for package in FORMATS[kind].packages:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise UserError(
                f"{FORMATS[kind].title} needs the package {package}; install it with "
                "`python -m pip install -r requirements-serving.txt`."
            ) from error


@contextlib.contextmanager
def converting(kind: str):
    """Raises `UserError` if a converter fails, as on preprocessing that the format cannot hold."""
    try:
        yield
    except (UserError, OSError):
        raise
    except Exception as error:  # TensorFlow, tf2onnx and the runtimes raise almost anything
        reason = textwrap.shorten(str(error), 200, placeholder=" …")
        raise UserError(
            f"the network cannot be written as {FORMATS[kind].title} ({reason}); write a "
            "SavedModel, or remove the preprocessing from the network and apply it to the images."
        ) from error


def labels_for(classes: int, labels: list[str] | None) -> list[str]:
    """Returns `labels`, or `default_labels` if `None`; raises `UserError` if the count differs."""
    if labels is None:
        return default_labels(classes)
    if len(labels) != classes:
        raise UserError(f"{len(labels)} labels cannot name {classes} classes; give one for each.")
    return labels
