"""Finds a GoogLeNet in a file: whose it is, and which arrays belong to which of our layers.

The trunk is recognized by the names of its arrays, after any prefix; the classifiers by their
shapes.
"""

import re
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from keras_googlenet.errors import UserError
from keras_googlenet.googlenet import AUX_TAPS, VARIANTS
from keras_googlenet.weight_files.arrays import Array
from keras_googlenet.weights.sandbox import WeightFile
from keras_googlenet.weights.tables import TABLES, Table

MOST_NUMBERS = 2**23  # in the main linear layers; keeps a conversion below 1 GiB of memory
MOST_CANDIDATES = 50  # classifiers
SHOWN = 3  # names in a message
AVERAGES = re.compile(r"ema|averag|shadow|swa|teacher", re.IGNORECASE)
USUAL = re.compile(r"((model_?)?state(_dict)?|model|net)\.|$")  # keys of a checkpoint
PARAMETRIZATIONS = re.compile(r"lora_|base_layer|parametrizations|weight_(g|v|orig|mask|bar|u)$")


class Linear(NamedTuple):
    """A fully connected layer of a file; `bias` is empty if it has none."""

    name: str
    kernel: str
    bias: str
    inputs: int
    outputs: int


class Trunk(NamedTuple):
    """The trunk of a GoogLeNet in a file: its table, prefix, and the arrays that are not copies."""

    table: Table
    prefix: str
    arrays: Mapping[str, Array]

    def name(self, layer: str) -> str:
        """Returns the name of a layer in the file, unless it was renamed."""
        return self.prefix + self.table.layers[layer]


class Match(NamedTuple):
    """A GoogLeNet in a file.

    Attributes:
        trunk: Its trunk.
        linear: Our layer -> linear layer of the file: the classifiers and the layers before them.
        neighbors: Names of all arrays beside the trunk's in the same dictionary, without averages.
        notes: What the user should know, one sentence each.
    """

    trunk: Trunk
    linear: Mapping[str, Linear]
    neighbors: list[str]
    notes: list[str]

    @property
    def aux_heads(self) -> bool:
        """Whether it has both auxiliary heads, with as many classes as the main one."""
        return "aux1" in self.linear

    @property
    def hidden(self) -> list[str]:
        """Our names of the linear layers before `main`, in their order."""
        return [name for name in self.linear if name.startswith("main_")]

    def array_name(self, layer: str, kind: str, weight: str) -> str:
        """Returns the name in the file of a weight of our layer; empty for a missing bias."""
        if layer in self.linear:
            return getattr(self.linear[layer], weight)
        return self.trunk.name(layer.removesuffix("_bn")) + self.trunk.table.parts[kind][weight]


def match(file: WeightFile, classifier: str | None = None) -> Match:
    """Finds the network in a file.

    Args:
        file: An open file.
        classifier: Name in the file of the main classifier, to choose among several.

    Raises:
        UserError: If the file holds no GoogLeNet, or none or several classifiers.
    """
    table, prefix, copies = _find_trunk(file, classifier)
    arrays = {n: a for n, a in file.arrays.items() if not n.startswith(tuple(copies))}
    _refuse_parametrizations(arrays, table)
    trunk = Trunk(table, prefix, arrays)
    layers = _linear_layers(trunk)
    main = _main_layers(layers, trunk, classifier)
    aux, notes = _aux_layers(layers, trunk, main[-1].outputs)
    if copies:
        notes = [f"copies that were not read: {', '.join(copies)}", *notes]
    names = [f"main_fc{index}" for index in range(1, len(main))] + ["main"]
    linear = dict(zip(names, main, strict=True)) | aux
    averages = tuple(copy for copy in copies if AVERAGES.search(copy))
    neighbors = [n for n in _same_dictionary(file, prefix) if not n.startswith(averages)]
    return Match(trunk, linear, neighbors, notes)


def brief(name: str) -> str:
    """Shortens a name for a message."""
    return name if len(name) <= 80 else f"{name[:40]}…{name[-39:]}"


