import argparse
import dataclasses
import json
import shlex

import pytest

from keras_googlenet.errors import UserError
from keras_googlenet.training.optimizers import make_schedule
from keras_googlenet.training.recipe import RECIPES, Recipe, add_recipe_flags, recipe_from_flags


def parse(*flags):
    parser = argparse.ArgumentParser()
    add_recipe_flags(parser)
    return recipe_from_flags(parser.parse_args(flags))


def test_the_data_set_picks_the_recipe():
    assert parse() == RECIPES["small"]
    assert parse("--dataset", "cifar10") == dataclasses.replace(
        RECIPES["modern"], dataset="cifar10"
    )
    assert parse("--recipe", "modern") == RECIPES["modern"]


def test_a_flag_beats_the_recipe():
    recipe = parse("--learning-rate", "0.5", "--epochs", "3", "--data-dir", "/data")
    assert (recipe.learning_rate, recipe.epochs, recipe.data_dir) == (0.5, 3, "/data")
    assert recipe.image_size == RECIPES["small"].image_size


def test_every_setting_has_a_flag_that_shows_its_default(capsys):
    parser = argparse.ArgumentParser()
    add_recipe_flags(parser)
    text = " ".join(parser.format_help().split())
    for setting in dataclasses.fields(Recipe):
        assert "--" + setting.name.replace("_", "-") in text
    assert "small: 72, paper: 224, bvlc-quick: 224, cifar: 65, modern: 224" in text


def test_learning_rate_scales_with_the_batch():
    assert Recipe(batch_size=512, learning_rate=0.1).scaled_learning_rate == pytest.approx(0.2)


def test_json_round_trip(tmp_path):
    recipe = parse("--batch-size", "32", "--seed", "9")
    recipe.save(tmp_path)
    assert Recipe.load(tmp_path) == recipe
    assert json.loads((tmp_path / "recipe.json").read_text())["batch_size"] == 32


def test_differences_name_what_changed():
    assert Recipe(epochs=5).differences(Recipe(epochs=3)) == {"epochs": (3, 5)}


@pytest.mark.parametrize("text", ["{", '{"learning": 3}'])
def test_a_damaged_file_is_named(text, tmp_path):
    (tmp_path / "recipe.json").write_text(text)
    with pytest.raises(UserError, match="recipe.json is not a recipe"):
        Recipe.load(tmp_path)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("epochs", 0), ("batch_size", -1), ("dropout", 1.5), ("learning_rate", float("nan"))],
)
def test_impossible_values_are_refused(setting, value):
    with pytest.raises(
        UserError, match=f"--{setting.replace('_', '-')} must be (in|at least) .*; it is {value}"
    ):
        Recipe(**{setting: value})


def test_validation_split_leaves_images_to_train_on():
    with pytest.raises(UserError, match="--validation-split must be less than 1"):
        Recipe(validation_split=1.0)


@pytest.mark.parametrize("epochs", [1, 2])
def test_warm_up_must_be_shorter_than_the_run_and_a_default_is_reduced(epochs):
    assert parse("--recipe", "modern", "--epochs", str(epochs)).fitting_warmup_epochs == epochs / 2
    assert parse("--recipe", "modern", "--epochs", "3").fitting_warmup_epochs == 2
    with pytest.raises(UserError, match="--warmup-epochs must be less than --epochs; it is 2 of"):
        parse("--recipe", "modern", "--epochs", str(epochs), "--warmup-epochs", "2")
    without = parse("--epochs", str(epochs), "--warmup-epochs", "2", "--schedule", "power")
    assert without.warmup_epochs == 2  # of no effect there


def test_the_papers_recipe_has_the_values_of_the_paper():
    recipe = dataclasses.asdict(RECIPES["paper"])
    sections_5_and_6 = {"variant": "paper", "momentum": 0.9, "dropout": 0.4, "aux_dropout": 0.7}
    sections_5_and_6 |= {"min_crop_area": 0.08, "random_interpolation": True}
    sections_5_and_6 |= {"distort_colours": True, "step_factor": 0.96, "step_epochs": 8}
    assert sections_5_and_6.items() <= recipe.items()


# What BVLC/caffe publishes: models/bvlc_googlenet/quick_solver.prototxt, and the batch and the
# auxiliary dropout of its train_val.prototxt.
SOLVER = """
base_lr: 0.01
lr_policy: "poly"
power: 0.5
max_iter: 2400000
momentum: 0.9
weight_decay: 0.0002
"""
TRAINING_BATCH, AUX_DROPOUT = 32, 0.7
IMAGENET = 1_281_167  # training images of ILSVRC 2012


def test_bvlcs_recipe_trains_as_its_solver_says():
    solver = dict(line.split(": ") for line in SOLVER.split("\n") if line)
    recipe, steps_per_epoch = RECIPES["bvlc-quick"], IMAGENET / TRAINING_BATCH
    assert (recipe.batch_size, recipe.aux_dropout) == (TRAINING_BATCH, AUX_DROPOUT)
    assert recipe.epochs == round(float(solver["max_iter"]) / steps_per_epoch)
    assert recipe.momentum == float(solver["momentum"]) and not recipe.nesterov
    assert recipe.weight_decay == float(solver["weight_decay"])
    schedule = make_schedule(recipe, round(steps_per_epoch))
    for share in (0, 0.25, 0.75):  # Caffe's "poly": base_lr * (1 - iteration / max_iter) ** power
        iteration = share * recipe.epochs * round(steps_per_epoch)
        rate = float(solver["base_lr"]) * (1 - share) ** float(solver["power"])
        assert float(schedule(iteration)) == pytest.approx(rate, rel=1e-5)


def test_randaugment_cannot_be_repeated():
    with pytest.raises(UserError, match="--randaugment has a random state"):
        Recipe(randaugment=True, deterministic=True)


def test_fine_tuning_has_a_lower_learning_rate():
    assert parse("--dataset", "folder", "--weights", "x.keras").learning_rate == pytest.approx(0.01)
    assert parse("--weights", "x.keras", "--learning-rate", "0.5").learning_rate == 0.5


def test_boolean_settings_have_two_flags():
    assert not parse("--no-nesterov").nesterov and parse("--jit").jit


@pytest.mark.parametrize("name", RECIPES)
def test_the_command_gives_the_recipe_again(name):
    changes = {"dataset": "cifar10", "nesterov": False, "weights": "/home/me/a b.keras"}
    recipe = Recipe(**(vars(RECIPES[name]) | changes))
    words = shlex.split(recipe.command())
    assert words[:2] == ["python", "train.py"]
    again = parse(*words[2:])
    assert again.weights == "path/to/a b.keras"
    assert vars(again) == vars(recipe) | {"weights": again.weights}
