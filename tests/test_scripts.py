"""The scripts as a user types them, on a small data set of folders."""

import csv
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import CLASSES, ROOT, read_json, small_run
from PIL import Image

from keras_googlenet import cli

HEADS = ("main", "aux1", "aux2")


@pytest.fixture(scope="module")
def photo(image_folder):
    return image_folder / "val" / "star" / "0.jpg"


def test_train_fills_the_run_directory(finished_run):
    workdir, outcome = finished_run
    assert {path.name for path in workdir.iterdir()} == {
        "recipe.json",
        "labels.txt",
        "data.json",
        "data.npz",
        "checkpoints",
        "logs",
        "history.csv",
        "curves.png",
        "metrics.json",
        "model.keras",
    }
    assert (workdir / "labels.txt").read_text().split() == list(CLASSES)
    assert list((workdir / "logs").rglob("events.*"))
    with open(workdir / "history.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1"]
    metrics = read_json(workdir / "metrics.json")
    names = {f"val_{head}_{key}" for head in HEADS for key in ("accuracy", "top5", "loss")}
    more = {"val_loss", "kept_epoch", "epochs", "seconds", "images_per_second", "data"}
    assert set(metrics) == names | more
    found = read_json(workdir / "data.json")
    assert found.items() >= metrics["data"].items()
    counts = [(found[half]["images"], found[half]["classes"]) for half in ("train", "validation")]
    assert counts == [(24, 3), (9, 3)]
    assert "24 images of 3 classes (cross, ring, star) in train/" in outcome.err
    kept = rows[metrics["kept_epoch"] - 1]
    assert float(kept["val_main_accuracy"]) == metrics["val_main_accuracy"]
    assert metrics["val_main_accuracy"] == max(float(row["val_main_accuracy"]) for row in rows)
    total = sum(w * metrics[f"val_{h}_loss"] for h, w in zip(HEADS, (1, 0.3, 0.3), strict=True))
    assert metrics["val_loss"] == pytest.approx(total, rel=1e-4)
    last = outcome.out.splitlines()[-1]
    assert last.endswith(str(workdir))
    assert all(f"{head} {metrics[f'val_{head}_accuracy']:.1%}" in last for head in HEADS)
    assert "devices: CPU; strategy: one device" in outcome.err
    assert Image.open(workdir / "curves.png").size[0] > 1000


def test_the_saved_model_has_three_named_heads(finished_run):
    model = keras.models.load_model(finished_run[0] / "model.keras")
    assert model.output_names == list(HEADS)
    assert not model.compiled


def test_a_finished_run_only_reports(finished_run, run_script, image_folder):
    workdir, _ = finished_run
    before = read_json(workdir / "metrics.json")
    outcome = run_script("train.py", *small_run(image_folder, workdir), "--json")
    assert outcome.status == 0
    assert json.loads(outcome.out) == before


def test_another_recipe_on_the_same_directory_is_refused(finished_run, run_script, image_folder):
    workdir, _ = finished_run
    outcome = run_script("train.py", *small_run(image_folder, workdir), "--momentum", "0.5")
    assert outcome.status == 2
    assert "momentum was 0.9, now 0.5" in outcome.err


@pytest.mark.slow
def test_fine_tuning_begins_from_other_weights(finished_run, run_script, image_folder, tmp_path):
    weights = finished_run[0] / "model.keras"
    flags = [*small_run(image_folder, tmp_path / "run", epochs=1), "--weights", weights]
    refused = run_script("train.py", *flags, "--variant", "paper")
    assert refused.status == 2 and "holds the variant batchnorm, not paper" in refused.err
    outcome = run_script(
        "train.py", *flags, "--freeze-until", "inception_4e_output", "--learning-rate", 0.001
    )
    assert outcome.status == 0, outcome.err
    assert "random weights" not in outcome.err, "the classes are the same"
    before = keras.models.load_model(weights)
    after = keras.models.load_model(tmp_path / "run" / "model.keras")
    for name, same in (("conv1_7x7_s2", True), ("inception_4e_1x1_bn", True), ("main", False)):
        pairs = zip(
            before.get_layer(name).get_weights(), after.get_layer(name).get_weights(), strict=True
        )
        assert all(np.array_equal(*pair) for pair in pairs) == same, name


def test_evaluate_agrees_with_the_last_validation(finished_run, run_script):
    workdir, _ = finished_run
    outcome = run_script("evaluate.py", workdir, "--json", "--batch-size", 4)
    assert outcome.status == 0, outcome.err
    result, metrics = json.loads(outcome.out), read_json(workdir / "metrics.json")
    assert result.pop("examples") == 9 and result.pop("data")["validation"]["images"] == 9
    assert set(result) == {f"{h}_{key}" for h in HEADS for key in ("accuracy", "top5", "loss")}
    for key, value in result.items():
        assert value == pytest.approx(metrics[f"val_{key}"], rel=1e-4), key


