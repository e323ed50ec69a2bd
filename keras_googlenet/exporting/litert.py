"""A LiteRT (TensorFlow Lite) file for phones and small computers, in float or in integers."""

import tempfile
from collections import Counter
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_googlenet.errors import UserError
from keras_googlenet.exporting import formats
from keras_googlenet.exporting.agreement import Agreement, Run, SampleImages, batched, compare
from keras_googlenet.exporting.serving_network import exported_network, serving_network
from keras_googlenet.labels import replacing_with_labels
from keras_googlenet.layers import LocalResponseNormalization
from keras_googlenet.normal_form import preprocess_for

COARSEST = 0.1  # largest step, as a share of the least energy, for which one range is enough
STEPS = 255  # of an eight-bit tensor
CEILING = 6.0  # where RELU6 cuts off: the one ceiling that LiteRT fuses into a convolution


def export_litert(
    model: keras.Model,
    path: str | Path,
    labels: list[str] | None = None,
    quantize: str = "none",
    samples: SampleImages | None = None,
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
        samples: Images to compare on; generated if not given. "int8" needs them: every other
            image calibrates the ranges of the activations, the rest are compared on.
        io: Type of the input and the output of an "int8" file. With "uint8" the input is the
            pixel values and a probability is the output / 256; with "int8" both are less by 128,
            as microcontrollers and accelerators expect.

    Returns:
        The file, and how it compares with `model`.

    Raises:
        UserError: If a probability differs by more than `formats.QUANTIZATIONS` allows, "int8" has
            no images, or there are more or fewer labels than classes; nothing is written then.
    """
    model = exported_network(model)
    path, labels = Path(path), formats.labels_for(model.outputs[0].shape[-1], labels)
    calibration = None
    if io != "float32" and quantize != "int8":
        raise UserError(f'io="{io}" is for quantize="int8", not "{quantize}"; leave it out.')
    if quantize == "int8":
        calibration, samples = split_samples(samples)
    with formats.converting("litert"):
        content = litert_bytes(model, quantize, calibration, io)
        run = runner(content)
    agreement = compare(model, run, formats.QUANTIZATIONS[quantize], samples)
    with replacing_with_labels(path, labels) as file:
        file.write_bytes(content)
    return path, agreement


def split_samples(samples: SampleImages | None) -> tuple[np.ndarray, SampleImages]:
    """Splits images into those to calibrate with and those to compare on, two at least."""
    if samples is None or len(samples.images) < 2:
        raise UserError("int8 needs images to calibrate its ranges with; give two or more.")
    images, classes, origin = samples
    rest = SampleImages(images[1::2], None if classes is None else classes[1::2], origin)
    return images[::2], rest


def litert_bytes(
    model: keras.Model,
    quantize: str = "none",
    calibration: np.ndarray | None = None,
    io: str = "float32",
) -> bytes:
    """Returns the content of the LiteRT file of a GoogLeNet; arguments as in `export_litert`.

    `calibration` is `(n, size, size, 3)` float32 RGB in [0, 255].
    """
    replacements = integer_normalizations(model, calibration) if quantize == "int8" else None
    network = serving_network(model, replacements=replacements)
    image = keras.Input(network.inputs[0].shape[1:], name="image")
    network = keras.Model(image, network(_SizeCheck()(image)))
    options = converter_options(quantize, calibration, io)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.tflite"
        network.export(str(path), format="litert", verbose=False, **options)
        return path.read_bytes()


class _SizeCheck(keras.layers.Layer):
    """Passes images of one size only.

    LiteRT has no operator that checks, and its Python runner resizes the input to whatever it is
    given: images of one channel, or of another size, would be classified. Concatenation needs
    equal sizes.
    """

    def call(self, images):
        none = tf.zeros((1, *images.shape[1:]), images.dtype)
        return tf.concat([none, images], axis=0)[1:]

    def compute_output_shape(self, input_shape):
        return input_shape


def converter_options(quantize: str, calibration: np.ndarray | None, io: str) -> dict:
    """Returns the attributes of TensorFlow's converter for a kind of quantization."""
    builtins = tf.lite.OpsSet.TFLITE_BUILTINS
    options = {"target_spec": {"supported_ops": [builtins]}}
    if quantize != "none":
        options["optimizations"] = [tf.lite.Optimize.DEFAULT]
    if quantize == "float16":
        options["target_spec"]["supported_types"] = [tf.float16]
    if quantize == "int8":
        images = calibration.copy()
        images[0, 0, :2] = [[0], [255]]  # so that a step of the input is one pixel value
        options["target_spec"]["supported_ops"] = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        options["representative_dataset"] = lambda: ([image[None]] for image in images)
        options["inference_input_type"] = options["inference_output_type"] = tf.as_dtype(io)
    return options


def runner(content: bytes) -> Run:
    """Loads a LiteRT file and returns what calls it, with images and probabilities in float32."""
    from ai_edge_litert.interpreter import Interpreter

    serve = Interpreter(model_content=content).get_signature_runner("serving_default")
    image = serve.get_input_details()["image"]
    probabilities = serve.get_output_details()["probabilities"]

    def run(images):
        return _dequantized(serve(image=_quantized(images, image))["probabilities"], probabilities)

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
    """Counts the operators of a LiteRT file by name and output type.

    Example: `Counter({"CONV_2D int8": 59, "CONCATENATION int8": 9, …})`.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAsModel(Path(path).read_bytes(), 0)
    names = {code: name for name, code in vars(schema.BuiltinOperator).items()}
    types = {code: name.lower() for name, code in vars(schema.TensorType).items()}
    graph, counts = model.Subgraphs(0), Counter()
    for operator in map(graph.Operators, range(graph.OperatorsLength())):
        code = model.OperatorCodes(operator.OpcodeIndex())
        name = names[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
        counts[f"{name} {types[graph.Tensors(operator.Outputs(0)).Type()]}"] += 1
    return counts


def integer_normalizations(
    model: keras.Model, calibration: np.ndarray
) -> dict[str, "IntegerNormalization"]:
    """Makes integer forms of a network's local response normalizations, by their names.

    Args:
        model: Any GoogLeNet.
        calibration: `(n, size, size, 3)` float32 RGB in [0, 255], which decide the ranges.
    """
    network = exported_network(model)
    replacements = {}
    for norm in network.layers:
        if isinstance(norm, LocalResponseNormalization):
            split = _split(norm.bias, _largest_energy(network, norm, calibration))
            config = norm.get_config() | {"dtype": "float32"}
            replacements[norm.name] = IntegerNormalization(split, **config)
    return replacements


def _largest_energy(network, norm: LocalResponseNormalization, calibration: np.ndarray) -> float:
    below = keras.Model(network.inputs[0], norm.input)
    maps = (below(preprocess_for(network, batch)) for batch in batched(calibration))
    squares = (np.square(keras.ops.convert_to_numpy(x).astype("float32")) for x in maps)
    return max(float((norm.bias + x @ norm.band[0, 0]).max()) for x in squares)


def _split(bias: float, largest: float) -> float | None:
    """The energy that gives the lower ends of both ranges the same share of a step."""
    if largest / STEPS <= COARSEST * bias:
        return None
    return float(np.sqrt(largest * bias))


class IntegerNormalization(LocalResponseNormalization):
    """A local response normalization whose energies fit eight bits.

    Args:
        split: Energy, `bias + alpha * sum of squares`, that separates two ranges; `None` for one.
        **kwargs: Arguments of `LocalResponseNormalization`.
    """

    def __init__(self, split: float | None, **kwargs):
        super().__init__(**kwargs)
        self.split = split

    def call(self, inputs, training=None):
        """Normalizes `(n, h, w, channels)`.

        With two ranges, `energy ** -beta` is the product of the power of the energy below the
        split and the power of the factor by which it exceeds the split; both are exact. Powers of
        `CEILING` cancel out.
        """
        if self.split is None:
            return self._over_power(inputs, self._scaled_energy(inputs))
        largest_input = np.sqrt((self.split - self.bias) / self.alpha)  # fills the range alone
        unit = largest_input / CEILING
        cut_off = tf.nn.relu6(inputs * np.float32(1 / unit))
        fine = tf.nn.relu6(self._scaled_energy(cut_off, CEILING / self.split, unit))
        coarse = self._scaled_energy(inputs, 1 / CEILING)
        coarse = tf.maximum(coarse, np.float32(self.split / CEILING))
        return self._over_power(self._over_power(inputs, fine), coarse)

    def _scaled_energy(self, x: tf.Tensor, factor: float = 1.0, unit: float = 1.0) -> tf.Tensor:
        """The energy of each value of `x`, which is in `unit`s, times `factor`."""
        band = tf.constant(self.band * np.float32(factor * unit**2))
        bias = tf.constant(self.bias * factor, tf.float32, (x.shape[-1],))
        return tf.nn.bias_add(tf.nn.conv2d(x * x, band, 1, "SAME"), bias)

    def _over_power(self, x: tf.Tensor, energy: tf.Tensor) -> tf.Tensor:
        """Returns `x / energy ** beta`.

        LiteRT looks integer LOG and EXP up in tables, but computes RSQRT and SQRT value by value,
        which is many times slower (docs/performance.md). `x` is multiplied by half the power
        twice, because the converter would give the whole power the range of the result, which
        leaves nothing of it.
        """
        half = tf.exp(-self.beta / 2 * tf.math.log(energy))
        return (x * half) * half
