"""What an image may declare, against PIL and the formats' own layouts."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_googlenet.data import headers, preprocessing

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 7, 4), dtype="uint8")
JPEG_TOLERANCE = 6  # of the decoders' rounding: the content is the same file


def image(mode):
    return Image.fromarray(PIXELS).convert("RGB" if mode == "P" else mode).convert(mode)


def encoded(picture, kind, **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def patched(content, position, fmt, *values):
    content = bytearray(content)
    struct.pack_into(fmt, content, position, *values)
    return bytes(content)


def jpeg_of(height, width):
    content = encoded(image("RGB"), "JPEG")
    return patched(content, content.index(b"\xff\xc0") + 5, ">HH", height, width)


GOOD = [("JPEG", mode) for mode in ("L", "RGB", "CMYK")]
GOOD += [("PNG", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")]
GOOD += [("BMP", mode) for mode in ("L", "RGB", "RGBA")] + [("GIF", "L"), ("GIF", "P")]


@pytest.mark.parametrize(("kind", "mode"), GOOD)
def test_decodes_as_pil(kind, mode):
    content = encoded(image(mode), kind)
    # PIL drops alpha as well: it does not blend
    expected = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    decoded = preprocessing.decode(tf.constant(content)).numpy()
    tolerance = JPEG_TOLERANCE if kind == "JPEG" else 0
    np.testing.assert_allclose(decoded.astype(int), expected, atol=tolerance)


def test_sixteen_bits_are_scaled():
    values = np.array([[0, 0x0100, 0x7F00, 0x8000, 0xFFFF]], "uint16")
    decoded = preprocessing.decode(tf.constant(encoded(Image.fromarray(values), "PNG")))
    np.testing.assert_array_equal(decoded[0, :, 0], [0, 1, 0x7F, 0x80, 255])


def test_orientation_is_ignored():
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    content = encoded(image("RGB"), "JPEG", exif=exif)
    assert preprocessing.decode(tf.constant(content)).shape == (6, 7, 3)


def test_only_the_first_frame_of_a_gif_is_read():
    frames = [image("L"), Image.fromarray(PIXELS[::-1, :, 0])] * 3
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=50)
    cut = headers.checked(tf.constant(content)).numpy()
    assert Image.open(io.BytesIO(content)).n_frames == 6
    assert Image.open(io.BytesIO(cut)).n_frames == 1 and len(cut) < len(content) / 3
    np.testing.assert_array_equal(
        preprocessing.decode(tf.constant(content))[..., 0], np.asarray(frames[0])
    )


def test_a_later_frame_of_a_gif_may_declare_anything():
    content = encoded(image("L"), "GIF")
    descriptor = content.index(b"\x2c\0\0\0\0")
    bomb = struct.pack("<BHHHHB", 0x2C, 0, 0, 65535, 65535, 0) + content[descriptor + 10 : -1]
    decoded = preprocessing.decode(tf.constant(content[:-1] + bomb + b";"))
    np.testing.assert_array_equal(decoded[..., 0], np.asarray(image("L")))


BIG = (8001, 8000)  # pixels: just over 64 million
PNG, BMP, GIF = (
    encoded(image("RGB"), "PNG"),
    encoded(image("RGB"), "BMP"),
    encoded(image("L"), "GIF"),
)
FRAME = GIF.index(b"\x2c\0\0\0\0")
REFUSED = {
    "nothing": (b"", "no JPEG, PNG, GIF or BMP"),
    "text": (b"no image", "no JPEG, PNG, GIF or BMP"),
    "WebP": (encoded(image("RGB"), "WEBP"), "no JPEG, PNG, GIF or BMP"),
    "big JPEG": (jpeg_of(*BIG), "more than 64 megapixels"),
    "big PNG": (patched(PNG, 16, ">II", *BIG), "more than 64 megapixels"),
    "huge PNG": (patched(PNG, 16, ">II", 2**31 - 1, 2**31 - 1), "more than 64 megapixels"),
    "big BMP": (patched(BMP, 18, "<ii", *BIG), "more than 64 megapixels"),
    "big BMP upside down": (patched(BMP, 18, "<ii", 8000, -8001), "more than 64 megapixels"),
    "big GIF": (patched(GIF, 6, "<HH", *BIG), "more than 64 megapixels"),
    "big GIF frame": (patched(GIF, FRAME + 5, "<HH", *BIG), "more than 64 megapixels"),
    "empty PNG": (patched(PNG, 16, ">II", 0, 5), "no pixels"),
    "negative BMP": (patched(BMP, 18, "<ii", -(2**31), -(2**31)), "no pixels"),
    "long PNG": (patched(PNG, 16, ">II", 1, 101), "100 times as long"),
    "palette BMP": (encoded(image("P"), "BMP"), "palette of colours"),
    "black and white BMP": (encoded(image("1"), "BMP"), "palette of colours"),
    "compressed BMP": (patched(BMP, 30, "<I", 1), "compressed"),
    "old BMP": (patched(BMP, 14, "<I", 12), "before Windows 3"),
    "short PNG": (PNG[:10], "does not begin with its header"),
    "GIF of crumbs": (
        GIF[:FRAME] + b"!\xfe" + b"\x01x" * 10_000 + b"\0" + GIF[FRAME:],
        "too many blocks",
    ),
    "short GIF": (GIF[:8], "holds no image"),
    "short JPEG": (b"\xff\xd8\xff", "JPEG"),
    "cut JPEG": (encoded(image("RGB"), "JPEG")[:100], "JPEG"),
    "cut PNG": (PNG[: len(PNG) // 2], "PNG"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("in_graph", [False, True])
def test_refused(name, in_graph, decode_in_graph):
    content, message = REFUSED[name]
    decode = decode_in_graph if in_graph else preprocessing.decode
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        decode(tf.constant(content))


@pytest.fixture(scope="module")
def decode_in_graph():
    return tf.function(preprocessing.decode, input_signature=[tf.TensorSpec((), tf.string)])


@pytest.mark.parametrize("height", [8000, -8000])
def test_exactly_64_megapixels_pass(height):
    content = tf.constant(patched(BMP, 18, "<ii", 8000, height))
    assert headers.checked(content) == content
