"""The pictures that feature visualisation moves: colours and frequencies on an equal footing.

A picture is a spectrum times 1 / frequency, brought to pixels by the inverse Fourier transform,
turned from decorrelated colours to RGB, and squeezed into [0, 255]. Steps in this space change
large shapes as readily as fine grain, which is what makes the pictures readable.

Source: Olah, Mordvintsev, Schubert, "Feature Visualization", Distill 2017; lucid.
"""

import numpy as np
import tensorflow as tf

# Square root of the covariance of ImageNet's colours, RGB, as lucid publishes it.
_COLOUR_ROOT = np.array(
    [[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]], dtype="float32"
)
_DEVIATION = 0.01  # of the first spectrum: nearly grey


def random_spectrum(count: int, size: int, seed: int) -> np.ndarray:
    """Draws spectra to start from.

    Args:
        count: Pictures.
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
    longest = np.linalg.norm(_COLOUR_ROOT, axis=0).max()
    colours = tf.tensordot(decorrelated, tf.constant(_COLOUR_ROOT.T / longest), axes=1)
    return 255 * tf.sigmoid(colours)


def _scale(size: int) -> np.ndarray:
    """One over the frequency, so that every octave has the same energy."""
    rows, columns = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]
    frequency = np.maximum(np.hypot(rows, columns), 1 / size)
    return (size / frequency).astype("complex64")
