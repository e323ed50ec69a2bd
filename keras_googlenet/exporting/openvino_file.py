"""OpenVINO's own format: a pair of files, `.xml` and `.bin`."""

import os
from pathlib import Path

import keras

from keras_googlenet.atomic import replacing
from keras_googlenet.errors import UserError
from keras_googlenet.exporting import formats
from keras_googlenet.exporting.agreement import Agreement, Run, SampleImages, compare
from keras_googlenet.exporting.serving_network import serving_network
from keras_googlenet.labels import replacing_with_labels


def export_openvino(
    model: keras.Model,
    path: str | Path,
    labels: list[str] | None = None,
    samples: SampleImages | None = None,
) -> tuple[Path, Agreement]:
    """Writes a network for OpenVINO with its labels beside it.

    Input, output and result are those of `export_litert` without quantization.

    Args:
        model: Any GoogLeNet; the main head is exported.
        path: File to write, `.xml`; the weights, in float32, are written to the `.bin` beside it.
        labels: Class names, written to `<name>.labels.txt`; `default_labels` if not given.
        samples: Images to compare on, in OpenVINO in float32; generated if not given.

    Raises:
        UserError: As `export_litert`, and if packages are missing; nothing is written then.
    """
    network = serving_network(model)
    path, labels = Path(path), formats.labels_for(network.outputs[0].shape[-1], labels)
    if path.suffix != ".xml":
        raise UserError(f"OpenVINO reads .xml files only; give another name than {path.name}.")
    formats.check_installed("openvino")
    weights = path.with_suffix(".bin")
    with replacing_with_labels(path, labels) as file, replacing(weights) as weights_file:
        with formats.converting("openvino"):
            network.export(str(file), format="openvino", verbose=False)
            run = _runner(file)
        agreement = compare(model, run, formats.TOLERANCE, samples)
        os.replace(file.with_suffix(".bin"), weights_file)
        path.unlink(missing_ok=True)  # better none for a moment than an old one with new weights
    return path, agreement


def _runner(file: Path) -> Run:
    import openvino

    exact = {"INFERENCE_PRECISION_HINT": "f32"}  # some processors would use bfloat16
    compiled = openvino.Core().compile_model(file, "CPU", exact)
    return lambda images: compiled({"image": images})["probabilities"]
