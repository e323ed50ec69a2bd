"""Feature visualization: pictures that a channel, a neuron, a branch or a class answers to.

Source: Olah, Mordvintsev, Schubert, "Feature Visualization", Distill 2017.
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

# Square root of the covariance of ImageNet's colors, RGB, as lucid publishes it.
_COLOR_ROOT = np.array(
    [[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]], dtype="float32"
)
_DEVIATION = 0.01  # of the first spectrum: nearly gray


def random_spectrum(count: int, size: int, seed: int) -> np.ndarray:
    """Draws spectra to start from.

    Args:
        count: SampleImages.
        size: Side of a picture in pixels.
        seed: Decides them.

    Returns:
        `(2, count, 3, size, size // 2 + 1)` float32: real and imaginary parts.
    """
    generator = np.random.default_rng(seed)
    shape = (2, count, 3, size, size // 2 + 1)
    return _DEVIATION * generator.standard_normal(shape, dtype="float32")


def to_pixels(spectrum: tf.Tensor, size: int) -> tf.Tensor:
    """Turns spectra into pictures.

    Args:
        spectrum: As `random_spectrum` makes them.
        size: Side of a picture in pixels.

    Returns:
        `(count, size, size, 3)` float32 RGB in [0, 255].
    """
    scaled = tf.complex(spectrum[0], spectrum[1]) * _scale(size)
    planes = tf.signal.irfft2d(scaled, fft_length=(size, size)) / 4  # lucid's contrast
    decorrelated = tf.transpose(planes, (0, 2, 3, 1))
    longest = np.linalg.norm(_COLOR_ROOT, axis=0).max()
    colors = tf.tensordot(decorrelated, tf.constant(_COLOR_ROOT.T / longest), axes=1)
    return 255 * tf.sigmoid(colors)


def _scale(size: int) -> np.ndarray:
    """One over the frequency, so that every octave has the same energy."""
    rows, columns = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]
    frequency = np.maximum(np.hypot(rows, columns), 1 / size)
    return (size / frequency).astype("complex64")


_GRAY = 127.5  # beyond the border
_JITTER = 8  # pixels
_SCALES = (0.9, 1.1)
_DEGREES = 10.0


def move(pictures: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Jitters, scales and rotates pictures, each in its own way.

    Args:
        pictures: `(n, size, size, 3)` float32 RGB in [0, 255].
        seed: `(2,)` integers.

    Returns:
        `(n, size, size, 3)`.
    """
    seeds = tf.random.split(seed, 3)
    count = tf.shape(pictures)[0]
    shift = tf.random.stateless_uniform((count, 2), seeds[0], -_JITTER, _JITTER)
    scale = tf.random.stateless_uniform((count,), seeds[1], *_SCALES)
    angle = tf.random.stateless_uniform((count,), seeds[2], -1, 1) * np.radians(_DEGREES)
    return warp(pictures, shift, scale, angle)


def warp(pictures: tf.Tensor, shift: tf.Tensor, scale: tf.Tensor, angle: tf.Tensor) -> tf.Tensor:
    """Moves pictures around their middle; gray comes in from beyond the border.

    Args:
        pictures: `(n, size, size, 3)`.
        shift: `(n, 2)` in pixels.
        scale: `(n,)`; above 1 enlarges.
        angle: `(n,)` in radians, counter-clockwise as seen.

    Returns:
        `(n, size, size, 3)`.
    """
    size = pictures.shape[1]
    middle = (size - 1) / 2
    cosine, sine = tf.cos(angle) / scale, tf.sin(angle) / scale
    zero = tf.zeros_like(angle)
    # Output pixel -> input pixel, eight numbers a picture, as ImageProjectiveTransformV3 has them.
    rows = [
        [cosine, -sine, middle - cosine * middle + sine * middle + shift[:, 0]],
        [sine, cosine, middle - sine * middle - cosine * middle + shift[:, 1]],
    ]
    transforms = tf.stack([*rows[0], *rows[1], zero, zero], axis=1)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=pictures,
        transforms=transforms,
        output_shape=(size, size),
        fill_value=_GRAY,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )


