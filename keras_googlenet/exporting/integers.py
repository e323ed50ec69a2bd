"""Local response normalisation by operators that LiteRT has in eight-bit integers.

An eight-bit tensor has 256 steps of equal size, but the sum of squares that an input is divided by
spans more than two orders of magnitude in a trained network: nearly all of its values would share
the first few steps. So the sum is computed in two ranges, each with steps of its own.
"""

import keras
import numpy as np
import tensorflow as tf

from keras_googlenet.exporting.serving_network import exported_network
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
