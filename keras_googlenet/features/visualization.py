"""Feature visualization: images that a channel, a neuron, a branch or a class responds to.

An image is parameterized by its Fourier spectrum in decorrelated colors, and transformed at random
in each step of the optimizer.

Source: Olah, Mordvintsev, Schubert, "Feature Visualization", Distill 2017, and its code, lucid.
"""

import sys
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from keras_googlenet.errors import UserError
from keras_googlenet.features.units import check_layer
from keras_googlenet.normal_form import copy_trunk, normal_form, trunk_inputs

STEPS = 200
SIZE = 160  # pixels
_LEARNING_RATE = 0.05  # lucid
_LEAK = (
    0.1  # share of the gradient that passes where a unit is off, which otherwise could not turn on
)
_DIVERSITY = 0.5  # weight of the similarity of images against the mean activation that they reach
_DEVIATION = 0.01  # of the first spectrum: nearly gray
_CONTRAST = 1 / 4  # lucid
# Square root of the covariance of ImageNet's colors, RGB, as lucid publishes it.
_COLOR_ROOT = np.array(
    [[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]], dtype="float32"
)
_JITTER = 8  # pixels
_SCALES = (0.9, 1.1)
_DEGREES = 10.0
_GRAY = 127.5  # outside of the image


def visualize(
    model: keras.Model,
    layer: str,
    directions: np.ndarray | Sequence[int] | None = None,
    *,
    neuron: bool = False,
    size: int = SIZE,
    steps: int = STEPS,
    diversity: int = 1,
    seed: int = 0,
    progress: bool = False,
) -> np.ndarray:
    """Draws images with high activations of units of a layer.

    Adam raises the mean activation over all positions (of a neuron: the center) under random
    jitter, scale and rotation. For an inception module or a ReLU it raises what goes into the
    ReLU, with a tenth of the gradient where the unit is off.

    Args:
        model: A GoogLeNet, as `normal_form` takes it. It is not changed.
        layer: A convolution, a module's output, or "main" for classes.
        directions: Channel or class indices, or `(n, channels)` weights; `None` for one image of
            the layer as a whole, such as a branch: the mean of the squares of all its channels.
        neuron: Whether only the center unit counts.
        size: Side of the images in pixels, 32 or more.
        steps: Steps of the optimizer.
        diversity: Images for each direction, whose textures are kept from being similar.
        seed: Of the start and the random transforms.
        progress: Whether to show a bar, if standard error is a terminal.

    Returns:
        `(n, diversity, size, size, 3)` float32 RGB in [0, 255].

    Raises:
        UserError: If there is no such layer or channel; it gives the nearest names or the range.
    """
    model = normal_form(model)
    network = unit_network(model, layer)
    weights = _weights(directions, network.output.shape[-1])
    count = 1 if weights is None else len(weights)
    repeated = None if weights is None else np.repeat(weights, diversity, axis=0)
    spectrum = tf.Variable(random_spectrum(count * diversity, size, seed))
    optimizer = keras.optimizers.Adam(_LEARNING_RATE)
    optimizer.build([spectrum])
    prepare = trunk_inputs(model, any_size=True)

    @tf.function
    def step(number):
        with tf.GradientTape() as tape:
            images = transform(to_pixels(spectrum, size), tf.stack([seed, number]))
            activations = network([prepare(images)], training=False)
            reached = _objective(activations, repeated, neuron)
            loss = -tf.reduce_sum(reached)
            if diversity > 1:
                similarity = _similarity(activations, count, diversity)
                loss += _DIVERSITY * similarity * tf.stop_gradient(tf.reduce_sum(tf.abs(reached)))
        optimizer.apply([tape.gradient(loss, spectrum)], [spectrum])

    hidden = not (progress and sys.stderr.isatty())
    for number in tqdm(range(steps), unit=" steps", disable=hidden, leave=False):
        step(tf.constant(number))
    return to_pixels(spectrum, size).numpy().reshape(count, diversity, size, size, 3)


def unit_network(model: keras.Model, layer: str) -> keras.Model:
    """Copies the part of a GoogLeNet below some units, for preprocessed images of any size.

    Its float32 output is what goes into the layer's ReLUs, or the logits. Raises `UserError` with
    the nearest names if there is no such layer.
    """
    model = normal_form(model)
    check_layer(model, layer)
    relu = f"{layer}_relu"  # a convolution stands for all of its unit, batch normalization too
    names = {one.name for one in model.layers}
    output = _before_relu(model.get_layer(relu if relu in names else layer))
    network = copy_trunk(model, output, any_size=True)
    if layer == "main":
        network.get_layer(layer).activation = keras.activations.linear
    return network


def _before_relu(layer):
    """Returns the tensor that goes into a layer's ReLU, or ReLUs."""
    if isinstance(layer, keras.layers.Concatenate):
        parts = [_before_relu(tensor._keras_history.operation) for tensor in layer.input]
        return keras.layers.Concatenate(name=f"{layer.name}_before_relu")(parts)
    return layer.input if isinstance(layer, keras.layers.ReLU) else layer.output


