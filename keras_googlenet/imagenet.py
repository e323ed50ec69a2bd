"""Preprocessing of images and decoding of predictions."""

import sys
import warnings

import numpy as np

from keras_googlenet.errors import UserError
from keras_googlenet.googlenet import DEFAULT_VARIANT, VARIANTS
from keras_googlenet.labels import TOP, Prediction, default_labels, split_label


def preprocess_input(x, variant: str = DEFAULT_VARIANT):
    """Turns RGB pixels into the input values that a variant expects.

    Args:
        x: `(..., 3)` RGB in [0, 255]: a list, an array, or a tensor of TensorFlow, JAX, PyTorch or
            Keras. Integers are converted to float32.
        variant: A key of `googlenet.VARIANTS`, which holds the `mean` and `scale`.

    Returns:
        `(x - mean) / scale`: minus the mean (123, 117, 104) for "paper", in [-1, 1] for
        "torchvision" and "slim". An array or tensor of the same kind and shape. A NumPy array is
        float32; tensors of floats keep their precision.

    Raises:
        ValueError: If `variant` is unknown, or the last dimension is known and not 3.

    Example:
    >>> preprocess_input(np.full((1, 1, 3), 255, "uint8"), "slim").tolist()
    [[[1.0, 1.0, 1.0]]]
    """
    if variant not in VARIANTS:
        raise ValueError(f"`variant` must be one of {list(VARIANTS)}. Received: {variant=}.")
    spec = VARIANTS[variant]
    x, mean = _as_floats(x, spec.mean)
    shape = () if _has_unknown_rank(x.shape) else tuple(x.shape)
    if shape and shape[-1] not in (None, 3):
        raise ValueError(f"`x` must be (..., 3) RGB. Received: x of shape {shape}.")
    centered = x - mean
    return centered if spec.scale == 1.0 else centered / spec.scale


def _as_floats(x, numbers):
    """Returns `x` as floats, and `numbers` in a form that the framework of `x` can subtract."""
    if isinstance(x, np.ndarray) or not hasattr(x, "dtype"):
        return np.asarray(x, "float32"), np.asarray(numbers, "float32")
    is_float = "float" in str(x.dtype)
    framework = type(x).__module__.partition(".")[0]
    if framework == "tensorflow":  # already imported, because `x` exists
        return x if is_float else sys.modules[framework].cast(x, "float32"), numbers
    if hasattr(x, "new_tensor"):  # PyTorch
        x = x if is_float else x.float()
        return x, x.new_tensor(numbers)
    if not is_float:
        import keras

        x = x.astype("float32") if hasattr(x, "astype") else keras.ops.cast(x, "float32")
    return x, np.asarray(numbers, x.dtype)


def _has_unknown_rank(shape) -> bool:
    return getattr(shape, "rank", 0) is None  # in TensorFlow only


def check_images(
    images, size: tuple[int | None, int | None], channels: int = 3, *, pixels: bool = True
) -> np.ndarray:
    """Checks a batch of images for a network.

    Values below 0 or above 255, such as bicubic resizing gives, are valid.

    Args:
        images: Array or tensor.
        size: Height and width that the network needs; `None` for any.
        channels: Number of channels that the network needs.
        pixels: Whether the values must be RGB in [0, 255]. Floats with a maximum above 0 and at
            most 1, as after a division by 255, then lead to a warning.

    Returns:
        The images as an array, `(n, height, width, channels)`.

    Raises:
        UserError: If there are no images, their shape is another, they are not numbers, or some
            values are NaN or infinite.

    Example:
    >>> check_images(np.zeros((1, 8, 8, 3), "uint8"), (8, 8)).shape
    (1, 8, 8, 3)
    """
    images = np.asarray(images)
    expected = ("n", *(side or "any" for side in size), channels)
    fits = images.ndim == 4 and images.shape[-1] == channels and len(images) > 0
    sides = zip(images.shape[1:3], size, strict=False)
    if not fits or any(side != wanted and (wanted or not side) for side, wanted in sides):
        raise UserError(
            f"`images` must be {' x '.join(map(str, expected))}, with at least one image. "
            f"Received: images of shape {images.shape}."
        )
    if images.dtype.kind not in "uif" and images.dtype.name != "bfloat16":
        raise UserError(f"`images` must be numbers. Received: images of dtype {images.dtype}.")
    if images.dtype.kind in "ui":
        return images
    bad = len(images) - int(np.isfinite(images.astype("float32")).all(axis=(1, 2, 3)).sum())
    if bad:
        raise UserError(
            f"`images` must be finite. Received: {bad} of {len(images)} with NaN or infinity."
        )
    if pixels and 0 < images.max() <= 1:
        warnings.warn(
            f"`images` are at most {images.max():.3g}, but must be RGB in [0, 255]; do not divide "
            "them by 255.",
            stacklevel=3,
        )
    return images


def check_scores(scores: np.ndarray, file: str):
    """Raises `UserError` if the scores of an image are NaN or infinite."""
    if not np.isfinite(scores).all():
        raise UserError(
            f"{file}: the network outputs NaN, because values inside it overflow; use another "
            "network, or train it again with a lower learning rate."
        )


def decode_predictions(p, top: int = TOP, labels=None) -> list[list[Prediction]]:
    """Names the classes with the highest scores.

    Args:
        p: `(n, classes)` scores, an array or tensor.
        top: Number of classes to name.
        labels: Names in the order of the outputs; by default those of `default_labels`.

    Returns:
        For each row the `Prediction`s, by descending score.

    Raises:
        ValueError: If `p` is not two-dimensional or `labels` has another length.

    Example:
    >>> decode_predictions(np.eye(1000)[[281]], top=1)[0][0].name
    'tabby'
    """
    p = np.asarray(p)
    if p.ndim != 2:
        raise ValueError(f"`p` must be (n, classes). Received: p of shape {p.shape}.")
    labels = default_labels(p.shape[1]) if labels is None else labels
    if len(labels) != p.shape[1]:
        raise ValueError(
            f"`labels` must name every column of `p`. Received: {len(labels)} labels, "
            f"p of shape {p.shape}."
        )
    predictions = []
    for row in p:
        order = np.argsort(-row, kind="stable")[:top]
        predictions.append(
            [Prediction(int(i), *split_label(labels[i]), float(row[i])) for i in order]
        )
    return predictions
