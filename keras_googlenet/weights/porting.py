"""Arrays of a file into the layers of a network, each checked for shape and for numbers."""

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

import keras
import numpy as np

from keras_googlenet.errors import UserError
from keras_googlenet.googlenet import AUX_TAPS, VARIANTS
from keras_googlenet.weight_files.arrays import Array
from keras_googlenet.weights.matching import (
    NOTHING,
    Match,
    aux_root,
    is_ignored,
    is_real,
    matrix_shape,
    nearest,
)
from keras_googlenet.weights.sandbox import WeightFile
from keras_googlenet.weights.tables import Table

LOSSES = re.compile(r"(^|[._])(criterion|loss|metrics?)", re.IGNORECASE)  # of a trainer's module
LRN_ARGUMENTS = ("depth_radius", "bias", "alpha", "beta")


class Ported(NamedTuple):
    """One array that found its place: a row of the converter's table."""

    layer: str
    source: str
    shape: tuple[int, ...]
    norm: float


def names_in_file(model: keras.Model, found: Match) -> dict[str, dict[str, str]]:
    """Lists what a network takes from a file.

    Args:
        model: A GoogLeNet of the match's variant.
        found: What belongs where.

    Returns:
        Layer with weights -> its weights' names -> the arrays' names; empty for a bias of zeros.
    """
    return {
        layer.name: {
            w.name: found.name_of(layer.name, type(layer).__name__, w.name) for w in layer.weights
        }
        for layer in model.layers
        if layer.weights
    }


def used_names(model: keras.Model, found: Match) -> set[str]:
    """Returns the names of all arrays that a network takes from a file."""
    return set(_needed(model, found))


def aux_problem(model: keras.Model, file: WeightFile, found: Match) -> str:
    """Says why auxiliary heads cannot be taken over; empty if they can.

    Those of a file are often made for another size of image, or never trained, or not even
    initialized: the main network is right without them.
    """
    needs = {
        name: needed
        for name, (needed, layer) in _needed(model, found).items()
        if layer.partition("_")[0] in AUX_TAPS
    }
    for name, needed in needs.items():
        if not _fits(file.arrays[name], needed, found.table):
            shape = file.arrays[name].shape
            return f"auxiliary heads are left out: {name} is {shape}, not {needed}"
    for name in needs:
        if not np.isfinite(file.read([name])[name]).all():
            return f"auxiliary heads are left out: {name} holds NaN or infinity"
    return ""


def check_shapes(model: keras.Model, file: WeightFile, found: Match):
    """Refuses a file before it is read if an array is missing or has another shape.

    Raises:
        UserError: Naming the array, and those that nearly fit.
    """
    needs, name_of_table = _needed(model, found), found.table.name
    missing = [name for name in needs if name not in file.arrays]
    if missing:
        needed, layer = needs[missing[0]]
        near = nearest(missing[0], needed, file.arrays, needs)
        others = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(
            f"{missing[0]} {needed} is missing, which layer {layer} needs{others}; "
            + (f"of that shape it has {', '.join(near)}: " if near else "")
            + f"it is another network than {name_of_table}, or its layers were renamed."
        )
    for name, (needed, layer) in needs.items():
        array = file.arrays[name]
        if not _fits(array, needed, found.table):
            raise UserError(
                f"{name} has the shape {array.shape}; layer {layer} needs {needed}. It is another "
                f"network than {name_of_table}."
            )
        if not is_real(array):
            raise UserError(f"{name} holds {array.dtype}; layer {layer} needs real numbers.")


def _needed(model: keras.Model, found: Match) -> dict[str, tuple[tuple[int, ...], str]]:
    """Name in the file -> the shape that it must have there, and our layer."""
    names = names_in_file(model, found)
    return {
        name: (shape_in_file(weight, found.table), layer.name)
        for layer in model.layers
        for weight in layer.weights
        if (name := names[layer.name][weight.name])
    }


def _fits(array: Array, needed: tuple[int, ...], table: Table) -> bool:
    given = array.shape
    while len(given) > len(needed) and given[0] == 1:  # Caffe's old blobs have four dimensions
        given = given[1:]
    return needed in (given, matrix_shape(array.shape, table))


