"""Pure steps on one image, from encoded bytes to a float picture: `tf` in, `tf` out, no state.

Every random step takes a `seed` of shape `(2,)` and depends on nothing else.
"""

import tensorflow as tf

from keras_googlenet.data import headers

INTERPOLATIONS = ("bilinear", "area", "nearest", "bicubic")  # section 6
DISTORTION = (0.5, 1.5)  # factors of brightness, contrast and saturation: Howard 2013
CROP_RATIO = 256 / 224  # shorter side before the central crop, over the crop: the common protocol


def decode(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes JPEG, PNG, BMP, or the first frame of GIF or WebP bytes.

    Gray becomes three equal channels, alpha is dropped, 16 bits are scaled to 8, and the
    orientation that EXIF may note is ignored.

    Args:
        encoded: Scalar string.

    Returns:
        `(height, width, 3)` uint8, RGB.

    Raises:
        tf.errors.InvalidArgumentError: If it cannot be decoded, or `headers.checked` refuses it.
    """
    image = tf.io.decode_image(headers.checked(encoded), channels=3, expand_animations=False)
    return tf.ensure_shape(image, (None, None, 3))


def resize(image: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """Resizes bilinearly, averaging over the pixels that fall together.

    Args:
        image: `(h, w, 3)`, any dtype.
        height: Rows of the result.
        width: Columns of the result.

    Returns:
        `(height, width, 3)` float32 in the value range of `image`.
    """
    return tf.image.resize(image, (height, width), method="bilinear", antialias=True)


def resize_crop(image: tf.Tensor, size: int) -> tf.Tensor:
    """Resizes a training crop bilinearly, averaging only where pixels would else be passed over.

    Down to half its side, two-point interpolation looks at every pixel of a crop, and it costs a
    fraction of the averaging kernel.

    Args:
        image: `(h, w, 3)`, any dtype.
        size: Rows and columns of the result.

    Returns:
        `(size, size, 3)` float32 in the value range of `image`.
    """
    result = tf.cond(
        tf.reduce_max(tf.shape(image)[:2]) > 2 * size,
        lambda: resize(image, size, size),
        lambda: tf.image.resize(image, (size, size), method="bilinear", antialias=False),
    )
    return tf.ensure_shape(result, (size, size, 3))


def resize_shorter_side(image: tf.Tensor, size: int) -> tf.Tensor:
    """Resizes so that the shorter side has `size` pixels and the proportions stay.

    Args:
        image: `(h, w, 3)`, any dtype.
        size: Pixels of the shorter side.

    Returns:
        `(h', w', 3)` float32 with `min(h', w') == size`.
    """
    shape = tf.shape(image)[:2]
    sides = tf.cast(shape * size / tf.reduce_min(shape) + 0.5, tf.int32)
    return resize(image, sides[0], sides[1])


def central_crop(image: tf.Tensor, size: int) -> tf.Tensor:
    """Cuts the central square out of an image.

    Args:
        image: `(height, width, 3)`, any dtype, both sides at least `size`.
        size: Side of the crop in pixels.

    Returns:
        `(size, size, 3)`, dtype and value range of `image`.
    """
    top, left = tf.unstack((tf.shape(image)[:2] - size) // 2)
    return tf.ensure_shape(image[top : top + size, left : left + size], (size, size, 3))


def evaluation_crop(image: tf.Tensor, size: int) -> tf.Tensor:
    """What a network sees of an image when it is evaluated: one central crop.

    Args:
        image: `(h, w, 3)`, any dtype.
        size: Side of the crop; the shorter side is first resized to `round(size * 256 / 224)`.

    Returns:
        `(size, size, 3)` float32.
    """
    return central_crop(resize_shorter_side(image, round(size * CROP_RATIO)), size)


def evaluation_square(image: tf.Tensor, size: int) -> tf.Tensor:
    """The part of an image that `evaluation_crop` shows, at the image's own resolution.

    Args:
        image: `(h, w, 3)`, any dtype.
        size: Side of the view.

    Returns:
        `(s, s, 3)`, dtype and value range of `image`, with s near `min(h, w) * 224 / 256`, at
        least 1.
    """
    shorter = tf.reduce_min(tf.shape(image)[:2])
    return central_crop(image, max(1, int(shorter) * size // round(size * CROP_RATIO)))


def decode_random_crop(
    encoded: tf.Tensor,
    seed: tf.Tensor,
    area: tuple[float, float] = (0.08, 1.0),
    aspect: tuple[float, float] = (3 / 4, 4 / 3),
) -> tf.Tensor:
    """Decodes a random part of an image; of a JPEG, only the blocks that it needs.

    Args:
        encoded: Scalar string: JPEG, PNG, GIF, BMP or WebP bytes.
        seed: `(2,)` integers.
        area: Least and greatest share of the image's area. 8-100%: section 6.
        aspect: Least and greatest width over height. 3/4-4/3: section 6.

    Returns:
        `(h, w, 3)` uint8.

    Raises:
        tf.errors.InvalidArgumentError: If it cannot be decoded, or `headers.checked` refuses it.
    """

    def window(shape):
        begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
            shape,
            tf.zeros((1, 0, 4)),
            seed,
            min_object_covered=0.0,
            aspect_ratio_range=aspect,
            area_range=area,
            use_image_if_no_bounding_boxes=True,
        )
        return begin, size

    def of_jpeg():
        shape = tf.io.extract_jpeg_shape(encoded)
        with tf.control_dependencies(headers.check_sides(*tf.unstack(shape[:2]))):
            begin, size = window(shape)
            box = tf.concat([begin[:2], size[:2]], axis=0)
        return tf.io.decode_and_crop_jpeg(encoded, box, channels=3)

    def of_others():
        image = decode(encoded)
        return tf.slice(image, *window(tf.shape(image)))

    return tf.ensure_shape(tf.cond(tf.io.is_jpeg(encoded), of_jpeg, of_others), (None, None, 3))


def random_flip(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Mirrors every other image.

    Args:
        image: `(h, w, 3)`, any dtype.
        seed: `(2,)` integers.

    Returns:
        `image` or its mirror image, of the same shape and dtype.
    """
    return tf.image.stateless_random_flip_left_right(image, seed)


def resize_randomly(image: tf.Tensor, height: int, width: int, seed: tf.Tensor) -> tf.Tensor:
    """Resizes with one of four interpolations, each equally often: section 6.

    Args:
        image: `(h, w, 3)` in [0, 255], any dtype.
        height: Rows of the result.
        width: Columns of the result.
        seed: `(2,)` integers.

    Returns:
        `(height, width, 3)` float32 in [0, 255].
    """
    floats = tf.cast(image, tf.float32)

    def resized(method: str):
        return lambda: tf.image.resize(floats, (height, width), method, antialias=True)

    chosen = tf.random.stateless_uniform((), seed, 0, len(INTERPOLATIONS), tf.int32)
    result = tf.switch_case(chosen, [resized(method) for method in INTERPOLATIONS])
    return tf.clip_by_value(result, 0.0, 255.0)


def adjust_brightness(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Multiplies all values: 0 is black, 1 leaves `image`, `(h, w, 3)` float32, as it is."""
    return image * factor


def adjust_contrast(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Moves `image`, `(h, w, 3)` float32, away from its mean gray; 0 is that gray."""
    gray = tf.reduce_mean(_luminance(image))
    return gray + (image - gray) * factor


def adjust_saturation(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Moves each pixel of `image`, `(h, w, 3)` float32, away from its own gray; 0 is gray."""
    gray = _luminance(image)
    return gray + (image - gray) * factor


def distort_colours(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Changes brightness, contrast and saturation, each by 50-150%, in random order.

    The paper names Howard 2013 (arXiv 1312.5402) for it, who gives order and range.

    Args:
        image: `(h, w, 3)` float32 in [0, 255].
        seed: `(2,)` integers.

    Returns:
        `(h, w, 3)` float32 in [0, 255].
    """
    order_seed, factor_seed = tf.unstack(tf.random.split(seed))
    order = tf.random.experimental.stateless_shuffle(tf.range(3), order_seed)
    factors = tf.random.stateless_uniform((3,), factor_seed, *DISTORTION)
    for step in range(3):
        factor = factors[step]
        image = tf.switch_case(
            order[step],
            [
                lambda image=image, factor=factor: adjust_brightness(image, factor),
                lambda image=image, factor=factor: adjust_contrast(image, factor),
                lambda image=image, factor=factor: adjust_saturation(image, factor),
            ],
        )
    return tf.clip_by_value(image, 0.0, 255.0)


def _luminance(image: tf.Tensor) -> tf.Tensor:
    """Gray of each pixel, `(h, w, 1)`, by the weights of ITU-R BT.601."""
    return tf.reduce_sum(image * (0.299, 0.587, 0.114), axis=-1, keepdims=True)
