"""The batches of a run: each setting of the recipe, and the tensors that the step receives."""

import numpy as np
import pytest
import tensorflow as tf

from keras_googlenet.data import datasets, pipeline
from keras_googlenet.errors import UserError
from keras_googlenet.training.input_pipeline import InputPipeline
from keras_googlenet.training.recipe import Recipe


@pytest.fixture
def input_of(image_folder):
    def make(**settings):
        recipe = Recipe(image_size=65, batch_size=8, **settings)
        opened = datasets.open_dataset(str(image_folder))
        return InputPipeline(recipe, opened, tf.distribute.get_strategy(), print)

    return make


def test_images_travel_as_bytes_and_labels_are_one_hot(input_of):
    images, labels = next(iter(input_of().train()))
    assert images.shape == (8, 65, 65, 3) and images.dtype == tf.uint8
    assert labels.shape == (8, 3) and np.all(np.sum(labels, axis=1) == 1)


def test_every_setting_reaches_the_pipeline(input_of, monkeypatch):
    asked = []

    def train_batches(split, image_size, batch_size, seed, augmentation, **more):
        asked.append((split.size, image_size, batch_size, seed, augmentation._asdict(), more))
        return original(split, image_size, batch_size, seed, augmentation, **more)

    original = pipeline.train_batches
    monkeypatch.setattr(pipeline, "train_batches", train_batches)
    changes = {"distort_colours": True, "random_interpolation": True, "mixup": 0.3, "cutmix": 0.6}
    made = input_of(seed=5, min_crop_area=0.7, **changes)
    next(iter(made.train(14)))
    ((*numbers, augmentation, more),) = asked
    assert numbers == [24, 65, 8, 5]  # the training split, not the 9 of validation
    assert augmentation == {"area": (0.7, 1.0), "randaugment": False} | changes
    assert (more["first_step"], more["classes"]) == (14, 3)


def test_a_validation_shows_all_images_as_they_are_evaluated(input_of):
    made = input_of()
    assert (made.steps, made.epochs) == (3, 90)  # of 24 images
    batches = list(made.validation)
    assert len(batches) == 2  # of 9 images
    assert np.concatenate([weights for *_, weights in batches]).tolist() == [1] * 9 + [0] * 7
    evaluated = pipeline.evaluation_batches(made.dataset.validation, 65, 9)
    images = np.concatenate([images for images, *_ in batches])[:9]
    np.testing.assert_array_equal(images, next(iter(evaluated))[0])


@pytest.mark.parametrize(("most", "epochs", "steps"), [(1, 1, [1]), (3, 1, [3]), (7, 3, [3, 3, 1])])
def test_max_steps_ends_the_run(most, epochs, steps, input_of):
    made = input_of(max_steps=most)
    assert made.epochs == epochs
    assert [made.steps_of(epoch) for epoch in range(epochs)] == steps
    assert len(list(made.train())) == most
    assert len(list(made.validation)) == min(most, 2)


def test_balanced_weights_give_each_class_the_same_sum(input_of, tmp_path, image_folder):
    assert input_of().class_weights() is None
    counts = {"cross": 8, "ring": 2, "star": 1}  # 8 of each
    for name, count in counts.items():
        (tmp_path / "train" / name).mkdir(parents=True)
        for file in sorted((image_folder / "train" / name).iterdir())[:count]:
            (tmp_path / "train" / name / file.name).symlink_to(file)
    (tmp_path / "val").symlink_to(image_folder / "val")
    opened = datasets.open_dataset(str(tmp_path))
    recipe = Recipe(image_size=65, batch_size=4, class_weights="balanced")
    made = InputPipeline(recipe, opened, tf.distribute.get_strategy(), print)
    weights = made.class_weights().numpy()
    np.testing.assert_allclose(weights * list(counts.values()), 11 / 3, rtol=1e-6)


def test_fewer_images_than_devices_are_refused(image_folder):
    class Strategy:
        num_replicas_in_sync = 200
        cluster_resolver = None

    opened = datasets.open_dataset(str(image_folder))
    with pytest.raises(UserError, match="has 24 images to train on for 200 devices"):
        InputPipeline(Recipe(), opened, Strategy(), print)