def is_real(array: Array) -> bool:
    """Whether the numbers are floats of any precision."""
    return bool(re.fullmatch(r"[<>=]?f[248]|b?float(16|32|64)", array.dtype))


def matrix_shape(shape: tuple[int, ...], table: Table) -> tuple[int, ...]:
    """Leaves out the sides of 1 of a 1x1 convolution and of Caffe's old four-dimensional blobs."""
    if len(shape) == 4 and shape[2:] == (1, 1) and table.channels_first:
        return shape[:2]
    return shape[2:] if len(shape) == 4 and shape[:2] == (1, 1) else shape


def is_ignored(name: str, used, table: Table) -> bool:
    """Whether an array is a counter or a variable of an optimizer (`weight/slot`)."""
    parents = (name[: slash.start()] for slash in re.finditer("/", name))
    return name.endswith(table.ignored) or any(parent in used for parent in parents)


def _find_trunk(file: WeightFile, classifier: str | None) -> tuple[Table, str, list[str]]:
    """Returns the table, the prefix, and the prefixes of copies of the same network."""
    counts = {}  # (variant, prefix) -> arrays of the trunk with this prefix
    for variant, table in TABLES.items():
        for prefix, count in _prefixes(file.arrays, table).items():
            counts[variant, prefix] = count
    if not counts:
        raise UserError(_describe_other_file(file))

    def order(key):  # chosen by the user, most complete, no average, usual name, outermost
        prefix = key[1]
        chosen = classifier is not None and bool(prefix) and classifier.startswith(prefix)
        average, usual = bool(AVERAGES.search(prefix)), bool(USUAL.match(prefix))
        return not chosen, -counts[key], average, not usual, len(prefix)

    variant, prefix = min(counts, key=order)
    table = TABLES[variant]
    copies = [p for v, p in counts if v == variant and not prefix.startswith(p)]
    equals = [p for p in copies if order((variant, p))[:4] == order((variant, prefix))[:4]]
    if equals:
        names = ", ".join(brief(each) for each in [prefix, *equals][:SHOWN])
        raise UserError(
            f"it holds several networks ({names}, …); choose by --classifier "
            f"{prefix}{table.layers['main']}."
        )
    return table, prefix, copies


def _prefixes(arrays: Mapping[str, Array], table: Table) -> Counter:
    """Counts the arrays of the trunk for each prefix."""
    parts = [part for kind in table.parts if kind != "Dense" for part in table.parts[kind].values()]
    trunk = {table.layers[layer] + part for layer in table.layers_of() for part in parts}
    prefixes = Counter()
    for name in arrays:
        starts = [0, *(separator.end() for separator in re.finditer(r"[./]", name))]
        prefixes.update(name[:start] for start in starts if name[start:] in trunk)
    return prefixes


def _describe_other_file(file: WeightFile) -> str:
    """Says what a file holds instead of a GoogLeNet, and what to do."""
    save = "torch.save(model.state_dict(), 'weights.pth')"
    objects = file.facts.get("objects", {})
    if objects and not any(len(array.shape) == 4 for array in file.arrays.values()):
        models_first = sorted(objects, key=lambda name: ("model" not in name and name != "", name))
        classes = ", ".join(dict.fromkeys(objects[name] for name in models_first[:SHOWN]))
        return (
            f"it holds pickled objects ({classes}), such as a whole model, not its weights; none "
            f"of their code was run. Where that code is installed, run {save}."
        )
    if file.facts.get("keras"):
        return "it holds weights of Keras; load a .weights.h5 file by GoogLeNet(weights=…)."
    if not file.arrays:
        return f"it holds no arrays; for a PyTorch model, run {save}."
    first_kernels = [
        name for name, array in file.arrays.items() if array.shape in ((64, 3, 7, 7), (7, 7, 3, 64))
    ]
    shown = list(dict.fromkeys([*first_kernels, *file.arrays]))[:SHOWN]
    examples = ", ".join(f"{name[:80]} {file.arrays[name].shape}" for name in shown)
    return (
        f"it holds {len(file.arrays)} arrays ({examples}, …) and none by a name of "
        f"{', '.join(table.name for table in TABLES.values())}; it is another network, or its "
        "layers were renamed: see docs/weights.md for the names."
    )


