"""What a run needs to go on to the bit: every variable and the place in the run, in one file."""

import json
import os
import shutil
import sys
import zipfile
import zlib
from pathlib import Path

import keras
import numpy as np

from keras_googlenet.atomic import replacing
from keras_googlenet.errors import UserError

KEPT = 2  # the newest, and one before it should the disk damage that
_RECORD = "record"
_DAMAGED = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)


class Checkpoints:
    """The checkpoints of a run, as `<epoch>-<step>.npz`.

    A file holds the variables in order and a record, any JSON. It becomes visible by one rename
    after its bytes are on the disk; a process that is killed leaves the older ones as they were.

    Args:
        folder: Where; made when needed. Only one process at a time may write there.
        variables: What to save and restore: network, optimizer, averages, states of dropout.
    """

    def __init__(self, folder: Path, variables: list[keras.Variable]):
        self.folder = folder
        self.variables = variables

    def values(self) -> list[np.ndarray]:
        """Reads the variables; on several workers all must do so at the same step."""
        return [np.asarray(variable.numpy()) for variable in self.variables]

    def save(self, values: list[np.ndarray], record: dict) -> bool:
        """Writes a checkpoint and removes old ones.

        Args:
            values: What `values` returned.
            record: JSON with at least the numbers `epoch` and `step`.

        Returns:
            Whether it was written. If the disk refuses, a warning says so and the old ones stay.
        """
        path = self.folder / f"{record['epoch']:05d}-{record['step']:08d}.npz"
        try:
            with replacing(path) as temporary, open(temporary, "wb") as file:
                arrays = {f"{number:05d}": value for number, value in enumerate(values)}
                np.savez(file, **{_RECORD: np.asarray(json.dumps(record))}, **arrays)
                file.flush()
                os.fsync(file.fileno())
            _sync_folder(self.folder)
        except UserError as error:  # the disk is full, as `replacing` says
            _note(f"warning: no checkpoint was written, the last one stays: {error}")
            return False
        for old in self._found()[:-KEPT]:
            old.unlink()
        return True

    def restore(self) -> dict | None:
        """Sets the variables from the newest checkpoint that can be read.

        Returns:
            Its record; `None` if there is none.

        Raises:
            UserError: If it belongs to another network or optimizer.
        """
        for path in reversed(self._found()):
            try:
                with np.load(path, allow_pickle=False) as file:
                    record = json.loads(str(file[_RECORD]))
                    values = [file[f"{number:05d}"] for number in range(len(file.files) - 1)]
            except _DAMAGED:
                _note(f"warning: {path} is damaged; going on from the one before it.")
                continue
            self._assign(path, values)
            return record
        return None

    def remove_leftovers(self):
        """Removes what a killed process has half-written, and checkpoints that cannot be read."""
        for path in self.folder.glob(".*.npz.*"):
            shutil.rmtree(path)
        for path in self._found():
            try:
                with zipfile.ZipFile(path) as file:
                    damaged = file.testzip() is not None
            except _DAMAGED:
                damaged = True
            if damaged:
                _note(f"warning: {path} is damaged and was removed.")
                path.unlink()

    def _assign(self, path: Path, values: list[np.ndarray]):
        shapes = [tuple(variable.shape) for variable in self.variables]
        if shapes != [value.shape for value in values]:
            raise UserError(
                f"{path} is of another network or optimizer than these flags ask for; give the "
                "flags that it was trained with, or another --workdir."
            )
        for variable, value in zip(self.variables, values, strict=True):
            variable.assign(value)

    def _found(self) -> list[Path]:
        return sorted(self.folder.glob("[0-9]*-[0-9]*.npz"))


def _sync_folder(folder: Path):
    """Puts a rename on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _note(text: str):
    print(text, file=sys.stderr, flush=True)
