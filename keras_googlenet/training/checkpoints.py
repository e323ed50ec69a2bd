"""Checkpoints: every variable by its name and the state of the loop, in one file."""

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

KEPT = 2  # the newest, and the one before it in case the newest is damaged
_RECORD = "record"
_BY_POSITION = "00000"  # what earlier versions called the first variable
_DAMAGED = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)


class Checkpoints:
    """The checkpoints of a run, `<epoch>-<step>.npz`: arrays by name, and a record in JSON."""

    def __init__(self, folder: Path):
        self.folder = folder

    def save(self, arrays: Mapping[str, np.ndarray], record: dict):
        """Writes a checkpoint, then removes old ones; `record` holds `epoch` and `step`."""
        path = self.folder / f"{record['epoch']:05d}-{record['step']:08d}.npz"
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, **{_RECORD: np.asarray(json.dumps(record))}, **arrays)
        self._remove_old()

    def newest(self) -> tuple[dict[str, np.ndarray], dict] | None:
        """Reads arrays and record of the newest checkpoint that is not damaged, if there is one."""
        for path in reversed(self._paths()):
            content = _read(path)
            if content is None:
                _warn(f"{path} is damaged; using the one before it.")
                continue
            if _BY_POSITION in content[0]:
                raise UserError(
                    f"{path} was written by an earlier version, which stored variables by "
                    "position; finish that run with that version, or give another --workdir."
                )
            return content
        return None

    def remove_leftovers(self):
        """Removes partly written files of a killed process and damaged checkpoints."""
        remove_leftovers(self.folder / "*.npz")
        for path in self._paths():
            if _read(path) is None:
                _warn(f"{path} is damaged and was removed.")
                path.unlink()

    def _remove_old(self):
        for path in self._paths()[:-KEPT]:
            path.unlink()

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("[0-9]*-[0-9]*.npz"))


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict] | None:
    """Reads arrays and record of a checkpoint; `None` if it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            record = json.loads(str(file[_RECORD]))
            return {name: file[name] for name in file.files if name != _RECORD}, record
    except _DAMAGED:
        return None


def weights_by_name(model: keras.Model) -> dict[str, keras.Variable]:
    """Returns the weights of a network by `<layer>/<weight>`."""
    return {
        f"{layer.name}/{weight.name}": weight for layer in model.layers for weight in layer.weights
    }


def variables_by_name(
    model: keras.Model, optimizer: keras.optimizers.Optimizer
) -> dict[str, keras.Variable]:
    """Returns all that training changes: those of layers by `<layer>/<name>`, then the optimizer's.

    They include random states of dropout. Names of the optimizer's are paths, for example
    `optimizer/main_kernel_velocity`.
    """
    layers = {
        f"{layer.name}/{state.name}": state for layer in model.layers for state in layer.variables
    }
    return layers | {variable.path: variable for variable in optimizer.variables}


def values(variables: Mapping[str, keras.Variable]) -> dict[str, np.ndarray]:
    """Reads variables; on several workers all must do so at the same step."""
    return {name: np.asarray(variable.numpy()) for name, variable in variables.items()}


def assign(variables: Mapping[str, keras.Variable], arrays: Mapping[str, np.ndarray]):
    """Sets variables to the arrays of the same names; `UserError` if any of them does not match."""
    expected = {name: (tuple(v.shape), v.dtype) for name, v in variables.items()}
    received = {name: (array.shape, array.dtype.name) for name, array in arrays.items()}
    if expected != received:
        name = min(name for name, _ in expected.items() ^ received.items())
        raise UserError(
            f"the checkpoint is of another network or optimizer (they differ in {name}); give the "
            "flags that the run was started with, or another --workdir."
        )
    for name, variable in variables.items():
        variable.assign(arrays[name])


def _warn(text: str):
    print(f"warning: {text}", file=sys.stderr, flush=True)
