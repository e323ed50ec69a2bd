"""What a run says where TensorFlow fails under it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import dtype_policy, small_run
from training_process import small_network

from keras_googlenet import models
from keras_googlenet.training import train_steps, trainer
from keras_googlenet.training.loop import Run
from keras_googlenet.training.recipe import Recipe

LOST = [
    tf.errors.UnavailableError,
    tf.errors.DeadlineExceededError,
    tf.errors.CancelledError,
    tf.errors.AbortedError,
]


def fail(workers, error):
    with trainer._naming_failures(workers):
        raise error(None, None, "why\nand more")


@pytest.mark.parametrize("error", LOST)
def test_only_another_worker_can_be_lost(error):
    with pytest.raises(trainer.LostWorkerError, match=r"another worker was lost; .* \(why\)$"):
        fail(2, error)
    with pytest.raises(error):
        fail(1, error)


@pytest.mark.parametrize("workers", [1, 2])
def test_what_this_worker_got_wrong_is_its_own(workers):
    with pytest.raises(trainer.UserError, match="out of memory; give a smaller --batch-size"):
        fail(workers, tf.errors.ResourceExhaustedError)
    with pytest.raises(tf.errors.InvalidArgumentError):
        fail(workers, tf.errors.InvalidArgumentError)


@pytest.mark.parametrize(
    ("error", "status"),
    [(trainer.LostWorkerError("one sentence"), 138), (trainer.UserError("one sentence"), 2)],
)
def test_a_lost_worker_is_retried_and_a_mistake_is_not(
    error, status, run_script, image_folder, tmp_path, monkeypatch
):
    """Kubeflow's TFJob starts a pod again whose status is 128 to 255."""

    def fail(self):
        raise error

    monkeypatch.setattr(train_steps, "build_network", small_network)
    monkeypatch.setattr(Run, "run_epochs", fail)
    outcome = run_script("train.py", *small_run(image_folder, tmp_path / "run"))
    assert outcome.status == status
    assert outcome.err.splitlines()[-1] == "train.py: error: one sentence"
    assert "Traceback" not in outcome.err


def test_the_recipe_that_wins_says_which_weights(run_script, tmp_path, monkeypatch):
    def load(name, variant, need_classifier):
        raise trainer.UserError(f"{variant} of {name}")

    monkeypatch.setattr(models, "load", load)
    Recipe(weights="imagenet", variant="slim").save(tmp_path)
    for flags in ([], ["--weights", "other"]):
        outcome = run_script("train.py", "--workdir", tmp_path, "--recipe-of", "run", *flags)
        assert "error: slim of imagenet" in outcome.err


def test_the_recipe_that_wins_is_the_one_that_is_checked(run_script, tmp_path):
    Recipe(image_size=32).save(tmp_path)
    outcome = run_script("train.py", "--workdir", tmp_path, "--recipe-of", "run")
    assert outcome.status == 2 and "--image-size must be at least 65" in outcome.err


def test_one_class_is_refused_and_nothing_left(image_folder, run_script, tmp_path):
    for split in ("train", "val"):
        (tmp_path / "data" / split).mkdir(parents=True)
        (tmp_path / "data" / split / "star").symlink_to(image_folder / split / "star")
    outcome = run_script("train.py", *small_run(tmp_path / "data", tmp_path / "run"))
    assert outcome.status == 2 and "has one class, star" in outcome.err
    assert "Traceback" not in outcome.err and not (tmp_path / "run").exists()


def test_seed_and_precision_are_those_of_the_recipe():
    drawn = []
    with dtype_policy("float16"):  # a run sets both for its whole process
        for seed in (3, 3, 4):
            trainer.prepare_keras(Recipe(seed=seed))
            assert keras.config.dtype_policy().name == "float32"
            drawn.append(np.asarray(keras.random.uniform((3,))).tolist())
        assert drawn[0] == drawn[1] != drawn[2]
        trainer.prepare_keras(Recipe(precision="bfloat16"))
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
