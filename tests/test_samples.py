"""The images that an export is calibrated on and compared on."""

import numpy as np
import pytest
from PIL import Image

from keras_googlenet.data import datasets, samples


@pytest.fixture(scope="module")
def split(image_folder):
    """Nine images, three of each class in turn."""
    return datasets.open_dataset(str(image_folder)).validation


def test_classes_are_matched_by_name_whatever_their_order(split):
    names, labels = ["cross", "n00000001 ring", "star"], ["star", "n00000001 circle", "cross"]
    images, classes = samples.read_sample(split, names, labels, 65, 100)
    assert classes.tolist() == [2] * 3 + [1] * 3 + [0] * 3  # wnids go before names
    assert images.shape == (9, 65, 65, 3)
    _, classes = samples.read_sample(split, names, ["star", "cross", "disc"], 65, 100)
    assert classes is None


def test_images_are_read_at_equal_distances(split):
    names = ["cross", "ring", "star"]
    images, classes = samples.read_sample(split, names, names, 65, 3)
    assert classes.tolist() == [0, 1, 2]
    every, _ = samples.read_sample(split, names, names, 65, 9)
    np.testing.assert_array_equal(images, every[::3])


def test_a_folder_of_images_is_a_class_without_a_name(tmp_path):
    (tmp_path / "below").mkdir()
    Image.new("RGB", (70, 70)).save(tmp_path / "below" / "b.png")
    (tmp_path / ".hidden.png").write_bytes(b"")
    assert samples.open_images(tmp_path) is None
    assert samples.open_images(tmp_path / "missing") is None
    Image.new("RGB", (70, 70)).save(tmp_path / "a.png")
    opened = samples.open_images(tmp_path)
    assert opened.labels == [""] and opened.validation.size == 2
