"""Converts a weight file of another framework into a Keras network."""

import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import keras

from keras_googlenet.errors import UserError
from keras_googlenet.googlenet import AUX_TAPS, GoogLeNet
from keras_googlenet.googlenet import classifier as classifier_layer
from keras_googlenet.labels import default_labels, replacing_with_labels
from keras_googlenet.weights import sandbox
from keras_googlenet.weights.matching import Match, brief, is_ignored, is_real, match
from keras_googlenet.weights.porting import (
    Ported,
    aux_problem,
    check_shapes,
    port,
    set_normalization,
    slots,
)
from keras_googlenet.weights.sandbox import WeightFile
from keras_googlenet.weights.tables import Table

ACTIVATION = "relu"  # default between the linear layers of a classifier
MOST_CLASSES = 4000  # of one head; keeps a conversion below 1 GiB of memory
LAYERS = re.compile(r"(^|[/_])(bn|batch_?norm|norm|scale|prelu|se)(?=$|[/_\[])", re.IGNORECASE)
LOSSES = re.compile(r"(^|[._])(criterion|loss|metrics?)", re.IGNORECASE)  # of a trainer's module
PADDING = "SAME"  # of every convolution and max pooling of Google's graph
OTHER_OPERATIONS = {  # their constants look like those of Google's graph
    *("Relu6", "Elu", "Selu", "LeakyRelu", "Sigmoid", "Tanh", "DepthwiseConv2dNative"),
    *("FusedBatchNorm", "FusedBatchNormV3", "BatchNormWithGlobalNormalization"),
}


class Conversion(NamedTuple):
    """A converted network.

    Attributes:
        model: Three outputs where the file has the heads, else one.
        table: The porting table of its publisher.
        format: Format of the file.
        ported: A row for each array that was copied.
        absent: Heads that the network does not have.
        unused: Names of the arrays that were not used.
        notes: What the user should know, one sentence each.
    """

    model: keras.Model
    table: Table
    format: str
    ported: list[Ported]
    absent: list[str]
    unused: list[str]
    notes: list[str]


def convert(
    source: str | Path,
    variant: str | None = None,
    *,
    classifier: str | None = None,
    activation: str = ACTIVATION,
) -> keras.Model:
    """Converts weights of another framework into a Keras network.

    Args:
        source: A Caffe model (`.caffemodel`, `.caffemodel.h5`), a PyTorch state dictionary or a
            checkpoint with one in it (`.pth`, `.safetensors`), a TF-slim checkpoint (any of its
            files, their prefix, or their folder), Google's frozen graph, or an archive with one of
            these. The content decides which, not the name.
        variant: The expected variant; by default any.
        classifier: Name in the file of the main classifier, to choose among several.
        activation: Keras' name of the activation between the linear layers of a classifier that
            has several; a warning mentions it, because no file names it.

    Returns:
        A GoogLeNet with the outputs `[main, aux1, aux2]` where the file has the auxiliary heads
        with the main one's classes, otherwise one output, `(n, classes)` float32. One class has a
        sigmoid, more have a softmax.

    Raises:
        UserError: If the file is none of these, is damaged, or holds another network.
    """
    converted = convert_file(source, variant, classifier=classifier, activation=activation)
    for note in converted.notes:
        warnings.warn(f"{source}: {note}", stacklevel=2)
    return converted.model


def convert_file(
    source: str | Path,
    variant: str | None = None,
    *,
    classifier: str | None = None,
    activation: str = ACTIVATION,
) -> Conversion:
    """Converts as `convert` does, and returns an account with the network."""
    path = Path(source).expanduser()
    try:
        with sandbox.opened(path) as file:
            matched = match(file, classifier)
            held = matched.trunk.table.variant
            if variant not in (None, held):
                raise UserError(
                    f"it holds the variant {held}, not {variant}; leave the variant out."
                )
            return _convert(file, matched, activation, chosen=classifier is not None)
    except UserError as error:
        raise UserError(f"{path} cannot be converted: {error}") from error


def _convert(file: WeightFile, matched: Match, activation: str, chosen: bool) -> Conversion:
    table, notes = matched.trunk.table, matched.notes
    model = _network(matched, activation)
    filled = slots(model, matched)
    problem = aux_problem(filled, file, table)
    if problem:
        notes = [*notes, f"auxiliary heads are left out: {problem}"]
        main = {name: x for name, x in matched.linear.items() if name.startswith("main")}
        matched = matched._replace(linear=main)
        model = _network(matched, activation)
        filled = slots(model, matched)
    check_shapes(filled, file, table)
    used = {slot.source for slot in filled}
    left_out = _leftovers(used, file, matched, chosen)
    if left_out:
        warning = "if the network computes with that, its answers are wrong"
        notes = [*notes, f"left out: {left_out}; {warning}"]
    if matched.hidden:
        names = ", ".join(matched.linear[name].name for name in matched.hidden)
        notes = [*notes, f"{activation} is assumed after {names}, because no file names it"]
    normalizations = _normalizations(file, matched)
    ported = port(model, filled, file, table)
    for layer, arguments in normalizations.items():
        set_normalization(model.get_layer(layer), arguments)
    absent = [] if matched.aux_heads else list(AUX_TAPS)
    unused = sorted(set(file.arrays) - used)
    return Conversion(model, table, file.format, ported, absent, unused, notes)


