"""Weights that Keras saved from a GoogLeNet, loaded by layer name."""

import contextlib
import io
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import h5py
import keras
import numpy as np

from keras_googlenet.errors import UserError
from keras_googlenet.googlenet import HEADS

Saved = Mapping[str, Mapping]  # layer -> key -> values, as `Layer.save_own_variables` writes them

_MOST_EXPANSION = 100  # of an archive; weights hardly compress


def load_saved(model: keras.Model, path: str | Path, skip_mismatch: bool = False):
    """Loads the layers of a file that fit, whatever heads, classes or image size the file has.

    Layers are matched by name. Heads that do not fit keep their weights, and a warning names them.
    A file without the names of the trunk, such as one of an older Keras, is loaded by Keras.

    Args:
        model: A GoogLeNet; unchanged if there is an error.
        path: `.keras` or `.weights.h5` file.
        skip_mismatch: Whether layers of the trunk may also keep their weights.

    Raises:
        UserError: If the file is missing, damaged, not of Keras, or its trunk does not fit.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"there is no file {path}; give a .keras or .weights.h5 file.")
    with _h5_file(path) as file:
        saved = _by_name(_saved_layers(file), path)
        try:
            values, random = _fitting(model, saved, str(path), skip_mismatch)
        except UserError as error:
            _load_by_keras(model, path, error)
            return
    if not random and set(saved) == set(values):
        with contextlib.suppress(Exception):  # loads the optimizer's state, too
            keras.Model.load_weights(model, path)
    _assign(model, values)
    if random:
        warnings.warn(random_layers_message(str(path), random), stacklevel=3)


def copy_layers(source: keras.Model, target: keras.Model, name: str) -> list[str]:
    """Copies the weights that fit into `target`; error messages call `source` by `name`.

    Returns:
        Names of the layers of `target`, all of heads, that kept their weights.

    Raises:
        UserError: If the trunk does not fit; `target` is then unchanged.
    """
    saved = {layer.name: _own_variables(layer) for layer in source.layers}
    values, random = _fitting(target, saved, name)
    _assign(target, values)
    return random


def random_layers_message(source: str, layers: list[str]) -> str:
    """Says which layers of a network have no weights in `source`."""
    return (
        f"{source} has no weights of a matching shape for these layers, which start from random "
        f"weights: {', '.join(layers)}"
    )


def _own_variables(layer: keras.Layer) -> dict:
    store = {}
    layer.save_own_variables(store)
    return store


@contextlib.contextmanager
def _h5_file(path: Path) -> Iterator[h5py.File]:
    """Opens the weights; any error while they are read means that the file is damaged."""
    try:
        source = io.BytesIO(_archive_member(path)) if path.suffix == ".keras" else path
        with h5py.File(source, "r") as file:
            yield file
    except UserError:
        raise
    except Exception as error:  # h5py and zipfile raise almost anything for a damaged file
        raise UserError(
            f"{path} is damaged, or no .keras or .weights.h5 file of Keras 3; convert weights in "
            "other formats with convert.py first."
        ) from error


def _archive_member(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo("model.weights.h5")
        if member.file_size > _MOST_EXPANSION * path.stat().st_size:
            raise ValueError("the archive expands to far more than it holds")
        return archive.read(member)


def _saved_layers(group: h5py.Group) -> Iterator[tuple[str, dict[str, h5py.Dataset]]]:
    """Yields the layers of a file, also of nested models, with their variables."""
    for layer in _members(group["layers"]).values() if "layers" in group else ():
        if "vars" in layer and "name" in layer["vars"].attrs and len(layer["vars"]):
            yield layer["vars"].attrs["name"], _members(layer["vars"])
        yield from _saved_layers(layer)


def _by_name(layers: Iterator[tuple[str, dict]], path: Path) -> Saved:
    saved = {}
    for name, variables in layers:
        if name in saved:
            raise UserError(f"{path} holds several layers {name}; give a file of one network.")
        saved[name] = variables
    return saved


def _members(group: h5py.Group) -> dict:
    """Returns the members of a group; links could point to any file of the computer."""
    if any(type(group.get(key, getlink=True)) is not h5py.HardLink for key in group):
        raise ValueError("there are links in the file")
    members = dict(group)
    for member in members.values():
        if isinstance(member, h5py.Dataset) and (member.external or member.is_virtual):
            raise ValueError("there is data outside the file")
    return members


def _fitting(
    model: keras.Model, saved: Saved, source: str, skip_mismatch: bool = False
) -> tuple[dict, list[str]]:
    """Returns the values of each layer that fits, and the names of the other layers."""
    values, random = {}, []
    for layer in model.layers:
        own, theirs = _own_variables(layer), saved.get(layer.name, {})
        if not own:
            continue
        if _shapes(own) == _shapes(theirs):
            values[layer.name] = {key: _array(theirs[key], own[key].dtype) for key in own}
        elif skip_mismatch or (_is_head(layer) and set(theirs) in (set(), set(own))):
            random.append(layer.name)
        else:
            needed, shapes = ([*_shapes(each).values()] for each in (own, theirs))
            what = f"has weights of the shapes {shapes}, not {needed}" if shapes else "is missing"
            raise UserError(
                f"{source} does not fit: its layer {layer.name} {what}; give weights of the same "
                "variant."
            )
    return values, random


def _assign(model: keras.Model, values: Mapping[str, dict]):
    for name, store in values.items():
        model.get_layer(name).load_own_variables(store)


def _is_head(layer: keras.Layer) -> bool:
    return layer.name.partition("_")[0] in HEADS


def _shapes(variables: Mapping) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in variables.items()}


def _array(value, dtype) -> np.ndarray:
    """Reads a dataset of a file, or a variable; h5py has no bfloat16."""
    if not isinstance(value, h5py.Dataset):
        return keras.ops.convert_to_numpy(value)
    array = np.asarray(value)
    if value.attrs.get("dtype") == "bfloat16":
        array = array.view("bfloat16")
    return array.astype(keras.backend.standardize_dtype(dtype))


def _load_by_keras(model: keras.Model, path: Path, reason: UserError):
    """Loads by class and order of the layers; raises `reason` if that fails, too."""
    before = model.get_weights()
    try:
        keras.Model.load_weights(model, path)
    except Exception as error:  # Keras raises almost anything
        model.set_weights(before)
        raise reason from error
