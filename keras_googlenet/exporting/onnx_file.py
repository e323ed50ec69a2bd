"""An ONNX file, written by Keras through tf2onnx."""

import tempfile
import warnings
from pathlib import Path

import keras
import numpy as np

from keras_googlenet.exporting import formats
from keras_googlenet.exporting.agreement import Agreement, SampleImages, compare
from keras_googlenet.exporting.serving_network import serving_network
from keras_googlenet.labels import replacing_with_labels

OPSET = 17  # of ONNX 1.12, 2022: no operator here needs a later one


def export_onnx(
    model: keras.Model,
    path: str | Path,
    labels: list[str] | None = None,
    samples: SampleImages | None = None,
) -> tuple[Path, Agreement]:
    """Writes an ONNX file with its labels beside it.

    Input, output and result are those of `export_litert` without quantization.

    Args:
        model: Any GoogLeNet; the main head is exported.
        path: File to write, `.onnx`.
        labels: Class names, written to `<name>.labels.txt`; `default_labels` if not given.
        samples: Images to compare on, in ONNX Runtime; generated if not given.

    Raises:
        UserError: As `export_litert`, and if packages are missing; nothing is written then.
    """
    network = serving_network(model)
    path, labels = Path(path), formats.labels_for(network.outputs[0].shape[-1], labels)
    formats.check_installed("onnx")
    import onnxruntime

    with formats.converting("onnx"):
        content = _onnx_bytes(network)
        session = onnxruntime.InferenceSession(content)
    agreement = compare(
        model, lambda images: session.run(None, {"image": images})[0], formats.TOLERANCE, samples
    )
    with replacing_with_labels(path, labels) as file:
        file.write_bytes(content)
    return path, agreement


def _onnx_bytes(network: keras.Model) -> bytes:
    network(np.zeros((1, *network.inputs[0].shape[1:]), "float32"))  # Keras wants it called once
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of Keras' patches for tf2onnx
        path = Path(folder) / "network.onnx"
        network.export(str(path), format="onnx", opset_version=OPSET, verbose=False)
        return path.read_bytes()
