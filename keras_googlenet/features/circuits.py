"""Circuits: the weights from the channels of one module to those of the next.

Source: Olah et al., "Zoom In: An Introduction to Circuits", Distill 2020; Voss et al.,
"Visualizing Weights", Distill 2021: expanded weights.
"""

import keras
import numpy as np

from keras_googlenet.errors import UserError
from keras_googlenet.features.units import Units
from keras_googlenet.layers import fold_batch_normalization
from keras_googlenet.normal_form import normal_form

_IGNORED = ("ReLU", "BatchNormalization", "MaxPooling2D", "LocalResponseNormalization")


def expanded_weights(model: keras.Model, source: Units, target: Units) -> np.ndarray:
    """Multiplies the kernels that lie between channels of two modules.

    A 3x3 or 5x5 convolution sees the module before it through a 1x1 convolution; the expanded
    weight is the kernel that the two make together. ReLU, pooling and local response
    normalization between them are ignored, so it is what the connection would be if they were
    linear; batch normalization's factors are multiplied in.

    Returns `(sources, targets, k, k)`; the center of a kernel is the target's own position. Raises
    `UserError` if no channel is named, or `source` does not feed `target` directly.
    """
    for units in (source, target):
        if units.channels is None:
            raise UserError(f"say which channels of {units.layer}, as in {units.layer}:3.")
    model = normal_form(model)
    kernels = []
    for channel in target.channels:
        kernel = _kernel_from(model, source.layer, target.layer, channel)
        kernels.append(np.moveaxis(kernel[..., list(source.channels)], -1, 0))
    return np.stack(kernels, axis=1)


def _kernel_from(model, source: str, target: str, channel: int) -> np.ndarray:
    """Walks back from a channel to the layer `source`: `(k, k, channels of source)`."""
    convolution, channel = _convolution(model.get_layer(target), channel, target)
    kernel = _folded_kernel(model, convolution)[..., channel]
    layer = _before(convolution.input)
    while not _is(layer, source):
        if isinstance(layer, keras.layers.Concatenate):
            return kernel[..., _channels_of(layer, source, target)]
        if isinstance(layer, keras.layers.Conv2D) and layer.kernel_size == (1, 1):
            kernel = kernel @ _folded_kernel(model, layer)[0, 0].T
        elif type(layer).__name__ not in _IGNORED:
            raise _not_direct(source, target)
        layer = _before(layer.input)
    return kernel


def _convolution(layer, channel: int, target: str):
    """Returns the convolution that makes a channel, and the channel's index there."""
    if isinstance(layer, keras.layers.Conv2D):
        return layer, channel
    if isinstance(layer, keras.layers.Concatenate):
        for tensor in layer.input:
            if channel < tensor.shape[-1]:
                return _convolution(_before(tensor), channel, target)
            channel -= tensor.shape[-1]
    if type(layer).__name__ in ("ReLU", "BatchNormalization"):
        return _convolution(_before(layer.input), channel, target)
    raise UserError(f"channel {channel} of {target} comes from a pool, not from a convolution.")


def _folded_kernel(model, convolution) -> np.ndarray:
    """Returns `(k, k, in, out)`, with the factors of the batch normalization that follows."""
    layers = {layer.name: layer for layer in model.layers}
    return fold_batch_normalization(convolution, layers.get(f"{convolution.name}_bn"))[0]


def _channels_of(concatenation, source: str, target: str) -> slice:
    """Returns the channels of the branch `source` in a module's output."""
    start = 0
    for tensor in concatenation.input:
        stop = start + tensor.shape[-1]
        if _is(_before(tensor), source):
            return slice(start, stop)
        start = stop
    raise _not_direct(source, target)


def _before(tensor):
    return tensor._keras_history.operation


def _is(layer, name: str) -> bool:
    """Counts a ReLU as its convolution."""
    return layer.name in (name, f"{name}_relu")


def _not_direct(source: str, target: str) -> UserError:
    return UserError(
        f"{source} does not feed {target} directly; give the output of the module before it, as "
        "in --circuit inception_4b_output:3 inception_4c_3x3:17."
    )
