"""Where crops lie, on an image whose pixels are their coordinates."""

from collections import Counter

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_googlenet.data import datasets, multicrop, pipeline, preprocessing

SIDE, LONG = 352, 528  # of the image: 3 : 2, and no smaller than any scale
BLUR = 0.6  # pixels by which a resized ramp may be off, away from the border


def coordinates(height, width):
    """Channels are x, y and a constant."""
    y, x = np.mgrid[:height, :width].astype("float32")
    return tf.stack([x, y, tf.fill(x.shape, 7.0)], axis=-1)


def all_crops(image, count, size=224):
    crop_set = multicrop.crop_set(count)
    at = [
        multicrop.cut_crops(image, size, multicrop.scaled_side(side, size), crop_set)
        for side in crop_set.sides
    ]
    return np.concatenate(at)


def box(crop, image_side, side):
    """Left, top, right and bottom of a crop in the pixels of the resized image; mirrored if l > r.

    They are read from ramps through the middle, where a resized ramp is still a ramp.
    """
    size = len(crop)
    low, high = size // 4, 3 * size // 4
    ends = []
    for ramp in (crop[size // 2, :, 0], crop[:, size // 2, 1]):
        scaled = (ramp.astype("float64") + 0.5) * side / image_side
        slope = (scaled[high] - scaled[low]) / (high - low)
        ends.append((scaled[low] - (low + 0.5) * slope, scaled[low] + (size - low - 0.5) * slope))
    (left, right), (top, bottom) = ends
    return left, top, right, bottom


def expected_boxes(side, landscape):
    """Section 7 in plain words, for a 3 : 2 image and crops of 224 pixels."""
    boxes = []
    for square in (0, side // 4, side // 2):  # left or top, center, right or bottom
        x, y = (square, 0) if landscape else (0, square)
        margin = side - 224
        for dx, dy in ((0, 0), (margin, 0), (0, margin), (margin, margin)):
            boxes.append((x + dx, y + dy, x + dx + 224, y + dy + 224))
        half = margin // 2
        boxes.append((x + half, y + half, x + half + 224, y + half + 224))
        boxes.append((x, y, x + side, y + side))
    return boxes + [(right, top, left, bottom) for left, top, right, bottom in boxes]


@pytest.mark.parametrize("landscape", [True, False])
def test_144_crops_are_where_the_paper_puts_them(landscape):
    image = coordinates(SIDE, LONG) if landscape else coordinates(LONG, SIDE)
    found = all_crops(image, 144)
    assert found.shape == (144, 224, 224, 3)
    everything = set()
    for number, side in enumerate((256, 288, 320, 352)):
        boxes = [box(crop, SIDE, side) for crop in found[36 * number : 36 * (number + 1)]]
        remaining = expected_boxes(side, landscape)
        for mine in boxes:
            best = min(remaining, key=lambda other: np.abs(np.subtract(mine, other)).max())
            assert mine == pytest.approx(best, abs=BLUR)
            remaining.remove(best)
        assert not remaining
        everything |= {(side, *np.round(mine)) for mine in boxes}
    assert len(everything) == 144
    np.testing.assert_allclose(found[..., 2], 7, atol=1e-4)


def test_a_square_has_48_distinct_crops_three_times_each():
    found = all_crops(coordinates(SIDE, SIDE), 144)
    counts = Counter(crop.tobytes() for crop in found)
    assert len(counts) == 48 and set(counts.values()) == {3}


def test_ten_crops_are_corners_and_center_of_the_middle_square():
    found = all_crops(coordinates(256, 384), 10)  # nothing is resized
    corners = [(int(crop[0, 0, 0]), int(crop[0, 0, 1])) for crop in found]
    assert corners[:5] == [(64, 0), (96, 0), (64, 32), (96, 32), (80, 16)]
    np.testing.assert_array_equal(found[5:], found[:5, :, ::-1])


@pytest.mark.parametrize("shape", [(301, 400), (400, 301), (333, 333)])
@pytest.mark.parametrize("size", [65, 72, 96, 224])
def test_one_crop_is_the_evaluation_crop(shape, size):
    image = tf.constant(np.random.default_rng(size).integers(0, 256, (*shape, 3), "uint8"))
    crop = preprocessing.evaluation_crop(image, size)
    np.testing.assert_array_equal(all_crops(image, 1, size)[0], crop)
    crops = multicrop.crop_set(144).crops()
    index = crops.index(multicrop.crop_set(1).crops()[0])
    np.testing.assert_array_equal(all_crops(image, 144, size)[index], crop)


def test_fewer_crops_are_among_more():
    ten, all_144 = (all_crops(coordinates(300, 400), count) for count in (10, 144))
    of_144 = multicrop.crop_set(144).crops()
    indices = [of_144.index(crop) for crop in multicrop.crop_set(10).crops()]
    np.testing.assert_array_equal(all_144[indices], ten)


def test_other_sizes_keep_the_ratios():
    assert [multicrop.scaled_side(side, 112) for side in multicrop.SIDES] == [128, 144, 160, 176]
    half = all_crops(coordinates(128, 192), 10, size=112)
    assert half[0, 0, 0].tolist() == [32, 0, 7] and half[3, 0, 0].tolist() == [48, 16, 7]


def test_batches_go_through_images_without_gaps(tmp_path):
    labels = {}
    for number in range(5):
        shade = tmp_path / "shades" / f"{number}.png"
        shade.parent.mkdir(exist_ok=True)
        Image.new("RGB", (40 + number, 50), (number, 100, 100)).save(shade)
        labels.setdefault("shades", []).append(str(shade))
    split = datasets.folder_split(labels, ["shades"])
    crop_set = multicrop.crop_set(10)
    batches = list(multicrop.crop_batches(split, (32, 48), crop_set, batch_size=7))
    assert [len(numbers) for _, numbers in batches] == [7] * 7 + [1]
    for index, size in enumerate((32, 48)):
        rows = np.concatenate([images[index] for images, _ in batches])
        assert rows.shape == (50, size, size, 3)
        np.testing.assert_allclose(rows[:, 0, 0, 0], np.repeat(range(5), 10), atol=1e-4)
    later = multicrop.crop_batches(split, (32,), crop_set, batch_size=7, first=3)
    np.testing.assert_allclose(next(iter(later))[0][0][0, 0, 0, 0], 3, atol=1e-4)


def test_the_first_batch_does_not_wait_for_the_whole_set():
    read = []

    image = tf.io.encode_png(tf.zeros((40, 60, 3), tf.uint8))

    def note(number, source):
        tf.py_function(lambda found: read.append(int(found)), [number], [])
        return image, number

    split = datasets.Split(1000, tf.as_string, note)
    next(iter(multicrop.crop_batches(split, (32,), multicrop.crop_set(144), batch_size=10)))
    assert len(read) < 200


def test_one_crop_batches_are_those_of_training(image_folder):
    split = datasets.open_dataset(str(image_folder)).validation
    ours = multicrop.crop_batches(split, (65,), multicrop.crop_set(1), batch_size=4)
    theirs = pipeline.evaluation_batches(split, 65, 4)
    for ((images,), labels), (expected, expected_labels) in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(images, expected)
        np.testing.assert_array_equal(labels, expected_labels)
