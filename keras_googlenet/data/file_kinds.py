"""The format of a file by its first bytes or its suffix; imports nothing heavy.

A known suffix decides which files of a folder are images; the first bytes decide about others, and
explain why a file cannot be decoded.
"""

import codecs
import re

DECODED = ("JPEG", "PNG", "GIF", "BMP", "WebP")  # what TensorFlow decodes, and `classify` with it
SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp")  # images without opening them
FIRST_BYTES = 256  # that `kind_of` and `content_of` look at
LARGEST_IMAGE = 64_000_000  # pixels: 192 MB as RGB bytes
LONGEST_IMAGE = 100  # longer over shorter side: resizing scales by the shorter one
NO_PIXELS = "the image has no pixels"
TOO_LARGE = f"the image declares more than {LARGEST_IMAGE // 10**6} megapixels"
TOO_LONG = f"the image is more than {LONGEST_IMAGE} times as long as wide"

_SUFFIXES_OF = {  # formats that must be converted first; the first suffix is the most usual one
    "TIFF": (".tif", ".tiff", ".btf", ".tf8"),
    "HEIC": (".heic", ".heif", ".hif", ".heics", ".heifs"),
    "AVIF": (".avif", ".avifs"),
    "JPEG XL": (".jxl",),
    "JPEG 2000": (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    "JPEG XR": (".jxr", ".wdp", ".hdp"),
    "PNM": (".ppm", ".pgm", ".pbm", ".pnm", ".pam", ".pfm"),
    "TGA": (".tga",),
    "PSD": (".psd", ".psb"),
    "ICO": (".ico",),
    "SVG": (".svg",),
    "OpenEXR": (".exr",),
    "Radiance HDR": (".hdr",),
    "DDS": (".dds",),
    "QOI": (".qoi",),
    "PCX": (".pcx",),
    "SGI": (".sgi", ".rgb"),
    "XCF": (".xcf",),
    "camera raw": (
        *(".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".sr2", ".srf", ".raf", ".orf"),
        *(".rw2", ".pef", ".srw", ".x3f", ".3fr", ".erf", ".kdc", ".mrw", ".rwl", ".iiq"),
    ),
}
CONVERTIBLE = {suffix: kind for kind, suffixes in _SUFFIXES_OF.items() for suffix in suffixes}

_SIGNATURES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    **dict.fromkeys((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), "TIFF"),  # "+": BigTIFF
    b"\0\0\0\x0cJXL \r\n\x87\n": "JPEG XL",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"II\xbc\x01": "JPEG XR",
    b"8BPS": "PSD",
    b"\x76\x2f\x31\x01": "OpenEXR",
    b"#?RADIANCE": "Radiance HDR",
    b"#?RGBE": "Radiance HDR",
    b"DDS ": "DDS",
    b"qoif": "QOI",
    b"\x0a\x05\x01": "PCX",
    b"\x01\xda\x00": "SGI",
    b"\x01\xda\x01": "SGI",
    b"gimp xcf": "XCF",
    b"FUJIFILMCCD-RAW": "camera raw",
    **dict.fromkeys((b"IIRO", b"IIRS", b"MMOR"), "camera raw"),  # Olympus
    **dict.fromkeys((b"IIU\0", b"FOVb", b"\0MRM"), "camera raw"),  # Panasonic, Sigma, Minolta
}
_BRANDS = {  # of ISO media files, ISO/IEC 23008-12 and the AVIF specification
    b"avif": "AVIF",
    b"avis": "AVIF",
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm"), "HEIC"),
    b"crx ": "camera raw",  # Canon
    b"mif1": "HEIC",  # image files of any codec: last, since AVIF carries it too
    b"msf1": "HEIC",
}
_OTHER_CONTENTS = {
    b"version https://git-lfs": "a Git LFS pointer; run git lfs pull",
    b"/annex/objects/": "a git-annex pointer; run git annex get",
    b"%PDF": "a PDF file",
    b"PK\x03\x04": "a ZIP file",
    b"\x1f\x8b": "a gzip file",
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ\0": "an xz file",
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip file",
    b"Rar!": "a RAR file",
    b"\x28\xb5\x2f\xfd": "a Zstandard file",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a NumPy array",
    b"\x1a\x45\xdf\xa3": "a Matroska or WebM video",
    b"\0\x05\x16\x07": "a macOS resource file (._ in front of its name)",
    b"%!PS": "PostScript",
    b"OggS": "an Ogg file",
    b"ID3": "an MP3 file",
    b"\x7fELF": "a program",
    b"MZ": "a program",
}
_NO_IMAGE = "not an image"
_PNM = re.compile(rb"P[1-6Ff]\s+[#\d]|P7\s+[#A-Z]")
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)  # bytes; TensorFlow only checks "BM"


