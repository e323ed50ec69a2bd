"""How good maps are: by masks of the objects, by deleting pixels, and by random networks."""

import random
from collections.abc import Callable, Sequence

import keras
import numpy as np
from scipy import ndimage, stats

from keras_googlenet.imagenet import check_images

TOLERANCE = 15 / 500  # of the side: 15 pixels on PASCAL VOC, Zhang et al. 2018
THRESHOLD = 0.5  # of the greatest value; the convention of weakly supervised localization varies
STEPS = 10  # of deletion and insertion
_BLUR = 0.1  # of the side: standard deviation of what insertion starts from


def pointing_game(maps: np.ndarray, masks: np.ndarray, tolerance: float = TOLERANCE) -> np.ndarray:
    """Returns whether the greatest value lies on the object.

    Args:
        maps: `(n, h, w)`.
        masks: `(n, h, w)` bool: the objects.
        tolerance: How far beside it still counts, as a share of the side.

    Returns:
        `(n,)` bool; a map of a single value points nowhere.

    Source: Zhang et al., "Top-down neural attention by excitation backprop", 2018.
    """
    hits = []
    for found, mask in zip(maps, masks, strict=True):
        row, column = np.unravel_index(found.argmax(), found.shape)
        distance = ndimage.distance_transform_edt(~mask)[row, column]
        hits.append(np.ptp(found) > 0 and distance <= tolerance * max(found.shape))
    return np.array(hits)


def boxes(masks: np.ndarray) -> np.ndarray:
    """Fills the bounding box of each object: `(n, h, w)` bool, as `masks` are."""
    filled = np.zeros_like(masks)
    for box, mask in zip(filled, masks, strict=True):
        rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
        if len(rows):
            box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
    return filled


def energy_inside(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Returns the share of each map's sum that lies on the object, `(n,)`; 0 of an empty map.

    Args:
        maps: `(n, h, w)`, at least 0.
        masks: `(n, h, w)` bool.

    Source: Wang et al., "Score-CAM", 2020.
    """
    inside = (maps * masks).sum(axis=(1, 2))
    whole = maps.sum(axis=(1, 2))
    return np.divide(inside, whole, out=np.zeros_like(whole), where=whole > 0)


def thresholded_iou(
    maps: np.ndarray, masks: np.ndarray, threshold: float = THRESHOLD
) -> np.ndarray:
    """Returns intersection over union of the object and what is bright in the map, `(n,)`.

    Args:
        maps: `(n, h, w)`, at least 0.
        masks: `(n, h, w)` bool.
        threshold: What is bright, as a share of the greatest value of each map.
    """
    greatest = maps.max(axis=(1, 2), keepdims=True)
    bright = (maps >= threshold * greatest) & (greatest > 0)
    union = (bright | masks).sum(axis=(1, 2))
    return (bright & masks).sum(axis=(1, 2)) / np.maximum(union, 1)


def deletion_curve(
    predict: Callable[[np.ndarray], np.ndarray],
    images: np.ndarray,
    maps: np.ndarray,
    classes: Sequence[int],
    steps: int = STEPS,
) -> np.ndarray:
    """Returns the probability of the class as pixels are deleted, the brightest of the map first.

    Args:
        predict: Images `(n, h, w, 3)` -> probabilities `(n, classes)`.
        images: RGB in [0, 255]; deleted pixels get the mean color of the image.
        maps: `(n, h, w)`.
        classes: Whose probability is returned.
        steps: Steps from all pixels to none.

    Returns:
        `(n, steps + 1)` probabilities. A good map makes it fall early.

    Raises:
        ValueError: If the images are not as `check_images` wants them, or the maps of other size.

    Source: Petsiuk et al., "RISE", 2018.
    """
    images = check_images(images, (None, None))
    empty = np.broadcast_to(images.mean(axis=(1, 2), keepdims=True), images.shape)
    return _curve(predict, images, empty, maps, classes, steps)


def insertion_curve(
    predict: Callable[[np.ndarray], np.ndarray],
    images: np.ndarray,
    maps: np.ndarray,
    classes: Sequence[int],
    steps: int = STEPS,
) -> np.ndarray:
    """Returns the probability as pixels are inserted into a blurred image, the brightest first.

    Arguments, result and source are those of `deletion_curve`. A good map makes it rise early.
    """
    images = check_images(images, (None, None))
    deviation = _BLUR * images.shape[1]
    blurred = ndimage.gaussian_filter(images, (0, deviation, deviation, 0))
    return _curve(predict, blurred, images, maps, classes, steps)


def area_under(curves: np.ndarray) -> np.ndarray:
    """Returns the mean height of each curve, `(n,)` in [0, 1], by the trapezoidal rule."""
    return (curves[:, 1:] + curves[:, :-1]).mean(axis=1) / 2


def rank_correlation(maps: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns Spearman's rank correlation of each pair of maps, `(n,)`; 0 if one is constant.

    Args:
        maps: `(n, h, w)`.
        others: `(n, h, w)`.

    Source: Adebayo et al., "Sanity checks for saliency maps", 2018.
    """
    results = []
    for found, other in zip(maps, others, strict=True):
        flat = np.ptp(found) == 0 or np.ptp(other) == 0
        results.append(0.0 if flat else stats.spearmanr(found.ravel(), other.ravel()).statistic)
    return np.array(results)


def _curve(predict, before, after, maps, classes, steps: int) -> np.ndarray:
    """Puts ever more pixels of `after` in place of those of `before`; ties are in reading order."""
    if np.shape(maps) != after.shape[:3] or len(classes) != len(maps):
        raise ValueError(
            "`maps` must be (n, h, w) and `classes` (n,) for `images` of (n, h, w, 3). Received: "
            f"maps of {np.shape(maps)}, {len(classes)} classes, images of {after.shape}."
        )
    count = len(maps)
    ranks = np.stack(
        [stats.rankdata(-found, method="ordinal") for found in maps.reshape(count, -1)]
    )
    ranks = ranks.reshape(maps.shape)
    columns = []
    for step in range(steps + 1):
        changed = (ranks <= step / steps * maps[0].size)[..., None]
        probabilities = predict(np.where(changed, after, before))
        columns.append(probabilities[np.arange(count), list(classes)])
    return np.stack(columns, axis=1)


def randomize(network: keras.Model, lowest: str, seed: int = 0) -> keras.Model:
    """Copies a network with new random weights from its end down to a layer.

    Args:
        network: A functional model.
        lowest: Name of the first layer, counted from the image, that is random.
        seed: Decides the weights.

    Returns:
        The copy. Layers that do not depend on `lowest`, nor it on them, such as other branches of
        the same module, are random if they stand after it in `network.layers`.

    Raises:
        ValueError: If there is no such layer.
    """
    names = [layer.name for layer in network.layers]
    if lowest not in names:
        raise ValueError(f"`lowest` must be a layer of the network. Received: {lowest=}.")
    state = random.getstate()
    random.seed(seed)  # Keras draws the seeds of its initializers here
    try:
        copied = keras.models.clone_model(network)
    finally:
        random.setstate(state)
    for name in names[: names.index(lowest)]:
        copied.get_layer(name).set_weights(network.get_layer(name).get_weights())
    return copied
