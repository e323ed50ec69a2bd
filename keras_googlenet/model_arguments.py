"""Checks of the arguments of `GoogLeNet()`."""

from numbers import Integral

import keras


def check_top(include_top, pooling, classes, classifier_activation):
    """Raises `ValueError` if arguments of the classifiers are invalid or contradict each other."""
    if include_top and pooling is not None:
        raise ValueError(
            "`pooling` is for `include_top=False`; the classifiers have their own pooling. "
            f"Received: {pooling=}."
        )
    if pooling not in (None, "avg", "max"):
        raise ValueError(f'`pooling` must be None, "avg" or "max". Received: {pooling=}.')
    if not isinstance(classes, Integral) or isinstance(classes, bool) or classes < 1:
        raise ValueError(f"`classes` must be a positive integer. Received: {classes=}.")
    if include_top and classes == 1 and classifier_activation == "softmax":
        raise ValueError(
            'softmax over one class is always 1: use `classifier_activation="sigmoid"` for a '
            f"yes-or-no classifier. Received: {classes=}, {classifier_activation=}."
        )


def image_input(input_tensor, input_shape, default_size: int, minimum: int, aux_heads: bool):
    """Returns `input_tensor` or a new input, `(n, height, width, channels)`, of a valid shape."""
    if keras.config.image_data_format() != "channels_last":
        raise ValueError(
            "GoogLeNet is built for `(n, height, width, channels)`: call "
            '`keras.config.set_image_data_format("channels_last")` first.'
        )
    if input_tensor is None:
        shape = (default_size, default_size, 3) if input_shape is None else tuple(input_shape)
        _check_shape(shape, minimum, aux_heads)
        return keras.Input(shape, name="image")
    if not keras.utils.is_keras_tensor(input_tensor):
        raise ValueError(
            f"`input_tensor` must be a Keras tensor. Received: {type(input_tensor).__name__}."
        )
    shape = tuple(input_tensor.shape[1:])
    if input_shape is not None and tuple(input_shape) != shape:
        raise ValueError(
            "`input_shape` must be that of `input_tensor`. Received: "
            f"input_shape={tuple(input_shape)}, input_tensor of {shape}."
        )
    _check_shape(shape, minimum, aux_heads)
    return input_tensor


def _check_shape(shape: tuple, minimum: int, aux_heads: bool):
    if len(shape) != 3 or shape[2] is None:
        raise ValueError(
            f"`input_shape` must be (height, width, channels). Received: input_shape={shape}."
        )
    if any(side is not None and side < minimum for side in shape[:2]):
        reason = (
            "with `aux_heads=True`, because the auxiliary heads pool 5x5"
            if aux_heads
            else "because the network halves it five times"
        )
        raise ValueError(
            f"`input_shape` must be at least {minimum}x{minimum} {reason}. "
            f"Received: input_shape={shape}."
        )
    if aux_heads and None in shape:
        raise ValueError(
            "`input_shape` must be fixed with `aux_heads=True`, because the auxiliary heads are "
            f"fully connected. Received: input_shape={shape}."
        )