def test_evaluate_prints_a_line_a_head(finished_run, run_script, image_folder):
    model = finished_run[0] / "model.keras"
    outcome = run_script("evaluate.py", model, "--dataset", image_folder)
    lines = outcome.out.splitlines()
    assert lines[0] == "9 examples"
    assert [line.split()[0] for line in lines[2:]] == list(HEADS)


def test_predict_names_classes(finished_run, run_script, photo, image_folder):
    workdir, _ = finished_run
    one = json.loads(run_script("predict.py", workdir, photo, "--json").out)
    assert one[0]["file"] == str(photo)
    names = [row["name"] for row in one[0]["predictions"]]
    assert sorted(names) == sorted(CLASSES)
    scores = [row["score"] for row in one[0]["predictions"]]
    assert scores == sorted(scores, reverse=True) and sum(scores) == pytest.approx(1, abs=1e-4)
    for row in one[0]["predictions"]:
        assert set(row) == {"index", "name", "score"} and CLASSES[row["index"]] == row["name"]
    many = run_script("predict.py", workdir, "--top", 1, image_folder / "val", photo)
    assert many.out.count("%") == 10


def test_predict_goes_on_after_a_bad_image(finished_run, run_script, photo, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_text("no image")
    outcome = run_script("predict.py", finished_run[0], bad, photo, "--json")
    assert outcome.status == 2
    assert [row["file"] for row in json.loads(outcome.out)] == [str(photo)]
    assert "bad.png cannot be read" in outcome.err and "Traceback" not in outcome.err


def test_explain_draws_a_map(finished_run, run_script, photo, tmp_path):
    output = tmp_path / "cam.png"
    outcome = run_script("explain.py", finished_run[0], photo, "--output", output)
    assert outcome.status == 0, outcome.err
    assert outcome.out.strip().endswith(str(output))
    assert np.asarray(Image.open(output)).std() > 10


def test_export_saved_model(finished_run, run_script, photo, tmp_path):
    for version in ("1", "2"):
        outcome = run_script("export.py", finished_run[0], tmp_path / "googlenet")
        assert outcome.status == 0, outcome.err
        assert outcome.out.splitlines()[-1] == str(tmp_path / "googlenet" / version)
        assert "same class 100.0%" in outcome.out
    names = sorted(path.name for path in (tmp_path / "googlenet").iterdir())
    assert names == ["1", "2", "compose.yaml", "models.config"]


def test_export_litert(finished_run, run_script, tmp_path):
    outcome = run_script("export.py", finished_run[0], tmp_path / "small.tflite")
    assert outcome.status == 0, outcome.err
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["small.labels.txt", "small.tflite", "small.tflite.MODEL_CARD.md"]
    assert (tmp_path / "small.labels.txt").read_text().split() == list(CLASSES)


SCRIPTS = (
    *("train.py", "evaluate.py", "predict.py", "explain.py", "visualize.py", "export.py"),
    "convert.py",
)


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_is_quick_and_shows_an_example(script):
    command = [sys.executable, "-X", "importtime", ROOT / script, "--help"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and f"python {script}" in done.stdout
    assert "tensorflow" not in done.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_unknown_flags_have_status_two(script, run_script):
    assert run_script(script, "--no-such-flag").status == 2


@pytest.mark.parametrize(
    ("script", "arguments", "sentence"),
    [
        ("train.py", ["--image-size", 64], "--image-size must be at least 65"),
        ("train.py", ["--variant", "v3"], "--variant must be one of paper"),
        ("train.py", ["--dataset", "./nowhere"], "there is no folder ./nowhere"),
        ("train.py", ["--epochs", 0], "--epochs must be at least 1"),
        ("evaluate.py", ["nowhere"], "there is no model nowhere"),
        ("predict.py", ["nowhere", "photo.jpg"], "there is no image photo.jpg"),
        ("explain.py", ["nowhere", "photo.jpg"], "there is no image photo.jpg"),
        ("export.py", ["nowhere", "out"], "there is no model nowhere"),
    ],
)
def test_mistakes_are_one_sentence(script, arguments, sentence, run_script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = run_script(script, *arguments)
    assert outcome.status == 2
    errors = [line for line in outcome.err.splitlines() if not line.startswith("devices")]
    assert len(errors) == 1 and sentence in errors[0] and errors[0].startswith(f"{script}: error:")
    assert outcome.out == ""
    assert not list(tmp_path.iterdir()), "something was left behind"


def test_empty_and_broken_data_sets(run_script, tmp_path):
    data = tmp_path / "data"
    (data / "cat").mkdir(parents=True)
    flags = ["--dataset", data, "--workdir", tmp_path / "run"]
    empty = run_script("train.py", *flags)
    assert empty.status == 2 and "cat holds no image" in empty.err
    assert not (tmp_path / "run").exists()


def test_a_run_directory_with_other_labels_is_refused(finished_run, run_script, photo, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "model.keras").write_bytes((finished_run[0] / "model.keras").read_bytes())
    (run / "labels.txt").write_text("one\ntwo\n")
    outcome = run_script("predict.py", run, photo)
    assert outcome.status == 2 and "names 2 classes but the model has 3" in outcome.err


def test_a_damaged_model_is_refused(finished_run, run_script, photo, tmp_path):
    whole = (finished_run[0] / "model.keras").read_bytes()
    for content in (b"", whole[: len(whole) // 2]):
        (tmp_path / "half.keras").write_bytes(content)
        outcome = run_script("predict.py", tmp_path / "half.keras", photo)
        assert outcome.status == 2 and "half.keras cannot be loaded" in outcome.err


def test_a_model_of_something_else_is_refused(run_script, photo, tmp_path):
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    other.save(tmp_path / "other.keras")
    outcome = run_script("predict.py", tmp_path / "other.keras", photo)
    assert outcome.status == 2 and "holds no GoogLeNet" in outcome.err


@pytest.mark.slow
@pytest.mark.parametrize("output", ["googlenet.tflite", "serving"])
def test_a_full_disk_leaves_nothing_behind(finished_run, run_script, output, tmp_path, monkeypatch):
    from keras_googlenet import labels
    from keras_googlenet.exporting import saved_model

    def full(*arguments, **keywords):
        raise OSError(28, "No space left on device", "labels.txt")

    for module in (labels, saved_model):
        monkeypatch.setattr(module, "write_labels", full)
    outcome = run_script("export.py", finished_run[0], tmp_path / output)
    assert outcome.status == 2 and "No space left on device" in outcome.err
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.slow
def test_an_export_that_differs_is_refused(finished_run, run_script, tmp_path, monkeypatch):
    from keras_googlenet.exporting import litert

    original = litert.runner
    monkeypatch.setattr(
        litert, "runner", lambda content: lambda x: original(content)(x) + np.float32(1e-3)
    )
    outcome = run_script("export.py", finished_run[0], tmp_path / "small.tflite")
    assert outcome.status == 2 and "nothing was written" in outcome.err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_path_below_a_file_is_one_sentence(finished_run, run_script, photo, tmp_path):
    (tmp_path / "file").write_text("")
    for script, arguments in (
        ("explain.py", [finished_run[0], photo, "--output", tmp_path / "file" / "cam.png"]),
        ("export.py", [finished_run[0], tmp_path / "file"]),
        ("export.py", [finished_run[0], tmp_path / "file" / "small.tflite"]),
    ):
        outcome = run_script(script, *arguments)
        assert outcome.status == 2 and "Traceback" not in outcome.err, outcome.err
        assert outcome.err.count("error:") == 1


def test_an_idle_gpu_is_named_once(monkeypatch, capsys):
    from keras_googlenet.training import distribution

    monkeypatch.setattr(distribution, "_driver_sees_gpu", lambda: True)
    distribution.describe_devices(tf.distribute.get_strategy())
    assert capsys.readouterr().err.count('install it with `python -m pip install "tensorflow') == 1


@pytest.mark.parametrize("variable", ["torch", "mxnet", None])
def test_what_keras_is_set_to_does_not_reach_the_scripts(variable, tmp_path):
    settings = {"backend": "mxnet", "image_data_format": "channels_first", "floatx": "float16"}
    (tmp_path / "keras.json").write_text(json.dumps(settings))
    environment = os.environ | {"KERAS_HOME": str(tmp_path)}
    environment.pop("KERAS_BACKEND", None)
    if variable:
        environment["KERAS_BACKEND"] = variable
    code = (
        "from keras_googlenet import cli; cli.start_tensorflow(); import keras; "
        "print(keras.backend.backend(), keras.config.image_data_format(), keras.config.floatx())"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["tensorflow", "channels_last", "float32"], done.stderr
    assert json.loads((tmp_path / "keras.json").read_text()) == settings


def test_windows_is_told_where_the_scripts_run(monkeypatch, capsys):
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(SystemExit) as stop:
        cli.run(lambda: pytest.fail("nothing is begun"))
    assert stop.value.code == 2 and "on Windows use them inside WSL 2" in capsys.readouterr().err
