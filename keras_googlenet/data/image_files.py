"""One image file as a person means it: turned upright, of any format, or refused with a reason."""

import os
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_googlenet.data import photographs, preprocessing
from keras_googlenet.data.kinds import DECODED, FIRST_BYTES, content_of, kind_of
from keras_googlenet.data.photographs import UPRIGHT
from keras_googlenet.errors import UserError

READ_ERRORS = (  # what reading and decoding raise
    tf.errors.OpError,
    UnicodeDecodeError,  # TensorFlow quotes the bytes of a damaged record
)
_ASSERTED = re.compile(r"assertion failed: \[(.*?)\]")
_NODE_NAMES = re.compile(r"\[*\{\{.*?\}\}\]*|\[Op:.*?\]")
_UNKNOWN_FORMAT = re.compile("is no JPEG|[Uu]nknown image file format|got empty file")
_READ_REASONS = {
    tf.errors.NotFoundError: "there is no such file",
    tf.errors.PermissionDeniedError: "permission denied",
    tf.errors.FailedPreconditionError: "it is a folder",
    tf.errors.ResourceExhaustedError: "there is not enough memory for it",
    tf.errors.DataLossError: "its record is damaged",
    UnicodeDecodeError: "its record is damaged",
}


def reason_of(error: Exception, content: bytes | None = None) -> str:
    """Says in a clause why an image cannot be read.

    Args:
        error: What reading or decoding it raised.
        content: The bytes of the image, or the first `kinds.FIRST_BYTES`, where they are known.

    Returns:
        Such as `the image declares more than 64 megapixels`: one line without a full stop.
    """
    if isinstance(error, OSError):
        return photographs.reason_of_system(error)
    for kind, reason in _READ_REASONS.items():
        if isinstance(error, kind):
            return reason
    if not isinstance(error, tf.errors.InvalidArgumentError):
        words = _NODE_NAMES.sub(" ", str(error)).split()
        return " ".join(words).rstrip(".") or type(error).__name__
    asserted = _ASSERTED.search(str(error))
    if _UNKNOWN_FORMAT.search(str(error)):
        return _what_else(content)
    if asserted:
        return asserted[1]
    return "it is cut off or damaged" if content != b"" else "the file is empty"


def _what_else(content: bytes | None) -> str:
    """Says what an image is that is of no known format."""
    if content is None:
        return f"it is no {', '.join(DECODED[:-1])} or {DECODED[-1]}"
    if not content:
        return "the file is empty"
    kind = kind_of(content[:FIRST_BYTES])
    return f"it is {kind or content_of(content[:FIRST_BYTES])}"


def read_image(path: str | os.PathLike) -> tf.Tensor:
    """Reads one image file as it is stored.

    Args:
        path: JPEG, PNG, GIF, BMP or WebP, as `classify` decodes it, or what Pillow reads, such as
            TIFF and AVIF, and HEIC with pillow-heif. Of several pages, the first.

    Returns:
        `(height, width, 3)` uint8, RGB.

    Raises:
        UserError: If the file is missing or cannot be read, with the reason.
    """
    return _read(path)[0]


def read_upright(path: str | os.PathLike, turned: dict[str, int]) -> tf.Tensor:
    """Reads one image file and turns it as its EXIF orientation asks.

    Args:
        path: As for `read_image`.
        turned: Is given the orientation of the file if that is not 1.

    Returns:
        `(height, width, 3)` uint8, RGB.

    Raises:
        UserError: If the file is missing or cannot be read, with the reason.
    """
    image, orientation, left = _read(path)
    if orientation != UPRIGHT:
        turned[str(path)] = orientation
    return image if left == UPRIGHT else tf.constant(photographs.turn(image.numpy(), left))


def _read(path: str | os.PathLike) -> tuple[tf.Tensor, int, int]:
    """Returns the image, its orientation, and how much of it is left to turn."""
    content = photographs.read_bytes(path)
    kind = photographs.kind_of_file(path, content[:FIRST_BYTES])
    if kind is not None and kind not in DECODED:
        decoded = photographs.decode_other(path, content, kind)
        return tf.constant(decoded.pixels), decoded.orientation, decoded.left
    try:
        image = preprocessing.decode(tf.constant(content))
    except tf.errors.OpError as error:
        reason = reason_of(error, content)
        raise UserError(f"{path} cannot be read ({reason}); give another file.") from error
    orientation = photographs.orientation_in(content)
    return image, orientation, orientation


class ViewBatch(NamedTuple):
    """Pictures with the files that they come from; `images` is `(n, size, size, 3)` float32."""

    files: list[str]
    images: np.ndarray


def view_batches(
    files: list[str],
    image_size: int,
    errors: list[UserError],
    batch_size: int = 32,
    turned: dict[str, int] | None = None,
) -> Iterator[ViewBatch]:
    """Reads image files as they are evaluated; one that cannot be read does not stop the rest.

    Args:
        files: Image files.
        image_size: Side of the pictures.
        errors: Is given an error for each file that cannot be read.
        batch_size: Pictures a batch at most.
        turned: Where given, images are turned upright, and the orientations are put here.

    Yields:
        Batches of the others, in order.
    """
    for start in range(0, len(files), batch_size):
        read, views = [], []
        for file in files[start : start + batch_size]:
            try:
                image = read_image(file) if turned is None else read_upright(file, turned)
                views.append(preprocessing.evaluation_view(image, image_size).numpy())
                read.append(file)
            except UserError as error:
                errors.append(error)
        if views:
            yield ViewBatch(read, np.stack(views))
