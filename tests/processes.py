"""Processes that start with TensorFlow loaded, forked from a server that has imported it.

Tests of signals, locks, workers and devices need a process of their own, but importing TensorFlow
takes longer than the test. Forked processes share their memory addresses, on which exactness may
depend: tests of exactness use `subprocess`.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import tempfile
from pathlib import Path

PATIENCE = 600  # seconds until a process that does not end is a failure
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    ["keras_googlenet.training.trainer", "keras_googlenet.exporting", "thin_network"]
)


class Process:
    """Runs a function of a module in a new process.

    Args:
        function: Function that can be imported by name.
        arguments: Its arguments, which can be pickled.
        folder: Folder for a new file with its standard output and standard error.
        environment: Environment variables in addition to those of this process.
    """

    def __init__(self, function, *arguments, folder: Path, environment=None):
        descriptor, output = tempfile.mkstemp(".txt", dir=folder)
        os.close(descriptor)
        self._output = Path(output)
        self._process = SERVER.Process(
            target=_start, args=(output, environment or {}, sys.path, function, arguments)
        )
        self._process.start()
        self.pid = self._process.pid

    @property
    def text(self) -> str:
        """Its output until now."""
        return self._output.read_text()

    def running(self) -> bool:
        return self._process.is_alive()

    def kill(self, number=signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.kill(self.pid, number)

    def join(self, seconds: float | None = PATIENCE) -> int | None:
        """Waits for the end and returns the status; `None` if the process is still running."""
        self._process.join(seconds)
        return self._process.exitcode

    def finish(self) -> str:
        """Waits for the end, which must have status 0, and returns the output."""
        status = self.join()
        assert status == 0, f"status {status}: {self.text}"
        return self.text


def _start(output, environment, path, function, arguments):
    descriptor = os.open(output, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.environ.update(environment)
    sys.path[:] = path
    function(*arguments)
