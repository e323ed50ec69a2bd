"""What a network consists of: its own preprocessing, the trunk of a variant, and its heads."""

import functools
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import keras
import numpy as np

from keras_googlenet.errors import UserError
from keras_googlenet.flattening import Call, FlatNetwork, Value, flatten, needed_for
from keras_googlenet.googlenet import (
    AUX_TAPS,
    HEADS,
    MINIMUM_SIZE_WITH_AUX,
    PROBABILITIES,
    VARIANTS,
    GoogLeNet,
    Variant,
    find_variant,
)

ENTRIES = ("conv1_pad", "conv1_7x7_s2")  # the trunk's first layer is one of them
_LAST_MAP = "inception_5b_output"
_ENDS = {_LAST_MAP: "main"} | {f"{head}_dropout": head for head in AUX_TAPS}
_TRAITS = (  # of a layer's configuration: what decides the function that it computes
    "filters kernel_size strides padding dilation_rate groups units use_bias activation pool_size "
    "output_size data_format axis scale center depth_radius bias alpha beta max_value "
    "negative_slope threshold"
).split()

# Keras' layers by what they do at inference.
GEOMETRY = ("Resizing", "CenterCrop", "ZeroPadding2D", "Cropping2D")
_PREPROCESSING = (*GEOMETRY, "Rescaling", "Normalization", "AutoContrast")
_NOTHING = (
    *("Dropout", "SpatialDropout2D", "GaussianDropout", "AlphaDropout", "GaussianNoise"),
    *("Identity", "ActivityRegularization"),
    *("MixUp", "CutMix", "AugMix", "RandAugment", "Equalization", "Solarization"),
)
_POOLS = ("GlobalAveragePooling2D", "GlobalMaxPooling2D")
_HIDDEN = (
    *("Dense", "BatchNormalization", "LayerNormalization", "UnitNormalization"),
    *("Activation", "ReLU", "LeakyReLU", "PReLU", "ELU"),
)


class Head(NamedTuple):
    """What leads from the trunk to one output.

    Attributes:
        calls: Between the trunk, or an auxiliary dropout, and the classifier; pooling first.
        classifier: The last `Dense` layer; `None` of a trunk alone.
        activation: What its outputs go through, by name; "linear" of logits.
    """

    calls: list[Call]
    classifier: Call | None
    activation: str = "linear"


class Parts(NamedTuple):
    """A network, taken apart.

    Attributes:
        variant: Whose trunk it has.
        preprocessing: Calls between the image and the trunk.
        trunk: Calls from there to `inception_5b_output` and to the auxiliary dropouts.
        heads: By name; "main" comes first.
    """

    variant: str
    preprocessing: list[Call]
    trunk: list[Call]
    heads: dict[str, Head]


def take_apart(flat: FlatNetwork) -> Parts:
    """Tells the parts of a network, and refuses it if it has others.

    Args:
        flat: The network.

    Raises:
        UserError: If it is no GoogLeNet, or has layers that none has; it says what was found.
    """
    if len(flat.image.tensor.shape) != 4:
        raise UserError(
            f"the model takes inputs of shape {flat.image.tensor.shape}, not color images "
            "(n, height, width, 3); give one that does."
        )
    for call in flat.calls:
        _check_not_quantized(call)
    variant = find_variant(call.operation for call in flat.calls)
    if variant is None:
        raise UserError(
            "the model must be a GoogLeNet, but its layers fit no variant "
            f"({', '.join(VARIANTS)}); give one whose trunk is as GoogLeNet() builds it."
        )
    heads = _heads(flat)
    ends = [call for call in flat.calls if _ENDS.get(call.name) in heads]
    needed = needed_for([end.outputs[0] for end in ends], flat.calls)
    expected = trunk_signature(variant, VARIANTS[variant])
    trunk = [call for call in needed if call.name in expected]
    _check_trunk(trunk, expected, heads, variant)
    entry = next(call for call in trunk if call.name in ENTRIES)
    preprocessing = needed_for(entry.inputs, flat.calls)
    _check_preprocessing(preprocessing, trunk, flat.image.tensor.dtype)
    return Parts(variant, preprocessing, trunk, heads)


def changes_values(call: Call) -> bool:
    """Says whether a call of preprocessing does more than move pixels."""
    return not (does_nothing(call) or _kind(call.operation) in (*GEOMETRY, "Cast"))


def does_nothing(call: Call) -> bool:
    """Says whether a call returns at inference what it is given."""
    kind = _kind(call.operation)
    match kind:
        case "Activation":
            return activation_name(call.operation.activation) == "linear"
        case "Rescaling":
            return np.all(call.operation.scale == 1) and not np.any(call.operation.offset)
        case "Cast":
            return "float" in keras.backend.standardize_dtype(call.outputs[0].tensor.dtype)
        case "Flatten" | "Reshape" | "RandomCrop":
            return call.inputs[0].tensor.shape == call.outputs[0].tensor.shape
    return kind in _NOTHING or kind.startswith("Random")


