"""One image file as a person means it: turned upright, of any format, or refused with a reason."""

import errno
import io
import os
import re
import struct
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image

from keras_googlenet.data import file_kinds, preprocessing
from keras_googlenet.data.file_kinds import (
    DECODED,
    FIRST_BYTES,
    LARGEST_IMAGE,
    LONGEST_IMAGE,
    content_of,
    kind_of,
)
from keras_googlenet.errors import UserError

UPRIGHT = 1  # the EXIF orientation of an image that needs no turning
SENT_QUALITY = 95  # of a JPEG that stands for an image on its way to a server

_ORIENTATION = 0x0112  # the tag's number, EXIF 2.3 section 4.6.4
_REASONS = {
    errno.ENOENT: "there is no such file",
    errno.ENOTDIR: "there is no such file",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EISDIR: "it is a folder",
}
_READERS = {  # kind -> Pillow's name; EPS is left out, since it would start Ghostscript
    **{kind: kind.upper() for kind in (*file_kinds.DECODED, "TIFF", "AVIF", "ICO", "PSD", "TGA")},
    **{kind: kind for kind in ("DDS", "QOI", "PCX", "SGI")},
    **{"JPEG 2000": "JPEG2000", "PNM": "PPM", "HEIC": "HEIF"},
}


class Decoded(NamedTuple):
    """An image as Pillow reads it.

    Attributes:
        pixels: `(h, w, 3)` uint8, RGB; alpha is dropped, 16 bits are scaled to 8.
        orientation: The EXIF orientation that the file notes, 1 where it notes none.
        left: The orientation that `pixels` still has: of a TIFF, Pillow turns them itself.
    """

    pixels: np.ndarray
    orientation: int
    left: int


def read_bytes(path: str | os.PathLike) -> bytes:
    """Reads a file.

    Raises:
        UserError: If it cannot be read, with the reason.
    """
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a zero in the name
        reason = reason_of_system(error) if isinstance(error, OSError) else error
        raise UserError(f"{path} cannot be read ({reason}); give another file.") from error


def reason_of_system(error: OSError) -> str:
    """Says in a clause why a file cannot be read."""
    return _REASONS.get(error.errno) or error.strerror or "it cannot be opened"


def kind_of_file(path: str | os.PathLike, content: bytes) -> str | None:
    """Tells the format of an image by its content and, where that leaves a doubt, its name.

    Args:
        path: Its name; the raw files of many cameras look like a TIFF, and a TGA has no signature.
        content: The beginning of the file.

    Returns:
        As `file_kinds.kind_of`.
    """
    kind, named = file_kinds.kind_of(content), file_kinds.CONVERTIBLE.get(Path(path).suffix.lower())
    doubtful = {"camera raw": "TIFF", "TGA": None}
    return named if named in doubtful and doubtful[named] == kind and content else kind


def orientation_of(path: str | os.PathLike) -> int:
    """Reads how an image must be turned, from its header alone.

    Args:
        path: Image file.

    Returns:
        The EXIF orientation, 1-8; 1 where there is none, it is broken, or the file is no image.
    """
    try:
        with open(path, "rb") as file:
            return _orientation_in(file)
    except OSError:
        return UPRIGHT


def orientation_in(content: bytes) -> int:
    """As `orientation_of`, from the bytes of a file."""
    return _orientation_in(io.BytesIO(content))


def turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turns an image, `(h, w, 3)`, upright that was stored with an EXIF orientation, 1-8."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels[:, ::-1] if orientation in (2, 3, 6, 7) else pixels


def decode_other(path: str | os.PathLike, content: bytes, kind: str) -> Decoded:
    """Decodes an image of a format that TensorFlow does not decode, or its first page.

    Args:
        path: Its name.
        content: The bytes of the file.
        kind: Its format, as `kind_of_file` tells it.

    Raises:
        UserError: If it cannot be read; it says how to convert it.
    """
    how = f"convert it with `{file_kinds.convert_command(kind, Path(path).suffix)}`"
    if kind == "HEIC" and not _has_heif():
        raise UserError(f"{path} cannot be read (it is HEIC); install pillow-heif, or {how}.")
    try:
        if kind in _READERS:
            return _decode(content, kind)
    except _Refused as error:
        raise UserError(f"{path} cannot be read ({error}); give another file.") from error
    except Image.UnidentifiedImageError:
        pass  # Pillow was built without this format, or its beginning is damaged
    except Exception as error:  # its readers raise whatever a damaged file leads them into
        raise UserError(
            f"{path} cannot be read (it is {kind}, cut off or damaged); give another file."
        ) from error
    raise UserError(f"{path} cannot be read (it is {kind}); {how}.")


def upright_bytes(path: str | os.PathLike, turned: dict[str, int]) -> bytes:
    """Reads a file as a server should get it, which knows `file_kinds.DECODED` and no orientation.

    Args:
        path: Image file.
        turned: Is given the orientation of the file if that is not 1.

    Returns:
        The bytes of the file; where it must be turned or converted, a JPEG.

    Raises:
        UserError: If it cannot be read, or must be converted and cannot be.
    """
    content = read_bytes(path)
    kind = kind_of_file(path, content)
    if kind in (None, *file_kinds.DECODED):
        if kind is None or orientation_in(content) == UPRIGHT:
            return content
        try:
            decoded = _decode(content, kind)
        except Exception:  # the server says what is wrong with it
            return content
    else:
        decoded = decode_other(path, content, kind)
    if decoded.orientation != UPRIGHT:
        turned[str(path)] = decoded.orientation
    file = io.BytesIO()
    picture = Image.fromarray(np.ascontiguousarray(turn(decoded.pixels, decoded.left)))
    picture.save(file, "JPEG", quality=SENT_QUALITY, subsampling=0)
    return file.getvalue()