def kind_of(first_bytes: bytes) -> str | None:
    """Returns the format of an image, as in `DECODED` and the values of `CONVERTIBLE`, or `None`.

    Args:
        first_bytes: The first `FIRST_BYTES` of the file, or all that it has.
    """
    for signature, kind in _SIGNATURES.items():
        if first_bytes.startswith(signature):
            return "camera raw" if first_bytes[8:10] == b"CR" and kind == "TIFF" else kind
    if first_bytes[:4] == b"RIFF" and first_bytes[8:12] == b"WEBP":
        return "WebP"
    if first_bytes[4:8] == b"ftyp":
        return _kind_of_media(first_bytes)
    if first_bytes[:2] == b"BM" and int.from_bytes(first_bytes[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    if first_bytes[:4] == b"\0\0\1\0" and first_bytes[4:6] != b"\0\0":
        return "ICO"
    if _PNM.match(first_bytes):
        return "PNM"
    is_svg = b"<svg" in first_bytes and _is_text(first_bytes) and not _is_html(first_bytes)
    return "SVG" if is_svg else None


def _kind_of_media(first_bytes: bytes) -> str | None:
    """Looks up the brands of an ISO media file: its own, and those that it is compatible with."""
    end = min(int.from_bytes(first_bytes[:4], "big"), len(first_bytes))
    brands = {first_bytes[8:12], *(first_bytes[i : i + 4] for i in range(16, end, 4))}
    return next((kind for brand, kind in _BRANDS.items() if brand in brands), None)


def content_of(first_bytes: bytes) -> str:
    """Describes a file that is not an image: words that follow "it is", such as `a PDF file`.

    Args:
        first_bytes: The first `FIRST_BYTES` of the file, or all that it has.
    """
    for signature, words in _OTHER_CONTENTS.items():
        if first_bytes.startswith(signature):
            return words
    if first_bytes[:4] == b"RIFF":
        return {b"WAVE": "a WAV file", b"AVI ": "an AVI video"}.get(first_bytes[8:12], _NO_IMAGE)
    if first_bytes[4:8] == b"ftyp":
        return "a video"
    if first_bytes and not first_bytes.strip(b"\0"):
        return "zeros only, as an unfinished copy leaves them"
    if not _is_text(first_bytes):
        return _NO_IMAGE
    if _is_html(first_bytes):
        return "an HTML page, not an image"
    if first_bytes.startswith(b"<?xml"):
        return "XML text, not an image"
    is_json = first_bytes.startswith((b'{"', b"[{"))
    return "JSON text, not an image" if is_json else "text, not an image"


def _is_html(first_bytes: bytes) -> bool:
    start = first_bytes.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return start.startswith((b"<!doctype html", b"<html", b"<head", b"<body", b"<script"))


def _is_text(first_bytes: bytes) -> bool:
    """Whether the bytes are UTF-8, where the end may be cut off in the middle of a letter."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(first_bytes)
    except UnicodeDecodeError:
        return False
    return bool(first_bytes) and b"\0" not in first_bytes


def convert_command(kind: str, suffix: str = "") -> str:
    """Returns ImageMagick's command that converts all images of a format in a folder.

    It turns the images upright, since training ignores their EXIF orientation.

    Args:
        kind: A value of `CONVERTIBLE`.
        suffix: Suffix of the files; the most usual one of the format if it is not one of its own.
    """
    if CONVERTIBLE.get(suffix.lower()) != kind:
        suffix = _SUFFIXES_OF[kind][0]
    return f"magick mogrify -auto-orient -format jpg *{suffix}"