def _refuse_parametrizations(arrays: Mapping[str, Array], table: Table):
    for name in arrays if table.modules else ():
        if PARAMETRIZATIONS.search(name):
            raise UserError(
                f"it holds {brief(name)}, of which weights are computed; merge or remove it "
                "(merge_and_unload, remove_weight_norm, remove_parametrizations, prune.remove)."
            )


def _same_dictionary(file: WeightFile, prefix: str) -> list[str]:
    """Lists the names in the dictionary of the file that the prefix leads to."""
    roots = sorted(file.facts.get("roots", [""]), key=len, reverse=True)

    def root_of(name: str) -> str:
        return next((root for root in roots if name.startswith(root)), "")

    return [name for name in file.arrays if root_of(name) == root_of(prefix)]


def _linear_layers(trunk: Trunk) -> list[Linear]:
    """Lists the matrices outside the trunk, including 1x1 convolutions."""
    table, arrays = trunk.table, trunk.arrays
    kernel, bias = table.parts["Dense"]["kernel"], table.parts["Dense"]["bias"]
    of_trunk = tuple(trunk.name(layer) + mark for layer in table.layers_of() for mark in "./[_")
    layers = []
    for name, array in arrays.items():
        may_be_convolution = not table.modules or name.startswith(trunk.name("main"))
        sides = matrix_shape(array.shape, table) if may_be_convolution else array.shape
        if not name.endswith(kernel) or len(sides) != 2 or not is_real(array):
            continue
        layer = name.removesuffix(kernel)
        outputs, inputs = sides if table.channels_first else sides[::-1]
        if not layer.startswith(of_trunk):
            bias_name = layer + bias if layer + bias in arrays else ""
            layers.append(Linear(layer, name, bias_name, inputs, outputs))
    return layers


def _main_layers(layers: list[Linear], trunk: Trunk, classifier: str | None) -> list[Linear]:
    """Returns the main classifier after the linear layers that lead to it."""
    table, expected = trunk.table, trunk.name("main")
    widths = VARIANTS[table.variant].widths["5b"]
    features = widths.conv1x1 + widths.conv3x3 + widths.conv5x5 + widths.pool_proj
    roots = tuple(trunk.prefix + root for head in AUX_TAPS if (root := table.aux_root(head)))
    aux = {trunk.name(layer) for layer in table.layers_of(*AUX_TAPS)}
    layers = [x for x in layers if x.name not in aux and not x.name.startswith(roots)]
    scope = trunk.prefix  # then its parents: a wrapper may keep the classifier beside the trunk
    while True:
        inside = [layer for layer in layers if layer.name.startswith(scope)]
        candidates = [x for x in inside if x.inputs == features or x.name == expected]
        if candidates:
            return _choose(candidates, inside, features, classifier)
        if not scope:
            break
        scope = re.sub(r"[^./]*$", "", scope[:-1])
    kernel = expected + table.parts["Dense"]["kernel"]
    if kernel in trunk.arrays and not is_real(trunk.arrays[kernel]):
        raise UserError(
            f"{kernel} holds {trunk.arrays[kernel].dtype}, not floats; convert it first."
        )
    raise UserError(
        f"it has the trunk of {table.name} but no classifier: no matrix of {features} inputs, as "
        f"{kernel} is; give a file with one."
    )


def _choose(
    candidates: list[Linear], layers: list[Linear], features: int, classifier: str | None
) -> list[Linear]:
    """Returns the classifier, with the layers that lead to it, among candidates for its start."""
    if len(candidates) > MOST_CANDIDATES:
        raise UserError(
            f"it has {len(candidates)} matrices of {features} inputs; save one network."
        )
    chains = [_chain(layer, layers, classifier) for layer in sorted(candidates, key=_natural)]
    if classifier is None:
        chosen = [chain for chain in chains if set(candidates) <= set(chain)]
    else:
        chosen = [c for c in chains if any(_has_name(layer, classifier) for layer in c)]
    if len({chain[-1] for chain in chosen}) != 1:
        names = [f"{brief(layer.name)} ({layer.outputs} classes)" for layer in candidates]
        shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        problem = (
            f"no classifier is called {classifier}" if classifier else "several classifiers fit"
        )
        raise UserError(f"{problem}: {shown}; choose by --classifier NAME.")
    chain = max(chosen, key=len)
    numbers = sum(layer.inputs * layer.outputs for layer in chain)
    if not chain[-1].outputs or numbers > MOST_NUMBERS:
        raise UserError(f"{chain[-1].kernel} has {chain[-1].outputs} outputs, one per class.")
    return chain


def _chain(first: Linear, layers: list[Linear], classifier: str | None) -> list[Linear]:
    """Follows a linear layer to those whose inputs fit its outputs."""
    chain = [first]
    while following := [x for x in layers if x.inputs == chain[-1].outputs and x not in chain]:
        named = [x for x in following if classifier and _has_name(x, classifier)]
        if first.inputs == chain[-1].outputs:  # after a square layer: any others follow later
            following = sorted(following, key=_natural)[:1]
        if len(following) > 1 and len(named) != 1:
            names = ", ".join(layer.name for layer in following[:SHOWN])
            raise UserError(f"{names} all fit after {chain[-1].name}; choose by --classifier NAME.")
        chain.append((named or following)[0])
    return chain


def _has_name(layer: Linear, name: str) -> bool:
    return re.search(rf"(^|[./]){re.escape(name)}$", layer.name) is not None


def _natural(layer: Linear) -> list:
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", layer.name)]


def _aux_layers(
    layers: list[Linear], trunk: Trunk, classes: int
) -> tuple[dict[str, Linear], list[str]]:
    """Returns our layer -> linear layer of both auxiliary heads, or of none and notes why."""
    linear, notes = {}, []
    for head in AUX_TAPS if trunk.table.layers_of(*AUX_TAPS) else ():
        of_head, problem = _aux_head(layers, trunk, head)
        if of_head and of_head[head].outputs != classes:
            problem = f"it has {of_head[head].outputs} classes, the main one {classes}"
        if problem:
            notes.append(f"{head} is left out: {problem}")
        linear |= of_head
    if not notes and 0 < len(linear) < 2 * len(AUX_TAPS):
        notes = [f"{min(linear)} is left out: a network has both auxiliary heads or none"]
    return ({} if notes else linear), notes


def _aux_head(layers: list[Linear], trunk: Trunk, head: str) -> tuple[dict[str, Linear], str]:
    """Returns the linear layers of a head, or what is missing; neither if it is not there."""
    conv, fc, classifier = map(trunk.name, (f"{head}_conv", f"{head}_fc", head))
    root = trunk.table.aux_root(head)
    root = trunk.prefix + root if root else ""  # with a root of its own, it may be renamed inside
    arrays = [name for name in trunk.arrays if name.startswith(root or (conv, fc))]
    if not arrays:
        return {}, ""
    by_name = {layer.name: layer for layer in layers}
    parts = [
        p for kind, names in trunk.table.parts.items() if kind != "Dense" for p in names.values()
    ]
    missing = [conv + part for part in parts if conv + part not in trunk.arrays]
    if missing or fc not in by_name:
        return {}, f"{(missing or [fc])[0]} is missing"
    inside = [x for x in layers if root and x.name.startswith(root) and x.name not in (fc, conv)]
    fitting = [x for x in inside if x.inputs == by_name[fc].outputs]
    fitting = [by_name[classifier]] if classifier in by_name else fitting
    if len(fitting) != 1:
        return {}, f"{len(fitting)} classifiers fit" if fitting else "it has no classifier"
    linear = {f"{head}_fc": by_name[fc], head: fitting[0]}
    used = {name for layer in linear.values() for name in (layer.kernel, layer.bias)}
    for name in arrays if root else ():
        if not name.startswith(conv) and name not in used:
            if not is_ignored(name, used, trunk.table):
                return {}, f"{name} has no place in it"
    return linear, ""
