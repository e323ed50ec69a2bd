"""A LiteRT (TensorFlow Lite) file for phones and small computers."""

import tempfile
from collections import Counter
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_googlenet.errors import UserError
from keras_googlenet.exporting.agreement import TOLERANCE, Agreement, Run, SampleImages, compare
from keras_googlenet.exporting.formats import converting, labels_of, replacing_with_labels
from keras_googlenet.exporting.serving_network import answering_network, exported_network
from keras_googlenet.layers import LocalResponseNormalization
from keras_googlenet.normal_form import preprocess_for

COARSEST = 0.1  # largest step, as a share of the least energy, that needs no second range
STEPS = 255  # of an eight-bit tensor
CEILING = 6.0  # where RELU6 cuts off: the one ceiling that LiteRT fuses into a convolution
BATCH_SIZE = 8  # images that ranges are found on at once


class IntegerNormalization(LocalResponseNormalization):
    """A local response normalization for integers.

    Args:
        split: Energy, `bias + alpha * sum of squares`, where the second range begins; `None` for
            one range.
        **kwargs: Arguments of `LocalResponseNormalization`.
    """

    def __init__(self, split: float | None, **kwargs):
        super().__init__(**kwargs)
        self.split = split

    def call(self, inputs, training=None):
        """Normalizes `(n, h, w, channels)`.

        With two ranges, `energy ** -beta` is the product of the power of the energy below the
        split and the power of what it exceeds the split by, as a factor; both are exact. Powers
        of `CEILING` cancel out.
        """
        if self.split is None:
            return self._over_power(inputs, self._scaled_energy(inputs))
        largest_input = np.sqrt((self.split - self.bias) / self.alpha)  # it alone fills the range
        unit = largest_input / CEILING
        cut_off = tf.nn.relu6(inputs * np.float32(1 / unit))
        fine = tf.nn.relu6(self._scaled_energy(cut_off, CEILING / self.split, unit))
        coarse = self._scaled_energy(inputs, 1 / CEILING)
        coarse = tf.maximum(coarse, np.float32(self.split / CEILING))
        return self._over_power(self._over_power(inputs, fine), coarse)

    def _scaled_energy(self, x: tf.Tensor, factor: float = 1.0, unit: float = 1.0) -> tf.Tensor:
        """The energy of each value of `x`, which counts in `unit`s, times `factor`."""
        band = tf.constant(self.band * np.float32(factor * unit**2))
        bias = tf.constant(self.bias * factor, tf.float32, (x.shape[-1],))
        return tf.nn.bias_add(tf.nn.conv2d(x * x, band, 1, "SAME"), bias)

    def _over_power(self, x: tf.Tensor, energy: tf.Tensor) -> tf.Tensor:
        """Returns `x / energy ** beta`.

        LiteRT looks integer LOG and EXP up in tables, but computes RSQRT and SQRT value by value:
        the former alone took four fifths of the network's time, the latter a fifth of what was
        left. `x` is multiplied by half the power twice, because the converter would give the
        whole power the range of the result, which leaves nothing of it.
        """
        half = tf.exp(-self.beta / 2 * tf.math.log(energy))
        return (x * half) * half


def integer_normalizations(
    model: keras.Model, calibration: np.ndarray
) -> dict[str, IntegerNormalization]:
    """Makes the forms for integers of a network's local response normalizations.

    Args:
        model: Any GoogLeNet.
        calibration: `(n, size, size, 3)` float32 RGB in [0, 255], which tell the ranges.

    Returns:
        The layers by the names of those that they take the place of.
    """
    network = exported_network(model)
    norms = [one for one in network.layers if isinstance(one, LocalResponseNormalization)]
    largest = {norm.name: _largest_energy(network, norm, calibration) for norm in norms}
    return {
        norm.name: IntegerNormalization(
            _split(norm.bias, largest[norm.name]), **norm.get_config() | {"dtype": "float32"}
        )
        for norm in norms
    }


def _largest_energy(network, norm: LocalResponseNormalization, calibration: np.ndarray) -> float:
    below = keras.Model(network.inputs[0], norm.input)
    batches = np.split(calibration, range(BATCH_SIZE, len(calibration), BATCH_SIZE))
    maps = (below(preprocess_for(network, batch)) for batch in batches)
    squares = (np.square(keras.ops.convert_to_numpy(x).astype("float32")) for x in maps)
    return max(float((norm.bias + x @ norm.band[0, 0]).max()) for x in squares)


def _split(bias: float, largest: float) -> float | None:
    """The split that gives the lower ends of both ranges the same share of a step."""
    if largest / STEPS <= COARSEST * bias:
        return None
    return float(np.sqrt(largest * bias))


# Greatest difference of a probability, for each kind of quantization.
TOLERANCES = {"none": TOLERANCE, "float16": 0.02, "dynamic": 0.25, "int8": 0.5}

IO_TYPES = {"float32": tf.float32, "uint8": tf.uint8, "int8": tf.int8}


