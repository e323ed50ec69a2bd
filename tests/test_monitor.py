"""The loss monitor, and progress by a clock that only moves when it is told to."""

import math

import numpy as np
import pytest

from keras_googlenet.errors import UserError, WriteError
from keras_googlenet.googlenet import HEADS
from keras_googlenet.training import monitor
from keras_googlenet.training.monitor import Progress

CLASSES = 1000
GUESS = math.log(CLASSES)  # 6.908


class Steps:
    """Gives a monitor the losses of steps, some steps at a time."""

    def __init__(self, at_once=70):
        self.monitor, self.at_once, self.step = monitor.LossMonitor(CLASSES), at_once, 0

    def update(self, steps, *losses):
        while steps:
            now = min(steps, self.at_once)
            steps, self.step = steps - now, self.step + now
            self.monitor.update(np.array([losses] * now), 0, self.step)


def test_a_stuck_head_gets_one_warning_that_names_it(capsys):
    steps = Steps()
    steps.update(900, GUESS, 3.0, GUESS * 1.019)
    assert capsys.readouterr().err == ""
    steps.update(2000, GUESS, 3.0, GUESS * 1.019)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("head ")[1].split()[0] for line in lines] == ["main", "aux2"]
    assert "6.908" in lines[0] and "--variant batchnorm" in lines[0]


@pytest.mark.parametrize(
    "losses", [(GUESS, GUESS, GUESS), (GUESS * 0.97, 3.0, 3.0), (GUESS * 1.03, 3.0, 3.0)]
)
def test_no_warning_where_nothing_learns_or_all_move(losses, capsys):
    Steps().update(3000, *losses)
    assert capsys.readouterr().err == ""


def test_no_warning_for_a_head_that_starts_to_learn_in_time(capsys):
    steps = Steps()
    for _ in range(3):
        steps.update(800, GUESS, 3.0, 3.0)
        steps.update(200, 5.0, 3.0, 3.0)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_run_and_its_step_is_named(value):
    losses = np.full((10, 3), 3.0)
    losses[6, 1] = losses[8, 0] = value
    with pytest.raises(UserError, match="loss is not a finite number at epoch 3, step 97;"):
        monitor.LossMonitor(CLASSES).update(losses, 2, last_step=100)


BATCH, STEPS, EPOCHS = 10, 50, 5
FETCH, COMPUTE, VALIDATION, COMPILING = 0.5, 1.5, 30.0, 600.0  # seconds
WHOLE = STEPS * (FETCH + COMPUTE) + VALIDATION  # an epoch
ROW = {f"{part}{head}_accuracy": 0.5 for part in ("", "val_") for head in HEADS}


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 1000.0

        def perf_counter(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(monitor, "time", clock)
    return clock


LOSSES = dict.fromkeys(HEADS, 1.5)


def run_epoch(shown, clock, epoch, first_step=0, compiling=0.0, at_once=3):
    """An epoch whose losses are read after its first step, and then every few."""

    def batches():
        for _ in range(first_step, STEPS):
            clock.now += FETCH
            yield "batch"

    with shown.bar_of(epoch, first_step, STEPS):
        taken = 0
        for step, _ in enumerate(shown.timed(batches()), first_step + 1):
            clock.now += COMPUTE + (compiling if step == first_step + 1 else 0)
            taken += 1
            if taken == at_once or step in (first_step + 1, STEPS):
                seconds = shown.update(taken, LOSSES)
                assert seconds == taken * (FETCH + COMPUTE) or step == first_step + 1
                taken = 0
    clock.now += VALIDATION
    shown.epoch_line({"epoch": epoch, "loss": 1.0, "val_loss": 1.0} | ROW)


@pytest.mark.parametrize("first_step", [0, 1, STEPS // 2, STEPS - 2])
def test_time_left_is_that_of_whole_epochs_wherever_a_run_resumes(first_step, clock, capsys):
    shown = Progress(BATCH, EPOCHS)
    run_epoch(shown, clock, 1, first_step, COMPILING)
    run_epoch(shown, clock, 2)
    lines = [line for line in capsys.readouterr().err.splitlines() if "accuracy" in line]
    assert [line.split("  ")[-1] for line in lines] == [
        f"{3 * WHOLE:.0f} s left",
        f"{2 * WHOLE:.0f} s left",
    ]
    assert all("  5 images/s  input wait 25%  " in line for line in lines)
    assert shown.images_per_second == pytest.approx(BATCH / (FETCH + COMPUTE))
    assert shown.input_wait == pytest.approx(FETCH / (FETCH + COMPUTE))


def test_no_speed_is_shown_before_the_second_step(clock, capsys):
    shown = Progress(BATCH, EPOCHS)
    run_epoch(shown, clock, 1, STEPS - 1, COMPILING)
    assert "left" not in capsys.readouterr().err and shown.images_per_second == 0


def test_a_line_a_minute_where_there_is_no_terminal(clock, capsys):
    shown = Progress(BATCH, EPOCHS)
    run_epoch(shown, clock, 0)
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "accuracy" not in line)
    assert line == (
        "epoch 1/5  step 31/50  loss main 1.500  aux1 1.500  aux2 1.500  5 images/s  "
        "input wait 25%  38 s left in this epoch"
    )
    run_epoch(Progress(BATCH, EPOCHS, shown=False), clock, 0)
    assert capsys.readouterr().err == ""


def test_on_a_terminal_there_is_a_bar_instead(clock, monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    run_epoch(Progress(BATCH, EPOCHS), clock, 0)
    text = capsys.readouterr().err
    assert "epoch 1/5" in text and "0/500" in text and "step " not in text


def test_tensorboard_names_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "logs").write_text("not a folder")
    tensorboard = monitor.TensorBoard(tmp_path / "logs")
    with pytest.raises(WriteError, match="logs cannot be written .*; free space"):
        tensorboard.add_steps(1, {"main_loss": 1.0})
    with pytest.raises(WriteError, match="logs cannot be written"):
        tensorboard.add_epoch({"epoch": 0, "loss": 1.0}, images_per_second=1.0)
