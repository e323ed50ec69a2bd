"""Reads the frozen graph that Google released as "inception5h": weights and LRN constants.

Source: graph.proto, node_def.proto, attr_value.proto, tensor.proto and tensor_shape.proto of
github.com/tensorflow/tensorflow. The names are those of the released graph.
"""

import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from keras_googlenet.errors import UserError
from keras_googlenet.weights import archives
from keras_googlenet.weights.sources import Contents, Source, as_array, mapped, module_layers
from keras_googlenet.weights.wire import Wire, message

SOURCE = Source(
    format="frozen TensorFlow graph",
    variant="google",
    layers={
        "conv1_7x7_s2": "conv2d0",
        "conv2_3x3_reduce": "conv2d1",
        "conv2_3x3": "conv2d2",
        **module_layers(
            "mixed{module}_{branch}",
            {
                "1x1": "1x1",
                "3x3_reduce": "3x3_bottleneck",
                "3x3": "3x3",
                "5x5_reduce": "5x5_bottleneck",
                "5x5": "5x5",
                "pool_proj": "pool_reduce",
            },
        ),
        "main": "softmax2",
        "aux1_conv": "head0_bottleneck",
        "aux1_fc": "nn0",
        "aux1": "softmax0",
        "aux2_conv": "head1_bottleneck",
        "aux2_fc": "nn1",
        "aux2": "softmax1",
    },
    parts={
        "Conv2D": {"kernel": "_w", "bias": "_b"},
        "Dense": {"kernel": "_w", "bias": "_b"},
    },
    channels_first=False,
    heads=("main", "aux1", "aux2"),
)
NORMALIZATIONS = {"localresponsenorm0": "pool1_norm1", "localresponsenorm1": "conv2_norm2"}
LRN_DEFAULTS = {"depth_radius": 5, "bias": 1.0, "alpha": 1.0, "beta": 0.5}  # of TensorFlow's op
FLOAT32 = 1  # DataType
PADDING = "SAME"  # of every convolution and max pooling


def read(path: Path) -> Contents:
    """Reads the float constants and the normalisations of a graph.

    Args:
        path: A `.pb` file, or a zip with one in it.

    Returns:
        Arrays by the names of their nodes, and the normalisations' arguments.

    Raises:
        UserError: If it is damaged, or its convolutions are padded in another way.
    """
    if archives.is_zip(path):
        return _read_graph(Wire(memoryview(archives.read_only_member(path, ".pb"))))
    with mapped(path) as content:
        return _read_graph(Wire(content))


def _read_graph(wire: Wire) -> Contents:
    arrays, lrn = {}, {}
    for number, value in wire.fields():
        if number != 1:
            continue
        name, operation, attributes = _read_node(wire, message(value))
        if operation == "Const":
            array = _read_constant(wire, attributes, name)
            if name in arrays:
                raise UserError(f"node {name} stands there twice; the file is damaged.")
            if array is not None:
                arrays[name] = array
        elif operation == "LRN" and name in NORMALIZATIONS:
            lrn[NORMALIZATIONS[name]] = _read_normalization(wire, attributes, name)
        elif operation in ("Conv2D", "MaxPool"):
            _check_padding(wire, attributes, name)
    absent = sorted(set(NORMALIZATIONS) - {n for n, ours in NORMALIZATIONS.items() if ours in lrn})
    if absent:
        raise UserError(f"node {absent[0]} is missing, a local response normalisation.")
    return Contents(arrays, lrn)


def _read_node(wire: Wire, node: range) -> tuple[str, str, dict[str, range]]:
    """Reads a NodeDef: name, operation, and where its attributes' values stand."""
    texts, attributes = {1: "", 2: ""}, {}
    for number, value in wire.fields(node):
        if number in texts:
            texts[number] = wire.text(value)
        elif number == 5:  # a map is a repeated message of key and value
            entry = dict(wire.fields(message(value)))
            if 1 in entry and 2 in entry:
                attributes[wire.text(entry[1])] = message(entry[2])
    return texts[1], texts[2], attributes


def _attribute(wire: Wire, attributes: Mapping[str, range], name: str, field: int):
    """Returns one kind of value of an attribute: s = 2, i = 3, f = 4, tensor = 8."""
    if name not in attributes:
        return None
    return dict(wire.fields(attributes[name])).get(field)


def _read_constant(wire: Wire, attributes: Mapping[str, range], name: str) -> np.ndarray | None:
    """Reads a TensorProto; `None` if it holds no float32."""
    tensor = _attribute(wire, attributes, "value", 8)
    if tensor is None:
        return None
    fields = dict(wire.fields(message(tensor)))
    if fields.get(1) != FLOAT32:
        return None
    shape = [
        dict(wire.fields(message(dimension))).get(1, 0)
        for number, dimension in (wire.fields(message(fields[2])) if 2 in fields else ())
        if number == 2
    ]
    if not all(isinstance(side, int) for side in shape):
        raise UserError(f"the shape of node {name} is no numbers; the file is damaged.")
    content = fields.get(4, fields.get(5, range(0)))  # tensor_content, or float_val
    return as_array(wire.bytes(message(content)), "<f4", tuple(shape), f"node {name}")


def _read_normalization(wire: Wire, attributes: Mapping[str, range], name: str) -> dict:
    arguments = dict(LRN_DEFAULTS)
    for argument in ("bias", "alpha", "beta"):
        value = _attribute(wire, attributes, argument, 4)
        if value is not None:
            content = wire.bytes(message(value))
            if len(content) != 4:
                raise UserError(f"{argument} of node {name} is no number; the file is damaged.")
            # float32 has seven digits: 1e-4 shall be 1e-4 and not 9.999999747378752e-05
            arguments[argument] = float(f"{struct.unpack('<f', content)[0]:.7g}")
    radius = _attribute(wire, attributes, "depth_radius", 3)
    if radius is not None:
        arguments["depth_radius"] = radius
    if not _is_sensible(arguments):
        raise UserError(f"node {name} normalises by {arguments}, which no network does.")
    return arguments


def _is_sensible(arguments: Mapping[str, float]) -> bool:
    radius = arguments["depth_radius"]
    others = [arguments[name] for name in ("bias", "alpha", "beta")]
    return isinstance(radius, int) and 0 < radius < 64 and all(0 < x < 1e6 for x in others)


def _check_padding(wire: Wire, attributes: Mapping[str, range], name: str):
    padding = _attribute(wire, attributes, "padding", 2)
    if padding is None or wire.text(padding) != PADDING:
        raise UserError(f"node {name} is not padded by {PADDING}; it is another network.")
