"""The training loop, with a network that is quick to build."""

import csv
import errno
import json
import math
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import read_json, small_run
from PIL import Image
from training_process import small_network

from keras_googlenet.data import datasets, pipeline
from keras_googlenet.googlenet import HEADS
from keras_googlenet.training import checkpoints, train_steps
from keras_googlenet.training.loop import Run


@pytest.fixture
def train(run_script, monkeypatch):
    monkeypatch.setattr(train_steps, "build_network", small_network)
    return lambda *flags: run_script("train.py", *flags)


@pytest.fixture
def images(tmp_path):
    """Two classes in folders, 60 training and 51 validation images of each."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 60), ("val", 51)):
        for name in ("ant", "bee"):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 256, (20, 20, 3), "uint8")
                Image.fromarray(pixels).save(folder / f"{number:02}.png")
    return tmp_path / "images"


@pytest.mark.slow
def test_every_head_learns(run_script, tmp_path):
    """GoogLeNet on three colors: a head without gradient, or with wrong labels, stays at ln(3)."""
    colors = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}
    for split, count in (("train", 56), ("val", 8)):
        for name, color in colors.items():
            folder = tmp_path / "colors" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (65, 65), color).save(folder / f"{number}.png")
    flags = small_run(tmp_path / "colors", tmp_path / "run", epochs=4)
    outcome = run_script("train.py", *flags, "--learning-rate", 0.1)
    assert outcome.status == 0, outcome.err
    with open(tmp_path / "run" / "history.csv") as file:
        *_, last = csv.DictReader(file)
    for head in HEADS:
        assert float(last[f"{head}_loss"]) < 0.3 * math.log(3), head
        assert float(last[f"val_{head}_accuracy"]) == 1, head


def test_an_interrupted_run_resumes_and_may_be_extended(train, image_folder, tmp_path, monkeypatch):
    flags = small_run(image_folder, tmp_path / "run", epochs=2)
    original = Run._is_urgent

    def interrupt(self):
        if self.global_step == 4:
            self.monitor.warned.add("aux2")
            signal.raise_signal(signal.SIGINT)
        return original(self)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "_is_urgent", interrupt)
        outcome = train(*flags)
    assert outcome.status == 130 and "stopped at epoch 2, step" in outcome.err
    assert not (tmp_path / "run" / "metrics.json").exists()
    outcome = train(*flags, "--epochs", 3)
    assert outcome.status == 0 and "epoch 2/3" in outcome.err and "epoch 1/3" not in outcome.err
    assert "resumed at epoch 2, step" in outcome.err
    assert "is extended from 2 to 3 epochs, with the schedule of 3" in outcome.err
    with open(tmp_path / "run" / "history.csv") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["0", "1", "2"]
    assert read_json(tmp_path / "run" / "recipe.json")["epochs"] == 3
    with np.load(tmp_path / "run" / "checkpoints" / "00003-00000000.npz") as file:
        assert json.loads(str(file["record"]))["warned"] == ["aux2"]  # one warning, once


@pytest.mark.slow
def test_a_full_disk_keeps_the_last_checkpoint_and_says_so(
    train, image_folder, tmp_path, monkeypatch
):
    """Full from the first epoch's end on: a signal cannot save, the second epoch ends the run."""
    flags, original = small_run(image_folder, tmp_path / "run"), Run._is_urgent

    def interrupt(self):
        if self.global_step == 5:
            signal.raise_signal(signal.SIGINT)
        return original(self)

    def fill(patch, saves):
        left = iter([np.savez] * saves)

        def savez(file, **arrays):
            step = next(left, None)
            if step is None:
                raise OSError(errno.ENOSPC, "No space left on device")
            step(file, **arrays)

        patch.setattr(checkpoints.np, "savez", savez)

    with monkeypatch.context() as patch:
        fill(patch, saves=1)
        patch.setattr(Run, "_is_urgent", interrupt)
        outcome = train(*flags)
    assert outcome.status == 130 and outcome.err.splitlines()[-1] == "stopped at epoch 2, step 2"
    assert "no checkpoint was written; the last one is from epoch 2, step 0: " in outcome.err
    with monkeypatch.context() as patch:
        fill(patch, saves=0)
        outcome = train(*flags)
    assert outcome.status == 2 and "resumed at epoch 2, step 0" in outcome.err
    last = outcome.err.splitlines()[-1]
    assert last.startswith("train.py: error: ") and "(No space left on device)" in last
    files = list((tmp_path / "run" / "checkpoints").glob("*.npz"))
    assert [file.name for file in files] == ["00001-00000000.npz"]
    assert len((tmp_path / "run" / "history.csv").read_text().splitlines()) == 2
    assert not list((tmp_path / "run").rglob(".*"))


