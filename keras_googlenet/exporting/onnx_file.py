"""An ONNX file, written by Keras through tf2onnx."""

import tempfile
import warnings
from pathlib import Path

import keras
import numpy as np

from keras_googlenet.exporting.agreement import TOLERANCE, Agreement, Run, SampleImages, compare
from keras_googlenet.exporting.formats import converting, labels_of, optional, replacing_with_labels
from keras_googlenet.exporting.serving_network import answering_network, exported_network

OPSET = 17  # of ONNX 1.12, 2022: no operator here needs a later one


def export_onnx(
    model: keras.Model,
    path: str | Path,
    labels: list[str] | None = None,
    pictures: SampleImages | None = None,
) -> tuple[Path, Agreement]:
    """Writes an ONNX file with its labels beside it.

    Input `image`, float32 `(n, size, size, 3)` RGB in [0, 255]; output `probabilities`, float32
    `(n, classes)`. The preprocessing is inside.

    Args:
        model: Any GoogLeNet; the main head is exported.
        path: File to write, `.onnx`.
        labels: Class names, written to `<name>.labels.txt`; `default_labels` if not given.
        pictures: What to compare on, in ONNX Runtime; `sample_images` if not given.

    Returns:
        The file, and how it compares with `model`.

    Raises:
        UserError: If a probability differs by more than `TOLERANCE`, packages are missing, or
            labels and classes are not equally many; nothing is written then.
    """
    model = exported_network(model)
    path, labels = Path(path), labels_of(model, labels)
    with converting("ONNX"):
        content = onnx_bytes(model)
        run = _run(content)
    agreement = compare(model, run, TOLERANCE, pictures)
    with replacing_with_labels(path, labels) as file:
        file.write_bytes(content)
    return path, agreement


def _run(content: bytes) -> Run:
    session = optional("onnxruntime").InferenceSession(content)
    return lambda images: session.run(["probabilities"], {"image": images})[0]


def onnx_bytes(model: keras.Model) -> bytes:
    """Returns the content of the ONNX file of a network.

    Args:
        model: Any GoogLeNet; the main head is converted.
    """
    optional("tf2onnx")
    network = answering_network(model)
    network(np.zeros((1, *network.inputs[0].shape[1:]), "float32"))  # Keras wants it called once
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of Keras' patches for tf2onnx
        path = Path(folder) / "network.onnx"
        network.export(path, format="onnx", opset_version=OPSET, verbose=False)
        return path.read_bytes()
