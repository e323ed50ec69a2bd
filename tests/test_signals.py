import os
import pty
import signal
import subprocess
import sys

import pytest
from conftest import ROOT

from keras_googlenet.training.signals import Signals


@pytest.fixture(autouse=True)
def without_nohup():
    """Undoes that everything which `nohup` starts, such as this test run, ignores SIGHUP."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129), (signal.SIGUSR1, 138)],
)
def test_a_signal_is_recorded_and_reported_even_while_python_writes(
    number, status, monkeypatch, capfd
):
    class Busy:
        """A buffered stream on which a signal arrives in the middle of a write."""

        def write(self, text):
            raise RuntimeError("reentrant call inside <_io.BufferedWriter name='<stderr>'>")

        flush = write

    before = signal.getsignal(number)
    monkeypatch.setattr(sys, "stderr", Busy())
    with Signals() as signals:
        assert signals.received is None
        signal.raise_signal(number)
        assert signals.received == number and signals.status == status
        kills = number in (signal.SIGTERM, signal.SIGINT)  # a second one ends the process
        assert (signal.getsignal(number) is signal.SIG_DFL) == kills
    assert signal.getsignal(number) is before
    assert capfd.readouterr().err == f"{signal.Signals(number).name}: saving after this step\n"


def test_a_signal_that_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals() as signals:
            signal.raise_signal(signal.SIGHUP)
            assert signals.received is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_closed_terminal_is_not_written_to():
    """A dropped connection: output before the checkpoint is saved must not end the run."""
    code = """
import os, signal, sys
from keras_googlenet.training.signals import Signals
with Signals() as signals:
    sys.stdin.read()  # until the other end of the terminal is closed
    os.kill(os.getpid(), signal.SIGHUP)
    print("stopped at epoch 1", file=sys.stderr, flush=True)
    sys.exit(signals.status)
"""
    other, terminal = pty.openpty()
    command = [sys.executable, "-c", code]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=terminal, stderr=terminal, cwd=ROOT
    )
    os.close(terminal)
    os.close(other)
    process.stdin.close()
    assert process.wait() == 129