def _weights(directions, channels: int) -> np.ndarray | None:
    if directions is None:
        return None
    directions = np.asarray(directions)
    if directions.ndim == 1 and np.isin(directions, range(channels)).all():
        return np.eye(channels, dtype="float32")[directions.astype(int)]
    if directions.ndim == 2 and directions.shape[1] == channels:
        return directions.astype("float32")
    raise UserError(
        f"`directions` must be indices of channels, 0 to {channels - 1}, or (n, {channels}) "
        f"weights. Received: {directions.tolist()}."
    )


def _objective(activations, weights, neuron: bool) -> tf.Tensor:
    """Returns what is raised, `(n,)`."""
    activations = _as_maps(activations)
    if neuron:
        row, column = activations.shape[1] // 2, activations.shape[2] // 2
        activations = activations[:, row, column][:, None, None]
    if weights is None:
        return tf.reduce_mean(tf.nn.relu(activations) ** 2, axis=(1, 2, 3))
    along = tf.einsum("nyxc,nc->nyx", activations, weights)
    return tf.reduce_mean(tf.nn.leaky_relu(along, _LEAK), axis=(1, 2))


def _similarity(activations, count: int, diversity: int) -> tf.Tensor:
    """Returns the mean cosine between the channel correlations of images of one direction."""
    activations = tf.nn.relu(_as_maps(activations))
    correlations = tf.einsum("nyxc,nyxd->ncd", activations, activations)
    flat = tf.reshape(correlations, (count, diversity, -1))
    flat = tf.math.l2_normalize(flat, axis=-1)
    cosines = tf.einsum("kid,kjd->kij", flat, flat)
    others = 1 - tf.eye(diversity)
    return tf.reduce_sum(cosines * others) / tf.reduce_sum(others) / count


def _as_maps(activations):
    """Reshapes logits, `(n, classes)`, to maps of one position."""
    return activations if len(activations.shape) == 4 else activations[:, None, None]


def random_spectrum(count: int, size: int, seed: int) -> np.ndarray:
    """Returns real and imaginary parts, `(2, count, 3, size, size // 2 + 1)`, to start from."""
    generator = np.random.default_rng(seed)
    shape = (2, count, 3, size, size // 2 + 1)
    return _DEVIATION * generator.standard_normal(shape, dtype="float32")


def to_pixels(spectrum: tf.Tensor, size: int) -> tf.Tensor:
    """Turns spectra into images, `(count, size, size, 3)` float32 RGB in [0, 255]."""
    scaled = tf.complex(spectrum[0], spectrum[1]) * _spectrum_scale(size)
    planes = tf.signal.irfft2d(scaled, fft_length=(size, size)) * _CONTRAST
    decorrelated = tf.transpose(planes, (0, 2, 3, 1))
    longest = np.linalg.norm(_COLOR_ROOT, axis=0).max()
    colors = tf.tensordot(decorrelated, tf.constant(_COLOR_ROOT.T / longest), axes=1)
    return 255 * tf.sigmoid(colors)


def _spectrum_scale(size: int) -> np.ndarray:
    """Returns one over the frequency, so that every octave has the same energy."""
    rows, columns = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]
    frequency = np.maximum(np.hypot(rows, columns), 1 / size)
    return (size / frequency).astype("complex64")


def transform(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Jitters, scales and rotates each of `(n, size, size, 3)` images by random amounts."""
    seeds = tf.random.split(seed, 3)
    count = tf.shape(images)[0]
    shift = tf.random.stateless_uniform((count, 2), seeds[0], -_JITTER, _JITTER)
    scale = tf.random.stateless_uniform((count,), seeds[1], *_SCALES)
    angle = tf.random.stateless_uniform((count,), seeds[2], -1, 1) * np.radians(_DEGREES)
    return warp(images, shift, scale, angle)


def warp(images: tf.Tensor, shift: tf.Tensor, scale: tf.Tensor, angle: tf.Tensor) -> tf.Tensor:
    """Shifts, scales and rotates `(n, size, size, 3)` images around their center, gray outside.

    `shift` is `(n, 2)` in pixels, `scale` above 1 enlarges, `angle` is counterclockwise in radians.
    """
    size = images.shape[1]
    center = (size - 1) / 2
    cosine, sine = tf.cos(angle) / scale, tf.sin(angle) / scale
    zero = tf.zeros_like(angle)
    # Output pixel -> input pixel, eight numbers an image, as ImageProjectiveTransformV3 has them.
    rows = [
        [cosine, -sine, center - cosine * center + sine * center + shift[:, 0]],
        [sine, cosine, center - sine * center - cosine * center + shift[:, 1]],
    ]
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=tf.stack([*rows[0], *rows[1], zero, zero], axis=1),
        output_shape=(size, size),
        fill_value=_GRAY,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )
