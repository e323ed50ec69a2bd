"""What an image may declare, against PIL and the formats' own layouts."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from saved_images import JPEG_TOLERANCE, content_of, patched

from keras_googlenet.data import image_headers, preprocessing

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 7, 4), dtype="uint8")


def image(mode):
    return Image.fromarray(PIXELS).convert("RGB" if mode == "P" else mode).convert(mode)


def chunk(name, content):
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def webp_of(*chunks):
    content = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(content)) + content


def three_bytes(number):
    return struct.pack("<I", number)[:3]


def canvas(height, width, flags=0):
    sides = three_bytes(width - 1) + three_bytes(height - 1)
    return chunk(b"VP8X", struct.pack("<I", flags) + sides)


def frame(height, width, chunks):
    sides = three_bytes(width - 1) + three_bytes(height - 1)
    return chunk(b"ANMF", bytes(6) + sides + bytes(4) + chunks)


def lossless_of(height, width):
    bits = (width - 1) | (height - 1) << 14
    return webp_of(chunk(b"VP8L", b"\x2f" + struct.pack("<I", bits) + bytes(20)))


def lossy_of(height, width):
    start = b"\x10\0\0\x9d\x01\x2a" + struct.pack("<HH", width, height)
    return webp_of(chunk(b"VP8 ", start + bytes(20)))


def jpeg_of(height, width):
    content = content_of("JPEG", image("RGB"))
    return patched(content, content.index(b"\xff\xc0") + 5, ">HH", height, width)


GOOD = [("JPEG", mode) for mode in ("L", "RGB", "CMYK")]
GOOD += [("PNG", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")]
GOOD += [("BMP", mode) for mode in ("L", "RGB", "RGBA")] + [("GIF", "L"), ("GIF", "P")]
GOOD += [("WEBP", mode) for mode in ("L", "RGB", "RGBA")]


@pytest.mark.parametrize(("kind", "mode"), GOOD)
def test_decodes_as_pil(kind, mode):
    content = content_of(kind, image(mode))
    # PIL drops alpha as well: it does not blend
    expected = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    decoded = preprocessing.decode(tf.constant(content)).numpy()
    tolerance = JPEG_TOLERANCE if kind == "JPEG" else 0
    np.testing.assert_allclose(decoded.astype(int), expected, atol=tolerance)


WEBP_OPTIONS = {
    "lossless": {"lossless": True},
    "hidden colors": {"lossless": True, "exact": True},
    "coarse": {"quality": 20},
    "alpha by itself": {"quality": 90, "alpha_quality": 50},
    "EXIF": {"exif": Image.Exif().tobytes()},
    "ICC": {"icc_profile": b"profile"},
}


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("name", WEBP_OPTIONS)
def test_decodes_webp_as_pil(name, mode):
    """Both use libwebp, so that lossy ones are the same too; alpha is dropped, not blended."""
    content = content_of("WEBP", image(mode), **WEBP_OPTIONS[name])
    expected = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    np.testing.assert_array_equal(preprocessing.decode(tf.constant(content)), expected)
    if name == "hidden colors":
        np.testing.assert_array_equal(expected, PIXELS[..., :3])


@pytest.mark.parametrize("options", [{"lossless": True}, {"quality": 80}])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_only_the_first_frame_of_a_webp_is_read(mode, options):
    frames = [image(mode), Image.fromarray(PIXELS[::-1]).convert(mode)] * 20
    rest = {"save_all": True, "append_images": frames[1:], "duration": 50}
    content = content_of("WEBP", frames[0], **rest, **options)
    assert Image.open(io.BytesIO(content)).n_frames == 40
    cut = image_headers.checked(tf.constant(content)).numpy()
    assert Image.open(io.BytesIO(cut)).n_frames == 1 and len(cut) < len(content) / 30
    expected = np.asarray(Image.open(io.BytesIO(cut)).convert("RGB"))
    decoded = preprocessing.decode(tf.constant(content))
    np.testing.assert_array_equal(decoded, expected)
    if options.get("lossless") and mode == "RGB":
        np.testing.assert_array_equal(decoded, PIXELS[..., :3])


@pytest.mark.parametrize("sides", [(7, 6), (8, 6), (33, 20)])
@pytest.mark.parametrize("options", [{"lossless": True}, {"quality": 80}])
def test_a_plain_webp_stays_as_it_is(sides, options):
    content = content_of("WEBP", image("RGB").resize(sides), **options)
    assert image_headers.checked(tf.constant(content)) == content


def test_a_webp_may_be_longer_than_it_says_and_hold_more():
    content = content_of("WEBP", image("RGB"), lossless=True)
    expected = preprocessing.decode(tf.constant(content))
    extended = webp_of(canvas(6, 7), chunk(b"odd ", b"x"), content[12:], chunk(b"EXIF", b"yz"))
    for longer in (content + b"more", extended):
        np.testing.assert_array_equal(preprocessing.decode(tf.constant(longer)), expected)


def test_sixteen_bits_are_scaled():
    values = np.array([[0, 0x0100, 0x7F00, 0x8000, 0xFFFF]], "uint16")
    decoded = preprocessing.decode(tf.constant(content_of("PNG", Image.fromarray(values))))
    np.testing.assert_array_equal(decoded[0, :, 0], [0, 1, 0x7F, 0x80, 255])


def test_orientation_is_ignored():
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    content = content_of("JPEG", image("RGB"), exif=exif)
    assert preprocessing.decode(tf.constant(content)).shape == (6, 7, 3)


def test_only_the_first_frame_of_a_gif_is_read():
    frames = [image("L"), Image.fromarray(PIXELS[::-1, :, 0])] * 3
    content = content_of("GIF", frames[0], save_all=True, append_images=frames[1:], duration=50)
    cut = image_headers.checked(tf.constant(content)).numpy()
    assert Image.open(io.BytesIO(content)).n_frames == 6
    assert Image.open(io.BytesIO(cut)).n_frames == 1 and len(cut) < len(content) / 3
    np.testing.assert_array_equal(
        preprocessing.decode(tf.constant(content))[..., 0], np.asarray(frames[0])
    )


def test_a_later_frame_of_a_gif_may_declare_anything():
    content = content_of("GIF", image("L"))
    descriptor = content.index(b"\x2c\0\0\0\0")
    bomb = struct.pack("<BHHHHB", 0x2C, 0, 0, 65535, 65535, 0) + content[descriptor + 10 : -1]
    decoded = preprocessing.decode(tf.constant(content[:-1] + bomb + b";"))
    np.testing.assert_array_equal(decoded[..., 0], np.asarray(image("L")))


BIG = (8001, 8000)  # pixels: just over 64 million
PNG, BMP, GIF = (
    content_of("PNG", image("RGB")),
    content_of("BMP", image("RGB")),
    content_of("GIF", image("L")),
)
WEBP = content_of("WEBP", image("RGB"))
FRAME = GIF.index(b"\x2c\0\0\0\0")
REFUSED = {
    "nothing": (b"", "not a JPEG, PNG, GIF, BMP or WebP"),
    "text": (b"no image", "not a JPEG, PNG, GIF, BMP or WebP"),
    "WAV": (b"RIFF\x24\0\0\0WAVEfmt ", "not a JPEG, PNG, GIF, BMP or WebP"),
    "big JPEG": (jpeg_of(*BIG), "more than 64 megapixels"),
    "big PNG": (patched(PNG, 16, ">II", *BIG), "more than 64 megapixels"),
    "huge PNG": (patched(PNG, 16, ">II", 2**31 - 1, 2**31 - 1), "more than 64 megapixels"),
    "big BMP": (patched(BMP, 18, "<ii", *BIG), "more than 64 megapixels"),
    "big BMP upside down": (patched(BMP, 18, "<ii", 8000, -8001), "more than 64 megapixels"),
    "big GIF": (patched(GIF, 6, "<HH", *BIG), "more than 64 megapixels"),
    "big GIF frame": (patched(GIF, FRAME + 5, "<HH", *BIG), "more than 64 megapixels"),
    "big WebP": (lossy_of(*BIG), "more than 64 megapixels"),
    "big lossless WebP": (lossless_of(*BIG), "more than 64 megapixels"),
    "big WebP inside": (webp_of(canvas(8, 8), lossy_of(*BIG)[12:]), "another size than it decl"),
    "big WebP outside": (webp_of(canvas(*BIG), WEBP[12:]), "another size than it declares"),
    "big frame": (
        webp_of(canvas(*BIG, flags=2), frame(*BIG, lossy_of(*BIG)[12:])),
        "more than 64 megapixels",
    ),
    "small frame": (
        webp_of(canvas(6, 7, flags=2), frame(1, 1, WEBP[12:])),
        "another size than it declares",
    ),
    "long WebP": (lossless_of(1, 101), "100 times as long"),
    "empty WebP": (lossy_of(0, 5), "no pixels"),
    "WebP of nothing": (webp_of(), "has no image"),
    "WebP of a canvas": (webp_of(canvas(6, 7)), "has no image"),
    "WebP without a key frame": (patched(WEBP, 20, "<B", WEBP[20] | 1), "has no image"),
    "WebP of another code": (patched(WEBP, 25, "<B", 0), "has no image"),
    "WebP of crumbs": (webp_of(*[chunk(b"odd ", b"")] * 200, WEBP[12:]), "too many chunks"),
    "WebP that says less": (patched(WEBP, 4, "<I", 20), "the WebP is cut off"),
    "WebP that says more": (patched(WEBP, 4, "<I", 2**32 - 1), "the WebP is cut off"),
    "WebP of a long chunk": (patched(WEBP, 16, "<I", 2**32 - 1), "the WebP is cut off"),
    "cut WebP": (WEBP[:-3], "the WebP is cut off"),
    "short WebP": (WEBP[:12], "the WebP is cut off"),
    "half a WebP": (webp_of(chunk(b"VP8 ", WEBP[20:60])), "Failed to decode WebP"),
    "empty PNG": (patched(PNG, 16, ">II", 0, 5), "no pixels"),
    "negative BMP": (patched(BMP, 18, "<ii", -(2**31), -(2**31)), "no pixels"),
    "long PNG": (patched(PNG, 16, ">II", 1, 101), "100 times as long"),
    "palette BMP": (content_of("BMP", image("P")), "palette of colors"),
    "black and white BMP": (content_of("BMP", image("1")), "palette of colors"),
    "BMP of 16 bits": (patched(BMP, 28, "<H", 16), "16 bits a pixel"),
    "compressed BMP": (patched(BMP, 30, "<I", 1), "compressed"),
    "old BMP": (patched(BMP, 14, "<I", 12), "older than Windows 3"),
    "short PNG": (PNG[:10], "does not start with its header"),
    "GIF of crumbs": (
        GIF[:FRAME] + b"!\xfe" + b"\x01x" * 10_000 + b"\0" + GIF[FRAME:],
        "too many blocks",
    ),
    "short GIF": (GIF[:8], "has no image"),
    "short JPEG": (b"\xff\xd8\xff", "JPEG"),
    "cut JPEG": (content_of("JPEG", image("RGB"))[:100], "JPEG"),
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
    assert image_headers.checked(content) == content
