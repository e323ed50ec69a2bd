"""The inference graph in TensorFlow: a function whose weights are constants.

Constants, unlike variables, let TensorFlow lay the weights out once for its kernels, and leave
nothing to restore.
"""

from collections.abc import Callable

import tensorflow as tf

from keras_googlenet.exporting import graph as inference
from keras_googlenet.exporting import integers
from keras_googlenet.imagenet import preprocess_input

PRECISIONS = ("float32", "bfloat16")


def network_function(
    graph: inference.Graph, precision: str = "float32"
) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """Returns the network with its preprocessing as a `tf.function`.

    Args:
        graph: What to compute.
        precision: One of `PRECISIONS`: what the convolutions compute in. The classifier is
            always float32.

    Returns:
        Function from `image`, `(n, size, size, 3)` float32 RGB in [0, 255], to features,
        `(n, channels)`, and probabilities, `(n, classes)`, both float32.
    """
    shape = (None, graph.image_size, graph.image_size, 3)

    image_spec = tf.TensorSpec(shape, tf.float32, name="image")

    @tf.function(input_signature=[image_spec], autograph=False)
    def network(image):
        values = {inference.IMAGE: tf.cast(preprocess_input(image, graph.variant), precision)}
        for name, operation, inputs in graph.steps:
            with tf.name_scope(name):
                values[name] = _compute(operation, *(values[i] for i in inputs))
        features, probabilities = (values[step.name] for step in graph.steps[-2:])
        return tf.cast(features, tf.float32), probabilities

    return network


def _compute(operation, x: tf.Tensor, *others: tf.Tensor) -> tf.Tensor:
    match operation:
        case inference.Convolution():
            return _convolution(x, operation)
        case inference.MaxPool(window, strides):
            return tf.nn.max_pool2d(x, window, strides, "SAME")
        case inference.LocalResponse():
            return _local_response(x, operation)
        case integers.IntegerLocalResponse():
            return integers.local_response(x, operation)
        case inference.Channels(first, count):
            return x[..., first : first + count]
        case inference.Concatenate():
            return tf.concat([x, *others], axis=-1)
        case inference.Mean():
            return tf.cast(tf.reduce_mean(tf.cast(x, tf.float32), axis=(1, 2)), x.dtype)
        case inference.Dense(kernel, bias, activation):
            logits = tf.nn.bias_add(tf.matmul(tf.cast(x, tf.float32), kernel), bias)
            return tf.nn.softmax(logits) if activation == "softmax" else tf.nn.sigmoid(logits)


def _convolution(x: tf.Tensor, convolution: inference.Convolution) -> tf.Tensor:
    kernel, bias, strides, padding, relu = convolution
    if padding == "same":
        padding = "SAME"
    else:
        padding = [[0, 0], [padding, padding], [padding, padding], [0, 0]]
    x = tf.nn.conv2d(x, tf.cast(kernel, x.dtype), strides, padding)
    x = tf.nn.bias_add(x, tf.cast(bias, x.dtype))
    return tf.nn.relu(x) if relu else x


def _local_response(x: tf.Tensor, norm: inference.LocalResponse) -> tf.Tensor:
    """The sum over neighbouring channels is a 1x1 convolution with a banded kernel."""
    band = tf.constant(norm.band(), x.dtype)[None, None]
    bias = tf.constant(norm.bias, x.dtype, (norm.channels,))
    energy = tf.nn.bias_add(tf.nn.conv2d(x * x, band, 1, "SAME"), bias)
    if norm.beta == 0.5:
        return x * tf.math.rsqrt(energy)
    if norm.beta == 0.75:
        root = tf.math.rsqrt(energy)
        return (x * root) * tf.sqrt(root)
    return x * energy**-norm.beta
