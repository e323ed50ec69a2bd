"""Signals that ask a run to end: it finishes the step and saves first."""

import contextlib
import os
import signal
import threading

SHELL_BASE = 128  # a shell's exit status for a signal is this plus its number: 143 for SIGTERM
# SIGHUP comes when a terminal or an ssh connection is gone, SIGUSR1 as SLURM's early warning.
ASKING = [
    getattr(signal, name)
    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1")
    if hasattr(signal, name)  # Windows lacks two
]
INSISTING = (signal.SIGTERM, signal.SIGINT)  # a second one of these ends the process at once

_STDERR = 2  # written to directly: the signal may come while Python's own stream is being written


class Signals:
    """Inside the block those of `ASKING` are noted; a SIGHUP that `nohup` ignores stays ignored."""

    def __init__(self):
        self.received = None
        self._before = {}

    @property
    def status(self) -> int:
        """Exit status that tells who asks; SIGTERM's where another worker was asked."""
        return SHELL_BASE + (self.received or signal.SIGTERM)

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in ASKING:
                if number in INSISTING or signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number, frame):
        self.received = number
        if number in INSISTING:
            signal.signal(number, signal.SIG_DFL)
        with contextlib.suppress(OSError):
            os.write(_STDERR, f"{signal.Signals(number).name}: saving after this step\n".encode())
        if number == getattr(signal, "SIGHUP", None):
            _leave_terminal()


def _leave_terminal():
    """Lets what is printed from now on vanish where it went to a terminal, which is gone."""
    for stream in (1, _STDERR):
        if os.isatty(stream) or not _writable(stream):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream)
            os.close(nowhere)


def _writable(stream: int) -> bool:
    try:
        os.write(stream, b"")
    except OSError:
        return False
    return True
