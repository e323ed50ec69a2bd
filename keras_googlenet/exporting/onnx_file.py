"""An ONNX file, written operation by operation from the inference graph."""

from pathlib import Path

import keras
import numpy as np

from keras_googlenet.exporting import graph as inference
from keras_googlenet.exporting.agreement import TOLERANCE, Agreement, Pictures, Run, compare
from keras_googlenet.exporting.labelled import labels_of, replacing_with_labels
from keras_googlenet.exporting.optional import optional
from keras_googlenet.imagenet import preprocess_input

OPSET, IR_VERSION = 17, 8  # of ONNX 1.12, 2022: no operator here needs a later one


def export_onnx(
    model: keras.Model,
    path: str | Path,
    labels: list[str] | None = None,
    pictures: Pictures | None = None,
) -> tuple[Path, Agreement]:
    """Writes an ONNX file with its labels beside it.

    Input `image`, float32 `(n, size, size, 3)` RGB in [0, 255]; output `probabilities`, float32
    `(n, classes)`. The preprocessing is inside.

    Args:
        model: Any GoogLeNet; the main head is exported.
        path: File to write, `.onnx`.
        labels: Class names, written to `<name>.labels.txt`; `default_labels` if not given.
        pictures: What to compare on, in ONNX Runtime; `sample_pictures` if not given.

    Returns:
        The file, and how it compares with `model`.

    Raises:
        UserError: If a probability differs by more than `TOLERANCE`, packages are missing, or
            labels and classes are not equally many; nothing is written then.
    """
    path, labels = Path(path), labels_of(model, labels)
    content = onnx_bytes(inference.inference_graph(model))
    agreement = compare(model, _run(content), TOLERANCE, pictures)
    with replacing_with_labels(path, labels) as file:
        file.write_bytes(content)
    return path, agreement


def _run(content: bytes) -> Run:
    session = optional("onnxruntime").InferenceSession(content)
    return lambda images: session.run(["probabilities"], {"image": images})[0]


def onnx_bytes(graph: inference.Graph) -> bytes:
    """Returns the content of the ONNX file of an inference graph."""
    onnx = optional("onnx")
    writer = _Writer(onnx, graph.image_size)
    writer.preprocess(graph.variant)
    for step in graph.steps:
        writer.add(step)
    last = graph.steps[-1].name
    writer.node("Identity", [last], "probabilities")
    describe, kind = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    size = graph.image_size
    content = onnx.helper.make_graph(
        writer.nodes,
        "googlenet",
        [describe("image", kind, ["n", size, size, 3])],
        [describe("probabilities", kind, ["n", graph.classes])],
        writer.arrays,
    )
    opset = onnx.helper.make_opsetid("", OPSET)
    model = onnx.helper.make_model(content, opset_imports=[opset], ir_version=IR_VERSION)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


class _Writer:
    """Collects nodes and arrays; ONNX has channels before height and width."""

    def __init__(self, onnx, image_size: int):
        self.onnx = onnx
        self.nodes, self.arrays = [], []
        self.sides = {inference.IMAGE: image_size}  # of the map that a step gives

    def node(self, kind: str, inputs: list[str], output: str, **attributes):
        self.nodes.append(
            self.onnx.helper.make_node(kind, inputs, [output], name=output, **attributes)
        )

    def array(self, name: str, value: np.ndarray) -> str:
        value = np.ascontiguousarray(value, "float32")
        self.arrays.append(self.onnx.numpy_helper.from_array(value, name))
        return name

    def preprocess(self, variant: str):
        """Scales and shifts as `preprocess_input`, and puts the channels first."""
        shift = preprocess_input(np.zeros(3, "float32"), variant)
        scale = (preprocess_input(np.full(3, 255, "float32"), variant) - shift) / 255
        self.node("Mul", ["image", self.array("scale", scale)], "scaled")
        self.node("Add", ["scaled", self.array("shift", shift)], "preprocessed")
        self.node("Transpose", ["preprocessed"], "channels_first", perm=[0, 3, 1, 2])

    def add(self, step: inference.Step):
        name, operation, inputs = step
        inputs = ["channels_first" if source == inference.IMAGE else source for source in inputs]
        side = self.sides.get(step.inputs[0])
        match operation:
            case inference.Convolution():
                side = self.convolution(name, operation, inputs, side)
            case inference.MaxPool(window, strides):
                pads, side = _padding("same", side, window, strides)
                square = {"kernel_shape": [window] * 2, "strides": [strides] * 2}
                self.node("MaxPool", inputs, name, pads=pads, **square)
            case inference.LocalResponse():
                self.local_response(name, operation, inputs[0])
            case inference.Concatenate():
                self.node("Concat", inputs, name, axis=1)
            case inference.Mean():
                self.node("GlobalAveragePool", inputs, f"{name}_mean")
                self.node("Flatten", [f"{name}_mean"], name)
            case inference.Dense():
                self.dense(name, operation, inputs)
        self.sides[name] = side

    def convolution(self, name: str, operation, inputs: list[str], side: int) -> int:
        kernel, bias, strides, padding, relu = operation
        pads, side = _padding(padding, side, len(kernel), strides)
        weights = [
            self.array(f"{name}_kernel", kernel.transpose(3, 2, 0, 1)),
            self.array(f"{name}_bias", bias),
        ]
        output = f"{name}_sum" if relu else name
        self.node("Conv", [*inputs, *weights], output, pads=pads, strides=[strides] * 2)
        if relu:
            self.node("Relu", [output], name)
        return side

    def local_response(self, name: str, operation, x: str):
        """Writes the sum over neighbours as a convolution, which ONNX Runtime does faster than LRN.

        The power is made of square roots where it can be.
        """
        self.node("Mul", [x, x], f"{name}_squares")
        weights = [
            self.array(f"{name}_band", operation.band()[..., None, None]),
            self.array(f"{name}_bias", np.full(operation.channels, operation.bias)),
        ]
        self.node("Conv", [f"{name}_squares", *weights], f"{name}_energy")
        if operation.beta in (0.5, 0.75):
            divisor = f"{name}_root"
            self.node("Sqrt", [f"{name}_energy"], divisor)
            if operation.beta == 0.75:
                self.node("Sqrt", [divisor], f"{name}_fourth_root")
                self.node("Mul", [divisor, f"{name}_fourth_root"], f"{name}_product")
                divisor = f"{name}_product"
        else:
            divisor = f"{name}_power"
            beta = self.array(f"{name}_beta", np.array(operation.beta))
            self.node("Pow", [f"{name}_energy", beta], divisor)
        self.node("Div", [x, divisor], name)

    def dense(self, name: str, operation, inputs: list[str]):
        weights = [
            self.array(f"{name}_kernel", operation.kernel),
            self.array(f"{name}_bias", operation.bias),
        ]
        self.node("Gemm", [*inputs, *weights], f"{name}_logits")
        kind = {"softmax": "Softmax", "sigmoid": "Sigmoid"}[operation.activation]
        self.node(kind, [f"{name}_logits"], name)


def _padding(padding: int | str, side: int, window: int, strides: int) -> tuple[list[int], int]:
    """Returns zeros at top, left, bottom and right, and the side of the result."""
    if padding != "same":
        return [padding] * 4, (side + 2 * padding - window) // strides + 1
    result = -(-side // strides)
    total = max((result - 1) * strides + window - side, 0)
    before = total // 2  # TensorFlow puts the odd one behind
    return [before, before, total - before, total - before], result
