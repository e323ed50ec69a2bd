"""Image files of a user: read in any format, turned upright, or refused with a reason."""

import os
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_googlenet.data import preprocessing
from keras_googlenet.data.file_kinds import (
    DECODED,
    FIRST_BYTES,
    content_of,
    kind_of,
)
from keras_googlenet.data.pillow_images import (
    UPRIGHT,
    Decoded,
    cannot_read,
    decode_other,
    kind_of_file,
    orientation_in,
    read_bytes,
    system_reason,
    turn,
)
from keras_googlenet.errors import UserError

READ_ERRORS = (  # what reading and decoding an example raises
    tf.errors.OpError,
    UnicodeDecodeError,  # TensorFlow quotes the bytes of a damaged record
)

_READ_REASONS = {
    tf.errors.NotFoundError: "there is no such file",
    tf.errors.PermissionDeniedError: "permission denied",
    tf.errors.FailedPreconditionError: "it is a folder",
    tf.errors.ResourceExhaustedError: "there is not enough memory for it",
    tf.errors.DataLossError: "its record is damaged",
    UnicodeDecodeError: "its record is damaged",
}
_ASSERTED = re.compile(r"assertion failed: \[(.*?)\]")
_NODE_NAMES = re.compile(r"\[*\{\{.*?\}\}\]*|\[Op:.*?\]")
_UNKNOWN_FORMAT = re.compile("is not a JPEG|[Uu]nknown image file format|got empty file")


def read_image(path: str | os.PathLike) -> tf.Tensor:
    """Reads one image file as it is stored, `(height, width, 3)` uint8, RGB.

    JPEG, PNG, GIF, BMP and WebP are decoded as by `classify`; other formats, such as TIFF and AVIF,
    and HEIC with pillow-heif, by Pillow. Of several pages it reads the first. Raises UserError with
    the reason if it cannot.
    """
    return _read(path)[0]


def read_upright(path: str | os.PathLike, turned: dict[str, int]) -> tf.Tensor:
    """As `read_image`, turned upright; `turned` collects EXIF orientations by file."""
    image, orientation, remaining = _read(path)
    if orientation != UPRIGHT:
        turned[str(path)] = orientation
    return image if remaining == UPRIGHT else tf.constant(turn(image.numpy(), remaining))


class ImageBatch(NamedTuple):
    """Images `(n, size, size, 3)` float32, with the files that they come from."""

    files: list[str]
    images: np.ndarray


def image_batches(
    files: list[str],
    image_size: int,
    errors: list[UserError],
    batch_size: int = 32,
    turned: dict[str, int] | None = None,
) -> Iterator[ImageBatch]:
    """Yields central crops of image files, in order, without those that cannot be read.

    `errors` collects an error for each of these. With `turned`, images are turned upright.
    """
    for start in range(0, len(files), batch_size):
        readable, crops = [], []
        for file in files[start : start + batch_size]:
            try:
                image = read_image(file) if turned is None else read_upright(file, turned)
                crops.append(preprocessing.evaluation_crop(image, image_size).numpy())
                readable.append(file)
            except UserError as error:
                errors.append(error)
        if crops:
            yield ImageBatch(readable, np.stack(crops))


def reason_of(error: Exception, content: bytes | None = None) -> str:
    """Returns a clause about why an image cannot be read, such as `the file is empty`.

    `content` is the bytes of the image, or the first `FIRST_BYTES`, if known.
    """
    if isinstance(error, OSError):
        return system_reason(error)
    for kind, reason in _READ_REASONS.items():
        if isinstance(error, kind):
            return reason
    if not isinstance(error, tf.errors.InvalidArgumentError):
        words = _NODE_NAMES.sub(" ", str(error)).split()
        return " ".join(words).rstrip(".") or type(error).__name__
    asserted = _ASSERTED.search(str(error))
    if _UNKNOWN_FORMAT.search(str(error)):
        if content is None:
            return f"it is not a {', '.join(DECODED[:-1])} or {DECODED[-1]}"
        first_bytes = content[:FIRST_BYTES]
        known = first_bytes and f"it is {kind_of(first_bytes) or content_of(first_bytes)}"
        return known or "the file is empty"
    if asserted:
        return asserted[1]
    return "it is cut off or damaged" if content != b"" else "the file is empty"


def _read(path: str | os.PathLike) -> Decoded:
    content = read_bytes(path)
    kind = kind_of_file(path, content[:FIRST_BYTES])
    if kind is not None and kind not in DECODED:
        decoded = decode_other(path, content, kind)
        return decoded._replace(pixels=tf.constant(decoded.pixels))
    try:
        image = preprocessing.decode(tf.constant(content))
    except tf.errors.OpError as error:
        raise cannot_read(path, reason_of(error, content)) from error
    orientation = orientation_in(content)
    return Decoded(image, orientation, orientation)
