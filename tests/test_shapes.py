"""The built-in data set is what it says: reproducible, balanced, and not to be had cheaply."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from keras_googlenet.data import shapes

LINEAR_LIMIT = 0.30  # accuracy that a linear classifier must stay under; chance is 0.10


def draw_both(train, validation):
    """Training and validation images with masks and labels, from the builder."""
    halves = []
    for number, count in ((0, train), (1, validation)):
        labels = np.arange(count) % len(shapes.CLASSES)
        pairs = [
            shapes.draw(shapes.CLASSES[label], np.random.default_rng([number, index]))
            for index, label in enumerate(labels)
        ]
        images = np.stack([np.asarray(image) for image, _ in pairs])
        halves.append((images, np.stack([np.asarray(mask) for _, mask in pairs]), labels))
    return halves


@pytest.fixture(scope="module")
def drawn():
    return draw_both(300, 100)


@pytest.fixture(scope="module")
def many():
    """As many as a linear classifier needs for a fair chance."""
    return draw_both(1500, 500)


def test_a_picture_depends_on_its_seed_only():
    first, second = (shapes.draw("star", np.random.default_rng([0, 8])) for _ in range(2))
    other = shapes.draw("star", np.random.default_rng([0, 18]))
    for image, again, different in zip(first, second, other, strict=True):
        np.testing.assert_array_equal(image, again)
        assert np.any(np.asarray(image) != np.asarray(different))


AREAS = {  # within [-1, 1], by school geometry
    "arrow": 1.5 * 0.9 / 2 + 0.56 * 1.1,
    "cross": 2 * 2 * 0.6 - 0.6**2,
    "disc": np.pi,
    "hourglass": 2 * 0.9 * (1.4 + 0.24) / 2,
    "ring": np.pi * (1 - 0.55**2),
    "square": 2.0,
    "star": 10 * 0.42 * np.sin(np.pi / 5) / 2,
    "triangle": 3 * 3**0.5 / 4,
}


@pytest.mark.parametrize("name", AREAS)
def test_an_outline_is_what_its_name_says(name):
    canvas = Image.new("L", (800, 800))
    for outline, fill in shapes.OUTLINES[name]:
        points = [tuple(400 * (point + 1)) for point in outline]
        ImageDraw.Draw(canvas).polygon(points, fill=fill)
    assert 4 * (np.asarray(canvas) > 127).mean() == pytest.approx(AREAS[name], rel=0.02)


def test_sizes_differ_widely(drawn):
    _, masks, _ = drawn[0]
    rows = (masks > 127).any(axis=2).sum(axis=1)
    small, large = np.quantile(rows, [0.02, 0.98])
    assert large / small > 3.5


def test_mask_is_where_the_object_is(drawn):
    images, masks, _ = drawn[1]
    differences = []
    for image, mask in zip(images.astype("float32"), masks > 127, strict=True):
        assert 0 < mask.mean() < 0.6
        differences.append(np.linalg.norm(image[mask].mean(axis=0) - image[~mask].mean(axis=0)))
    assert np.median(differences) > 60


def test_objects_stay_inside_the_central_crop(drawn):
    margin = (shapes.SIDE - shapes.SIDE * 224 // 256) // 2
    for _, masks, _ in drawn:
        inside = masks[:, margin:-margin, margin:-margin].sum(dtype="int64")
        assert inside / masks.sum(dtype="int64") > 0.995


def linear_accuracy(features, drawn):
    from sklearn.linear_model import RidgeClassifierCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    (train, _, train_labels), (test, _, test_labels) = drawn
    classifier = make_pipeline(StandardScaler(), RidgeClassifierCV(10.0 ** np.arange(0, 6)))
    classifier.fit(features(train), train_labels)
    return classifier.score(features(test), test_labels)


def small_pixels(images):
    cells = images.reshape(len(images), 32, 4, 32, 4, 3).mean(axis=(2, 4))
    return cells.reshape(len(images), -1)


def color_histograms(images):
    codes = (images // 32).astype("int64") @ [64, 8, 1]  # eight levels a channel
    return np.stack([np.bincount(code.ravel(), minlength=512) for code in codes])


@pytest.mark.slow
@pytest.mark.parametrize("features", [small_pixels, color_histograms])
def test_a_linear_classifier_fails(features, many):
    assert linear_accuracy(features, many) < LINEAR_LIMIT


@pytest.mark.slow
def test_the_linear_classifier_can_learn(many):
    # The same classifier on masks that are centered and scaled does well: it is not broken.
    def centered_outlines(images):
        masks = many[0][1] if len(images) == len(many[0][0]) else many[1][1]
        crops = []
        for mask in masks > 127:
            rows, columns = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
            y = np.linspace(rows[0], rows[-1], 16).astype(int)
            x = np.linspace(columns[0], columns[-1], 16).astype(int)
            crops.append(mask[y][:, x].ravel())
        return np.asarray(crops, "float64")

    assert linear_accuracy(centered_outlines, many) > 2 * LINEAR_LIMIT


@pytest.mark.slow
def test_the_builder_prepares_what_draw_draws(tmp_path):
    import time

    import tensorflow_datasets as tfds

    began = time.perf_counter()
    builder = tfds.builder("shapes", data_dir=tmp_path)
    builder.download_and_prepare()
    print(f"prepared in {time.perf_counter() - began:.1f} s")
    assert {name: info.num_examples for name, info in builder.info.splits.items()} == {
        "train": 4000,
        "validation": 1000,
    }
    labels = [int(example["label"]) for example in builder.as_dataset(split="train")]
    assert np.bincount(labels).tolist() == [400] * 10
    example = next(iter(builder.as_dataset(split="validation")))
    assert example["image"].shape == (128, 128, 3) and example["mask"].shape == (128, 128, 1)
    candidates = range(int(example["label"]), 1000, 10)
    masks = [
        np.asarray(shapes.draw(shapes.CLASSES[i % 10], np.random.default_rng([1, i]))[1])
        for i in candidates
    ]
    assert any(np.array_equal(mask, example["mask"][..., 0]) for mask in masks)
