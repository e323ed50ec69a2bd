"""The parts of a network: its own preprocessing, the trunk of a variant, and its heads."""

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
    """The layers from the trunk to one output."""

    calls: list[Call]  # from the trunk, or an auxiliary dropout, to the classifier; pooling first
    classifier: Call | None  # the last `Dense` layer; `None` for a trunk alone
    activation: str = "linear"  # of the classifier; "linear" gives logits


class Parts(NamedTuple):
    """A network as a list of layers for each part."""

    variant: str
    preprocessing: list[Call]  # from the image to the trunk
    trunk: list[Call]  # from there to `inception_5b_output` and to the auxiliary dropouts
    heads: dict[str, Head]  # by name, "main" first


def take_apart(flat: FlatNetwork) -> Parts:
    """Returns the parts of a network; raises `UserError` if it has others than a GoogLeNet."""
    if len(flat.image.tensor.shape) != 4:
        raise UserError(
            f"the model has inputs of shape {flat.image.tensor.shape}, not color images "
            "(n, height, width, 3); give one for color images."
        )
    for call in flat.calls:
        mode = getattr(call.operation, "quantization_mode", None)
        if mode is not None:
            raise UserError(
                f"the model is quantized ({call.name}: {mode}); give the network from before "
                "`quantize`, and let export.py quantize it."
            )
    variant = find_variant(call.operation for call in flat.calls)
    if variant is None:
        raise UserError(
            "the model must be a GoogLeNet, but its layers fit no variant "
            f"({', '.join(VARIANTS)}); give one whose trunk is as GoogLeNet() builds it."
        )
    heads = _heads(flat)
    ends = [call for call in flat.calls if _ENDS.get(call.name) in heads]
    needed = needed_for([end.outputs[0] for end in ends], flat.calls)
    expected = _trunk_signature(variant, VARIANTS[variant])
    trunk = [call for call in needed if call.name in expected]
    _check_trunk(trunk, expected, heads, variant)
    entry = next(call for call in trunk if call.name in ENTRIES)
    preprocessing = needed_for(entry.inputs, flat.calls)
    _check_preprocessing(preprocessing, trunk, flat.image.tensor.dtype)
    return Parts(variant, preprocessing, trunk, heads)


def changes_values(call: Call) -> bool:
    """Returns whether a call of preprocessing does more than move pixels."""
    return not (does_nothing(call) or _kind(call.operation) in (*GEOMETRY, "Cast"))


def does_nothing(call: Call) -> bool:
    """Returns whether the output of a call is its input at inference."""
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
    """Returns the name of an activation, with the module of one that is not Keras'."""
    if activation is None:
        return "linear"
    name = getattr(activation, "__name__", type(activation).__name__)
    ours = getattr(keras.activations, name, None)
    return name if ours is activation else f"{name} of {type(activation).__module__}"


def _kind(operation: keras.Operation) -> str:
    """Name of a class of Keras; empty for any other."""
    kind = type(operation)
    return kind.__name__ if kind.__module__.partition(".")[0] == "keras" else ""


@functools.cache
def _trunk_signature(variant: str, spec: Variant) -> dict[str, tuple]:
    """Returns `_signature` of each layer of a trunk and its auxiliary heads, by name."""
    size = (MINIMUM_SIZE_WITH_AUX, MINIMUM_SIZE_WITH_AUX, 3)
    flat = flatten(GoogLeNet(classes=2, input_shape=size, variant=variant))
    ends = [call.outputs[0] for call in flat.calls if call.name in _ENDS]
    return {call.name: _signature(call) for call in needed_for(ends, flat.calls)}


def _signature(call: Call) -> tuple[dict, list[str | None]]:
    """Returns the kind and the traits of a layer, and the names of the layers before it."""
    kind, config = type(call.operation), call.operation.get_config()
    traits = {name: _plain(name, config[name]) for name in _TRAITS if name in config}
    is_known = kind.__module__.partition(".")[0] in ("keras", "keras_googlenet")
    traits["kind"] = kind.__name__ if is_known else f"{kind.__module__}.{kind.__name__}"
    return traits, [value.call and value.call.name for value in call.inputs]


def _plain(name: str, value):
    """Returns equal values for settings with equal effect."""
    if isinstance(value, list | tuple):
        value = tuple(_plain(name, item) for item in value)
    return -1 if name == "axis" and value in (3, (3,), (-1,)) else value


def _check_trunk(trunk: list[Call], expected: dict, heads: dict, variant: str):
    """Compares the layers of the trunk with those of the variant."""
    by_name = {call.name: call for call in trunk}
    for name, (traits, inputs) in expected.items():
        head = name.partition("_")[0]
        if head in AUX_TAPS and head not in heads:
            continue
        if name not in by_name:
            problem = f"the model has no layer {name}, which the trunk of variant {variant} has"
        else:
            problem = _difference(by_name[name], traits, inputs, variant)
        if problem:
            raise UserError(f"{problem}; give a network whose trunk is as GoogLeNet() builds it.")
    if len(by_name) < len(trunk):
        raise UserError("the model calls its trunk more than once; give one that calls it once.")


