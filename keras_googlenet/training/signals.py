"""Signals that stop a run: it finishes the step and saves a checkpoint first."""

import contextlib
import os
import signal
import threading

SHELL_BASE = 128  # a shell's exit status for a signal is this plus its number: 143 for SIGTERM
# SIGHUP: the terminal or ssh connection was closed. SIGUSR1: SLURM's warning before a time limit.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
KILL_SIGNALS = (signal.SIGTERM, signal.SIGINT)  # a second one of these ends the process at once
_STDERR = 2  # written to directly: the signal may arrive while Python writes to its own stream


class Signals:
    """Records the signals of `STOP_SIGNALS` inside the block; SIGHUP under `nohup` is ignored."""

    def __init__(self):
        self.received = None
        self._handlers_before = {}

    @property
    def status(self) -> int:
        """Exit status for the signal; SIGTERM's if another worker received it."""
        return SHELL_BASE + (self.received or signal.SIGTERM)

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in STOP_SIGNALS:
                if number in KILL_SIGNALS or signal.getsignal(number) is not signal.SIG_IGN:
                    self._handlers_before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_):
        for number, handler in self._handlers_before.items():
            signal.signal(number, handler)

    def _receive(self, number, frame):
        self.received = number
        if number in KILL_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        with contextlib.suppress(OSError):
            os.write(_STDERR, f"{signal.Signals(number).name}: saving after this step\n".encode())
        if number == signal.SIGHUP:
            _discard_terminal_output()


def _discard_terminal_output():
    """Redirects output to a terminal, which is closed by now, to the null device."""
    for stream in (1, _STDERR):
        if os.isatty(stream) or not _is_writable(stream):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream)
            os.close(nowhere)


def _is_writable(stream: int) -> bool:
    try:
        os.write(stream, b"")
    except OSError:
        return False
    return True
