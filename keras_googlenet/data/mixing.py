"""MixUp and CutMix: pure steps on a batch; `tf` in, `tf` out, random by a seed `(2,)` only.

Both take images `(n, h, w, 3)` and labels `(n, classes)` float32, one-hot or mixed already, mix
each example with the one at the mirrored position of the batch, and return the same shapes.
"""

import tensorflow as tf


def mixup(images: tf.Tensor, labels: tf.Tensor, alpha: float, seed: tf.Tensor):
    """Blends float32 images by one share a batch from Beta(alpha, alpha): Zhang et al. 2018."""
    share = beta(alpha, seed)
    return _blend(images, share), _blend(labels, share)


def cutmix(images: tf.Tensor, labels: tf.Tensor, alpha: float, seed: tf.Tensor):
    """Pastes a window into images of any dtype; labels are mixed by its area: Yun et al. 2019.

    The share of the area that stays is drawn from Beta(alpha, alpha), once a batch.
    """
    share_seed, center_seed = tf.unstack(tf.random.split(seed))
    sides = tf.cast(tf.shape(images)[1:3], tf.float32)
    half = sides * tf.sqrt(1.0 - beta(alpha, share_seed)) / 2
    center = tf.random.stateless_uniform((2,), center_seed) * sides
    rows, columns = (_inside(sides[i], center[i] - half[i], center[i] + half[i]) for i in (0, 1))
    window = rows[:, tf.newaxis] & columns[tf.newaxis, :]  # h x w
    pasted = tf.where(window[tf.newaxis, :, :, tf.newaxis], images[::-1], images)
    return pasted, _blend(labels, 1.0 - tf.reduce_mean(tf.cast(window, tf.float32)))


def beta(alpha: float, seed: tf.Tensor) -> tf.Tensor:
    """Draws from Beta(alpha, alpha), as the ratio of two gamma variables."""
    drawn = tf.random.stateless_gamma((2,), seed, alpha=alpha)
    return drawn[0] / tf.maximum(tf.reduce_sum(drawn), 1e-30)


def _blend(values: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    return values * share + values[::-1] * (1.0 - share)


def _inside(side: tf.Tensor, start: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
    centers = tf.range(side) + 0.5
    return (centers >= start) & (centers < end)
