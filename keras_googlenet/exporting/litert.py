"""A LiteRT (TensorFlow Lite) file for phones and small computers."""

from collections import Counter
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_googlenet.errors import UserError
from keras_googlenet.exporting.agreement import TOLERANCE, Agreement, Pictures, Run, compare
from keras_googlenet.exporting.graph import inference_graph
from keras_googlenet.exporting.integers import with_integer_norms
from keras_googlenet.exporting.labelled import labels_of, replacing_with_labels
from keras_googlenet.exporting.network import network_function

# Greatest difference of a probability, for each kind of quantisation.
TOLERANCES = {"none": TOLERANCE, "float16": 0.02, "dynamic": 0.25, "int8": 0.5}


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
        UserError: If a probability differs by more than `TOLERANCES` allow, "int8" has no
            pictures, or labels and classes are not equally many; nothing is written then.
    """
    path, labels = Path(path), labels_of(model, labels)
    calibration = None
    if quantize == "int8":
        calibration, pictures = halves(pictures)
    content = converter(model, quantize, calibration).convert()
    agreement = compare(model, runner(content), TOLERANCES[quantize], pictures)
    with replacing_with_labels(path, labels) as file:
        file.write_bytes(content)
    return path, agreement


def halves(pictures: Pictures | None) -> tuple[np.ndarray, Pictures]:
    """Splits pictures into those to calibrate with and those to compare on.

    Raises:
        UserError: If there are fewer than two.
    """
    if pictures is None or len(pictures.images) < 2:
        raise UserError("int8 needs pictures to find ranges with; give two or more.")
    images, classes, origin = pictures
    rest = Pictures(images[1::2], None if classes is None else classes[1::2], origin)
    return images[::2], rest


def converter(
    model: keras.Model, quantize: str, calibration: np.ndarray | None
) -> tf.lite.TFLiteConverter:
    """Sets TensorFlow's converter up for a network.

    Args:
        model: Any GoogLeNet; the main head is converted.
        quantize: As in `export_litert`.
        calibration: `(n, size, size, 3)` float32 RGB in [0, 255], which tell "int8" its ranges.
    """
    graph = inference_graph(model)
    if quantize == "int8":
        graph = with_integer_norms(graph, model, calibration)
    network = network_function(graph)

    @tf.function(input_signature=network.input_signature, autograph=False)
    def serve(image):
        return {"probabilities": network(image)[1]}

    module = tf.Module()
    module.serve = serve
    made = tf.lite.TFLiteConverter.from_concrete_functions([serve.get_concrete_function()], module)
    if quantize != "none":
        made.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantize == "float16":
        made.target_spec.supported_types = [tf.float16]
    if quantize == "int8":
        made.representative_dataset = lambda: ([image[None]] for image in calibration)
        made.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    return made


def runner(content: bytes) -> Run:
    """Loads a LiteRT file and returns what calls it."""
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
