import math

import numpy as np
import pytest

from keras_googlenet.errors import UserError
from keras_googlenet.training import monitor

CLASSES = 1000
GUESS = math.log(CLASSES)  # 6.908


class Seen:
    """Shows a monitor the losses of steps, some steps at a time."""

    def __init__(self, at_once=70):
        self.monitor, self.at_once, self.step = monitor.LossMonitor(CLASSES), at_once, 0

    def see(self, steps, *losses):
        while steps:
            now = min(steps, self.at_once)
            steps, self.step = steps - now, self.step + now
            self.monitor.update(np.array([losses] * now), 0, self.step)


def test_a_stuck_head_gets_one_warning_that_names_it(capsys):
    seen = Seen()
    seen.see(900, GUESS, 3.0, GUESS * 1.019)
    assert capsys.readouterr().err == ""
    seen.see(2000, GUESS, 3.0, GUESS * 1.019)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("head ")[1].split()[0] for line in lines] == ["main", "aux2"]
    assert "6.908" in lines[0] and "--variant batchnorm" in lines[0]


@pytest.mark.parametrize(
    "losses", [(GUESS, GUESS, GUESS), (GUESS * 0.97, 3.0, 3.0), (GUESS * 1.03, 3.0, 3.0)]
)
def test_no_warning_where_nothing_learns_or_all_move(losses, capsys):
    Seen().see(3000, *losses)
    assert capsys.readouterr().err == ""


def test_a_head_that_wakes_up_in_time_is_left_alone(capsys):
    seen = Seen()
    for _ in range(3):
        seen.see(800, GUESS, 3.0, 3.0)
        seen.see(200, 5.0, 3.0, 3.0)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_no_number_stops_the_run_and_its_step_is_named(value):
    losses = np.full((10, 3), 3.0)
    losses[6, 1] = losses[8, 0] = value
    with pytest.raises(UserError, match="loss is not a finite number at epoch 3, step 97;"):
        monitor.LossMonitor(CLASSES).update(losses, 2, last_step=100)
