"""Copies the arrays of a file into the layers of a network, each checked for shape and values."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import keras
import numpy as np

from keras_googlenet.errors import UserError, nearest
from keras_googlenet.googlenet import AUX_TAPS, VARIANTS
from keras_googlenet.weights.matching import SHOWN, Match, brief, is_real, matrix_shape
from keras_googlenet.weights.sandbox import WeightFile
from keras_googlenet.weights.tables import Table

LRN_ARGUMENTS = ("depth_radius", "bias", "alpha", "beta")


class Slot(NamedTuple):
    """A weight of ours and the array that fills it; `source` is empty for a bias of zeros."""

    layer: str
    weight: str
    shape: tuple[int, ...]
    source: str
    shape_in_file: tuple[int, ...]


class Ported(NamedTuple):
    """An array that was copied: a row of the converter's table."""

    layer: str
    source: str
    shape: tuple[int, ...]
    norm: float


def slots(model: keras.Model, match: Match) -> list[Slot]:
    """Lists the weights of a network, layer by layer, with their arrays in the file."""
    return [
        Slot(
            layer.name,
            weight.name,
            tuple(weight.shape),
            match.array_name(layer.name, type(layer).__name__, weight.name),
            _shape_in_file(weight, match.trunk.table),
        )
        for layer in model.layers
        for weight in layer.weights
    ]


def _shape_in_file(weight, table: Table) -> tuple[int, ...]:
    shape = tuple(weight.shape)
    if not table.channels_first or weight.name != "kernel":
        return shape
    return (shape[3], shape[2], shape[0], shape[1]) if len(shape) == 4 else shape[::-1]


def _fits(slot: Slot, file: WeightFile, table: Table) -> bool:
    shape = file.arrays[slot.source].shape
    if slot.shape_in_file == matrix_shape(shape, table):
        return True
    while len(shape) > len(slot.shape_in_file) and shape[0] == 1:  # Caffe's old blobs have 4 sides
        shape = shape[1:]
    return slot.shape_in_file == shape


def aux_problem(filled: list[Slot], file: WeightFile, table: Table) -> str:
    """Says why the auxiliary heads cannot be used; empty if they can.

    They are often for another image size, untrained or not even initialized; the main network is
    right without them.
    """
    aux = [slot for slot in filled if slot.source and slot.layer.partition("_")[0] in AUX_TAPS]
    for slot in aux:
        if not _fits(slot, file, table):
            shape = file.arrays[slot.source].shape
            return f"{slot.source} is {shape}, not {slot.shape_in_file}"
    for slot in aux:
        if not np.isfinite(file.read([slot.source])[slot.source]).all():
            return f"{slot.source} holds NaN or infinity"
    return ""


def check_shapes(filled: list[Slot], file: WeightFile, table: Table):
    """Raises `UserError` if an array is missing, has another shape, or holds no real numbers."""
    needed = {slot.source: slot for slot in filled if slot.source}
    missing = [slot for slot in needed.values() if slot.source not in file.arrays]
    if missing:
        name, shape = missing[0].source, missing[0].shape_in_file
        same = [n for n, a in file.arrays.items() if a.shape == shape and n not in needed]
        similar = map(brief, nearest(name, same, SHOWN, cutoff=0.3) or same[:SHOWN])
        others = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(
            f"{name} {shape} is missing, which layer {missing[0].layer} needs{others}; "
            + (f"arrays of that shape are {', '.join(similar)}: " if same else "")
            + f"it is another network than {table.name}, or its layers were renamed."
        )
    for name, slot in needed.items():
        array = file.arrays[name]
        if not _fits(slot, file, table):
            raise UserError(
                f"{name} has the shape {array.shape}; layer {slot.layer} needs "
                f"{slot.shape_in_file}. It is another network than {table.name}."
            )
        if not is_real(array):
            raise UserError(f"{name} holds {array.dtype}; layer {slot.layer} needs real numbers.")


def port(model: keras.Model, filled: list[Slot], file: WeightFile, table: Table) -> list[Ported]:
    """Fills a network, layer by layer, so that the arrays are never all in memory.

    Returns:
        A row for each array.

    Raises:
        UserError: If an array holds NaN or infinity, or a variance is negative.
    """
    rows = []
    for layer in model.layers:
        of_layer = [slot for slot in filled if slot.layer == layer.name]
        arrays = file.read([slot.source for slot in of_layer if slot.source]) if of_layer else {}
        values = []
        for slot in of_layer:
            if not slot.source:
                values.append(np.zeros(slot.shape, "float32"))
                continue
            array = arrays[slot.source]
            if not np.isfinite(array).all():
                raise UserError(f"{slot.source} holds NaN or infinity; its training diverged.")
            if slot.weight == "moving_variance" and array.min() < 0:
                raise UserError(f"{slot.source} holds variances below 0; its training diverged.")
            values.append(_in_our_layout(array, slot, table))
            norm = np.linalg.norm(values[-1])
            rows.append(Ported(slot.layer, slot.source, slot.shape, norm))
        layer.set_weights(values)
    return rows


def _in_our_layout(array: np.ndarray, slot: Slot, table: Table) -> np.ndarray:
    """Returns kernels as (y, x, in, out), matrices as (in, out), red first."""
    array = array.reshape(slot.shape_in_file)
    if slot.weight != "kernel":
        return array
    if table.channels_first and array.ndim == 4:
        array = array.transpose(2, 3, 1, 0)
    elif table.channels_first and slot.layer in ("aux1_fc", "aux2_fc"):
        # it reads a flattened map: (channel, y, x) there, (y, x, channel) here
        channels = VARIANTS[table.variant].aux_conv
        side = math.isqrt(array.shape[1] // channels)
        maps = array.reshape(-1, channels, side, side)
        array = maps.transpose(2, 3, 1, 0).reshape(array.shape[1], -1)
    elif table.channels_first:
        array = array.T
    return array[:, :, ::-1] if table.bgr and slot.layer == "conv1_7x7_s2" else array


def set_normalization(layer: keras.Layer, arguments: Mapping[str, float]):
    """Sets `LRN_ARGUMENTS` of a `LocalResponseNormalization` in a built network."""
    for name, value in arguments.items():
        setattr(layer, name, value)
    layer.build(layer.input.shape)
