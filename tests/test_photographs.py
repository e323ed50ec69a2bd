"""EXIF orientations, and formats that TensorFlow does not know, against Pillow."""

import struct
import sys
import types

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps, features
from saved_images import (
    BIG,
    ORIENTATION,
    PICTURE,
    PIXELS,
    SENT_TOLERANCE,
    by_pillow,
    content_of,
    patched,
    save,
)

from keras_googlenet.data import file_kinds, image_files, pillow_images, preprocessing
from keras_googlenet.errors import UserError

needs_avif = pytest.mark.skipif(not features.check("avif"), reason="Pillow without AVIF")
EXACT = {  # suffix -> how it is saved without a loss
    "png": {},
    "webp": {"lossless": True},
    "tif": {},
    "tiff": {"compression": "tiff_lzw"},
}
LOSSY = {"jpg": {"quality": 95, "subsampling": 0}, "avif": {"quality": 90}}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [*EXACT, "jpg", pytest.param("avif", marks=needs_avif)])
def test_every_orientation_is_turned_as_pillow_does(suffix, orientation, tmp_path):
    options = (EXACT | LOSSY)[suffix]
    path, turned = save(tmp_path / f"a.{suffix}", orientation=orientation, **options), {}
    expected = by_pillow(path)
    if suffix == "jpg":  # whose decoders differ
        stored = Image.fromarray(image_files.read_image(path).numpy())
        stored.getexif()[ORIENTATION] = orientation
        expected = np.asarray(ImageOps.exif_transpose(stored))
    image = image_files.read_upright(path, turned).numpy()
    np.testing.assert_array_equal(image, expected)
    assert image.shape[:2] == ((36, 54) if orientation < 5 else (54, 36))
    assert pillow_images.orientation_of(path) == orientation
    assert turned == ({path: orientation} if orientation > 1 else {})


def test_read_image_leaves_a_photograph_as_it_is_stored(tmp_path):
    path = save(tmp_path / "a.png", orientation=6)
    np.testing.assert_array_equal(image_files.read_image(path), np.asarray(PICTURE))


def exif_with(value):
    """EXIF whose orientation is any two bytes, or of any form."""
    return b"Exif\0\0II*\0\x08\0\0\0\x01\0" + value + b"\0\0\0\0"


BROKEN = {
    "cut off": b"Exif\0\0II*\0",
    "nonsense": b"Exif\0\0" + bytes(range(200)),
    "zero": exif_with(struct.pack("<HHII", ORIENTATION, 3, 1, 0)),
    "nine": exif_with(struct.pack("<HHII", ORIENTATION, 3, 1, 9)),
    "text": exif_with(struct.pack("<HHI4s", ORIENTATION, 2, 4, b"six\0")),
    "far away": exif_with(struct.pack("<HHII", ORIENTATION, 3, 9, 2**31)),
    "a fraction": exif_with(struct.pack("<HHII", ORIENTATION, 5, 1, 8)),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG"])
@pytest.mark.filterwarnings("error")
def test_broken_exif_is_ignored(name, kind, tmp_path):
    path, turned = tmp_path / "a.img", {}
    path.write_bytes(content_of(kind, exif=BROKEN[name]))
    expected = preprocessing.decode(tf.constant(path.read_bytes()))
    np.testing.assert_array_equal(image_files.read_upright(path, turned), expected)
    assert pillow_images.orientation_of(path) == 1 and turned == {}
    assert pillow_images.upright_bytes(path, turned) == path.read_bytes()


def test_the_orientation_of_a_png_may_stand_behind_its_pixels(tmp_path):
    content = content_of("PNG", exif=exif_with(struct.pack("<HHII", ORIENTATION, 3, 1, 6)))
    start = content.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(content[start : start + 4], "big")
    last = content.index(b"IEND") - 4
    path, turned = tmp_path / "a.png", {}
    path.write_bytes(content[:start] + content[end:last] + content[start:end] + content[last:])
    expected = by_pillow(path)
    np.testing.assert_array_equal(image_files.read_upright(path, turned), expected)
    assert turned == {str(path): 6} and expected.shape == (54, 36, 3)


def test_the_orientation_is_read_without_decoding(tmp_path, monkeypatch):
    paths = [save(tmp_path / f"a.{suffix}", orientation=6) for suffix in ("jpg", "png", "tif")]
    paths.append(save(tmp_path / "plain.png"))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda *_: pytest.fail("decoded"))
    assert [pillow_images.orientation_of(path) for path in paths] == [6, 6, 6, 1]
    (tmp_path / "text.jpg").write_text("no image")
    for name in ("text.jpg", "missing.jpg", "."):
        assert pillow_images.orientation_of(tmp_path / name) == 1


def test_what_was_turned_is_said_in_one_line():
    said = []
    pillow_images.note_turned({}, said.append)
    pillow_images.note_turned({"a.jpg": 6}, said.append)
    pillow_images.note_turned({"a.jpg": 6, "b.jpg": 3, "c.jpg": 8}, said.append)
    assert said == [
        "a.jpg is turned upright, by its EXIF orientation 6",
        "a.jpg and 2 more are turned upright, by their EXIF orientations",
    ]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
