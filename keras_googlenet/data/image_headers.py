"""Checks of an encoded image's header, in the graph, before anything is decoded.

A few bytes can declare an image that fills the memory, and some files would be decoded to wrong
colors without an error; both are refused here.
"""

import numpy as np
import tensorflow as tf

from keras_googlenet.data.file_kinds import (
    LARGEST_IMAGE,
    LONGEST_IMAGE,
    NO_PIXELS,
    TOO_LARGE,
    TOO_LONG,
)

LEAST_BLOCK = 64  # bytes that the data blocks of a GIF have on average; encoders fill 255
SPARE_BLOCKS = 4096  # that may be smaller
MOST_CHUNKS = 100  # of a WebP in front of its image; valid files have three at most

_SIGNATURES = {  # by which TensorFlow recognizes a format: position -> bytes
    "JPEG": {0: b"\xff\xd8\xff"},
    "PNG": {0: b"\x89PNG\r\n\x1a\n"},
    "GIF": {0: b"GIF8"},
    "BMP": {0: b"BM"},
    "WebP": {0: b"RIFF", 8: b"WEBP"},
}
_HEADER_BYTES = 14 + 124 + 4 * 256  # BMP: file header, longest image header, palette
_BMP_MASKS = (0xFF0000, 0xFF00, 0xFF)  # red, green, blue: the only order that is decoded


def checked(encoded: tf.Tensor) -> tf.Tensor:
    """Returns an encoded image, a scalar string, if its header says that it can be decoded.

    Of a GIF it returns the bytes up to the end of the first frame; of a WebP, the first frame
    without its alpha. What is refused raises `tf.errors.InvalidArgumentError`.
    """
    encoded = tf.ensure_shape(encoded, ())
    header = tf.cast(tf.io.decode_raw(encoded, tf.uint8, fixed_length=_HEADER_BYTES), tf.int64)
    matches = [_matches(header, signature) for signature in _SIGNATURES.values()]
    readers = [_jpeg, _png, _gif, _bmp, _webp]
    known = _require(tf.reduce_any(matches), "the image is not a JPEG, PNG, GIF, BMP or WebP")
    with tf.control_dependencies(known):
        index = tf.argmax(matches, output_type=tf.int32)
    branches = [lambda reader=reader: reader(encoded, header) for reader in readers]
    encoded, height, width = tf.switch_case(index, branches)
    with tf.control_dependencies(check_sides(height, width)):
        return tf.identity(encoded)


def _matches(header: tf.Tensor, signature: dict[int, bytes]) -> tf.Tensor:
    return tf.reduce_all(
        [tf.reduce_all(header[at : at + len(part)] == list(part)) for at, part in signature.items()]
    )


