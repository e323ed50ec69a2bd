"""Reads a TensorFlow checkpoint in a process of its own.

TensorFlow's reader ends the process that it runs in when a damaged checkpoint passes its
checksums ("Check failed"), and takes as much memory as the file asks for. In a process of its own
both become an error.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from keras_googlenet.errors import UserError
from keras_googlenet.weights.sources import MOST_BYTES

MOST_MEMORY = 2 * MOST_BYTES  # bytes that the process may take for the checkpoint
MOST_SECONDS = 300


def read_in_a_process(prefix: Path) -> dict[str, np.ndarray]:
    """Reads the variables of a checkpoint that are numbers.

    Args:
        prefix: The checkpoint: a file, or what the names of its files begin with.

    Returns:
        Arrays by the names of the variables.

    Raises:
        UserError: If it is damaged or too large.
    """
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "variables.npz"
        done = _run(prefix, output)
        answer = done.stdout.rpartition("\n")[2]
        if done.returncode or not answer:
            raise UserError(f"the checkpoint is damaged: {_last_words(done.stderr)}")
        answer = json.loads(answer)
        if "error" in answer:
            raise UserError(answer["error"])
        with np.load(output) as arrays:
            return {name: arrays[f"arr_{i}"] for i, name in enumerate(answer["names"])}


def _run(prefix: Path, output: Path) -> subprocess.CompletedProcess:
    # -P: the modules beside the script, such as `google`, must not hide others of their names
    script = Path(__file__).with_name("checkpoint_process.py")
    limits = [str(MOST_BYTES), str(MOST_MEMORY)]
    command = [sys.executable, "-P", str(script), str(prefix), str(output), *limits]
    paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
    environment = os.environ | {"PYTHONPATH": paths, "TF_CPP_MIN_LOG_LEVEL": "3"}
    try:
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=MOST_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(f"reading the checkpoint took over {MOST_SECONDS} s; damaged?") from error


def _last_words(notes: str) -> str:
    """What TensorFlow said as it gave up."""
    said = [line for line in notes.splitlines() if "Check failed" in line or "Error" in line]
    return said[-1].rpartition("] ")[2].strip() if said else "TensorFlow's reader gave up."