def test_corrupt_images_are_named_and_skipped(train, images, tmp_path):
    bad = [images / "train" / "bee" / "07.png", images / "val" / "ant" / "03.png"]
    for file in bad:
        file.write_bytes(b"no image")
    outcome = train(*small_run(images, tmp_path / "run"))
    assert outcome.status == 0, outcome.err
    for file in bad:
        assert outcome.err.count(f"corrupt image: {file} (it is text, not an image); 1 so far") == 1
    rows = (tmp_path / "run" / "history.csv").read_text().splitlines()
    assert len(rows) == 3
    accuracy = read_json(tmp_path / "run" / "metrics.json")["val_main_accuracy"]
    assert accuracy * 101 == pytest.approx(round(accuracy * 101), abs=1e-4)  # of 102, one is bad


def test_more_than_one_percent_of_corrupt_images_stops_the_run(train, images, tmp_path):
    for number in range(2):
        (images / "train" / "ant" / f"{number:02}.png").write_bytes(b"")
    outcome = train(*small_run(images, tmp_path / "run"))
    assert outcome.status == 2
    assert "2 of 120 images cannot be read, more than 1%" in outcome.err.splitlines()[-1]


@pytest.mark.slow
def test_weights_that_are_not_finite_stop_the_run_and_keep_earlier_checkpoints(
    train, images, tmp_path
):
    flags = [*small_run(images, tmp_path / "run", epochs=1)]
    assert train(*flags).status == 0
    good = sorted(file.name for file in (tmp_path / "run" / "checkpoints").glob("*.npz"))
    more = ["--epochs", 3, "--learning-rate", 9e39, "--recipe-of", "flags"]  # 3e38 of a batch
    outcome = train(*flags, *more)
    assert outcome.status == 2
    assert "is not a finite number at epoch 2, step" in outcome.err.splitlines()[-1]
    assert sorted(file.name for file in (tmp_path / "run" / "checkpoints").glob("*.npz")) == good