@pytest.mark.filterwarnings("error")
def test_a_tiff_of_any_pixels_is_read_as_pillow_does(mode, tmp_path):
    path = save(tmp_path / "a.tif", PICTURE.convert(mode))
    np.testing.assert_array_equal(image_files.read_image(path), by_pillow(path))


@pytest.mark.parametrize("suffix", ["tif", "pgm"])
def test_sixteen_bits_are_scaled_as_those_of_a_png(suffix, tmp_path):
    values = np.array([[0, 0x0100, 0x7F00, 0x8000, 0xFFFF]], "uint16")
    path = save(tmp_path / f"a.{suffix}", Image.fromarray(values))
    np.testing.assert_array_equal(
        image_files.read_image(path)[0], np.repeat([[0], [1], [0x7F], [0x80], [255]], 3, axis=1)
    )


def test_the_first_page_is_read(tmp_path):
    path = save(tmp_path / "a.tif", save_all=True, append_images=[Image.new("L", (5, 5))])
    np.testing.assert_array_equal(image_files.read_image(path), np.asarray(PICTURE))


@pytest.mark.parametrize("suffix", ["jp2", "tga", "ppm", "pcx", "sgi"])
def test_further_formats_go_through_pillow(suffix, tmp_path):
    path = save(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(image_files.read_image(path), by_pillow(path))


@pytest.mark.parametrize("shape", [BIG, (30_000, 20_000), (1, 101)])
@pytest.mark.filterwarnings("error")
def test_pillow_is_bounded_as_tensorflow_is(shape, tmp_path, monkeypatch):
    path = save(tmp_path / "a.tif", Image.new("1", shape), compression="group4")
    monkeypatch.setattr("PIL.TiffImagePlugin.TiffImageFile.load", lambda *_: pytest.fail("read"))
    words = "64 megapixels" if shape[0] > 1 else "100 times as long"
    with pytest.raises(UserError, match=words):
        image_files.read_image(path)


HEIC = struct.pack(">I", 24) + b"ftypheic\0\0\0\0mif1heic"


def test_heic_needs_a_package_of_its_own(tmp_path, monkeypatch):
    path = tmp_path / "a.jpg"
    path.write_bytes(HEIC)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    command = "`magick mogrify -auto-orient -format jpg [*].heic`"
    with pytest.raises(UserError, match=f"install pillow-heif, or convert it with {command}"):
        image_files.read_image(path)

    def register():
        Image.register_open("HEIF", lambda file, _: PICTURE.copy(), lambda start: True)

    registry = types.SimpleNamespace(register_heif_opener=register)
    monkeypatch.setitem(sys.modules, "pillow_heif", registry)
    monkeypatch.setattr(Image, "OPEN", dict(Image.OPEN))
    monkeypatch.setattr(Image, "ID", list(Image.ID))
    np.testing.assert_array_equal(image_files.read_image(path), np.asarray(PICTURE))


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif", "bmp"])
def test_a_server_gets_the_bytes_of_the_file(suffix, tmp_path):
    path, turned = save(tmp_path / f"a.{suffix}"), {}
    assert pillow_images.upright_bytes(path, turned) == (tmp_path / f"a.{suffix}").read_bytes()
    assert turned == {}


@pytest.mark.parametrize(
    ("suffix", "orientation"), [("jpg", 6), ("png", 5), ("tif", 1), ("tif", 8)]
)
def test_a_server_gets_a_picture_that_it_can_show_upright(suffix, orientation, tmp_path):
    smooth = Image.fromarray(PIXELS).resize((540, 360), Image.BICUBIC)
    path, turned = save(tmp_path / f"a.{suffix}", smooth, orientation=orientation), {}
    content = pillow_images.upright_bytes(path, turned)
    assert file_kinds.kind_of(content) == "JPEG"
    sent = preprocessing.decode(tf.constant(content)).numpy().astype(int)
    assert sent.shape == by_pillow(path).shape
    assert np.abs(sent - by_pillow(path)).mean() < SENT_TOLERANCE
    assert turned == ({path: orientation} if orientation > 1 else {})


def test_a_server_is_left_to_refuse_what_it_cannot_read(tmp_path):
    turned = {"exif": exif_with(struct.pack("<HHII", ORIENTATION, 3, 1, 6))}
    big = patched(content_of("PNG", **turned), 16, ">II", *BIG)
    for content in (b"no image", content_of("JPEG", **turned)[:-100], big):
        (tmp_path / "a.jpg").write_bytes(content)
        assert pillow_images.upright_bytes(tmp_path / "a.jpg", {}) == content
    (tmp_path / "cut.tif").write_bytes(content_of("TIFF")[:-9])
    with pytest.raises(UserError, match="cut.tif cannot be read"):
        pillow_images.upright_bytes(tmp_path / "cut.tif", {})
