"""Units by name: `inception_4c_output:12-20`, a whole branch, or a class."""

import difflib
from collections.abc import Sequence
from typing import NamedTuple

import keras

from keras_googlenet.errors import UserError
from keras_googlenet.labels import find_class, split_label
from keras_googlenet.normal_form import normal_form

_HEAD = "main"


class Units(NamedTuple):
    """Channels of a layer.

    Attributes:
        layer: Its name.
        channels: Their numbers; `None` for the layer as a whole.
    """

    layer: str
    channels: tuple[int, ...] | None


def parse_units(text: str, model: keras.Model, labels: Sequence[str] | None = None) -> Units:
    """Reads what a person writes for units.

    Args:
        text: `LAYER` for all of it, or `LAYER:` and numbers or ranges with commas between them,
            as in `inception_4c_output:3,12-20`; after `main:` names of classes do too.
        model: A GoogLeNet, as `normal_form` takes it.
        labels: Class names.

    Returns:
        The layer and its channels.

    Raises:
        UserError: If there is no such layer or channel.
    """
    layer, _, numbers = text.partition(":")
    model = normal_form(model)
    check_layer(model, layer)
    if not numbers:
        return Units(layer, None)
    count = model.get_layer(layer).output.shape[-1]
    channels = []
    for part in numbers.split(","):
        channels += _range(part.strip(), layer, count, labels)
    return Units(layer, tuple(channels))


def check_layer(model: keras.Model, layer: str):
    """Raises `UserError` with the nearest names if no layer with units has this name."""
    names = [found.name for found in model.layers if _has_units(found)]
    if layer not in names:
        near = ", ".join(difflib.get_close_matches(layer, names)) or "inception_4c_output"
        raise UserError(f"there is no layer {layer!r}; the nearest are {near}.")


def unit_name(units: Units, channel: int | None, labels: Sequence[str] | None) -> str:
    """Returns what stands over the picture of a unit."""
    if channel is None:
        return units.layer
    if units.layer == _HEAD and labels is not None:
        return split_label(labels[channel])[1]
    return f"{units.layer}:{channel}"


def _has_units(layer) -> bool:
    kinds = (keras.layers.Conv2D, keras.layers.Concatenate, keras.layers.ReLU)
    return layer.name == _HEAD or (isinstance(layer, kinds) and len(layer.output.shape) == 4)


def _range(part: str, layer: str, count: int, labels) -> list[int]:
    first, dash, last = part.partition("-")
    if first.isdecimal() and (not dash or last.isdecimal()):
        chosen = list(range(int(first), int(last or first) + 1))
        if chosen and chosen[-1] < count:
            return chosen
    elif layer == _HEAD and labels is not None:
        return [find_class(part, labels)]
    raise UserError(f"{layer} has channels 0 to {count - 1}; {part!r} is none of them.")
