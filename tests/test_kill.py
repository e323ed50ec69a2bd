"""A run that is killed and resumed ends with the same bits as one that is not."""

import json
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import training_process
from conftest import read_json
from processes import PATIENCE, Process

pytestmark = pytest.mark.slow
MEASURED = {"seconds", "images_per_second"}  # depend on the clock
FLAGS = ["--recipe", "modern", "--image-size", "65", "--batch-size", "4", "--epochs", "2"]
FLAGS += ["--warmup-epochs", "0.5", "--deterministic"]  # dropout, average, smoothing: modern's
FLAGS += ["--checkpoint-minutes", "0"]  # after every step, however fast the machine is
KILLS, SEED = 25, 20


def start(data, workdir, moment=None):
    flags = [*FLAGS, *data, "--workdir", workdir]
    return Process(training_process.train, flags, "small", moment, folder=workdir.parent)


def final_state(workdir):
    """Every array of the last checkpoint, the history as text, and the metrics."""
    newest = sorted((workdir / "checkpoints").glob("*.npz"))[-1]
    with np.load(newest) as file:
        arrays = {key: file[key] for key in file.files if key != "record"}
    metrics = read_json(workdir / "metrics.json")
    kept = {key: value for key, value in metrics.items() if key not in MEASURED}
    return newest.name, arrays, (workdir / "history.csv").read_text(), kept


def assert_same(workdir, whole):
    name, arrays, history, metrics = final_state(workdir)
    whole_name, whole_arrays, whole_history, whole_metrics = whole
    assert name == whole_name and history == whole_history and metrics == whole_metrics
    assert arrays.keys() == whole_arrays.keys()
    for key, value in arrays.items():
        np.testing.assert_array_equal(value, whole_arrays[key])
    assert history.count("epoch,") == 1 and len(history.splitlines()) == 3


def whole(data, workdir):
    start(data, workdir).finish()
    return final_state(workdir)


@pytest.fixture(scope="module")
def folder(image_folder):
    return ["--dataset", image_folder]


@pytest.fixture(scope="module")
def whole_run(folder, tmp_path_factory):
    return whole(folder, tmp_path_factory.mktemp("whole") / "run")


MOMENTS = [
    ("step", 4, "SIGKILL"),
    ("step", 9, "SIGTERM"),
    ("validation", 2, "SIGKILL"),
    ("validation", 2, "SIGTERM"),
    ("edge", 1, "SIGKILL"),
    ("edge", 1, "SIGTERM"),
    ("writing", 3, "SIGKILL"),
    ("writing", 3, "SIGTERM"),
    ("written", 3, "SIGKILL"),
    ("history", 1, "SIGKILL"),
    ("results", 1, "SIGKILL"),
]


def status_of(moment):
    return 143 if moment[2] == "SIGTERM" else -signal.SIGKILL


def kill_and_resume(data, workdir, moment, expected):
    process = start(data, workdir, moment)
    assert process.join() == status_of(moment), process.text
    assert not (workdir / "metrics.json").exists()
    assert "resumed at epoch" in start(data, workdir).finish()
    assert_same(workdir, expected)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_run_ends_like_a_whole_one(moment, whole_run, folder, tmp_path):
    kill_and_resume(folder, tmp_path / "run", moment, whole_run)


def test_a_killed_run_on_tensorflow_datasets_ends_like_a_whole_one(miniature_imagenet, tmp_path):
    """The order of a TFDS split is the same when resumed in the middle of an epoch."""
    data = ["--dataset", "imagenet2012", "--data-dir", miniature_imagenet]
    expected = whole(data, tmp_path / "whole")
    kill_and_resume(data, tmp_path / "killed", ("step", 9, "SIGKILL"), expected)


def test_googlenet_ends_with_the_same_bits_in_separate_processes(folder, tmp_path):
    """The whole network, in three processes that do not share their memory addresses."""

    def run(name, moment=None):
        flags = [*FLAGS, *folder, "--workdir", tmp_path / name]
        arguments = {"flags": list(map(str, flags)), "network": "whole", "moment": moment}
        command = [sys.executable, training_process.__file__, json.dumps(arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        return done.returncode, done.stderr

    status, text = run("whole")
    assert status == 0, text
    moment = ("step", 4, "SIGKILL")
    status, text = run("killed", moment)
    assert status == status_of(moment), text
    status, text = run("killed")
    assert status == 0 and "resumed at epoch" in text, text
    assert_same(tmp_path / "killed", final_state(tmp_path / "whole"))


def test_killed_twice_in_a_row(whole_run, folder, tmp_path):
    for count in (3, 2):
        process = start(folder, tmp_path / "run", ("step", count, "SIGKILL"))
        assert process.join() == -signal.SIGKILL, process.text
    assert "resumed at epoch 1" in start(folder, tmp_path / "run").finish()
    assert_same(tmp_path / "run", whole_run)


def test_killed_25_times_at_random_moments(whole_run, folder, tmp_path):
    """Each process is killed within the time that the last whole run took, by either signal."""
    chance, ended, stops = random.Random(SEED), 0, []
    began = time.monotonic()
    whole(folder, tmp_path / "timed")
    seconds = time.monotonic() - began
    while len(stops) < KILLS:
        workdir = tmp_path / f"run{ended}"
        began = time.monotonic()
        process = start(folder, workdir)
        status = process.join(chance.uniform(0, seconds))
        if status is None:
            number = chance.choice((signal.SIGKILL, signal.SIGTERM))
            process.kill(number)
            status = process.join()
            # Before Python has put its handler in place, SIGTERM kills like the other one.
            stopped = {-number, 143} if number == signal.SIGTERM else {-number}
            assert status in {*stopped, 0}, process.text
            stops.append(newest_checkpoint(workdir))
        else:
            assert status == 0, process.text
        if status == 0:  # it ended without a kill: start another run
            assert_same(workdir, whole_run)
            seconds, ended = time.monotonic() - began, ended + 1
    start(folder, workdir := tmp_path / f"run{ended}").finish()
    assert_same(workdir, whole_run)
    training = [stop for stop in stops if stop]
    assert len(set(training)) >= 3, stops  # not all were killed before the first step
    print(f"{KILLS} kills, {len(training)} with a checkpoint, {ended + 1} runs that ended")


def newest_checkpoint(workdir):
    """Name of the newest checkpoint when a process died; nothing before the first one."""
    return max((file.name for file in (workdir / "checkpoints").glob("[0-9]*.npz")), default=None)
