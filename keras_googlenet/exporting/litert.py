"""A LiteRT (TensorFlow Lite) file for phones and small computers."""

from collections import Counter
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_googlenet.errors import UserError
from keras_googlenet.exporting.agreement import TOLERANCE, Agreement, Pictures, Run, compare
from keras_googlenet.exporting.graph import inference_graph
from keras_googlenet.exporting.labelled import replacing_with_labels
from keras_googlenet.exporting.network import network_function

# Greatest difference of a probability, for each kind of quantisation.
TOLERANCES = {"none": TOLERANCE, "float16": 0.02, "dynamic": 0.25, "int8": 0.75}


def export_litert(
    model: keras.Model,
    path: str | Path,
    labels: list[str] | None = None,
    quantize: str = "none",
    pictures: Pictures | None = None,
) -> tuple[Path, Agreement]:
    """Writes a LiteRT file with its labels beside it.

    Input `image`, float32 `(n, size, size, 3)` RGB in [0, 255]; output `probabilities`, float32
    `(n, classes)`. The preprocessing is inside.

    Args:
        model: Any GoogLeNet; the main head is exported.
        path: File to write, `.tflite`.
        labels: Class names, written to `<name>.labels.txt`; `default_labels` if not given.
        quantize: "none"; "float16" or "dynamic" (int8) for smaller weights; "int8" for integer
            arithmetic throughout.
        pictures: What to compare on; `sample_pictures` if not given. "int8" needs them: every
            other one tells the ranges of the activations, the rest are compared on.

    Returns:
        The file, and how it compares with `model`.

    Raises:
        UserError: If a probability differs by more than `TOLERANCES` allow, or "int8" has no
            pictures; nothing is written then.
    """
    path = Path(path)
    calibration = None
    if quantize == "int8":
        calibration, pictures = _halves(pictures)
    content = _convert(model, quantize, calibration)
    agreement = compare(model, _run(content), TOLERANCES[quantize], pictures)
    with replacing_with_labels(path, model, labels) as file:
        file.write_bytes(content)
    return path, agreement


def _halves(pictures: Pictures | None) -> tuple[np.ndarray, Pictures]:
    """Splits pictures into those to calibrate with and those to compare on."""
    if pictures is None or len(pictures.images) < 2:
        raise UserError("int8 needs pictures to find ranges with; give two or more.")
    images, classes, origin = pictures
    rest = Pictures(images[1::2], None if classes is None else classes[1::2], origin)
    return images[::2], rest


def _convert(model: keras.Model, quantize: str, calibration: np.ndarray | None) -> bytes:
    rsqrt = _rsqrt_by_tables if quantize == "int8" else tf.math.rsqrt
    network = network_function(inference_graph(model), rsqrt=rsqrt)

    @tf.function(input_signature=network.input_signature, autograph=False)
    def serve(image):
        return {"probabilities": network(image)[1]}

    module = tf.Module()
    module.serve = serve
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [serve.get_concrete_function()], module
    )
    if quantize != "none":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantize == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if quantize == "int8":
        converter.representative_dataset = lambda: ([image[None]] for image in calibration)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    return converter.convert()


def _rsqrt_by_tables(x: tf.Tensor) -> tf.Tensor:
    """LiteRT looks integer LOG and EXP up in tables, but computes integer RSQRT value by value.

    That alone took four fifths of the paper's network.
    """
    return tf.exp(-0.5 * tf.math.log(x))


def _run(content: bytes) -> Run:
    from ai_edge_litert.interpreter import Interpreter

    serve = Interpreter(model_content=content).get_signature_runner("serving_default")
    return lambda images: serve(image=images)["probabilities"]


def operators(path: str | Path) -> Counter:
    """Counts the operators of a LiteRT file by name and by the type that they give.

    Example: `Counter({"CONV_2D int8": 59, "CONCATENATION int8": 9, …})`.
    """
    from ai_edge_litert import schema_py_generated as schema

    content = Path(path).read_bytes()
    model = schema.Model.GetRootAsModel(content, 0)
    names = {code: name for name, code in vars(schema.BuiltinOperator).items()}
    types = {code: name.lower() for name, code in vars(schema.TensorType).items()}
    graph, found = model.Subgraphs(0), Counter()
    for operator in map(graph.Operators, range(graph.OperatorsLength())):
        code = model.OperatorCodes(operator.OpcodeIndex())
        name = names[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
        found[f"{name} {types[graph.Tensors(operator.Outputs(0)).Type()]}"] += 1
    return found