def _difference(call: Call, traits: dict, inputs: list[str | None], variant: str) -> str | None:
    own, before = _signature(call)
    ours, theirs = f"layer {call.name}", f"but that of variant {variant}"
    for trait, value in traits.items():
        if own.get(trait) != value:
            return f"{ours} has {trait}={own.get(trait)}, {theirs} has {value}"
    if inputs not in (before, [None]):
        return f"{ours} comes after {_names(before)}, {theirs} after {_names(inputs)}"
    return None


def _names(names: Sequence[str | None]) -> str:
    return ", ".join(name or "the image" for name in names)


def _check_preprocessing(calls: list[Call], trunk: list[Call], dtype: str):
    """Accepts preprocessing layers of Keras, and operations of `keras.ops`."""
    for call in calls:
        if "int" in dtype and changes_values(call) and "int" in call.outputs[0].tensor.dtype:
            raise UserError(
                f"the model computes in {dtype} before the trunk ({call.name}), where values wrap "
                "around; cast the images to float32 first."
            )
        kind = _kind(call.operation)
        accepted = kind in _PREPROCESSING if isinstance(call.operation, keras.Layer) else kind
        if call in trunk or not (accepted or does_nothing(call)):
            raise _refusal(call, "before the trunk", "Keras' preprocessing layers and operations")


def _refusal(call: Call, where: str, allowed: str) -> UserError:
    return UserError(
        f"the model has the layer {call.name} ({type(call.operation).__name__}) {where}, where "
        f"only {allowed} are allowed; give a network without it."
    )


def _heads(flat: FlatNetwork) -> dict[str, Head]:
    """Traces each output back to the trunk; one that another is computed from is left out."""
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
            "no output of the model is computed from the last inception module, 5b; give a whole "
            "GoogLeNet."
        )
    present = itertools.takewhile(lines.__contains__, HEADS)  # no aux2 without aux1
    heads = {name: _head(name, lines[name]) for name in present}
    classes = {head.classifier.operation.units for head in heads.values() if head.classifier}
    if len(classes) > 1 or (len(heads) > 1 and heads["main"].classifier is None):
        raise UserError(
            "the heads of the model have different numbers of classes; give one whose heads have "
            "the same classes."
        )
    return heads


def _line_to_trunk(output: Value, flat: FlatNetwork) -> tuple[str | None, list[Call]]:
    """Returns the head that an output belongs to, and its calls; `None` for one of the trunk."""
    line, value = [], output
    while value.call is not None:
        if value.call.name in _ENDS:
            return _ENDS[value.call.name], line[::-1]
        if len(value.call.inputs) != 1:
            break
        line.append(value.call)
        (value,) = value.call.inputs
    if any(call.name == _LAST_MAP for call in needed_for([output], flat.calls)):
        raise UserError(
            f"the model has the layer {value.call.name}, with {len(value.call.inputs)} inputs, "
            "after the trunk, where layers must form one chain; give a network with a plain "
            "classifier."
        )
    return None, []


def _head(name: str, line: list[Call]) -> Head:
    """Finds the classifier and its activation among the layers of a head, and checks the rest."""
    real = [call for call in line if not does_nothing(call)]
    activation = _activation_of(real[-1]) if real else None
    separate = real.pop() if activation else None  # an activation that is a layer of its own
    if name == "main" and real and not _is_global_pool(real[0]):
        pools = "GlobalAveragePooling2D and GlobalMaxPooling2D"
        raise _refusal(real[0], "on the last feature map", pools)
    hidden = real[name == "main" : -1]
    for call in hidden:
        _check_hidden(call)
    last = real[-1] if real else None
    if name == "main" and len(real) < 2 and separate is None:
        return Head(line, None)
    if last is None or _kind(last.operation) != "Dense" or (name != "main" and hidden):
        raise UserError(
            f"the head {name} of the model ends in {(separate or last or line[-1]).name}, which is "
            "no classifier; give one that ends in a Dense layer with softmax or sigmoid."
        )
    _check_hidden(last)
    own = activation_name(last.operation.activation)
    if separate is not None and own != "linear":
        raise UserError(
            f"the model ends in {separate.name} after {last.name}, which has the activation {own} "
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
    """Returns the name of an activation that makes probabilities; `None` for other calls."""
    kind = _kind(call.operation)
    if kind == "Activation":
        name = activation_name(call.operation.activation)
    else:
        name = kind.lower() if kind in ("Softmax", "Sigmoid") else None
    rows = getattr(call.operation, "axis", -1) in (-1, 1)
    return name if name in PROBABILITIES and rows else None


def _is_global_pool(call: Call) -> bool:
    return _kind(call.operation) in _POOLS and not call.operation.keepdims


def _check_hidden(call: Call):
    """Accepts layers of Keras on vectors, with activations of Keras."""
    kind = _kind(call.operation)
    is_layer = isinstance(call.operation, keras.Layer)
    activation = activation_name(getattr(call.operation, "activation", None))
    has_foreign_activation = " " in activation
    if has_foreign_activation or not (kind in _HIDDEN if is_layer else kind):
        where = f"with activation {activation} " if has_foreign_activation else ""
        raise _refusal(call, f"{where}after the trunk", "Keras' own layers for a classifier")