def leftovers(model: keras.Model, file: WeightFile, found: Match) -> list[str]:
    """Lists arrays that a network of the file may compute with, and ours does not.

    Raises:
        UserError: If one of them stands inside a layer of the trunk.
    """
    table, prefix, used = found.table, found.prefix, used_names(model, found)
    trunk = [prefix + table.layers[layer] for layer in table.layers_of()]
    beginnings = tuple(name + mark for name in trunk for mark in "./[")
    names = [
        name
        for name in found.rest
        if name not in used and is_real(file.arrays[name]) and not is_ignored(name, used, table)
    ]
    for name in names:
        if name.startswith(beginnings):
            raise UserError(
                f"{name} {file.arrays[name].shape} has no place in {table.name}; it is another "
                "network, whose answers would be wrong without it."
            )
    aux = tuple(
        prefix + (aux_root(table, head) or table.layers[layer])
        for head in AUX_TAPS
        for layer in table.layers_of(head)
    )
    return [
        name for name in names if not name.startswith(aux or NOTHING) and not LOSSES.search(name)
    ]


def shape_in_file(weight, table: Table) -> tuple[int, ...]:
    """Returns the shape in which a file holds one of our weights."""
    shape = tuple(weight.shape)
    if not table.channels_first or weight.name != "kernel":
        return shape
    return (shape[3], shape[2], shape[0], shape[1]) if len(shape) == 4 else shape[::-1]


def port(model: keras.Model, file: WeightFile, found: Match) -> list[Ported]:
    """Fills a network from a file, layer by layer: the file's arrays are never all in memory.

    Args:
        model: A GoogLeNet of the match's variant, whose shapes were checked; of no use after an
            error.
        file: An open file.
        found: What belongs where.

    Returns:
        A row for each array.

    Raises:
        UserError: If an array holds no finite numbers, or a variance is negative.
    """
    rows = []
    for layer_name, names in names_in_file(model, found).items():
        layer, values = model.get_layer(layer_name), []
        arrays = file.read([name for name in names.values() if name])
        for weight in layer.weights:
            name = names[weight.name]
            if not name:
                values.append(np.zeros(weight.shape, "float32"))
                continue
            if not np.isfinite(arrays[name]).all():
                raise UserError(f"{name} holds NaN or infinity; its training diverged.")
            if weight.name == "moving_variance" and arrays[name].min() < 0:
                raise UserError(f"{name} holds variances below 0; its training diverged.")
            values.append(turned(arrays[name], layer_name, weight, found.table))
            rows.append(Ported(layer_name, name, values[-1].shape, np.linalg.norm(values[-1])))
        layer.set_weights(values)
    return rows


def turned(array: np.ndarray, layer: str, weight, table: Table) -> np.ndarray:
    """Brings one array into our layout.

    Args:
        array: As it stands in the file; its shape was checked.
        layer: Name of our layer.
        weight: Our weight, with name and shape.
        table: The porting table.

    Returns:
        Float32 array of the weight's shape: kernels (y, x, in, out), matrices (in, out), red first.
    """
    array = array.reshape(shape_in_file(weight, table))
    if table.channels_first and weight.name == "kernel":
        array = _channels_last(array, layer, VARIANTS[table.variant].aux_conv)
    if table.bgr and layer == "conv1_7x7_s2" and weight.name == "kernel":
        array = array[:, :, ::-1]
    return array


def _channels_last(array: np.ndarray, layer: str, aux_channels: int) -> np.ndarray:
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    if layer not in ("aux1_fc", "aux2_fc"):
        return array.T
    # The auxiliary FC reads a flattened map: (channel, y, x) there, (y, x, channel) here.
    side = math.isqrt(array.shape[1] // aux_channels)
    maps = array.reshape(-1, aux_channels, side, side)
    return maps.transpose(2, 3, 1, 0).reshape(array.shape[1], -1)


def set_normalization(layer: keras.Layer, arguments: Mapping[str, float]):
    """Gives a `LocalResponseNormalization` other constants.

    Args:
        layer: In a network that is already connected.
        arguments: Names and values of `LRN_ARGUMENTS`.
    """
    for name, value in arguments.items():
        setattr(layer, name, value)
    layer.build(layer.input.shape)
