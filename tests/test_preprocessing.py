"""Each step, alone and inside tf.data, against NumPy and PIL."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_googlenet.data import preprocessing


def coordinates(height, width):
    """An image whose pixels say where they are: red is the row, green the column."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, np.zeros_like(rows)], axis=-1).astype("uint8")


def encoded(image, kind):
    file = io.BytesIO()
    options = {"JPEG": {"quality": 100}, "WEBP": {"lossless": True}}
    Image.fromarray(image).save(file, kind, **options.get(kind, {}))
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "JPEG", "GIF", "WEBP"])
def test_decode(kind):
    image = coordinates(20, 30)
    decoded = preprocessing.decode(tf.constant(encoded(image, kind)))
    assert decoded.dtype == tf.uint8
    tolerance = {"JPEG": 6, "GIF": 8}.get(kind, 0)
    np.testing.assert_allclose(decoded.numpy().astype(int), image, atol=tolerance)


def test_decode_gray_gives_three_equal_channels():
    gray = coordinates(9, 9)[..., 0]
    decoded = preprocessing.decode(tf.constant(encoded(gray, "PNG"))).numpy()
    np.testing.assert_array_equal(decoded, np.repeat(gray[..., None], 3, axis=-1))


@pytest.mark.parametrize("shape", [(50, 80), (80, 50), (37, 37)])
def test_resize_shorter_side_keeps_proportions(shape):
    resized = preprocessing.resize_shorter_side(coordinates(*shape), 25)
    assert min(resized.shape[:2]) == 25
    assert max(resized.shape[:2]) == round(25 * max(shape) / min(shape))


def test_resize_averages_over_the_pixels_that_fall_together():
    checks = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype("uint8")
    small = preprocessing.resize(np.repeat(checks[..., None], 3, axis=-1), 16, 16)
    np.testing.assert_allclose(small[2:-2, 2:-2], 127.5, atol=1)


def test_resize_equals_pil():
    image = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype="uint8")
    ours = preprocessing.resize(image, 24, 36).numpy()
    theirs = np.asarray(Image.fromarray(image).resize((36, 24), Image.BILINEAR), "float32")
    np.testing.assert_allclose(ours, theirs, atol=1)


@pytest.mark.parametrize("shape", [(10, 20), (21, 10), (11, 11)])
def test_central_crop(shape):
    crop = preprocessing.central_crop(tf.constant(coordinates(*shape)), 8).numpy()
    top, left = (shape[0] - 8) // 2, (shape[1] - 8) // 2
    np.testing.assert_array_equal(crop, coordinates(*shape)[top : top + 8, left : left + 8])


def test_evaluation_view_is_the_common_protocol():
    image = coordinates(256, 200)
    crop = preprocessing.evaluation_crop(image, 175)  # 175 * 256 / 224 = 200: no resizing
    np.testing.assert_allclose(crop, image[40:215, 12:187], atol=1e-3)


