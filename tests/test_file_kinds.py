"""What the first bytes of a file say, against what Pillow writes."""

import struct

import pytest
from PIL import features
from saved_images import content_of

from keras_googlenet.data import file_kinds


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WebP", "TIFF", "ICO", "AVIF"])
def test_kind_of_knows_what_pillow_writes(kind):
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("Pillow without AVIF")
    assert file_kinds.kind_of(content_of(kind.upper())[: file_kinds.FIRST_BYTES]) == kind


def test_kind_of_is_not_taken_in():
    others = (b"BMW is a car", b"P1 is first", b"RIFF\x24\0\0\0AVI ", b"<html><svg>")
    for content in (b"", b"GIF8", *others):
        assert file_kinds.kind_of(content) is None
    assert file_kinds.kind_of(struct.pack(">I", 28) + b"ftypmif1\0\0\0\0mif1avifmiaf") == "AVIF"
    assert file_kinds.kind_of(struct.pack(">I", 24) + b"ftypmif1\0\0\0\0mif1heic") == "HEIC"
    assert file_kinds.kind_of(struct.pack(">I", 20) + b"ftypmsf1\0\0\0\0iso8") == "HEIC"
    assert file_kinds.content_of("grüße ".encode()[:3]) == "text, not an image"


def test_suffixes_and_commands():
    assert set(file_kinds.SUFFIXES) == {".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp"}
    assert not set(file_kinds.SUFFIXES) & set(file_kinds.CONVERTIBLE)
    assert file_kinds.convert_command("TIFF") == "magick mogrify -auto-orient -format jpg *.tif"
    for suffix, kind in file_kinds.CONVERTIBLE.items():
        assert suffix == suffix.lower() and file_kinds.convert_command(kind, suffix).endswith(
            suffix
        )
    assert file_kinds.convert_command("HEIC", ".jpg").endswith("*.heic")
