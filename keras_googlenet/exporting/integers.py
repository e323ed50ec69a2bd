"""Local response normalisation by operators that LiteRT has in eight-bit integers.

An eight-bit tensor has 256 steps of equal size, but the sum of squares that an input is divided by
spans more than two orders of magnitude in a trained network: nearly all of its values would share
the first few steps. So the sum is computed in two ranges, each with steps of its own.
"""

from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_googlenet.exporting.graph import Graph, LocalResponse
from keras_googlenet.googlenet import inference_model, variant_of
from keras_googlenet.imagenet import preprocess_input

COARSEST = 0.1  # largest step, as a share of the least energy, that needs no second range
STEPS = 255  # of an eight-bit tensor
CEILING = 6.0  # where RELU6 cuts off: the one ceiling that LiteRT fuses into a convolution
BATCH_SIZE = 8  # pictures that ranges are found on at once


class IntegerLocalResponse(NamedTuple):
    """A `LocalResponse` for integers.

    Attributes:
        norm: What it computes.
        split: Energy, `bias + alpha * sum of squares`, where the second range begins; `None` for
            one range.
    """

    norm: LocalResponse
    split: float | None


def with_integer_norms(graph: Graph, model: keras.Model, calibration: np.ndarray) -> Graph:
    """Replaces each `LocalResponse` of a graph by its form for integers.

    Args:
        graph: The inference graph of `model`.
        model: Any GoogLeNet.
        calibration: `(n, size, size, 3)` float32 RGB in [0, 255], which tell the ranges.
    """
    steps = []
    for step in graph.steps:
        if isinstance(norm := step.operation, LocalResponse):
            largest = _largest_energy(model, step.name, norm, calibration)
            step = step._replace(operation=IntegerLocalResponse(norm, _split(norm, largest)))
        steps.append(step)
    return graph._replace(steps=steps)


def _largest_energy(
    model: keras.Model, name: str, norm: LocalResponse, calibration: np.ndarray
) -> float:
    network = inference_model(model)
    below = keras.Model(network.inputs[0], network.get_layer(name).input)
    batches = np.split(calibration, range(BATCH_SIZE, len(calibration), BATCH_SIZE))
    maps = (below(preprocess_input(batch, variant_of(model))) for batch in batches)
    squares = (np.square(keras.ops.convert_to_numpy(x).astype("float32")) for x in maps)
    return max(float((norm.bias + x @ norm.band()).max()) for x in squares)


def _split(norm: LocalResponse, largest: float) -> float | None:
    """The split that gives the lower ends of both ranges the same share of a step."""
    if largest / STEPS <= COARSEST * norm.bias:
        return None
    return float(np.sqrt(largest * norm.bias))


def local_response(x: tf.Tensor, operation: IntegerLocalResponse) -> tf.Tensor:
    """Computes a local response normalisation, `(n, h, w, channels)` to the same shape.

    With two ranges, `energy ** -beta` is the product of the power of the energy below the split
    and the power of what it exceeds the split by, as a factor; both are exact. Powers of `CEILING`
    cancel out.
    """
    norm, split = operation
    if split is None:
        return _over_power(x, _energy(x, norm, 1.0), norm.beta)
    largest_input = np.sqrt((split - norm.bias) / norm.alpha)  # beyond, it fills the range alone
    cut_off = tf.nn.relu6(x * np.float32(CEILING / largest_input))
    unit = norm._replace(alpha=norm.alpha * (largest_input / CEILING) ** 2)
    fine = tf.nn.relu6(_energy(cut_off, unit, CEILING / split))
    coarse = tf.maximum(_energy(x, norm, 1 / CEILING), split / CEILING)
    return _over_power(_over_power(x, fine, norm.beta), coarse, norm.beta)


def _energy(x: tf.Tensor, norm: LocalResponse, factor: float) -> tf.Tensor:
    """The energy of each value, times `factor`."""
    band = tf.constant(norm.band() * factor, tf.float32)[None, None]
    bias = tf.constant(norm.bias * factor, tf.float32, (norm.channels,))
    return tf.nn.bias_add(tf.nn.conv2d(x * x, band, 1, "SAME"), bias)


def _over_power(x: tf.Tensor, energy: tf.Tensor, beta: float) -> tf.Tensor:
    """Returns `x / energy ** beta`.

    LiteRT looks integer LOG and EXP up in tables, but computes RSQRT and SQRT value by value: the
    former alone took four fifths of the network's time, the latter a fifth of what was left. `x`
    is multiplied by half the power twice, because the converter would give the whole power the
    range of the result, which leaves nothing of it.
    """
    half = tf.exp(-beta / 2 * tf.math.log(energy))
    return (x * half) * half
