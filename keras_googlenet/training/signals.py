"""Signals that ask a run to end: it finishes the step and saves first."""

import os
import signal
import threading

SHELL_BASE = 128  # a shell's exit status for a signal is this plus its number: 143 for SIGTERM

_STDERR = 2  # written to directly: the signal may come while Python's own stream is being written


class Signals:
    """Inside the block SIGTERM and SIGINT are noted; a second one ends the process at once."""

    def __init__(self):
        self.received = None
        self._before = {}

    @property
    def status(self) -> int:
        """Exit status that tells who asks; SIGTERM's where another worker was asked."""
        return SHELL_BASE + (self.received or signal.SIGTERM)

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number, frame):
        self.received = number
        signal.signal(number, signal.SIG_DFL)
        name = signal.Signals(number).name
        os.write(_STDERR, f"{name}: saving after this step\n".encode())
