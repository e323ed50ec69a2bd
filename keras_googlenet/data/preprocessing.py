"""Pure steps on one image, from encoded bytes to a float image: `tf` in, `tf` out, no state.

Images are RGB in [0, 255], `(h, w, 3)`, of any dtype where a step does not say otherwise. Resized
ones are float32. Every random step takes a `seed` of two integers and depends on nothing else.
"""

import tensorflow as tf

from keras_googlenet.data import image_headers

INTERPOLATIONS = ("bilinear", "area", "nearest", "bicubic")  # section 6
DISTORTION = (0.5, 1.5)  # factors of brightness, contrast and saturation: Howard 2013
CROP_RATIO = 256 / 224  # shorter side before the central crop, over the crop: the usual choice


def decode(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes JPEG, PNG, BMP, or the first frame of GIF or WebP bytes to uint8.

    Gray becomes three equal channels, alpha is dropped, 16 bits are scaled to 8, and the EXIF
    orientation is ignored.

    Raises:
        tf.errors.InvalidArgumentError: If `image_headers.checked` or the decoder refuses it.
    """
    image = tf.io.decode_image(image_headers.checked(encoded), channels=3, expand_animations=False)
    return tf.ensure_shape(image, (None, None, 3))


def resize(image: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """Resizes bilinearly; where it shrinks, it averages over all pixels (antialiasing)."""
    return tf.image.resize(image, (height, width), method="bilinear", antialias=True)


def resize_crop(image: tf.Tensor, size: int) -> tf.Tensor:
    """Resizes a training crop to a square bilinearly, averaging only where it skips pixels.

    Down to half its side, two-point interpolation uses every pixel of a crop, and it costs a
    fraction of the averaging kernel.
    """
    result = tf.cond(
        tf.reduce_max(tf.shape(image)[:2]) > 2 * size,
        lambda: resize(image, size, size),
        lambda: tf.image.resize(image, (size, size), method="bilinear", antialias=False),
    )
    return tf.ensure_shape(result, (size, size, 3))


def resize_shorter_side(image: tf.Tensor, size: int) -> tf.Tensor:
    """Resizes so that the shorter side has `size` pixels and the proportions stay."""
    shape = tf.shape(image)[:2]
    sides = tf.cast(shape * size / tf.reduce_min(shape) + 0.5, tf.int32)
    return resize(image, sides[0], sides[1])


def central_crop(image: tf.Tensor, size: int) -> tf.Tensor:
    """Cuts the central square out of an image with sides of at least `size`."""
    top, left = tf.unstack((tf.shape(image)[:2] - size) // 2)
    return tf.ensure_shape(image[top : top + size, left : left + size], (size, size, 3))


def evaluation_crop(image: tf.Tensor, size: int) -> tf.Tensor:
    """Makes the central crop that is evaluated, `(size, size, 3)` float32.

    The shorter side is first resized to `round(size * 256 / 224)`.
    """
    return central_crop(resize_shorter_side(image, round(size * CROP_RATIO)), size)


def evaluation_square(image: tf.Tensor, size: int) -> tf.Tensor:
    """Cuts out what `evaluation_crop` shows, at the image's own resolution."""
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
        encoded: As for `decode`, which it is otherwise like.
        seed: `(2,)` integers.
        area: Least and greatest share of the image's area. 8-100%: section 6.
        aspect: Least and greatest width over height. 3/4-4/3: section 6.
    """

    def window(shape):
        start, size, _ = tf.image.stateless_sample_distorted_bounding_box(
            shape,
            tf.zeros((1, 0, 4)),
            seed,
            min_object_covered=0.0,
            aspect_ratio_range=aspect,
            area_range=area,
            use_image_if_no_bounding_boxes=True,
        )
        return start, size

    def of_jpeg():
        shape = tf.io.extract_jpeg_shape(encoded)
        with tf.control_dependencies(image_headers.check_sides(*tf.unstack(shape[:2]))):
            start, size = window(shape)
            box = tf.concat([start[:2], size[:2]], axis=0)
        return tf.io.decode_and_crop_jpeg(encoded, box, channels=3)

    def of_others():
        image = decode(encoded)
        return tf.slice(image, *window(tf.shape(image)))

    return tf.ensure_shape(tf.cond(tf.io.is_jpeg(encoded), of_jpeg, of_others), (None, None, 3))


def random_flip(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Mirrors an image with a probability of one half."""
    return tf.image.stateless_random_flip_left_right(image, seed)


def resize_randomly(image: tf.Tensor, height: int, width: int, seed: tf.Tensor) -> tf.Tensor:
    """Resizes with one of four interpolations, each equally likely: section 6."""
    floats = tf.cast(image, tf.float32)

    def resized(method: str):
        return lambda: tf.image.resize(floats, (height, width), method, antialias=True)

    chosen = tf.random.stateless_uniform((), seed, 0, len(INTERPOLATIONS), tf.int32)
    result = tf.switch_case(chosen, [resized(method) for method in INTERPOLATIONS])
    return tf.clip_by_value(result, 0.0, 255.0)


def adjust_brightness(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Multiplies all values: 0 is black, 1 changes nothing."""
    return image * factor


def adjust_contrast(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Moves a float image away from its mean gray; 0 is that gray, 1 changes nothing."""
    gray = tf.reduce_mean(_luminance(image))
    return gray + (image - gray) * factor


def adjust_saturation(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Moves each pixel of a float image away from its own gray; 0 is gray, 1 changes nothing."""
    gray = _luminance(image)
    return gray + (image - gray) * factor


def distort_colours(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Changes brightness, contrast and saturation, each by 50-150%, in random order.

    The paper cites Howard 2013 (arXiv 1312.5402), who gives order and range. Takes float32.
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
    """Returns the gray of each pixel, `(h, w, 1)`, by the weights of ITU-R BT.601."""
    return tf.reduce_sum(image * (0.299, 0.587, 0.114), axis=-1, keepdims=True)