def test_evaluation_square_is_what_the_view_shows():
    image = coordinates(256, 200)
    square = preprocessing.evaluation_square(image, 175).numpy()
    np.testing.assert_array_equal(square, image[40:215, 12:187])
    assert preprocessing.evaluation_square(image, 65).shape[0] == 200 * 65 // 74
    assert preprocessing.evaluation_square(image[:, :1], 65).shape == (1, 1, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_random_crop_covers_the_area_and_aspect_it_is_told(kind):
    image = tf.constant(encoded(coordinates(120, 160), kind))
    crops = [
        preprocessing.decode_random_crop(image, tf.constant([3, i]), area=(0.2, 0.5)).numpy()
        for i in range(200)
    ]
    areas = np.array([crop.shape[0] * crop.shape[1] for crop in crops]) / (120 * 160)
    aspects = np.array([crop.shape[1] / crop.shape[0] for crop in crops])
    assert 0.18 < areas.min() < 0.25 and 0.45 < areas.max() < 0.52
    assert 0.72 < aspects.min() < 0.85 and 1.2 < aspects.max() < 1.37
    corners = np.array([crop[0, 0, :2] for crop in crops], "int64")
    assert len(np.unique(corners, axis=0)) > 150
    # the crop is one piece of the image: its last pixel is as far from its first as its size says
    spans = np.array([crop[-1, -1, :2].astype(int) - crop[0, 0, :2] + 1 for crop in crops])
    sizes = np.array([crop.shape[:2] for crop in crops])
    np.testing.assert_allclose(spans, sizes, atol=8 if kind == "JPEG" else 0)


def test_random_crop_refuses_what_decode_refuses():
    content = bytearray(encoded(coordinates(50, 60), "JPEG"))
    for height, width, message in ((8001, 8000, "64 megapixels"), (1, 101, "100 times as long")):
        struct.pack_into(">HH", content, content.index(b"\xff\xc0") + 5, height, width)
        for decode in (preprocessing.decode, preprocessing.decode_random_crop):
            seed = () if decode is preprocessing.decode else (tf.constant([0, 1]),)
            with pytest.raises(tf.errors.InvalidArgumentError, match=message):
                decode(tf.constant(bytes(content)), *seed)


def test_random_crop_depends_on_its_seed_only():
    image = tf.constant(encoded(coordinates(50, 60), "JPEG"))

    @tf.function
    def inside_graph(seed):
        return preprocessing.decode_random_crop(image, seed)

    for seed in ([0, 1], [0, 2]):
        eager = preprocessing.decode_random_crop(image, tf.constant(seed))
        np.testing.assert_array_equal(eager, inside_graph(tf.constant(seed)))


def test_random_flip_mirrors_half():
    image = tf.constant(coordinates(4, 6))
    flipped = 0
    for i in range(100):
        result = preprocessing.random_flip(image, tf.constant([0, i])).numpy()
        mirrored = np.array_equal(result, image.numpy()[:, ::-1])
        assert mirrored or np.array_equal(result, image)
        flipped += mirrored
    assert 35 < flipped < 65


def noise(height, width):
    return np.random.default_rng(0).uniform(0, 255, (height, width, 3)).astype("float32")


def test_random_interpolation_uses_each_of_four_equally_often():
    image = tf.constant(noise(12, 12))
    counts = {}
    for number in range(200):
        resized = preprocessing.resize_randomly(image, 5, 7, tf.constant([3, number]))
        assert resized.shape == (5, 7, 3) and resized.dtype == tf.float32
        assert 0 <= resized.numpy().min() and resized.numpy().max() <= 255
        counts[resized.numpy().tobytes()] = counts.get(resized.numpy().tobytes(), 0) + 1
    assert len(counts) == 4
    assert all(30 < count < 70 for count in counts.values())  # 50 +- 3.3 standard deviations


def test_color_steps_against_numpy():
    image = noise(6, 5)
    gray = image @ np.array([0.299, 0.587, 0.114], "float32")
    expected = {
        preprocessing.adjust_brightness: image * 0.7,
        preprocessing.adjust_contrast: gray.mean() + (image - gray.mean()) * 0.7,
        preprocessing.adjust_saturation: gray[..., None] + (image - gray[..., None]) * 0.7,
    }
    for step, value in expected.items():
        np.testing.assert_allclose(step(tf.constant(image), 0.7), value, rtol=1e-5, atol=1e-3)


def test_distorted_colors_are_those_of_some_order():
    """Every result is one of the six orders with factors in 50-150%; here of a gray image."""
    gray = np.full((4, 4, 3), 80, "float32")  # contrast and saturation leave it as it is
    means = [
        float(tf.reduce_mean(preprocessing.distort_colours(tf.constant(gray), (5, number))))
        for number in range(100)
    ]
    assert 40 <= min(means) < 50 and 110 < max(means) <= 120


def test_a_training_crop_is_averaged_only_below_half_its_side():
    """Down to half, two taps lie on all pixels: at exactly half each pair is averaged."""
    image = noise(8, 8)
    half = preprocessing.resize_crop(tf.constant(image), 4)
    pairs = image.reshape(4, 2, 4, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(half, pairs, rtol=1e-5, atol=1e-3)
    third = preprocessing.resize_crop(tf.constant(noise(9, 9)), 3)
    np.testing.assert_allclose(third, preprocessing.resize(tf.constant(noise(9, 9)), 3, 3))
