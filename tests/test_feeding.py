"""What a run's batches are made of: each setting of the recipe, and what the network gets."""

import numpy as np
import pytest
import tensorflow as tf

from keras_googlenet.data import datasets, pipeline
from keras_googlenet.training.feeding import Feeding
from keras_googlenet.training.recipe import Recipe

MEANS = {"paper": (123, 117, 104), "google": (117, 117, 117)}


@pytest.fixture
def feeding_of(image_folder):
    def make(**settings):
        recipe = Recipe(image_size=65, batch_size=8, **settings)
        opened = datasets.open_dataset(str(image_folder))
        return Feeding(recipe, opened, tf.distribute.get_strategy(), print)

    return make


@pytest.mark.parametrize("variant", MEANS)
def test_a_batch_is_preprocessed_and_has_a_label_for_each_head(variant, feeding_of):
    feeding = feeding_of(variant=variant)
    (raw,) = feeding_of(variant="torchvision").train(0).batches().take(1)
    for batch in (feeding.train(0).batches(), feeding.validation().batches()):
        images, labels, *weights = next(iter(batch))
        assert images.shape == (8, 65, 65, 3) and len(labels) == 3
        for label in labels:
            np.testing.assert_array_equal(label, labels[0])
            assert label.shape == (8, 3) and np.all(np.sum(label, axis=1) == 1)
        for weight in weights:
            assert len(weight) == 3
    images, _ = next(iter(feeding.train(0).batches()))
    expected = (raw[0] + 1) * 127.5 - np.float32(MEANS[variant])
    np.testing.assert_allclose(images, expected, atol=1e-3)


def test_every_setting_reaches_the_pipeline(feeding_of, monkeypatch):
    asked = []

    def train_batches(split, image_size, batch_size, seed, augmentation, **more):
        asked.append((split.size, image_size, batch_size, seed, augmentation._asdict(), more))
        return original(split, image_size, batch_size, seed, augmentation, **more)

    original = pipeline.train_batches
    monkeypatch.setattr(pipeline, "train_batches", train_batches)
    changes = {"distort_colours": True, "random_interpolation": True, "mixup": 0.3, "cutmix": 0.6}
    feeding = feeding_of(seed=5, min_crop_area=0.7, **changes)
    feeding.train(4, 2).batches()
    ((*numbers, augmentation, more),) = asked
    assert numbers == [24, 65, 8, 5]  # the training half, not the 9 of validation
    assert augmentation == {"area": (0.7, 1.0), "randaugment": False} | changes
    assert (more["epoch"], more["first_step"], more["classes"]) == (4, 2, 3)


def test_a_validation_shows_all_images(feeding_of):
    feeding = feeding_of()
    assert (feeding.steps, feeding.validation_steps) == (3, 2)  # of 24 and of 9 images
    weights = np.concatenate([weights[0] for *_, weights in feeding.validation().batches()])
    assert weights.tolist() == [1] * 9 + [0] * 7
