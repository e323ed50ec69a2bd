"""Steps that mix the pictures of a batch; `tf` in, `tf` out, random by a seed only."""

import tensorflow as tf


def mixup(images: tf.Tensor, labels: tf.Tensor, alpha: float, seed: tf.Tensor):
    """Blends each picture with the one at the mirrored place of the batch (Zhang et al. 2018).

    Args:
        images: `(n, h, w, 3)` float32.
        labels: `(n, classes)` float32, one-hot or mixed already.
        alpha: The share of the first picture is drawn from Beta(alpha, alpha), once a batch.
        seed: `(2,)` integers.

    Returns:
        Images and labels of the same shapes.
    """
    share = beta(alpha, seed)
    return _blend(images, share), _blend(labels, share)


def cutmix(images: tf.Tensor, labels: tf.Tensor, alpha: float, seed: tf.Tensor):
    """Pastes a window of the picture at the mirrored place of the batch (Yun et al. 2019).

    Args:
        images: `(n, h, w, 3)`, any dtype.
        labels: `(n, classes)` float32, one-hot or mixed already.
        alpha: The share that stays is drawn from Beta(alpha, alpha), once a batch.
        seed: `(2,)` integers.

    Returns:
        Images and labels of the same shapes; labels are mixed by the area that was pasted.
    """
    share_seed, place_seed = tf.unstack(tf.random.split(seed))
    sides = tf.cast(tf.shape(images)[1:3], tf.float32)
    half = sides * tf.sqrt(1.0 - beta(alpha, share_seed)) / 2
    center = tf.random.stateless_uniform((2,), place_seed) * sides
    rows, columns = (
        _inside(tf.range(sides[axis]) + 0.5, center[axis] - half[axis], center[axis] + half[axis])
        for axis in (0, 1)
    )
    window = rows[:, tf.newaxis] & columns[tf.newaxis, :]  # h x w
    pasted = tf.where(window[tf.newaxis, :, :, tf.newaxis], images[::-1], images)
    return pasted, _blend(labels, 1.0 - tf.reduce_mean(tf.cast(window, tf.float32)))


def beta(alpha: float, seed: tf.Tensor) -> tf.Tensor:
    """Draws from Beta(alpha, alpha), as the ratio of two gamma variables."""
    drawn = tf.random.stateless_gamma((2,), seed, alpha=alpha)
    return drawn[0] / tf.maximum(tf.reduce_sum(drawn), 1e-30)


def _blend(values: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    return values * share + values[::-1] * (1.0 - share)


def _inside(places: tf.Tensor, begin: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
    return (places >= begin) & (places < end)
