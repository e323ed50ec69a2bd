"""The images of a data set that excite units most."""

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
    """Finds what excites channels most: one place in an image, the best images first.

    Args:
        model: A GoogLeNet, as `normal_form` takes it.
        layer: As for `visualize`.
        channels: Channel numbers; `None` for the layer as a whole, whose mean square counts.
        batches: Images `(n, h, w, 3)` RGB in [0, 255], all of one size.
        count: Crops of each channel.

    Returns:
        For each channel its crops, `(side, side, 3)` uint8: what the unit sees around the place,
        or the whole image where it sees all of it.

    Raises:
        UserError: If there is no such layer, or a batch is not as `check_images` wants it.
    """
    model = normal_form(model)
    network = unit_network(model, layer)
    answer = tf.function(lambda images: network([images], training=False))
    prepare = trunk_inputs(model, any_size=True)
    field = receptive_field(network.output)
    kept = [[] for _ in (channels if channels is not None else [None])]
    for images in batches:
        answers = answer(prepare(check_images(images, (None, None)))).numpy()
        answers = answers if answers.ndim == 4 else answers[:, None, None]
        if channels is None:
            answers = np.maximum(answers, 0)
            found = [(answers**2).mean(axis=-1)]
        else:
            found = [answers[..., channel] for channel in channels]
        for best, maps in zip(kept, found, strict=True):
            best += [
                _best_place(image, map_, field) for image, map_ in zip(images, maps, strict=True)
            ]
            best.sort(key=lambda pair: -pair[0])
            del best[count:]
    return [[crop for _, crop in best] for best in kept]


def receptive_field(tensor) -> int:
    """Returns how many pixels across one unit sees; of several paths the widest.

    Args:
        tensor: Of a functional model made of convolutions and pools.

    Example:
    >>> from keras_googlenet import GoogLeNet
    >>> receptive_field(GoogLeNet(include_top=False).get_layer("conv2_3x3").output)
    19
    """

    @functools.cache  # or each of the four paths through a module would see all before it anew
    def field_and_jump(layer):
        """Pixels that a unit sees, and from one unit to the next; the latter on every path."""
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
    """Side of the window that a layer looks through, and its stride."""
    if isinstance(layer, keras.layers.Conv2D):
        return layer.kernel_size[0], layer.strides[0]
    if isinstance(layer, keras.layers.MaxPooling2D | keras.layers.AveragePooling2D):
        return layer.pool_size[0], layer.strides[0]
    return 1, 1


def _best_place(image: np.ndarray, answers: np.ndarray, field: int) -> tuple[float, np.ndarray]:
    """Returns the greatest answer, `answers` being `(h, w)`, and the pixels that it comes from."""
    row, column = np.unravel_index(answers.argmax(), answers.shape)
    side = min(field, *image.shape[:2])
    corner = []
    for place, cells, pixels in zip((row, column), answers.shape, image.shape, strict=False):
        middle = (place + 0.5) * pixels / cells
        corner.append(int(np.clip(round(middle - side / 2), 0, pixels - side)))
    top, left = corner
    crop = image[top : top + side, left : left + side]
    return float(answers[row, column]), np.clip(np.round(crop), 0, 255).astype("uint8")
