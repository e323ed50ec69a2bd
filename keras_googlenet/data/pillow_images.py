"""Image files as Pillow reads them: EXIF orientations, other formats; without TensorFlow."""

import errno
import io
import os
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image

from keras_googlenet.data.file_kinds import (
    CONVERTIBLE,
    DECODED,
    LARGEST_IMAGE,
    LONGEST_IMAGE,
    NO_PIXELS,
    TOO_LARGE,
    TOO_LONG,
    convert_command,
    kind_of,
)
from keras_googlenet.errors import UserError

UPRIGHT = 1  # the EXIF orientation of an image that needs no turning


SENT_QUALITY = 95  # of a JPEG that is sent to a server in place of an image


_ORIENTATION = 0x0112  # the tag's number, EXIF 2.3 section 4.6.4


_SYSTEM_REASONS = {
    errno.ENOENT: "there is no such file",
    errno.ENOTDIR: "there is no such file",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EISDIR: "it is a folder",
}


_PILLOW_NAMES = {  # by format; EPS is missing, since it would start Ghostscript
    **{kind: kind.upper() for kind in (*DECODED, "TIFF", "AVIF", "ICO", "PSD", "TGA")},
    **{kind: kind for kind in ("DDS", "QOI", "PCX", "SGI")},
    **{"JPEG 2000": "JPEG2000", "PNM": "PPM", "HEIC": "HEIF"},
}


class Decoded(NamedTuple):
    """A decoded image file: array or tensor `(h, w, 3)` uint8, RGB, and its EXIF orientation."""

    pixels: Any
    orientation: int
    remaining: int  # the orientation that `pixels` still has; Pillow turns a TIFF by itself


def upright_bytes(path: str | os.PathLike, turned: dict[str, int]) -> bytes:
    """Reads a file for a server, which decodes `file_kinds.DECODED` and ignores EXIF orientations.

    An image that must be turned or converted becomes a JPEG. Raises UserError if the file cannot be
    read, or must be converted and cannot be.
    """
    content = read_bytes(path)
    kind = kind_of_file(path, content)
    if kind in (None, *DECODED):
        if kind is None or orientation_in(content) == UPRIGHT:
            return content
        try:
            decoded = _decode(content, kind)
        except Exception:  # the server reports what is wrong with it
            return content
    else:
        decoded = decode_other(path, content, kind)
    if decoded.orientation != UPRIGHT:
        turned[str(path)] = decoded.orientation
    file = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(turn(decoded.pixels, decoded.remaining)))
    image.save(file, "JPEG", quality=SENT_QUALITY, subsampling=0)
    return file.getvalue()


def note_turned(turned: dict[str, int], note: Callable[[str], None]):
    """Passes to `note` one line about the images that were turned, if there are any."""
    if not turned:
        return
    (path, orientation), *others = turned.items()
    if others:
        note(f"{path} and {len(others)} more are turned upright, by their EXIF orientations")
    else:
        note(f"{path} is turned upright, by its EXIF orientation {orientation}")


def read_bytes(path: str | os.PathLike) -> bytes:
    """Reads a file; raises UserError with the reason if it cannot."""
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a zero in the name
        reason = system_reason(error) if isinstance(error, OSError) else error
        raise cannot_read(path, reason) from error


def kind_of_file(path: str | os.PathLike, content: bytes) -> str | None:
    """As `kind_of` the content, with the suffix for raw files that look like TIFF, and for TGA."""
    kind, named = kind_of(content), CONVERTIBLE.get(Path(path).suffix.lower())
    ambiguous = {"camera raw": "TIFF", "TGA": None}
    return named if named in ambiguous and ambiguous[named] == kind and content else kind


def orientation_of(path: str | os.PathLike) -> int:
    """Reads the EXIF orientation of a file, 1-8, from its header; 1 where there is none."""
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