def _network(matched: Match, activation: str) -> keras.Model:
    """Builds the network for the arrays of the file."""
    last = matched.linear["main"]
    if not 1 <= last.outputs <= MOST_CLASSES:
        raise UserError(f"{last.name} has {last.outputs} outputs, one per class.")
    ending = "softmax" if last.outputs > 1 else "sigmoid"
    model = GoogLeNet(
        variant=matched.trunk.table.variant,
        classes=last.outputs,
        classifier_activation=ending,
        aux_heads=matched.aux_heads,
    )
    if not matched.hidden:
        return model
    try:
        keras.activations.get(activation)
    except ValueError as error:
        raise UserError(f"Keras has no activation {activation}; give one such as relu.") from error
    x = model.get_layer("dropout").output
    for name in matched.hidden:
        x = keras.layers.Dense(matched.linear[name].outputs, activation, name=name)(x)
    main = classifier_layer(x, last.outputs, ending, "main")
    return keras.Model(model.input, [main, *model.outputs[1:]], name=model.name)


def _leftovers(used: set[str], file: WeightFile, matched: Match, chosen: bool) -> str:
    """Lists arrays that the file's network may compute with, and ours does not.

    Refuses those that surely compute, unless the user chose the classifier.
    """
    trunk, table = matched.trunk, matched.trunk.table
    names = _unused_weights(used, file, matched)
    shown = ", ".join(f"{brief(name)} {file.arrays[name].shape}" for name in names[:3])
    shown += f" and {len(names) - 3} more" if len(names) > 3 else ""
    scope = os.path.commonprefix(list(table.layers.values()))  # TF-slim's variables have one
    computes = (
        table.modules
        or bool(set(names) & set(file.facts.get("typed", [])))
        or any(scope and name.startswith(trunk.prefix + scope) for name in names)
        or any(LAYERS.search(name) for name in names)
    )
    if names and computes and not chosen:
        raise UserError(
            f"{table.name} has no place for {shown}. If the network computes with that, its "
            "answers would be wrong without; if not, name the classifier by --classifier "
            f"{matched.linear['main'].name}."
        )
    return shown


def _unused_weights(used: set[str], file: WeightFile, matched: Match) -> list[str]:
    """Lists unused arrays of floats outside the auxiliary heads; refuses any inside the trunk."""
    trunk, table = matched.trunk, matched.trunk.table
    inside = tuple(trunk.name(layer) + mark for layer in table.layers_of() for mark in "./[")
    aux = tuple(
        trunk.prefix + (table.aux_root(head) or table.layers[layer])
        for head in AUX_TAPS
        for layer in table.layers_of(head)
    )
    names = []
    for name in matched.neighbors:
        array = file.arrays[name]
        if name in used or not is_real(array) or is_ignored(name, used, table):
            continue
        if name.startswith(inside):
            raise UserError(
                f"{name} {array.shape} has no place in {table.name}; it is another network, whose "
                "answers would be wrong without it."
            )
        if not name.startswith(aux) and not LOSSES.search(name):
            names.append(name)
    return names


def _normalizations(file: WeightFile, matched: Match) -> dict[str, dict[str, float]]:
    """Returns the constants of local response normalization in a graph of Google's operations."""
    trunk, table = matched.trunk, matched.trunk.table
    if not table.lrn:
        return {}
    for name, (kind, padding, stride, window) in file.facts.get("windows", {}).items():
        first = name.startswith(trunk.name("conv1_7x7_s2"))
        if kind != "AvgPool" and padding != PADDING:
            raise UserError(f"node {name} is not padded by {PADDING}; it is another network.")
        if kind == "Conv2D" and stride != (2 if first else 1):
            raise UserError(f"node {name} has the stride {stride}; it is another network.")
        if kind == "AvgPool" and window == 3:  # inside a module
            raise UserError(f"node {name} is {kind}, not MaxPool; it is another network.")
    others = sorted(OTHER_OPERATIONS & set(file.facts.get("operations", [])))
    if others:
        raise UserError(f"its graph computes {', '.join(others)}; it is another network.")
    arguments = {}
    for layer, node in table.lrn.items():
        given = file.facts.get("lrn", {}).get(trunk.prefix + node)
        if given is None:
            raise UserError(f"the normalization {trunk.prefix + node} is missing.")
        positive = all(0 < given[name] < 1e6 for name in ("bias", "alpha", "beta"))
        if not 0 < given["depth_radius"] < 64 or not positive:
            raise UserError(f"node {node} normalizes by {given}, which no network does.")
        arguments[layer] = given
    return arguments


def save(model: keras.Model, path: Path, labels: Sequence[str] | None = None):
    """Writes a network to a `.keras` file and its class names to `<name>.labels.txt` beside it."""
    with replacing_with_labels(path, labels or default_labels(model.outputs[0].shape[-1])) as file:
        model.save(file)