def export_litert(
    model: keras.Model,
    path: str | Path,
    labels: list[str] | None = None,
    quantize: str = "none",
    pictures: SampleImages | None = None,
    io: str = "float32",
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
        pictures: What to compare on; `sample_images` if not given. "int8" needs them: every
            other one tells the ranges of the activations, the rest are compared on.
        io: Type of the input and the output of an "int8" file. With "uint8" the input is the
            pixels as they are and the output counts in 1/256; with "int8" both are less by 128,
            as microcontrollers and accelerators want it.

    Returns:
        The file, and how it compares with `model`.

    Raises:
        UserError: If a probability differs by more than `TOLERANCES` allow, "int8" has no
            pictures, or labels and classes are not equally many; nothing is written then.
    """
    model = exported_network(model)
    path, labels = Path(path), labels_of(model, labels)
    calibration = None
    if io != "float32" and quantize != "int8":
        raise UserError(f'io="{io}" is for quantize="int8", not "{quantize}"; leave it out.')
    if quantize == "int8":
        calibration, pictures = halves(pictures)
    with converting("LiteRT"):
        content = litert_bytes(model, quantize, calibration, io)
        run = runner(content)
    agreement = compare(model, run, TOLERANCES[quantize], pictures)
    with replacing_with_labels(path, labels) as file:
        file.write_bytes(content)
    return path, agreement


def halves(pictures: SampleImages | None) -> tuple[np.ndarray, SampleImages]:
    """Splits pictures into those to calibrate with and those to compare on.

    Raises:
        UserError: If there are fewer than two.
    """
    if pictures is None or len(pictures.images) < 2:
        raise UserError("int8 needs pictures to find ranges with; give two or more.")
    images, classes, origin = pictures
    rest = SampleImages(images[1::2], None if classes is None else classes[1::2], origin)
    return images[::2], rest


def litert_bytes(
    model: keras.Model,
    quantize: str = "none",
    calibration: np.ndarray | None = None,
    io: str = "float32",
) -> bytes:
    """Returns the content of the LiteRT file of a network.

    Args:
        model: Any GoogLeNet; the main head is converted.
        quantize: As in `export_litert`.
        calibration: `(n, size, size, 3)` float32 RGB in [0, 255], which tell "int8" its ranges.
        io: As in `export_litert`.
    """
    replacements = integer_normalizations(model, calibration) if quantize == "int8" else None
    network = answering_network(model, replacements=replacements)
    image = keras.Input(network.inputs[0].shape[1:], name="image")
    network = keras.Model(image, network(_SizeCheck()(image)))
    options = converter_options(quantize, calibration, io)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.tflite"
        network.export(path, format="litert", verbose=False, **options)
        return path.read_bytes()


class _SizeCheck(keras.layers.Layer):
    """Lets images of one size alone pass.

    LiteRT has no operator that checks, and its Python runner resizes the input to whatever comes:
    images of one channel, or of another size, would be answered. Concatenation wants equal sizes.
    """

    def call(self, images):
        none = tf.zeros((1, *images.shape[1:]), images.dtype)
        return tf.concat([none, images], axis=0)[1:]

    def compute_output_shape(self, input_shape):
        return input_shape


def converter_options(quantize: str, calibration: np.ndarray | None, io: str) -> dict:
    """Returns the attributes of TensorFlow's converter for a kind of quantization."""
    kinds = (
        tf.lite.OpsSet.TFLITE_BUILTINS_INT8
        if quantize == "int8"
        else tf.lite.OpsSet.TFLITE_BUILTINS
    )
    options = {"target_spec": {"supported_ops": [kinds]}}
    if quantize != "none":
        options["optimizations"] = [tf.lite.Optimize.DEFAULT]
    if quantize == "float16":
        options["target_spec"]["supported_types"] = [tf.float16]
    if quantize == "int8":
        images = with_all_values(calibration)
        options["representative_dataset"] = lambda: ([image[None]] for image in images)
        options["inference_input_type"] = options["inference_output_type"] = IO_TYPES[io]
    return options


def with_all_values(images: np.ndarray) -> np.ndarray:
    """Puts black and white into a corner of the first image, so that a step is one pixel value."""
    images = images.copy()
    images[0, 0, :2] = [[0], [255]]
    return images


def runner(content: bytes) -> Run:
    """Loads a LiteRT file and returns what calls it, with images and probabilities in float32."""
    from ai_edge_litert.interpreter import Interpreter

    serve = Interpreter(model_content=content).get_signature_runner("serving_default")
    image = serve.get_input_details()["image"]
    probabilities = serve.get_output_details()["probabilities"]

    def run(images):
        answer = serve(image=_quantized(images, image))["probabilities"]
        return _dequantized(answer, probabilities)

    return run


def _quantized(values: np.ndarray, tensor: dict) -> np.ndarray:
    scale, zero = tensor["quantization"]
    if not scale:
        return values.astype(tensor["dtype"], copy=False)
    limits = np.iinfo(tensor["dtype"])
    return np.clip(np.rint(values / scale) + zero, limits.min, limits.max).astype(tensor["dtype"])


def _dequantized(values: np.ndarray, tensor: dict) -> np.ndarray:
    scale, zero = tensor["quantization"]
    return (values.astype("float32") - zero) * scale if scale else values


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
