"""What a resumed run needs: every variable by its name and the state of the loop, in one file."""

import json
import sys
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np

from keras_googlenet.atomic import remove_leftovers, replacing
from keras_googlenet.errors import UserError

KEPT = 2  # the newest, and one before it should the disk damage that
_RECORD = "record"
_BY_POSITION = "00000"  # what earlier versions called the first variable
_DAMAGED = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)


class Checkpoints:
    """The checkpoints of a run, as `<epoch>-<step>.npz`.

    A file holds arrays by name and a record, any JSON. It becomes visible by one rename after its
    bytes are on the disk; a process that is killed leaves the older ones as they were.

    Args:
        folder: Where; made when needed. Only one process at a time may write there.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def save(self, arrays: Mapping[str, np.ndarray], record: dict):
        """Writes a checkpoint and removes old ones.

        Args:
            arrays: Values of variables by their names.
            record: JSON with at least the numbers `epoch` and `step`.

        Raises:
            WriteError: If the disk refuses; the old ones stay.
        """
        path = self.folder / f"{record['epoch']:05d}-{record['step']:08d}.npz"
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, **{_RECORD: np.asarray(json.dumps(record))}, **arrays)
        self._remove_old()

    def newest(self) -> tuple[dict[str, np.ndarray], dict] | None:
        """Reads the newest checkpoint that is not damaged.

        Returns:
            What `save` was given; `None` if there is none.

        Raises:
            UserError: If an earlier version wrote it.
        """
        for path in reversed(self._found()):
            try:
                with np.load(path, allow_pickle=False) as file:
                    record = json.loads(str(file[_RECORD]))
                    arrays = {name: file[name] for name in file.files if name != _RECORD}
            except _DAMAGED:
                _note(f"warning: {path} is damaged; going on from the one before it.")
                continue
            if _BY_POSITION in arrays:
                raise UserError(
                    f"{path} was written by an earlier version, which told variables by their "
                    "order; finish that run with it, or give another --workdir."
                )
            return arrays, record
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

    def _remove_old(self):
        for old in self._found()[:-KEPT]:
            old.unlink()

    def _found(self) -> list[Path]:
        return sorted(self.folder.glob("[0-9]*-[0-9]*.npz"))


def weights_by_name(model: keras.Model) -> dict[str, keras.Variable]:
    """Names the weights of a network `<layer>/<weight>`."""
    return {
        f"{layer.name}/{weight.name}": weight for layer in model.layers for weight in layer.weights
    }


def variables_by_name(
    model: keras.Model, optimizer: keras.optimizers.Optimizer
) -> dict[str, keras.Variable]:
    """Names all that training changes: weights, states of dropout, moments, averages, counters.

    Those of the optimizer have their paths, for example `optimizer/main_kernel_velocity`.
    """
    own = {
        f"{layer.name}/{state.name}": state for layer in model.layers for state in layer.variables
    }
    return own | {variable.path: variable for variable in optimizer.variables}


def values(variables: Mapping[str, keras.Variable]) -> dict[str, np.ndarray]:
    """Reads variables; on several workers all must do so at the same step."""
    return {name: np.asarray(variable.numpy()) for name, variable in variables.items()}


def assign(variables: Mapping[str, keras.Variable], arrays: Mapping[str, np.ndarray]):
    """Sets variables to the arrays of the same names.

    Raises:
        UserError: If one is missing, too many, or of another shape or type.
    """
    expected = {name: (tuple(v.shape), v.dtype) for name, v in variables.items()}
    found = {name: (array.shape, array.dtype.name) for name, array in arrays.items()}
    if expected != found:
        name = min(name for name, _ in expected.items() ^ found.items())
        raise UserError(
            "the checkpoint is of another network or optimizer than these flags ask for (they "
            f"differ in {name}); give the flags that it was trained with, or another --workdir."
        )
    for name, variable in variables.items():
        variable.assign(arrays[name])


def _note(text: str):
    print(text, file=sys.stderr, flush=True)
