"""Processes that begin with TensorFlow loaded, forked from one that has imported it.

What needs a process of its own (signals, locks, several workers, devices that are counted before
TensorFlow starts) does not need to import TensorFlow anew, which takes longer than what is tested.
Forked processes also share where things lie in memory, which exactness may depend on: tests of
exactness start with `subprocess`.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import tempfile
from pathlib import Path

PATIENCE = 600  # seconds, after which a process that does not end is a failure
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    ["keras_googlenet.training.trainer", "keras_googlenet.exporting", "thin_network"]
)


class Process:
    """Runs a function of a module in a new process.

    Args:
        function: Importable by name.
        arguments: What it is called with; they can be pickled.
        folder: Where what it writes to standard output and standard error gets a new file.
        environment: Variables that it gets beside those of this process.

    Attributes:
        pid: Number of the process.
    """

    def __init__(self, function, *arguments, folder: Path, environment=None):
        descriptor, output = tempfile.mkstemp(".txt", dir=folder)
        os.close(descriptor)
        self._output = Path(output)
        self._process = SERVER.Process(
            target=_begin, args=(output, environment or {}, sys.path, function, arguments)
        )
        self._process.start()
        self.pid = self._process.pid

    @property
    def text(self) -> str:
        """What it has written until now."""
        return self._output.read_text()

    def running(self) -> bool:
        return self._process.is_alive()

    def kill(self, number=signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
            os.kill(self.pid, number)

    def join(self, seconds: float | None = PATIENCE) -> int | None:
        """Waits for the end and returns the status, or `None` if the process goes on."""
        self._process.join(seconds)
        return self._process.exitcode

    def finish(self) -> str:
        """Waits for a good end and returns what was written."""
        status = self.join()
        assert status == 0, f"status {status}: {self.text}"
        return self.text


def _begin(output, environment, path, function, arguments):
    descriptor = os.open(output, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.environ.update(environment)
    sys.path[:] = path
    function(*arguments)