def test_tensorboard_gets_heads_learning_rate_and_speed(train, images, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    flags = [*small_run(images, tmp_path / "run"), "--batch-size", 256, "--schedule", "steps"]
    assert train(*flags, "--learning-rate", 0.256).status == 0
    metrics = read_json(tmp_path / "run" / "metrics.json")
    tags, events = {}, {}
    for part in ("train", "validation"):
        events[part] = EventAccumulator(str(tmp_path / "run" / "logs" / part))
        events[part].Reload()
        tags[part] = set(events[part].Tags()["tensors"])
    steps = {f"batch_{head}_loss" for head in HEADS}
    assert steps | {"batch_learning_rate", "batch_images_per_second"} <= tags["train"]
    assert [event.step for event in events["train"].Tensors("batch_aux1_loss")] == [1, 2]
    heads = {f"epoch_{h}_{q}" for h in ("main", "aux1", "aux2") for q in ("loss", "accuracy")}
    assert heads <= tags["validation"]
    assert heads | {"epoch_learning_rate", "epoch_images_per_second"} <= tags["train"]
    rate = tf.make_ndarray(events["train"].Tensors("epoch_learning_rate")[0].tensor_proto)
    assert rate == pytest.approx(0.120)  # of the 120 images that there are, not of 256
    assert metrics["epochs"] == 2 and json.dumps(metrics)
    assert train(*flags, "--epochs", 1, "--recipe-of", "flags").status == 0
    assert read_json(tmp_path / "run" / "metrics.json")["epochs"] == 2  # done, not asked for


def test_what_is_measured_and_kept_is_the_average(train, images, tmp_path):
    """The weights move far, so that the last ones would give another loss than their average."""
    flags = [*small_run(images, tmp_path / "run", epochs=1), "--average-share", 1]
    assert train(*flags, "--learning-rate", 3).status == 0
    validation = datasets.open_dataset(str(images)).validation
    ((images, labels),) = pipeline.evaluation_batches(validation, 65, 102)
    model = keras.models.load_model(tmp_path / "run" / "model.keras")
    scores = model(images - np.float32([123, 117, 104]), training=False)[0].numpy()
    loss = -np.log(scores[np.arange(102), labels].astype("float64")).mean()
    metrics = read_json(tmp_path / "run" / "metrics.json")
    assert metrics["val_main_loss"] == pytest.approx(loss, rel=1e-4)


@pytest.mark.parametrize("keep", ["best", "last"])
def test_the_best_epoch_is_kept_across_a_resume(keep, train, images, tmp_path, monkeypatch):
    """Its accuracies are given; its weights are seen when they are measured."""
    hits, seen = [30, 60, 60, 50], []  # of 102: at equal accuracy, the lower loss is better
    original = train_steps.make_test_step

    def make_test_step(model, recipe, strategy):
        step = original(model, recipe, strategy)

        def measured(batch):
            sums = step(batch).numpy()
            if len(seen) == 1 or sums[0, 0] == 102:  # a batch holds the whole split
                seen.append(model.get_layer("conv").get_weights()[0])
            epoch = len(seen) - 1
            sums[:, 1], sums[:, 2] = 200 - 10 * epoch, hits[epoch]
            return tf.constant(sums)

        return measured

    monkeypatch.setattr(train_steps, "make_test_step", make_test_step)
    flags = [*small_run(images, tmp_path / "run"), "--batch-size", 120, "--average-share", 1]
    flags += ["--learning-rate", 1, "--keep", keep]
    assert train(*flags, "--epochs", 3).status == 0
    assert read_json(tmp_path / "run" / "metrics.json")["kept_epoch"] == 3
    assert train(*flags, "--epochs", 4).status == 0
    metrics = read_json(tmp_path / "run" / "metrics.json")
    kept = {"best": 3, "last": 4}[keep]
    assert (metrics["kept_epoch"], metrics["epochs"]) == (kept, 4)
    assert metrics["val_main_accuracy"] == pytest.approx(hits[kept - 1] / 102)
    model = keras.models.load_model(tmp_path / "run" / "model.keras")
    np.testing.assert_array_equal(model.get_layer("conv").get_weights()[0], seen[kept - 1])
    other = {"best": "last", "last": "best"}[keep]  # the other weights are gone, the last ones not
    assert train(*flags, "--epochs", 4, "--keep", other, "--recipe-of", "flags").status == 0
    assert read_json(tmp_path / "run" / "metrics.json")["kept_epoch"] == 4
    assert len({array.tobytes() for array in seen}) == 4


def test_a_smoke_test_writes_all_files(train, images, tmp_path):
    outcome = train(*small_run(images, tmp_path / "run", epochs=90), "--max-steps", 2)
    assert outcome.status == 0 and "epoch 1/1" in outcome.err
    assert read_json(tmp_path / "run" / "metrics.json")["epochs"] == 1
    assert {"model.keras", "curves.png"} <= {path.name for path in (tmp_path / "run").iterdir()}


def test_a_failed_start_leaves_no_run_directory(train, images, tmp_path, monkeypatch):
    """Another start with other flags is then no change of recipe."""

    def no_memory(*arguments):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM")

    with monkeypatch.context() as patch:
        patch.setattr(train_steps, "head_sums", no_memory)
        outcome = train(*small_run(images, tmp_path / "runs" / "mine"))
    assert outcome.status == 2 and "out of memory" in outcome.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("seconds", "expected"), [(0.5, [1, 10, 10, 3]), (0.05, [1, 20, 3])])
def test_losses_stay_on_the_device_between_reads(
    seconds, expected, train, images, tmp_path, monkeypatch
):
    """A GPU is not waited for: 24 steps are read after the first, every tenth, or every second."""
    reads, original = [], Run.read_losses

    def read(self, pending):
        reads.append(len(pending))
        original(self, pending)
        return seconds * len(pending)

    monkeypatch.setattr(Run, "read_losses", read)
    assert train(*small_run(images, tmp_path / "run", epochs=1), "--batch-size", 5).status == 0
    assert reads == expected