def activation_name(activation) -> str:
    """Returns the name of an activation of Keras, otherwise what it is."""
    if activation is None:
        return "linear"
    name = getattr(activation, "__name__", type(activation).__name__)
    ours = getattr(keras.activations, name, None)
    return name if ours is activation else f"{name} of {type(activation).__module__}"


def _kind(operation: keras.Operation) -> str:
    """Name of a class of Keras; empty for any other."""
    kind = type(operation)
    return kind.__name__ if kind.__module__.partition(".")[0] == "keras" else ""


def _check_not_quantized(call: Call):
    mode = getattr(call.operation, "quantization_mode", None)
    if mode is not None:
        raise UserError(
            f"the model is quantized ({call.name}: {mode}); give the network from before "
            "`quantize`, and let export.py quantize it."
        )


@functools.cache
def trunk_signature(variant: str, spec: Variant) -> dict[str, tuple]:
    """Returns what the trunk of a variant, and its auxiliary heads, are told by.

    Args:
        variant: Key of `VARIANTS`.
        spec: What stands there.

    Returns:
        Name of a layer -> its kind and traits, and the names of the layers that it takes.
    """
    size = (MINIMUM_SIZE_WITH_AUX, MINIMUM_SIZE_WITH_AUX, 3)
    flat = flatten(GoogLeNet(classes=2, input_shape=size, variant=variant))
    ends = [call.outputs[0] for call in flat.calls if call.name in _ENDS]
    return {call.name: _signature(call) for call in needed_for(ends, flat.calls)}


def _signature(call: Call) -> tuple[dict, list[str | None]]:
    kind = type(call.operation)
    root = kind.__module__.partition(".")[0]
    ours = root in ("keras", "keras_googlenet")
    config = call.operation.get_config()
    traits = {name: _plain(name, config[name]) for name in _TRAITS if name in config}
    traits["kind"] = kind.__name__ if ours else f"{kind.__module__}.{kind.__name__}"
    return traits, [value.call and value.call.name for value in call.inputs]


def _plain(name: str, value):
    """The same for what means the same."""
    if isinstance(value, list | tuple):
        value = tuple(_plain(name, one) for one in value)
    return -1 if name == "axis" and value in (3, (3,), (-1,)) else value


def _check_trunk(trunk: list[Call], expected: dict, heads: dict, variant: str):
    """Compares the layers of the trunk with those of the variant."""
    found = {call.name: call for call in trunk}
    for name, (traits, inputs) in expected.items():
        head = name.partition("_")[0]
        if head in AUX_TAPS and head not in heads:
            continue
        if name not in found:
            raise UserError(
                f"the model has no layer {name} on the way to its output, which the trunk of "
                f"variant {variant} has; give one whose trunk is as GoogLeNet() builds it."
            )
        ours, before = _signature(found[name])
        for trait in traits:
            if ours.get(trait) != traits[trait]:
                raise UserError(
                    f"layer {name} has {trait}={ours.get(trait)}, but that of variant {variant} "
                    f"has {traits[trait]}; give a network whose trunk is as GoogLeNet() builds it."
                )
        if inputs not in (before, [None]):
            raise UserError(
                f"layer {name} takes {_names(before)}, but that of variant {variant} takes "
                f"{_names(inputs)}; give a network whose trunk is as GoogLeNet() builds it."
            )
    if len(found) < len(trunk):
        raise UserError("the model calls its trunk more than once; give one that calls it once.")


def _names(names: Sequence[str | None]) -> str:
    return ", ".join(name or "the image" for name in names)


def _check_preprocessing(calls: list[Call], trunk: list[Call], dtype: str):
    """Takes preprocessing layers of Keras, and operations of `keras.ops`."""
    for call in calls:
        if "int" in dtype and changes_values(call) and "int" in call.outputs[0].tensor.dtype:
            raise UserError(
                f"the model computes in {dtype} before the trunk ({call.name}), where values wrap "
                "around; cast the images to float32 first."
            )
        kind = _kind(call.operation)
        taken = kind in _PREPROCESSING if isinstance(call.operation, keras.Layer) else kind
        if call in trunk or not (taken or does_nothing(call)):
            raise UserError(
                f"the model has the layer {call.name} ({type(call.operation).__name__}) before "
                "the trunk, where only Keras' preprocessing layers and operations may stand; take "
                "it out and apply it to the images."
            )