STEPS = 200
SIZE = 160  # pixels
_LEARNING_RATE = 0.05  # lucid
_SLEEPING = 0.1  # share of the gradient that passes where the unit is off, or it would never wake
_DIVERSITY = 0.5  # weight of the likeness of pictures against the mean activation that they reach


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
    """Draws pictures that excite units of a layer.

    The mean activation over all places (of a neuron: in the middle) is raised by Adam, under
    random jitter, scale and rotation. Of an inception module or a ReLU, it is what goes into the
    ReLU that is raised, with a tenth of the gradient where the unit is off.

    Args:
        model: A GoogLeNet, as `normal_form` takes it. It is left as it is.
        layer: A convolution, a module's output, or "main" for classes.
        directions: Channel or class numbers, or `(n, channels)` weights; `None` for one picture of
            the layer as a whole, such as a branch: the mean of the squares of all its channels.
        neuron: Whether only the unit in the middle counts.
        size: Side of the pictures in pixels, 32 or more.
        steps: Steps of the optimizer.
        diversity: Images a direction, which are pushed apart by the likeness of their textures.
        seed: Decides start and movements.
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
            pictures = move(to_pixels(spectrum, size), tf.stack([seed, number]))
            answers = network([prepare(pictures)], training=False)
            reached = _objective(answers, repeated, neuron)
            loss = -tf.reduce_sum(reached)
            if diversity > 1:
                likeness = _likeness(answers, count, diversity)
                loss += _DIVERSITY * likeness * tf.stop_gradient(tf.reduce_sum(tf.abs(reached)))
        optimizer.apply([tape.gradient(loss, spectrum)], [spectrum])

    hidden = not (progress and sys.stderr.isatty())
    for number in tqdm(range(steps), unit=" steps", disable=hidden, leave=False):
        step(tf.constant(number))
    pictures = to_pixels(spectrum, size).numpy()
    return pictures.reshape(count, diversity, size, size, 3)


def unit_network(model: keras.Model, layer: str) -> keras.Model:
    """Copies the part of a trunk below some units, for images of any size.

    Args:
        model: A GoogLeNet, as `normal_form` takes it.
        layer: As for `visualize`.

    Returns:
        A float32 model from preprocessed images to what goes into the layer's ReLUs, or to logits.

    Raises:
        UserError: If there is no such layer; it gives the nearest names.
    """
    model = normal_form(model)
    check_layer(model, layer)
    relu = f"{layer}_relu"  # a convolution stands for all of its unit, batch normalization too
    named = {found.name for found in model.layers}
    output = _before_relu(model.get_layer(relu if relu in named else layer))
    network = copy_trunk(model, output, any_size=True)
    if layer == "main":
        network.get_layer(layer).activation = keras.activations.linear
    return network


def _before_relu(layer):
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
        f"`directions` must be numbers of channels, 0 to {channels - 1}, or (n, {channels}) "
        f"weights. Received: {directions.tolist()}."
    )


def _objective(answers, weights, neuron: bool) -> tf.Tensor:
    """What is raised, `(n,)`."""
    answers = _over_places(answers)
    if neuron:
        middle = answers.shape[1] // 2, answers.shape[2] // 2
        answers = answers[:, middle[0], middle[1]][:, None, None]
    if weights is None:
        return tf.reduce_mean(tf.nn.relu(answers) ** 2, axis=(1, 2, 3))
    along = tf.einsum("nyxc,nc->nyx", answers, weights)
    return tf.reduce_mean(tf.nn.leaky_relu(along, _SLEEPING), axis=(1, 2))


def _over_places(answers):
    """Gives logits, `(n, classes)`, one place."""
    return answers if len(answers.shape) == 4 else answers[:, None, None]


def _likeness(answers, count: int, diversity: int) -> tf.Tensor:
    """Mean cosine between the channel correlations of pictures of one direction."""
    answers = tf.nn.relu(_over_places(answers))
    correlations = tf.einsum("nyxc,nyxd->ncd", answers, answers)
    flat = tf.reshape(correlations, (count, diversity, -1))
    flat = tf.math.l2_normalize(flat, axis=-1)
    cosines = tf.einsum("kid,kjd->kij", flat, flat)
    others = 1 - tf.eye(diversity)
    return tf.reduce_sum(cosines * others) / tf.reduce_sum(others) / count
