"""Small random movements of a picture: what survives them is no adversarial noise."""

import numpy as np
import tensorflow as tf

_GREY = 127.5  # beyond the border
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
    """Moves pictures around their middle; grey comes in from beyond the border.

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
        fill_value=_GREY,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )
