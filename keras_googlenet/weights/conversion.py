"""From a file of others to a network of ours, and the account of how it went."""

import os
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import keras

from keras_googlenet.atomic import replacing
from keras_googlenet.errors import UserError
from keras_googlenet.googlenet import AUX_TAPS, GoogLeNet
from keras_googlenet.googlenet import classifier as classifier_layer
from keras_googlenet.labels import default_labels, labels_path, write_labels
from keras_googlenet.weights import sandbox
from keras_googlenet.weights.matching import Match, brief, match
from keras_googlenet.weights.porting import (
    Ported,
    aux_problem,
    check_shapes,
    leftovers,
    port,
    set_normalization,
    used_names,
)
from keras_googlenet.weights.sandbox import WeightFile
from keras_googlenet.weights.tables import Table

ACTIVATION = "relu"  # between the linear layers of a classifier, if nobody says
OTHER_OPERATIONS = {  # that look alike by their constants
    *("Relu6", "Elu", "Selu", "LeakyRelu", "Sigmoid", "Tanh", "DepthwiseConv2dNative"),
    *("FusedBatchNorm", "FusedBatchNormV3", "BatchNormWithGlobalNormalization"),
}
LAYERS = re.compile(r"(^|[/_])(bn|batch_?norm|norm|scale|prelu|se)(?=$|[/_\[])", re.IGNORECASE)
MOST_CLASSES = 4000  # of one head; keeps a conversion below 1 GiB of memory
PADDING = "SAME"  # of every convolution and max pooling of Google's graph


@dataclass(frozen=True)
class Conversion:
    """A network that was filled from a file.

    Attributes:
        model: Three outputs where the file has the heads, else one.
        table: The porting table that was used.
        format: What the file is.
        ported: A row for each array that found its place.
        absent: Heads that the network does not have.
        unused: Names of arrays that no layer wanted.
        notes: What a user should know, a sentence each.
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
    """Turns weights of another framework into a network.

    Args:
        source: A Caffe model (`.caffemodel`, `.caffemodel.h5`), a PyTorch state dictionary or a
            checkpoint with one in it (`.pth`, `.safetensors`), a TF-slim checkpoint (any of its
            files, their prefix, or their folder), Google's frozen graph, or an archive with one of
            these. The content decides which, not the name.
        variant: The variant to expect; any, if not given.
        classifier: Name in the file of the main classifier, where several fit.
        activation: Keras' name of what stands between the linear layers of a classifier that has
            several; a warning says so if it is used, because no file names it.

    Returns:
        A GoogLeNet with the outputs `[main, aux1, aux2]` where the file has the auxiliary heads
        with the main one's classes, otherwise one output, `(n, classes)` float32. One class ends
        in a sigmoid, more in a softmax.

    Raises:
        UserError: If the file is none of these, is damaged, or holds another network.
    """
    made = convert_file(source, variant, classifier=classifier, activation=activation)
    for note in made.notes:
        warnings.warn(f"{source}: {note}", stacklevel=2)
    return made.model


def convert_file(
    source: str | Path,
    variant: str | None = None,
    *,
    classifier: str | None = None,
    activation: str = ACTIVATION,
) -> Conversion:
    """Does what `convert` does, and says how it went."""
    path = Path(source).expanduser()
    try:
        with sandbox.opened(path) as file:
            found = match(file, classifier)
            if variant not in (None, found.table.variant):
                raise UserError(
                    f"it holds the variant {found.table.variant}, not {variant}; leave the variant "
                    "out."
                )
            return _build(file, found, activation, chosen=classifier is not None)
    except UserError as error:
        raise UserError(f"{path} cannot be converted: {error}") from error


def _build(file: WeightFile, found: Match, activation: str, chosen: bool) -> Conversion:
    model = _network(found, activation)
    why = aux_problem(model, file, found) if found.aux_heads else ""
    if why:
        found = replace(found, aux_heads=False, notes=[*found.notes, why])
        model = _network(found, activation)
    check_shapes(model, file, found)
    left = _leftovers(model, file, found, chosen)
    lrn = _normalizations(file, found)
    names = used_names(model, found)
    ported = port(model, file, found)
    for layer, arguments in lrn.items():
        set_normalization(model.get_layer(layer), arguments)
    return Conversion(
        model=model,
        table=found.table,
        format=file.format,
        ported=ported,
        absent=[head for head in AUX_TAPS if not found.aux_heads],
        unused=sorted(set(file.arrays) - names),
        notes=found.notes + left + _assumption(found, activation),
    )


def _network(found: Match, activation: str) -> keras.Model:
    """Builds the network that the file's arrays fit."""
    classes = found.linear["main"].outputs
    if not 1 <= classes <= MOST_CLASSES:
        raise UserError(f"{found.linear['main'].name} has {classes} outputs, one a class.")
    ending = "softmax" if classes > 1 else "sigmoid"
    model = GoogLeNet(
        variant=found.table.variant,
        classes=classes,
        classifier_activation=ending,
        aux_heads=found.aux_heads,
    )
    if not found.hidden:
        return model
    try:
        keras.activations.get(activation)
    except ValueError as error:
        raise UserError(f"Keras has no activation {activation}; give one such as relu.") from error
    x = model.get_layer("dropout").output
    for name in found.hidden:
        x = keras.layers.Dense(found.linear[name].outputs, activation, name=name)(x)
    main = classifier_layer(x, classes, ending, "main")
    return keras.Model(model.input, [main, *model.outputs[1:]], name=model.name)


def _leftovers(model: keras.Model, file: WeightFile, found: Match, chosen: bool) -> list[str]:
    """Says which arrays have no place; refuses those that surely compute unless the user chose."""
    names = leftovers(model, file, found)
    if not names:
        return []
    shown = ", ".join(f"{brief(name)} {file.arrays[name].shape}" for name in names[:3])
    shown += f" and {len(names) - 3} more" if len(names) > 3 else ""
    scope = os.path.commonprefix(list(found.table.layers.values()))  # TF-slim's variables have one
    inside = any(name.startswith(found.prefix + scope) for name in names) and scope != ""
    typed = set(names) & set(file.facts.get("typed", []))
    layers = any(LAYERS.search(name) for name in names)
    if not chosen and (found.table.modules or typed or inside or layers):
        raise UserError(
            f"{found.table.name} has no place for {shown}. If the network computes with that, its "
            "answers would be wrong without; if not, name the classifier by --classifier "
            f"{found.linear['main'].name}."
        )
    return [f"left out: {shown}; if the network computes with that, its answers are wrong"]


def _assumption(found: Match, activation: str) -> list[str]:
    if not found.hidden:
        return []
    layers = ", ".join(found.linear[name].name for name in found.hidden)
    return [f"{activation} is assumed behind {layers}, because no file says what stands there"]


def _normalizations(file: WeightFile, found: Match) -> dict[str, dict[str, float]]:
    """Returns what a graph says of local response normalization, after a look at its paddings."""
    if not found.table.lrn:
        return {}
    for name, (kind, padding, stride, window) in file.facts.get("windows", {}).items():
        first = name.startswith(found.prefix + found.table.layers["conv1_7x7_s2"])
        if kind != "AvgPool" and padding != PADDING:
            raise UserError(f"node {name} is not padded by {PADDING}; it is another network.")
        if kind == "Conv2D" and stride != (2 if first else 1):
            raise UserError(f"node {name} has the stride {stride}; it is another network.")
        if kind == "AvgPool" and window == 3:  # inside a module
            raise UserError(f"node {name} is {kind}, not MaxPool; it is another network.")
    strange = sorted(OTHER_OPERATIONS & set(file.facts.get("operations", [])))
    if strange:
        raise UserError(f"its graph computes {', '.join(strange)}; it is another network.")
    arguments = {}
    for layer, node in found.table.lrn.items():
        given = file.facts.get("lrn", {}).get(found.prefix + node)
        if given is None:
            raise UserError(f"node {found.prefix + node} is missing, which normalizes.")
        others = [given[name] for name in ("bias", "alpha", "beta")]
        if not 0 < given["depth_radius"] < 64 or not all(0 < x < 1e6 for x in others):
            raise UserError(f"node {node} normalizes by {given}, which no network does.")
        arguments[layer] = given
    return arguments


def save(model: keras.Model, path: Path, labels: Sequence[str] | None = None):
    """Writes a network and, beside it, the names of its classes.

    Args:
        model: A GoogLeNet.
        path: `.keras` file; the names go to `<name>.labels.txt`.
        labels: Names in the order of the outputs; those of `default_labels` if not given.
    """
    names = labels or default_labels(model.outputs[0].shape[-1])
    with replacing(path) as model_file:
        model.save(model_file)
        with replacing(labels_path(path)) as labels_file:
            write_labels(labels_file, names)