def check_sides(height: tf.Tensor, width: tf.Tensor) -> list:
    """Refuses an image without pixels, with too many, or one that is too long.

    Takes scalars of the same integer type, and returns what must run before the image is decoded;
    in eager mode it has run.
    """
    longer, shorter = tf.maximum(height, width), tf.minimum(height, width)
    return [
        *_require(shorter > 0, NO_PIXELS),
        *_require(longer <= LARGEST_IMAGE // tf.maximum(shorter, 1), TOO_LARGE),
        *_require(longer <= LONGEST_IMAGE * shorter, TOO_LONG),
    ]


def _require(condition: tf.Tensor, message: str) -> list:
    """As `tf.debugging.Assert`, without its conditional, which takes longer than the check."""
    return [tf.raw_ops.Assert(condition=condition, data=[message])]


def _jpeg(encoded, header):
    height, width, _ = tf.unstack(tf.io.extract_jpeg_shape(encoded, output_type=tf.int32))
    return encoded, tf.cast(height, tf.int64), tf.cast(width, tf.int64)


def _png(encoded, header):
    first = tf.reduce_all(header[12:16] == list(b"IHDR"))
    with tf.control_dependencies(_require(first, "the PNG does not start with its header")):
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
    is_gray = (depth != 8) | _has_gray_palette(header, palette_start, _number(header[10:14]))
    checks = [
        *_require(_number(header[14:18]) >= 40, "the BMP is older than Windows 3; save it again"),
        *_require(is_gray & (depth >= 8), "the BMP has a palette of colors; save it as RGB"),
        *_require(depth != 16, "the BMP has 16 bits a pixel; save it as RGB"),
        *_require(plain, "the BMP is compressed; save it as RGB"),
    ]
    with tf.control_dependencies(checks):
        return tf.identity(encoded), height, width


def _has_gray_palette(header, start, end):
    """Whether entry i of the palette is (i, i, i): TensorFlow decodes the pixels as gray values."""
    start = tf.clip_by_value(start, 0, _HEADER_BYTES)
    entries = tf.clip_by_value(end - start, 0, _HEADER_BYTES - start) // 4
    palette = tf.reshape(header[start : start + 4 * entries], (-1, 4))[:, :3]
    return tf.reduce_all(palette == tf.range(entries)[:, None])


@tf.function(autograph=False)  # a graph loops over the blocks 200 times as fast
def _gif(encoded, header):
    """Extracts the first frame: the decoder would hold all of them in memory."""
    content = tf.io.decode_raw(encoded, tf.uint8)
    length = tf.size(content, out_type=tf.int64)
    most_blocks = length // LEAST_BLOCK + SPARE_BLOCKS

    def byte(position):
        return tf.cast(content[tf.minimum(position, length - 1)], tf.int64)

    def skip_blocks(position, blocks):
        """Skips blocks of data, each behind its length, and the empty one that ends them."""

        def is_block(at, count):
            return (at < length) & (byte(at) > 0) & (count <= most_blocks)

        last, blocks = tf.while_loop(
            is_block, lambda at, count: (at + byte(at) + 1, count + 1), (position, blocks)
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
        *_require(blocks <= most_blocks, "the GIF has too many blocks"),
        *_require(byte(frame) == ord(","), "the GIF has no image"),
    ]
    sides = [
        tf.maximum(_number(header[at : at + 2]), byte(frame + own) + 256 * byte(frame + own + 1))
        for at, own in ((8, 7), (6, 5))  # of the screen and of the frame
    ]
    with tf.control_dependencies(checks):
        end = tf.minimum(end, length)
        return tf.strings.substr(encoded, tf.zeros_like(end), end) + b";", *sides


@tf.function(autograph=False)
def _webp(encoded, header):
    """Extracts the first frame without alpha: TensorFlow makes four channels of either."""
    content = tf.io.decode_raw(encoded, tf.uint8)
    length = tf.size(content, out_type=tf.int64)
    end = 8 + _number(header[4:8])

    def read(position, count):
        positions = tf.minimum(position + np.arange(count), length - 1)
        return tf.cast(tf.gather(content, positions), tf.int64)

    at, canvas_at, chunks = _find_webp_image(read, end)
    size, start = _number(read(at + 4, 4)), read(at + 8, 10)
    is_lossless = _is_tag(read(at, 4), b"VP8L")
    is_tagged = is_lossless | _is_tag(read(at, 4), b"VP8 ")
    is_frame, height, width = tf.cond(
        is_lossless, lambda: _lossless_sides(start), lambda: _lossy_sides(start)
    )
    canvas = read(canvas_at, 6)
    fits = (_number(canvas[:3]) == width - 1) & (_number(canvas[3:]) == height - 1)
    are_few = chunks <= MOST_CHUNKS
    is_whole = (end <= length) & ~(is_tagged & (at + 8 + size > end))
    is_image = is_tagged & is_frame & (size >= 10)
    checks = [  # they run in any order, so at most one of them fails
        *_require(are_few, "the WebP has too many chunks"),
        *_require(is_whole | ~are_few, "the WebP is cut off"),
        *_require(is_image | ~is_whole | ~are_few, "the WebP has no image"),
        *_require(
            fits | (canvas_at == 0) | ~is_image | ~is_whole,
            "the WebP has an image of another size than it declares",
        ),
    ]
    with tf.control_dependencies(checks):
        at = tf.identity(at)
    rest = tf.strings.substr(encoded, at + 13, size - 5)
    padding = tf.where(size % 2 == 1, b"\0", b"")
    flags = tf.where(is_lossless, start[4] & 0xEF, start[4])  # the bit says that alpha is used
    riff = [b"RIFF", _bytes_of(tf.bitcast(tf.cast(12 + size + size % 2, tf.int32), tf.uint8))]
    chunk = [tf.strings.substr(encoded, at, 12), _bytes_of(flags[None]), rest, padding]
    return tf.strings.join([*riff, b"WEBP", *chunk]), height, width


def _find_webp_image(read, end):
    """Returns where the first image and its declared size, if any, are, and the chunks before."""

    def is_before(at, canvas_at, count):
        tag = read(at, 4)
        is_image = _is_tag(tag, b"VP8 ") | _is_tag(tag, b"VP8L")
        return (at + 8 < end) & ~is_image & (count <= MOST_CHUNKS)

    def next_chunk(at, canvas_at, count):
        """Enters a frame of an animation, and skips any other chunk."""
        tag, size = read(at, 4), _number(read(at + 4, 4))
        is_frame = _is_tag(tag, b"ANMF")
        canvas_at = tf.where(is_frame, at + 14, canvas_at)
        canvas_at = tf.where(_is_tag(tag, b"VP8X"), at + 12, canvas_at)
        return tf.where(is_frame, at + 24, at + 8 + size + size % 2), canvas_at, count + 1

    zero = tf.constant(0, tf.int64)
    return tf.while_loop(is_before, next_chunk, (zero + 12, zero, zero))


def _is_tag(four_bytes: tf.Tensor, tag: bytes) -> tf.Tensor:
    return tf.reduce_all(four_bytes == list(tag))


def _lossy_sides(start):
    """Reads the start of VP8, RFC 6386: whether it is a key frame, its height and its width."""
    is_image = (start[0] % 2 == 0) & tf.reduce_all(start[3:6] == [0x9D, 0x01, 0x2A])
    return is_image, _number(start[8:10]) % 2**14, _number(start[6:8]) % 2**14


def _lossless_sides(start):
    """Reads the start of VP8L, RFC 9649: whether it is an image, its height and its width."""
    bits = _number(start[1:5])
    return start[0] == 0x2F, bits // 2**14 % 2**14 + 1, bits % 2**14 + 1


def _bytes_of(numbers: tf.Tensor) -> tf.Tensor:
    """Returns integers from 0 to 255 as a string."""
    table = tf.constant([bytes([number]) for number in range(256)])
    return tf.strings.reduce_join(tf.gather(table, tf.cast(numbers, tf.int32)))


def _table_bytes(flags: tf.Tensor) -> tf.Tensor:
    """Returns the size of the color table that the flags of a GIF's screen or frame declare."""
    return tf.where(flags >= 128, 3 * 2 ** (flags % 8 + 1), 0)


def _number(little_endian: tf.Tensor) -> tf.Tensor:
    """Reads an unsigned integer, the lowest byte first."""
    return tf.reduce_sum(little_endian * 256 ** np.arange(little_endian.shape[0]))


def _signed(little_endian: tf.Tensor) -> tf.Tensor:
    number = _number(little_endian)
    return tf.where(number >= 2**31, number - 2**32, number)