def cannot_read(path, reason, advice: str = "give another file") -> UserError:
    """Makes the error of a file that cannot be read, from the reason as a clause."""
    return UserError(f"{path} cannot be read ({reason}); {advice}.")


def system_reason(error: OSError) -> str:
    """Returns why the system does not open a file, as a clause."""
    return _SYSTEM_REASONS.get(error.errno) or error.strerror or "it cannot be opened"


class RefusedError(Exception):
    """Why an image is not decoded, though it could be."""


def decode_other(path: str | os.PathLike, content: bytes, kind: str) -> Decoded:
    """Decodes by Pillow an image, or its first page, of a format that TensorFlow does not decode.

    Raises UserError if that fails, with the command that converts it where that may help.
    """
    how = f"convert it with `{convert_command(kind, Path(path).suffix)}`"
    if kind == "HEIC" and not _has_heif():
        raise cannot_read(path, "it is HEIC", f"install pillow-heif, or {how}")
    try:
        if kind in _PILLOW_NAMES:
            return _decode(content, kind)
    except RefusedError as error:
        raise cannot_read(path, error) from error
    except Image.UnidentifiedImageError:
        pass  # Pillow was built without this format, or the start of the file is damaged
    except Exception as error:  # Pillow's readers may raise anything on a damaged file
        raise cannot_read(path, f"it is {kind}, cut off or damaged") from error
    raise cannot_read(path, f"it is {kind}", how)


def _decode(content: bytes, kind: str) -> Decoded:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's about large images and odd tags
        try:
            image = Image.open(io.BytesIO(content), formats=[_PILLOW_NAMES[kind]])
        except Image.DecompressionBombError as error:
            raise RefusedError(TOO_LARGE) from error
        with image:
            _check_sides(*image.size)
            image.load()
            return Decoded(_as_rgb(image, kind), orientation_in(content), _tag(image))


def _check_sides(width: int, height: int):
    """Refuses what `image_headers.check_sides` refuses in the graph."""
    longer, shorter = max(width, height), min(width, height)
    for is_wrong, reason in (
        (shorter < 1, NO_PIXELS),
        (width * height > LARGEST_IMAGE, TOO_LARGE),
        (longer > LONGEST_IMAGE * shorter, TOO_LONG),
    ):
        if is_wrong:
            raise RefusedError(reason)


def _as_rgb(image: Image.Image, kind: str) -> np.ndarray:
    """Scales 16 bits to 8 as TensorFlow does, and drops alpha."""
    if image.mode.startswith("I;16") or (image.mode == "I" and kind == "PNM"):
        gray = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        return np.repeat(gray[..., None], 3, axis=-1)
    if image.mode in ("I", "F"):
        raise RefusedError("its pixels are 32-bit numbers; save it with 8 bits")
    try:
        return np.asarray(image.convert("RGB"))
    except ValueError:  # premultiplied alpha
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
                tag = _tag(image)
                is_late = tag == UPRIGHT and image.format == "PNG" and "exif" not in image.info
            return _late_tag(file) if is_late else tag
        except Exception:  # whatever is wrong, reading the image will report it
            return UPRIGHT


def _tag(image: Image.Image) -> int:
    """Returns the orientation of an open image, without decoding it as `PngImageFile` would."""
    try:
        return _valid(Image.Image.getexif(image).get(_ORIENTATION))
    except Exception:  # broken tags are as good as none
        return UPRIGHT


def _late_tag(file: BinaryIO) -> int:
    """Returns the orientation of a PNG whose EXIF comes after its pixels, if it has any."""
    tags = Image.Exif()
    file.seek(8)
    while len(head := file.read(8)) == 8:
        length, name = struct.unpack(">I4s", head)
        if name == b"eXIf":
            tags.load(file.read(length))
            break
        file.seek(length + 4, io.SEEK_CUR)
    return _valid(tags.get(_ORIENTATION))


def _valid(orientation) -> int:
    known = isinstance(orientation, int) and UPRIGHT <= orientation <= 8
    return orientation if known else UPRIGHT
