"""Reads a weight file of unknown origin in a process with bounds on its memory and time."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_googlenet.errors import UserError
from keras_googlenet.weight_files.arrays import MIB, MOST_CPU_SECONDS, Array

MOST_MEMORY = 384 * MIB  # of the process, beside its libraries
MOST_SECONDS = 300


class WeightFile(NamedTuple):
    """An open file of weights.

    Attributes:
        format: Name of the format.
        arrays: Name in the file -> type and shape.
        facts: What else the file says: see `weight_files.arrays.Contents`.
        read: Reads arrays by name, all at once, as float32.
    """

    format: str
    arrays: Mapping[str, Array]
    facts: dict
    read: Callable[[Sequence[str]], dict[str, np.ndarray]]


@contextlib.contextmanager
def opened(path: Path) -> Iterator[WeightFile]:
    """Opens a file, a checkpoint by its prefix, or a folder.

    Arrays that were read stay valid afterwards.

    Raises:
        UserError: If it is of no known format, is damaged, or needs too much memory or time.
    """
    with tempfile.TemporaryDirectory() as folder:
        scratch, output = Path(folder) / "scratch", Path(folder) / "output"
        scratch.mkdir()
        with _Process(path, scratch, output) as process:
            answer = process.ask()
            arrays = {
                n: Array(dtype, tuple(shape)) for n, (dtype, shape) in answer["arrays"].items()
            }

            def read(names: Sequence[str]) -> dict[str, np.ndarray]:
                process.ask(list(names))
                values, offset = {}, 0
                for name in names:
                    shape = arrays[name].shape
                    count = int(np.prod(shape))
                    values[name] = np.fromfile(output, "<f4", count, offset=offset).reshape(shape)
                    offset += 4 * count
                return values

            yield WeightFile(answer["format"], arrays, answer["facts"], read)


class _Process:
    """The process that reads the file; each line to it is answered by one line."""

    def __init__(self, path: Path, scratch: Path, output: Path):
        # -P: modules of the current folder must not hide installed ones
        module = "keras_googlenet.weight_files.process"
        files = map(str, (path, scratch, output, MOST_MEMORY))
        paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
        self._notes = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, *files],
            env=os.environ | {"PYTHONPATH": paths, "TF_CPP_MIN_LOG_LEVEL": "3"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._notes,
            text=True,
        )
        self._timer = threading.Timer(MOST_SECONDS, self._process.kill)

    def __enter__(self):
        self._timer.start()
        return self

    def __exit__(self, *_):
        self._timer.cancel()
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._notes):
            with contextlib.suppress(BrokenPipeError):
                stream.close()

    def ask(self, names: list[str] | None = None) -> dict:
        """Sends the names of arrays, if any, and returns the next answer."""
        with contextlib.suppress(BrokenPipeError):
            if names is not None:
                print(json.dumps(names), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        answer = json.loads(line) if line.endswith("\n") else {"error": self._last_words()}
        if "error" in answer:
            raise UserError(answer["error"])
        return answer

    def _last_words(self) -> str:
        """Says why the process ended without an answer."""
        if not self._timer.is_alive():
            return f"reading it took over {MOST_SECONDS} s; it is damaged."
        if self._process.wait() == -signal.SIGXCPU:
            return f"reading it took over {MOST_CPU_SECONDS} s of processor time; it is damaged."
        self._notes.seek(0)
        said = [line for line in self._notes.read().splitlines() if "Check failed" in line]
        reason = f": {said[-1].rpartition('] ')[2].strip()[:200]}" if said else ""
        return (
            f"the library that reads it gave up{reason}; it is damaged, or asks for "
            "more memory than weights of GoogLeNet need."
        )