def note_turned(turned: dict[str, int], note: Callable[[str], None]):
    """Says in one line which images were turned, if any was.

    Args:
        turned: File -> EXIF orientation, as `upright_bytes` fills it.
        note: Is given the line.
    """
    if not turned:
        return
    (path, orientation), *others = turned.items()
    if others:
        note(f"{path} and {len(others)} more are turned upright, as their EXIF orientations ask")
    else:
        note(f"{path} is turned upright, as its EXIF orientation {orientation} asks")


class _Refused(Exception):
    """Why an image is not decoded, though it could be."""


def _decode(content: bytes, kind: str) -> Decoded:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's about large images and odd tags
        try:
            image = Image.open(io.BytesIO(content), formats=[_READERS[kind]])
        except Image.DecompressionBombError as error:
            raise _Refused(_too_large()) from error
        with image:
            _check_sides(*image.size)
            image.load()
            return Decoded(_as_rgb(image, kind), orientation_in(content), _tag(image))


def _check_sides(width: int, height: int):
    if width * height > LARGEST_IMAGE:
        raise _Refused(_too_large())
    if max(width, height) > LONGEST_IMAGE * min(width, height):
        raise _Refused(f"the image is more than {LONGEST_IMAGE} times as long as wide")


def _too_large() -> str:
    return f"the image declares more than {LARGEST_IMAGE // 10**6} megapixels"


def _as_rgb(image: Image.Image, kind: str) -> np.ndarray:
    """Scales 16 bits to 8 as TensorFlow does, and drops alpha."""
    if image.mode.startswith("I;16") or (image.mode == "I" and kind == "PNM"):
        gray = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        return np.repeat(gray[..., None], 3, axis=-1)
    if image.mode in ("I", "F"):
        raise _Refused("its pixels are 32-bit numbers; save it with 8 bits")
    try:
        return np.asarray(image.convert("RGB"))
    except ValueError:  # alpha that is multiplied in
        return np.asarray(image.convert("RGBA").convert("RGB"))


def _has_heif() -> bool:
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def _orientation_in(file: BinaryIO) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(file) as image:
                found = _tag(image)
                is_late = found == UPRIGHT and image.format == "PNG" and "exif" not in image.info
                return _tag_of(_late_exif(file)) if is_late else found
        except Exception:  # whatever is wrong, reading the image will say it
            return UPRIGHT


def _tag(image: Image.Image) -> int:
    """Returns the orientation of an open image, without decoding it as `PngImageFile` would."""
    try:
        return _valid(Image.Image.getexif(image).get(_ORIENTATION))
    except Exception:  # broken tags are as good as none
        return UPRIGHT


def _tag_of(exif: bytes) -> int:
    tags = Image.Exif()
    tags.load(exif)
    return _valid(tags.get(_ORIENTATION))


def _valid(orientation) -> int:
    known = isinstance(orientation, int) and UPRIGHT <= orientation <= 8
    return orientation if known else UPRIGHT


def _late_exif(file: BinaryIO) -> bytes:
    """Returns the EXIF of a PNG that keeps it behind the pixels, empty where it has none."""
    file.seek(8)
    while len(head := file.read(8)) == 8:
        length, name = struct.unpack(">I4s", head)
        if name == b"eXIf":
            return file.read(length)
        file.seek(length + 4, io.SEEK_CUR)
    return b""


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
        return reason_of_system(error)
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
    return image if left == UPRIGHT else tf.constant(turn(image.numpy(), left))


def _read(path: str | os.PathLike) -> tuple[tf.Tensor, int, int]:
    """Returns the image, its orientation, and how much of it is left to turn."""
    content = read_bytes(path)
    kind = kind_of_file(path, content[:FIRST_BYTES])
    if kind is not None and kind not in DECODED:
        decoded = decode_other(path, content, kind)
        return tf.constant(decoded.pixels), decoded.orientation, decoded.left
    try:
        image = preprocessing.decode(tf.constant(content))
    except tf.errors.OpError as error:
        reason = reason_of(error, content)
        raise UserError(f"{path} cannot be read ({reason}); give another file.") from error
    orientation = orientation_in(content)
    return image, orientation, orientation


class ImageBatch(NamedTuple):
    """Images with the files that they come from; `images` is `(n, size, size, 3)` float32."""

    files: list[str]
    images: np.ndarray


def image_batches(
    files: list[str],
    image_size: int,
    errors: list[UserError],
    batch_size: int = 32,
    turned: dict[str, int] | None = None,
) -> Iterator[ImageBatch]:
    """Reads image files as they are evaluated; one that cannot be read does not stop the rest.

    Args:
        files: Image files.
        image_size: Side of the pictures.
        errors: Is given an error for each file that cannot be read.
        batch_size: SampleImages a batch at most.
        turned: Where given, images are turned upright, and the orientations are put here.

    Yields:
        Batches of the others, in order.
    """
    for start in range(0, len(files), batch_size):
        read, views = [], []
        for file in files[start : start + batch_size]:
            try:
                image = read_image(file) if turned is None else read_upright(file, turned)
                views.append(preprocessing.evaluation_crop(image, image_size).numpy())
                read.append(file)
            except UserError as error:
                errors.append(error)
        if views:
            yield ImageBatch(read, np.stack(views))
