"""Arrays of a file into the layers of a network, each checked for shape and for numbers."""

import math
from collections.abc import Collection, Mapping
from typing import NamedTuple

import keras
import numpy as np

from keras_googlenet.errors import UserError
from keras_googlenet.googlenet import VARIANTS
from keras_googlenet.weights.sources import Contents, Source

LRN_ARGUMENTS = ("depth_radius", "bias", "alpha", "beta")


class Ported(NamedTuple):
    """One array that found its place: a row of the converter's table."""

    layer: str
    source: str
    shape: tuple[int, ...]
    norm: float


def names_in_file(model: keras.Model, source: Source) -> dict[str, dict[str, str]]:
    """Lists what a network takes from a file.

    Args:
        model: A GoogLeNet of the source's variant.
        source: The porting table.

    Returns:
        Layer with weights -> its weights' names -> the arrays' names in the file.
    """
    names = {}
    for layer in model.layers:
        if layer.weights:
            prefix = source.layers[layer.name.removesuffix("_bn")]
            parts = source.parts[type(layer).__name__]
            names[layer.name] = {w.name: prefix + parts[w.name] for w in layer.weights}
    return names


def port(
    model: keras.Model, contents: Contents, source: Source, skip: Collection[str] = ()
) -> list[Ported]:
    """Fills a network from a file; if anything is wrong, no layer is touched.

    Args:
        model: A GoogLeNet of the source's variant.
        contents: What stands in the file.
        source: Its porting table.
        skip: Names of layers to leave as they are.

    Returns:
        A row for each array.

    Raises:
        UserError: If an array is absent, has another shape, or holds no finite numbers.
    """
    filled, rows = [], []
    for layer_name, names in names_in_file(model, source).items():
        if layer_name in skip:
            continue
        layer = model.get_layer(layer_name)
        values = []
        for weight in layer.weights:
            name = names[weight.name]
            if name not in contents.arrays:
                raise UserError(f"{name} is missing, which layer {layer_name} needs.")
            value = turned(contents.arrays[name], name, layer_name, weight, source)
            values.append(value)
            rows.append(Ported(layer_name, name, value.shape, float(np.linalg.norm(value))))
        filled.append((layer, values))
    for layer, values in filled:
        layer.set_weights(values)
    for layer_name, arguments in contents.lrn.items():
        set_normalization(model.get_layer(layer_name), arguments)
    return rows


def turned(array: np.ndarray, name: str, layer: str, weight, source: Source) -> np.ndarray:
    """Brings one array into our layout.

    Args:
        array: As it stands in the file.
        name: Its name there.
        layer: Name of our layer.
        weight: Our weight, with name and shape.
        source: The porting table.

    Returns:
        Float32 array of the weight's shape: kernels (y, x, in, out), matrices (in, out), red first.

    Raises:
        UserError: If the shape does not fit or a number is not finite.
    """
    turn = source.channels_first and weight.name == "kernel"
    needed = _channels_first(weight.shape) if turn else tuple(weight.shape)
    given = array.shape
    while len(given) > len(needed) and given[0] == 1:  # Caffe's old blobs have four dimensions,
        given = given[1:]  # and slim's classifier is a 1x1 convolution
    if given != needed:
        raise UserError(f"{name} has the shape {array.shape}; layer {layer} needs {needed}.")
    if array.dtype.kind != "f":
        raise UserError(f"{name} holds {array.dtype}; layer {layer} needs real numbers.")
    array = array.reshape(needed).astype("float32", copy=False)
    if not np.isfinite(array).all():
        raise UserError(f"{name} holds infinities or no numbers at all; the file is damaged.")
    if turn:
        array = _channels_last(array, layer, VARIANTS[source.variant].aux_conv)
    if source.bgr and layer == "conv1_7x7_s2" and weight.name == "kernel":
        array = array[:, :, ::-1]
    return array


def _channels_first(shape) -> tuple[int, ...]:
    """(y, x, in, out) -> (out, in, y, x) and (in, out) -> (out, in)."""
    return (shape[3], shape[2], shape[0], shape[1]) if len(shape) == 4 else tuple(shape)[::-1]


def _channels_last(array: np.ndarray, layer: str, aux_channels: int) -> np.ndarray:
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    if not layer.endswith("_fc"):
        return array.T
    # The auxiliary FC reads a flattened map: (channel, y, x) there, (y, x, channel) here.
    side = math.isqrt(array.shape[1] // aux_channels)
    maps = array.reshape(-1, aux_channels, side, side)
    return maps.transpose(2, 3, 1, 0).reshape(array.shape[1], -1)


def set_normalization(layer: keras.Layer, arguments: Mapping[str, float]):
    """Gives a `LocalResponseNormalization` other constants.

    Args:
        layer: In a network that is already connected.
        arguments: Names and values of `LRN_ARGUMENTS`.
    """
    for name, value in arguments.items():
        setattr(layer, name, value)
    layer.build(layer.input.shape)
