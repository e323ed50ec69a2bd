"""Dataset examples: the crops of images with the top activations of a unit."""

import functools
import sys
from collections.abc import Iterable, Sequence

import keras
import numpy as np
import tensorflow as tf
from keras import tree

from keras_googlenet.features.visualization import unit_network
from keras_googlenet.imagenet import check_images
from keras_googlenet.normal_form import normal_form, trunk_inputs

CROPS = 9
_SEES_ALL = (  # of the image; an adaptive window depends on its size
    keras.layers.Dense,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalMaxPooling2D,
    keras.layers.AdaptiveAveragePooling2D,
)


def top_crops(
    model: keras.Model,
    layer: str,
    channels: Sequence[int] | None,
    batches: Iterable[np.ndarray],
    count: int = CROPS,
) -> list[list[np.ndarray]]:
    """Finds the top activations of channels: one position in an image, the best images first.

    `channels` is `None` for the layer as a whole, whose mean square counts. Returns `count` crops
    of each channel, `(side, side, 3)` uint8: the unit's receptive field, or the whole image.
    """
    model = normal_form(model)
    network = unit_network(model, layer)
    respond = tf.function(lambda images: network([images], training=False))
    prepare = trunk_inputs(model, any_size=True)
    field = receptive_field(network.output)
    top = [[] for _ in (channels if channels is not None else [None])]
    for images in batches:
        activations = respond(prepare(check_images(images, (None, None)))).numpy()
        activations = activations if activations.ndim == 4 else activations[:, None, None]
        if channels is None:
            maps = [(np.maximum(activations, 0) ** 2).mean(axis=-1)]
        else:
            maps = [activations[..., channel] for channel in channels]
        for best, maps_of_channel in zip(top, maps, strict=True):
            pairs = zip(images, maps_of_channel, strict=True)
            best += [_best_crop(image, one, field) for image, one in pairs]
            best.sort(key=lambda pair: -pair[0])
            del best[count:]
    return [[crop for _, crop in best] for best in top]


def receptive_field(tensor) -> int:
    """Returns how many pixels across one unit sees; of several paths the widest.

    Example:
    >>> from keras_googlenet import GoogLeNet
    >>> receptive_field(GoogLeNet(include_top=False).get_layer("conv2_3x3").output)
    19
    """

    @functools.cache  # the four paths through a module share all that is before it
    def field_and_jump(layer):
        """Pixels that a unit sees, and between neighboring units; the same on every path."""
        if isinstance(layer, keras.layers.InputLayer):
            return 1, 1
        if isinstance(layer, _SEES_ALL):
            return sys.maxsize, 1
        before = [field_and_jump(one._keras_history.operation) for one in tree.flatten(layer.input)]
        window, stride = _window(layer)
        jump = before[0][1]
        return max(field for field, _ in before) + (window - 1) * jump, stride * jump

    return field_and_jump(tensor._keras_history.operation)[0]


def _window(layer) -> tuple[int, int]:
    """Returns the side and stride of a layer's window."""
    if isinstance(layer, keras.layers.Conv2D):
        return layer.kernel_size[0], layer.strides[0]
    if isinstance(layer, keras.layers.MaxPooling2D | keras.layers.AveragePooling2D):
        return layer.pool_size[0], layer.strides[0]
    return 1, 1


def _best_crop(image: np.ndarray, activations: np.ndarray, field: int) -> tuple[float, np.ndarray]:
    """Returns the greatest of `(h, w)` activations, and the pixels that it comes from."""
    best = np.unravel_index(activations.argmax(), activations.shape)
    side = min(field, *image.shape[:2])
    corner = []
    for cell, cells, pixels in zip(best, activations.shape, image.shape, strict=False):
        center = (cell + 0.5) * pixels / cells
        corner.append(int(np.clip(round(center - side / 2), 0, pixels - side)))
    top, left = corner
    crop = image[top : top + side, left : left + side]
    return float(activations[best]), np.clip(np.round(crop), 0, 255).astype("uint8")
