import signal
import sys

import pytest

from keras_googlenet.training.signals import Signals


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_is_noted_and_said_even_while_python_writes(number, status, monkeypatch, capfd):
    class Busy:
        """What a buffered stream does where a signal comes in the middle of a write."""

        def write(self, text):
            raise RuntimeError("reentrant call inside <_io.BufferedWriter name='<stderr>'>")

        flush = write

    before = signal.getsignal(number)
    monkeypatch.setattr(sys, "stderr", Busy())
    with Signals() as signals:
        assert signals.received is None
        signal.raise_signal(number)
        assert signals.received == number and signals.status == status
        assert signal.getsignal(number) is signal.SIG_DFL  # a second one ends the process
    assert signal.getsignal(number) is before
    assert capfd.readouterr().err == f"{signal.Signals(number).name}: saving after this step\n"
