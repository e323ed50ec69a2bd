"""The layers of GoogLeNet that Keras lacks, or that it computes slowly."""

import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable(package="keras_googlenet")
class LocalResponseNormalization(keras.layers.Layer):
    """Divides each activation by the energy of its neighboring channels.

    `y[c] = x[c] / (bias + alpha * sum(x[c - depth_radius : c + depth_radius + 1] ** 2)) ** beta`

    The sum over neighbors is a 1x1 convolution with a fixed banded kernel, so that no backend
    needs a special kernel for it, and it is computed in float32 whatever the dtype policy.

    Args:
        depth_radius: Channels on each side that take part; the window is `2 * depth_radius + 1`.
        bias: Offset that keeps the divisor away from zero.
        alpha: Weight of the sum of squares. Caffe's `alpha` is this times the window.
        beta: Exponent of the divisor.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input and output shape: `(n, height, width, channels)`.

    Source: Krizhevsky et al. 2012, section 3.3. The defaults are those of BVLC GoogLeNet
    (`local_size: 5, alpha: 0.0001, beta: 0.75`); the paper prints none.

    Example:
    >>> LocalResponseNormalization()(np.ones((1, 2, 2, 8), "float32")).shape
    TensorShape([1, 2, 2, 8])
    """

    def __init__(self, depth_radius=2, bias=1.0, alpha=2e-5, beta=0.75, **kwargs):
        super().__init__(**kwargs)
        self.depth_radius = depth_radius
        self.bias = bias
        self.alpha = alpha
        self.beta = beta

    def build(self, input_shape):
        """Makes the constant banded kernel `(1, 1, channels, channels)`."""
        channel = np.arange(input_shape[-1])
        neighbors = np.abs(channel[:, None] - channel[None, :]) <= self.depth_radius
        self.band = np.asarray(self.alpha * neighbors, "float32")[None, None]
        super().build(input_shape)

    def call(self, inputs, training=None):
        """Returns `inputs` normalized, in their dtype."""
        x = ops.cast(inputs, "float32")
        y = self._normalize_for_training(x) if training else self._normalize(x)
        return ops.cast(y, inputs.dtype)

    def _normalize(self, x):
        return x * _inverse_power(self._energy(x), self.beta)

    def _energy(self, x):
        return self.bias + self._neighbors(ops.square(x))

    def _neighbors(self, x):
        """Sums over the window, times `alpha`."""
        return ops.conv(x, ops.cast(self.band, x.dtype), data_format="channels_last")

    def _normalize_for_training(self, x):
        """Normalizes with a gradient by hand, which keeps nothing but `x` for the backward pass.

        With e the energy, `dy[c] / dx[i] = e[c] ** -beta * [c == i] - 2 * beta * alpha * x[i] *
        x[c] * e[c] ** (-beta - 1)` within the window. Automatic differentiation would keep half a
        dozen feature maps.
        """

        @ops.custom_gradient
        def normalized(x):
            def gradient(*arguments, upstream=None):
                upstream = arguments[0] if upstream is None else upstream
                energy = self._energy(x)
                scaled = upstream * _inverse_power(energy, self.beta)
                return scaled - 2 * self.beta * x * self._neighbors(scaled * x / energy)

            return self._normalize(x), gradient

        return normalized(x)

    def compute_output_shape(self, input_shape):
        """Returns `input_shape`."""
        return input_shape

    def get_config(self):
        """Returns the arguments that make an equal layer."""
        own = {name: getattr(self, name) for name in ("depth_radius", "bias", "alpha", "beta")}
        return super().get_config() | own


def _inverse_power(x, beta):
    """Returns `x ** -beta`; the two exponents in use need square roots only."""
    if beta == 0.5:
        return ops.rsqrt(x)
    if beta == 0.75:
        root = ops.rsqrt(x)
        return root * ops.sqrt(root)
    return ops.power(x, -beta)


@keras.saving.register_keras_serializable(package="keras_googlenet")
class BatchNormalization(keras.layers.BatchNormalization):
    """Keras' batch normalization, trained by one fused operation under TensorFlow.

    Keras 3 composes the layer of a dozen operations, each of which reads the whole feature map;
    TensorFlow (with oneDNN and cuDNN) has one. It is used in training on channels-last feature maps
    where each replica normalizes its own part of the batch. Everything else is Keras': arguments,
    weights, inference, frozen layers, `synchronized=True`, other backends.

    Input and output shape: `(n, height, width, channels)`, or any other that Keras' layer accepts.
    """

    def call(self, inputs, training=None, mask=None):
        """Returns `inputs` normalized, in their dtype."""
        if training and self.trainable and self._can_fuse(inputs, mask):
            return self._fused(inputs)
        return super().call(inputs, training=training, mask=mask)

    def _can_fuse(self, inputs, mask) -> bool:
        return (
            keras.config.backend() == "tensorflow"
            and self.compute_dtype in ("float32", "bfloat16", "float16")
            and len(inputs.shape) == 4
            and self.axis in (-1, 3)
            and mask is None
            and not (self.synchronized or getattr(self, "renorm", False))
        )

    def _fused(self, inputs):
        import tensorflow as tf

        ones, zeros = tf.ones_like(self.moving_mean), tf.zeros_like(self.moving_mean)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=self.gamma if self.scale else ones,
            offset=self.beta if self.center else zeros,
            mean=[],
            variance=[],
            epsilon=self.epsilon,
            is_training=True,
        )
        # The operation's variance is divided by n - 1, Keras' by n.
        values = tf.cast(tf.size(inputs) // inputs.shape[-1], variance.dtype)
        variance *= (values - 1) / values
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + batch * (1 - self.momentum))
        return outputs


def fold_batch_normalization(convolution: keras.layers.Conv2D, norm=None) -> tuple:
    """Folds the batch normalization after a convolution, if any, into the convolution.

    Returns:
        `(kernel, bias)`, float32 arrays of shape `(k, k, in, out)` and `(out,)`.
    """
    kernel, *bias = (ops.convert_to_numpy(w).astype("float32") for w in convolution.weights)
    bias = bias[0] if bias else np.zeros(convolution.filters, "float32")
    if norm is None:
        return kernel, bias
    mean, variance = (
        ops.convert_to_numpy(w).astype("float64") for w in (norm.moving_mean, norm.moving_variance)
    )
    scale = 1 / np.sqrt(variance + norm.epsilon)
    if norm.scale:
        scale *= ops.convert_to_numpy(norm.gamma)
    offset = ops.convert_to_numpy(norm.beta) if norm.center else 0.0
    return (kernel * scale).astype("float32"), ((bias - mean) * scale + offset).astype("float32")
