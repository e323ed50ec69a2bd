"""What a run needs to go on to the bit: every variable and the place in the run, in one file."""

import json
import sys
import zipfile
import zlib
from pathlib import Path

import keras
import numpy as np

from keras_googlenet.atomic import remove_leftovers, replacing
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

    def save(self, values: list[np.ndarray], record: dict):
        """Writes a checkpoint and removes old ones.

        Args:
            values: What `values` returned.
            record: JSON with at least the numbers `epoch` and `step`.

        Raises:
            WriteError: If the disk refuses; the old ones stay.
        """
        path = self.folder / f"{record['epoch']:05d}-{record['step']:08d}.npz"
        with replacing(path) as temporary, open(temporary, "wb") as file:
            arrays = {f"{number:05d}": value for number, value in enumerate(values)}
            np.savez(file, **{_RECORD: np.asarray(json.dumps(record))}, **arrays)
        self._remove_old()

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
        remove_leftovers(self.folder / "*.npz")
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

    def _remove_old(self):
        for old in self._found()[:-KEPT]:
            old.unlink()

    def _found(self) -> list[Path]:
        return sorted(self.folder.glob("[0-9]*-[0-9]*.npz"))


def _note(text: str):
    print(text, file=sys.stderr, flush=True)
