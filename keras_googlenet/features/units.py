"""Units by name: `inception_4c_output:12-20`, a whole branch, or a class."""

from collections.abc import Sequence
from typing import NamedTuple

import keras

from keras_googlenet.errors import UserError, nearest
from keras_googlenet.figure_text import drawable
from keras_googlenet.labels import find_class, split_label
from keras_googlenet.normal_form import normal_form

_CLASSIFIER = "main"


class Units(NamedTuple):
    """Channels of a layer by index; `None` for the layer as a whole."""

    layer: str
    channels: tuple[int, ...] | None


def parse_units(text: str, model: keras.Model, labels: Sequence[str] | None = None) -> Units:
    """Parses `LAYER` for all of it, or `LAYER:` and indices or ranges with commas between them.

    After `main:` names of classes work too. Raises `UserError` if there is no such layer or
    channel.
    """
    layer, _, indices = text.partition(":")
    model = normal_form(model)
    check_layer(model, layer)
    if not indices:
        return Units(layer, None)
    count = model.get_layer(layer).output.shape[-1]
    channels = []
    for part in indices.split(","):
        channels += _parse_range(part.strip(), layer, count, labels)
    return Units(layer, tuple(channels))


def check_layer(model: keras.Model, layer: str):
    """Raises `UserError` with the nearest names if no layer with units has this name."""
    names = [one.name for one in model.layers if _has_units(one)]
    if layer not in names:
        near = ", ".join(nearest(layer, names)) or "inception_4c_output"
        raise UserError(f"there is no layer {layer!r}; the nearest are {near}.")


def unit_name(units: Units, channel: int | None, labels: Sequence[str] | None) -> str:
    """Returns the title of a unit in a figure."""
    if channel is None:
        return units.layer
    if units.layer == _CLASSIFIER and labels is not None:
        return drawable(split_label(labels[channel])[1], channel)
    return f"{units.layer}:{channel}"


def _has_units(layer) -> bool:
    kinds = (keras.layers.Conv2D, keras.layers.Concatenate, keras.layers.ReLU)
    return layer.name == _CLASSIFIER or (isinstance(layer, kinds) and len(layer.output.shape) == 4)


def _parse_range(part: str, layer: str, count: int, labels) -> list[int]:
    first, dash, last = part.partition("-")
    if first.isdecimal() and (not dash or last.isdecimal()):
        channels = list(range(int(first), int(last or first) + 1))
        if channels and channels[-1] < count:
            return channels
    elif layer == _CLASSIFIER and labels is not None:
        return [find_class(part, labels)]
    raise UserError(f"{layer} has channels 0 to {count - 1}; {part!r} is none of them.")