def _heads(flat: FlatNetwork) -> dict[str, Head]:
    """Follows each output back to the trunk; one that another is computed from counts as none."""
    lines = {}
    for output in flat.outputs:
        name, line = _line_to_trunk(output, flat)
        longest = max(line, lines.get(name, []), key=len)
        if not set(map(id, line)) | set(map(id, lines.get(name, []))) <= set(map(id, longest)):
            raise UserError(
                f"the model has several classifiers for {name}, which end in {line[-1].name} and "
                f"{lines[name][-1].name}; give one with a single classifier."
            )
        lines[name] = longest
    lines.pop(None, None)
    if "main" not in lines:
        raise UserError(
            "no output of the model comes from the last inception module, 5b; give a whole "
            "GoogLeNet."
        )
    present = itertools.takewhile(lines.__contains__, HEADS)  # aux2 without aux1 counts as none
    heads = {name: _head(name, lines[name]) for name in present}
    classes = {head.classifier.operation.units for head in heads.values() if head.classifier}
    if len(classes) > 1 or (len(heads) > 1 and heads["main"].classifier is None):
        raise UserError(
            "the heads of the model have different numbers of classes; give one whose classifiers "
            "are of the same classes."
        )
    return heads


def _line_to_trunk(output: Value, flat: FlatNetwork) -> tuple[str | None, list[Call]]:
    """Returns the head that an output belongs to, and the calls between; `None` of the trunk's."""
    line, value = [], output
    while value.call is not None and len(value.call.inputs) == 1:
        if value.call.name in _ENDS:
            return _ENDS[value.call.name], line[::-1]
        line.append(value.call)
        (value,) = value.call.inputs
    if value.call is not None and value.call.name in _ENDS:
        return _ENDS[value.call.name], line[::-1]
    if any(call.name == _LAST_MAP for call in needed_for([output], flat.calls)):
        raise UserError(
            f"the model has the layer {value.call.name}, which takes {len(value.call.inputs)} "
            "inputs, behind the trunk, where layers may only stand in one line; give a network "
            "with a plain classifier."
        )
    return None, []


def _head(name: str, line: list[Call]) -> Head:
    """Tells pooling, hidden layers, classifier and activation apart."""
    real = [call for call in line if not does_nothing(call)]
    activation = _activation_of(real[-1]) if real else None
    behind = real.pop() if activation else None
    if name == "main" and real:
        _check_pool(real[0])
    hidden = real[name == "main" : -1]
    for call in hidden:
        _check_hidden(call)
    last = real[-1] if real else None
    if name == "main" and len(real) < 2 and behind is None:
        return Head(line, None)
    if last is None or _kind(last.operation) != "Dense" or (name != "main" and hidden):
        raise UserError(
            f"the head {name} of the model ends in {(behind or last or line[-1]).name}, which is "
            "no classifier; give one that ends in a Dense layer with softmax or sigmoid."
        )
    _check_hidden(last)
    own = activation_name(last.operation.activation)
    if behind is not None and own != "linear":
        raise UserError(
            f"the model ends in {behind.name} behind {last.name}, which has the activation {own} "
            "already; give one with a single activation."
        )
    activation = activation or own
    if activation == "softmax" and last.operation.units == 1:
        raise UserError(
            f"the classifier {last.name} has one class, for which softmax is always 1; build it "
            "with sigmoid."
        )
    return Head(line[: line.index(last)], last, activation)


def _activation_of(call: Call) -> str | None:
    """The name, if a call is an activation that makes probabilities."""
    kind = _kind(call.operation)
    if kind == "Activation":
        name = activation_name(call.operation.activation)
    else:
        name = kind.lower() if kind in ("Softmax", "Sigmoid") else None
    rows = getattr(call.operation, "axis", -1) in (-1, 1)
    return name if name in PROBABILITIES and rows else None


def _check_pool(call: Call):
    if _kind(call.operation) not in _POOLS or call.operation.keepdims:
        raise UserError(
            f"the model has the layer {call.name} ({type(call.operation).__name__}) on the last "
            "feature map, where only GlobalAveragePooling2D or GlobalMaxPooling2D may stand; give "
            "a network that pools so."
        )


def _check_hidden(call: Call):
    """Takes layers of Keras on vectors, with activations of Keras."""
    kind = _kind(call.operation)
    is_layer = isinstance(call.operation, keras.Layer)
    activation = activation_name(getattr(call.operation, "activation", None))
    if not (kind in _HIDDEN if is_layer else kind) or " " in activation:
        raise UserError(
            f"the model has the layer {call.name} ({type(call.operation).__name__}"
            f"{f', activation {activation}' if ' ' in activation else ''}) behind the trunk, where "
            "only Keras' own layers for a classifier may stand; give a network without it."
        )
