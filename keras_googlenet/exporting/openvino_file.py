"""OpenVINO's own format: a pair of files, `.xml` and `.bin`."""

import os
from pathlib import Path

import keras

from keras_googlenet.atomic import replacing
from keras_googlenet.errors import UserError
from keras_googlenet.exporting.agreement import TOLERANCE, Agreement, Run, SampleImages, compare
from keras_googlenet.exporting.formats import converting, labels_of, optional, replacing_with_labels
from keras_googlenet.exporting.serving_network import answering_network, exported_network


def export_openvino(
    model: keras.Model,
    path: str | Path,
    labels: list[str] | None = None,
    pictures: SampleImages | None = None,
) -> tuple[Path, Agreement]:
    """Writes a network for OpenVINO with its labels beside it.

    Input `image`, float32 `(n, size, size, 3)` RGB in [0, 255]; output `probabilities`, float32
    `(n, classes)`. The preprocessing is inside. The weights stay float32.

    Args:
        model: Any GoogLeNet; the main head is exported.
        path: File to write, `.xml`; the weights go into the `.bin` beside it.
        labels: Class names, written to `<name>.labels.txt`; `default_labels` if not given.
        pictures: What to compare on, computed in float32; `sample_images` if not given.

    Returns:
        The `.xml` file, and how it compares with `model`.

    Raises:
        UserError: If a probability differs by more than `TOLERANCE`, packages are missing, or
            labels and classes are not equally many; nothing is written then.
    """
    model = exported_network(model)
    path, labels = Path(path), labels_of(model, labels)
    if path.suffix != ".xml":
        raise UserError(f"OpenVINO reads .xml files only; give another name than {path.name}.")
    openvino = optional("openvino")
    weights = path.with_suffix(".bin")
    with replacing_with_labels(path, labels) as file, replacing(weights) as weights_file:
        with converting("OpenVINO"):
            answering_network(model).export(str(file), format="openvino", verbose=False)
            run = _run(openvino, file)
        agreement = compare(model, run, TOLERANCE, pictures)
        os.replace(file.with_suffix(".bin"), weights_file)
        path.unlink(missing_ok=True)  # rather none for a moment than an old one with new weights
    return path, agreement


def _run(openvino, file: Path) -> Run:
    exact = {"INFERENCE_PRECISION_HINT": "f32"}  # some processors would take bfloat16
    compiled = openvino.Core().compile_model(file, "CPU", exact)
    return lambda images: compiled({"image": images})["probabilities"]
