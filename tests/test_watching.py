import math

import pytest

from keras_googlenet.errors import UserError
from keras_googlenet.training import watching

CLASSES = 1000
GUESS = math.log(CLASSES)  # 6.908
HEADS = ("main", "aux1", "aux2")
STEPS = 70  # an epoch: no window of 200 steps fits into one


class Seen:
    """Shows a watch the running means of an epoch, as Keras reports them."""

    def __init__(self):
        self.watch, self.epoch = watching.Watch(CLASSES), []

    def see(self, steps, *losses):
        for _ in range(steps):
            if len(self.epoch) in (0, STEPS):
                self.epoch = []
                self.watch.begin_epoch(dict.fromkeys(HEADS, 0.0), 0)
            self.epoch.append(losses)
            means = [sum(column) / len(self.epoch) for column in zip(*self.epoch, strict=True)]
            self.watch.see(dict(zip(HEADS, means, strict=True)), len(self.epoch), "epoch 1, step 1")


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
def test_no_number_stops_the_run(value):
    with pytest.raises(UserError, match="loss is not a finite number at epoch 1, step 1"):
        Seen().see(1, value, 3.0, 3.0)
