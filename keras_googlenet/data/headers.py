"""What an encoded image declares in its header, read in the graph before anything is decoded.

A few bytes can declare a picture that fills the memory, and some files would be decoded to wrong
colours without an error; both are refused here.
"""

import numpy as np
import tensorflow as tf

LARGEST_IMAGE = 64_000_000  # pixels: 192 MB as RGB bytes
LONGEST_IMAGE = 100  # longer over shorter side: resizing goes by the shorter one

LEAST_BLOCK = 64  # bytes that a GIF's blocks of data have on average; encoders fill 255
SPARE_BLOCKS = 4096  # which may be smaller

_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM")  # as TensorFlow tells them
_HEADER_BYTES = 14 + 124 + 4 * 256  # BMP: file header, longest image header, palette
_BMP_MASKS = (0xFF0000, 0xFF00, 0xFF)  # red, green, blue: the only order that is decoded


def checked(encoded: tf.Tensor) -> tf.Tensor:
    """Refuses an image whose header says that it must not be decoded.

    Args:
        encoded: Scalar string: JPEG, PNG, GIF or BMP bytes.

    Returns:
        `encoded`; of a GIF, up to the end of its first frame.

    Raises:
        tf.errors.InvalidArgumentError: If it is of another format, declares more than
            `LARGEST_IMAGE` pixels, is more than `LONGEST_IMAGE` times as long as wide, or is a
            BMP with a palette of colours.
    """
    encoded = tf.ensure_shape(encoded, ())  # whoever reads may not have said so
    header = tf.cast(tf.io.decode_raw(encoded, tf.uint8, fixed_length=_HEADER_BYTES), tf.int64)
    matches = [tf.reduce_all(header[: len(s)] == list(s)) for s in _SIGNATURES]
    readers = [_jpeg, _png, _gif, _bmp]
    known = _require(tf.reduce_any(matches), "the image is no JPEG, PNG, GIF or BMP")
    with tf.control_dependencies(known):
        index = tf.argmax(matches, output_type=tf.int32)
    branches = [lambda reader=reader: reader(encoded, header) for reader in readers]
    encoded, height, width = tf.switch_case(index, branches)
    with tf.control_dependencies(_check_sides(height, width)):
        return tf.identity(encoded)


def _check_sides(height: tf.Tensor, width: tf.Tensor) -> list:
    longer, shorter = tf.maximum(height, width), tf.minimum(height, width)
    return [
        *_require(shorter > 0, "the image has no pixels"),
        *_require(
            longer <= LARGEST_IMAGE // tf.maximum(shorter, 1),
            f"the image declares more than {LARGEST_IMAGE // 10**6} megapixels",
        ),
        *_require(
            longer <= LONGEST_IMAGE * shorter,
            f"the image is more than {LONGEST_IMAGE} times as long as wide",
        ),
    ]


def _require(condition: tf.Tensor, message: str) -> list:
    """Returns what must run before whatever relies on the condition; eagerly it has run."""
    return [tf.debugging.Assert(condition, [message])]


def _jpeg(encoded, header):
    height, width, _ = tf.unstack(tf.io.extract_jpeg_shape(encoded, output_type=tf.int32))
    return encoded, tf.cast(height, tf.int64), tf.cast(width, tf.int64)


def _png(encoded, header):
    first = tf.reduce_all(header[12:16] == list(b"IHDR"))
    with tf.control_dependencies(_require(first, "the PNG does not begin with its header")):
        encoded = tf.identity(encoded)
    return encoded, _number(header[20:24][::-1]), _number(header[16:20][::-1])


def _bmp(encoded, header):
    width, height = _signed(header[18:22]), tf.abs(_signed(header[22:26]))
    depth, compression = _number(header[28:30]), _number(header[30:34])
    palette_start = 14 + _number(header[14:18])
    masks = tf.stack([_number(header[start : start + 4]) for start in (54, 58, 62)])
    plain = (compression == 0) | (
        (compression == 3) & (depth == 32) & tf.reduce_all(masks == _BMP_MASKS)
    )
    is_grey = (depth != 8) | _has_grey_palette(header, palette_start, _number(header[10:14]))
    checks = [
        *_require(_number(header[14:18]) >= 40, "the BMP has a header of before Windows 3"),
        *_require(is_grey & (depth >= 8), "the BMP has a palette of colours; save it as RGB"),
        *_require(plain, "the BMP is compressed; save it as RGB"),
    ]
    with tf.control_dependencies(checks):
        return tf.identity(encoded), height, width


def _has_grey_palette(header, start, end):
    """Whether entry i of the palette is (i, i, i): TensorFlow takes the pixels for grey values."""
    start = tf.clip_by_value(start, 0, _HEADER_BYTES)
    entries = tf.clip_by_value(end - start, 0, _HEADER_BYTES - start) // 4
    palette = tf.reshape(header[start : start + 4 * entries], (-1, 4))[:, :3]
    return tf.reduce_all(palette == tf.range(entries)[:, None])


@tf.function(autograph=False)  # a graph walks through the blocks 200 times as fast
def _gif(encoded, header):
    """Cuts the first frame out: the decoder would hold all of them in memory."""
    content = tf.io.decode_raw(encoded, tf.uint8)
    length = tf.size(content, out_type=tf.int64)
    most_blocks = length // LEAST_BLOCK + SPARE_BLOCKS

    def byte(position):
        return tf.cast(content[tf.minimum(position, length - 1)], tf.int64)

    def skip_blocks(position, blocks):
        """Follows blocks of data, each behind its length, past the empty one that ends them."""

        def going_on(at, count):
            return (at < length) & (byte(at) > 0) & (count <= most_blocks)

        last, blocks = tf.while_loop(
            going_on, lambda at, count: (at + byte(at) + 1, count + 1), (position, blocks)
        )
        return last + 1, blocks + 1

    def is_extension(at, blocks):
        return (at < length) & (byte(at) == ord("!")) & (blocks <= most_blocks)

    frame, blocks = tf.while_loop(
        is_extension,
        lambda at, blocks: skip_blocks(at + 2, blocks),
        (13 + _table_bytes(header[10]), tf.zeros_like(length)),
    )
    end, blocks = skip_blocks(frame + 11 + _table_bytes(byte(frame + 9)), blocks)
    checks = [
        *_require(blocks <= most_blocks, "the GIF is cut into too many blocks"),
        *_require(byte(frame) == ord(","), "the GIF holds no image"),
    ]
    sides = [
        tf.maximum(_number(header[at : at + 2]), byte(frame + own) + 256 * byte(frame + own + 1))
        for at, own in ((8, 7), (6, 5))  # of the screen and of the frame
    ]
    with tf.control_dependencies(checks):
        end = tf.minimum(end, length)
        return tf.strings.substr(encoded, tf.zeros_like(end), end) + b";", *sides


def _table_bytes(flags: tf.Tensor) -> tf.Tensor:
    """Bytes of the colour table that the flags of a GIF's screen or frame announce."""
    return tf.where(flags >= 128, 3 * 2 ** (flags % 8 + 1), 0)


def _number(little_endian: tf.Tensor) -> tf.Tensor:
    """Reads an unsigned number, the lowest byte first."""
    return tf.reduce_sum(little_endian * 256 ** np.arange(little_endian.shape[0]))


def _signed(little_endian: tf.Tensor) -> tf.Tensor:
    number = _number(little_endian)
    return tf.where(number >= 2**31, number - 2**32, number)
