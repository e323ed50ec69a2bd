"""Reads `.caffemodel` files: a binary `NetParameter` of BVLC's Caffe, in both of its forms.

Source: caffe.proto of github.com/BVLC/caffe, field numbers of NetParameter, LayerParameter,
V1LayerParameter, BlobProto and BlobShape.
"""

from pathlib import Path

import numpy as np

from keras_googlenet.errors import UserError
from keras_googlenet.weights.sources import (
    BRANCHES,
    MOST_DIMENSIONS,
    Contents,
    Source,
    as_array,
    mapped,
    module_layers,
)
from keras_googlenet.weights.wire import Wire, message

# field of NetParameter that holds a layer -> its fields (name, blobs)
LAYER_FORMS = {100: (1, 7), 2: (4, 6)}  # today's `layer`, and `layers` of 2014
INTEGERS = (4, 5, 7)  # fields of NetParameter: input_dim, force_backward, debug_info

SOURCE = Source(
    format="Caffe model",
    variant="paper",
    layers={
        "conv1_7x7_s2": "conv1/7x7_s2",
        "conv2_3x3_reduce": "conv2/3x3_reduce",
        "conv2_3x3": "conv2/3x3",
        **module_layers("inception_{module}/{branch}", {branch: branch for branch in BRANCHES}),
        "main": "loss3/classifier",
        "aux1_conv": "loss1/conv",
        "aux1_fc": "loss1/fc",
        "aux1": "loss1/classifier",
        "aux2_conv": "loss2/conv",
        "aux2_fc": "loss2/fc",
        "aux2": "loss2/classifier",
    },
    parts={
        "Conv2D": {"kernel": "[0]", "bias": "[1]"},
        "Dense": {"kernel": "[0]", "bias": "[1]"},
    },
    channels_first=True,
    bgr=True,
    heads=("main", "aux1", "aux2"),
)


def read(path: Path) -> Contents:
    """Reads the blobs of all layers.

    Args:
        path: A `.caffemodel` file.

    Returns:
        Arrays named `layer[0]`, `layer[1]`, ….

    Raises:
        UserError: If it is damaged.
    """
    arrays = {}
    with mapped(path) as content:
        wire = Wire(content)
        for number, value in wire.fields():
            if number not in LAYER_FORMS:
                continue
            name, blobs = _read_layer(wire, message(value), *LAYER_FORMS[number])
            for index, blob in enumerate(blobs):
                key = f"{name}[{index}]"
                if key in arrays:
                    raise UserError(f"layer {name} stands there twice; the file is damaged.")
                arrays[key] = _read_blob(wire, message(blob), key)
    return Contents(arrays)


def _read_layer(wire: Wire, layer: range, name_field: int, blobs_field: int):
    name, blobs = "", []
    for number, value in wire.fields(layer):
        if number == name_field:
            name = wire.text(value)
        elif number == blobs_field:
            blobs.append(value)
    return name, blobs


def _read_blob(wire: Wire, blob: range, name: str) -> np.ndarray:
    """Reads a BlobProto; its shape is `shape`, or four numbers in the old form."""
    shape, old_shape, content, dtype = None, [1, 1, 1, 1], b"", "<f4"
    for number, value in wire.fields(blob):
        if 1 <= number <= 4 and isinstance(value, int):
            old_shape[number - 1] = value
        elif number == 7:
            shape = [
                side
                for _, sides in wire.fields(message(value))
                for side in wire.integers(sides, MOST_DIMENSIONS)
            ]
        elif number in (5, 8):
            content, dtype = wire.bytes(message(value)), "<f4" if number == 5 else "<f8"
    return as_array(content, dtype, tuple(old_shape if shape is None else shape), name)
