"""Whose network a file holds, and which of its arrays belong to which of our layers.

The names of the trunk decide, behind whatever prefix; the classifiers are found by their shapes.
"""

import difflib
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from keras_googlenet.errors import UserError
from keras_googlenet.googlenet import AUX_TAPS, VARIANTS
from keras_googlenet.weight_files.arrays import Array
from keras_googlenet.weights.sandbox import WeightFile
from keras_googlenet.weights.tables import TABLES, Table

MOST_NUMBERS = 2**23  # of the main linear layers; keeps a conversion below 1 GiB of memory
MOST_FITTING = 50  # matrices that are looked at
NOTHING = ("\0",)  # with which no name begins


class Linear(NamedTuple):
    """A fully connected layer of a file; `bias` is empty if it has none."""

    name: str
    kernel: str
    bias: str
    inputs: int
    outputs: int


class Found(NamedTuple):
    """The prefix and table of a file, and its arrays without copies of the network."""

    arrays: Mapping[str, Array]
    table: Table
    prefix: str

    def name(self, layer: str) -> str:
        """Returns what a layer of ours is called in the file, if nobody renamed it."""
        return self.prefix + self.table.layers[layer]


def linear_layers(found: Found) -> list[Linear]:
    """Lists the matrices outside of the trunk, also those that are 1x1 convolutions."""
    kernel, bias = (found.table.parts["Dense"][part] for part in ("kernel", "bias"))
    trunk = tuple(found.name(layer) + mark for layer in found.table.layers_of() for mark in "./[_")
    layers = []
    for name, array in found.arrays.items():
        convolution = not found.table.modules or name.startswith(found.name("main"))
        sides = matrix_shape(array.shape, found.table) if convolution else array.shape
        if name.endswith(kernel) and len(sides) == 2 and is_real(array):
            label = name.removesuffix(kernel)
            outputs, inputs = sides if found.table.channels_first else sides[::-1]
            has_bias = label + bias in found.arrays
            layer = Linear(label, name, label + bias if has_bias else "", inputs, outputs)
            layers += [] if name.startswith(trunk) else [layer]
    return layers


def matrix_shape(shape: tuple[int, ...], table: Table) -> tuple[int, ...]:
    """Leaves out the sides of 1 of a 1x1 convolution, and of Caffe's old blobs of four sides."""
    if len(shape) == 4 and shape[2:] == (1, 1) and table.channels_first:
        return shape[:2]
    return shape[2:] if len(shape) == 4 and shape[:2] == (1, 1) else shape


def is_real(array: Array) -> bool:
    """Whether its numbers are floats of any precision."""
    return bool(re.fullmatch(r"[<>=]?f[248]|b?float(16|32|64)", array.dtype))


def main_layers(layers: list[Linear], found: Found, wanted: str | None) -> list[Linear]:
    """Finds the main classifier, behind the linear layers that lead to it.

    Args:
        layers: Linear layers of the file.
        found: Where the network stands in it.
        wanted: Name of the classifier, where several fit.

    Returns:
        Linear layers, the first of which has the trunk's channels as inputs.

    Raises:
        UserError: If none fits, or several.
    """
    widths = VARIANTS[found.table.variant].widths["5b"]
    features = widths.conv1x1 + widths.conv3x3 + widths.conv5x5 + widths.pool_proj
    roots = tuple(found.prefix + root for head in AUX_TAPS if (root := aux_root(found.table, head)))
    others = {found.name(layer) for layer in found.table.layers_of(*AUX_TAPS)}
    layers = [x for x in layers if x.name not in others and not x.name.startswith(roots or NOTHING)]
    expected = found.name("main")
    for scope in _scopes(found.prefix):
        inside = [layer for layer in layers if layer.name.startswith(scope)]
        fitting = [x for x in inside if x.inputs == features or x.name == expected]
        if fitting:
            return _choose(fitting, inside, features, wanted)
    kernel = expected + found.table.parts["Dense"]["kernel"]
    if kernel in found.arrays and not is_real(found.arrays[kernel]):
        raise UserError(
            f"{kernel} holds {found.arrays[kernel].dtype}, not floats; convert it first."
        )
    raise UserError(
        f"it has the trunk of {found.table.name} but no classifier: no matrix of {features} "
        f"inputs, as {kernel} is; give a file with one."
    )


def _scopes(prefix: str) -> Iterator[str]:
    """The prefix, and what is left of it from part to part."""
    while prefix:
        yield prefix
        prefix = _parent(prefix[:-1])
    yield ""


def _parent(name: str) -> str:
    return re.sub(r"[^./]*$", "", name)


def _choose(
    fitting: list[Linear], inside: list[Linear], features: int, wanted: str | None
) -> list[Linear]:
    """Picks the classifier among those that fit the trunk, with the layers that follow it."""
    if len(fitting) > MOST_FITTING:
        raise UserError(f"it has {len(fitting)} matrices of {features} inputs; save one network.")
    chains = [_chain(layer, inside, wanted) for layer in sorted(fitting, key=_natural)]
    if wanted is None:
        chosen = [chain for chain in chains if set(fitting) <= set(chain)]
    else:
        chosen = [chain for chain in chains if any(_is_called(layer, wanted) for layer in chain)]
    if len({chain[-1] for chain in chosen}) != 1:
        shown = ", ".join(f"{brief(layer.name)} ({layer.outputs} classes)" for layer in fitting[:5])
        shown += f" and {len(fitting) - 5} more" if len(fitting) > 5 else ""
        said = f"no classifier of it is called {wanted}" if wanted else "several classifiers fit"
        raise UserError(f"{said}: {shown}; choose by --classifier NAME.")
    chain = max(chosen, key=len)
    numbers = sum(layer.inputs * layer.outputs for layer in chain)
    if not chain[-1].outputs or numbers > MOST_NUMBERS:
        raise UserError(f"{chain[-1].kernel} has {chain[-1].outputs} outputs, one a class.")
    return chain


def _chain(first: Linear, layers: list[Linear], wanted: str | None) -> list[Linear]:
    """Follows a linear layer to those that take what it gives."""
    chain = [first]
    while following := [x for x in layers if x.inputs == chain[-1].outputs and x not in chain]:
        named = [layer for layer in following if _is_called(layer, wanted)]
        if first.inputs == chain[-1].outputs:  # a square layer; the others may be behind the next
            following = sorted(following, key=_natural)[:1]
        if len(following) > 1 and len(named) != 1:
            names = ", ".join(layer.name for layer in following[:3])
            raise UserError(
                f"{names} all fit behind {chain[-1].name}; choose by --classifier NAME."
            )
        chain.append((named or following)[0])
    return chain


def brief(name: str) -> str:
    """Returns a name that fits into a sentence."""
    return name if len(name) <= 80 else f"{name[:40]}…{name[-39:]}"


def _is_called(layer: Linear, name: str | None) -> bool:
    return name is not None and re.search(rf"(^|[./]){re.escape(name)}$", layer.name) is not None


def _natural(layer: Linear) -> list:
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", layer.name)]


def is_ignored(name: str, used, table: Table) -> bool:
    """Whether an array is none of a network: a counter, or what an optimizer keeps."""
    if name.endswith(table.ignored or NOTHING):
        return True
    return any(name[: mark.start()] in used for mark in re.finditer("/", name))


def aux_root(table: Table, head: str) -> str:
    """Returns what the names of an auxiliary head begin with, if that is its own."""
    root = os.path.commonprefix([table.layers[layer] for layer in table.layers_of(head)])
    return root if root.endswith((".", "/")) else ""


def aux_layers(
    layers: list[Linear], found: Found, classes: int
) -> tuple[dict[str, Linear], list[str]]:
    """Finds the linear layers of the auxiliary heads: of both, or of none and why.

    Args:
        layers: Linear layers of the file.
        found: Where the network stands in it.
        classes: Those of the main classifier.

    Returns:
        Our layer -> linear layer of the file, and notes.
    """
    linear, notes = {}, []
    for head in AUX_TAPS:
        of_head, why = _aux_head(layers, found, head)
        if of_head and of_head[head].outputs != classes:
            why = f"it has {of_head[head].outputs} classes, the main one {classes}"
        if why:
            notes.append(f"{head} is left out: {why}")
        elif of_head:
            linear |= of_head
    if linear and len(linear) < 2 * len(AUX_TAPS):
        notes = notes or [f"{min(linear)} is left out: a network has both auxiliary heads or none"]
    return ({} if notes else linear), notes


def _aux_head(layers: list[Linear], found: Found, head: str) -> tuple[dict[str, Linear], str]:
    """Returns its linear layers, or what is missing; neither if there is nothing of it."""
    root, names = aux_root(found.table, head), {layer.name: layer for layer in layers}
    if not found.table.layers_of(head):
        return {}, ""
    conv, fc, classifier = map(found.name, (f"{head}_conv", f"{head}_fc", head))
    if not any(n.startswith(found.prefix + root if root else (conv, fc)) for n in found.arrays):
        return {}, ""
    kinds = [parts for kind, parts in found.table.parts.items() if kind != "Dense"]
    missing = [n for k in kinds for part in k.values() if (n := conv + part) not in found.arrays]
    if missing or fc not in names:
        return {}, f"{(missing or [fc])[0]} is missing"
    inside = [x for x in layers if root and x.name.startswith(found.prefix + root)]
    fitting = [x for x in inside if x.name not in (fc, conv) and x.inputs == names[fc].outputs]
    fitting = [names[classifier]] if classifier in names else fitting
    if len(fitting) != 1:
        return {}, f"{len(fitting)} classifiers fit" if fitting else "it has no classifier"
    linear = {f"{head}_fc": names[fc], head: fitting[0]}
    used = {name for layer in linear.values() for name in (layer.kernel, layer.bias)}
    for name in found.arrays if root else ():
        own = not name.startswith(conv) and name.startswith(found.prefix + root)
        if own and name not in used and not is_ignored(name, used, found.table):
            return {}, f"{name} has no place in it"
    return linear, ""


AVERAGES = re.compile(r"ema|averag|shadow|swa|teacher", re.IGNORECASE)
USUAL = re.compile(r"((model_?)?state(_dict)?|model|net)\.|$")  # of a checkpoint's dictionary
PARAMETRIZATIONS = re.compile(r"lora_|base_layer|parametrizations|weight_(g|v|orig|mask|bar|u)$")
SHOWN = 3  # names in a sentence


@dataclass(frozen=True)
class Match:
    """What of a file belongs to a GoogLeNet.

    Attributes:
        table: Whose names they are.
        prefix: What stands before each of them.
        linear: Our layer -> linear layer of the file: the classifiers, and those before `main`.
        rest: Names of arrays that the network may compute with beside the layers of `table`.
        aux_heads: Whether both auxiliary heads are there, of as many classes as the main one.
        notes: What a user should know, a sentence each.
    """

    table: Table
    prefix: str
    linear: Mapping[str, Linear]
    rest: list[str]
    aux_heads: bool
    notes: list[str]

    @property
    def hidden(self) -> list[str]:
        """Our names of the linear layers before `main`, in their order."""
        return [name for name in self.linear if name.startswith("main_")]

    def name_of(self, layer: str, kind: str, weight: str) -> str:
        """Returns the name of an array in the file.

        Args:
            layer: Name of our layer.
            kind: Its class.
            weight: Name of its weight.
        """
        if layer in self.linear:
            return getattr(self.linear[layer], weight)
        prefix = self.prefix + self.table.layers[layer.removesuffix("_bn")]
        return prefix + self.table.parts[kind][weight]


def match(file: WeightFile, classifier: str | None = None) -> Match:
    """Finds the network in a file.

    Args:
        file: An open file.
        classifier: Name in it of the main classifier, where several fit.

    Returns:
        What belongs where.

    Raises:
        UserError: If it holds no GoogLeNet, or none or several classifiers.
    """
    table, prefix, copies = _best(file, classifier)
    arrays = {n: a for n, a in file.arrays.items() if not n.startswith(tuple(copies))}
    _check_parametrizations(arrays, table)
    notes = [f"copies that were not read: {', '.join(copies)}"] if copies else []
    place = Found(arrays, table, prefix)
    layers = linear_layers(place)
    main = main_layers(layers, place, classifier)
    aux, why = aux_layers(layers, place, main[-1].outputs)
    names = [f"main_fc{index}" for index in range(1, len(main))] + ["main"]
    linear = dict(zip(names, main, strict=True)) | aux
    averages = tuple(copy for copy in copies if AVERAGES.search(copy))
    rest = [name for name in _same_dictionary(file, prefix) if not name.startswith(averages)]
    return Match(table, prefix, linear, rest, bool(aux), notes + why)


def _best(file: WeightFile, classifier: str | None) -> tuple[Table, str, list[str]]:
    """Returns whose names a file has, behind which prefix, and the prefixes of copies."""
    found = {
        (variant, prefix): count
        for variant, table in TABLES.items()
        for prefix, count in _prefixes(file.arrays, table).items()
    }
    if not found:
        raise UserError(_describe_stranger(file))

    def order(key):  # what was asked for, the most complete, no average, the usual, the outermost
        prefix = key[1]
        named = classifier is not None and bool(prefix) and classifier.startswith(prefix)
        average, usual = bool(AVERAGES.search(prefix)), bool(USUAL.match(prefix))
        return not named, -found[key], average, not usual, len(prefix)

    variant, prefix = min(found, key=order)
    table = TABLES[variant]
    copies = [p for v, p in found if v == variant and not prefix.startswith(p)]
    equals = [p for p in copies if order((variant, p))[:4] == order((variant, prefix))[:4]]
    if equals:
        names = ", ".join(brief(each) for each in [prefix, *equals][:SHOWN])
        raise UserError(
            f"it holds several networks ({names}, …); choose by --classifier "
            f"{prefix}{table.layers['main']}."
        )
    return table, prefix, copies


def _check_parametrizations(arrays: Mapping[str, Array], table: Table):
    """Refuses weights that PyTorch computes from others."""
    for name in arrays if table.modules else ():
        if PARAMETRIZATIONS.search(name):
            raise UserError(
                f"it holds {brief(name)}, of which weights are computed; merge or remove it "
                "(merge_and_unload, remove_weight_norm, remove_parametrizations, prune.remove)."
            )


def _same_dictionary(file: WeightFile, prefix: str) -> list[str]:
    """Lists the names of the dictionary of the file that the prefix leads into."""
    roots = sorted(file.facts.get("roots", [""]), key=len, reverse=True)

    def root_of(name: str) -> str:
        return next((root for root in roots if name.startswith(root)), "")

    return [name for name in file.arrays if root_of(name) == root_of(prefix)]


def _prefixes(arrays: Mapping[str, Array], table: Table) -> Counter:
    """Counts the arrays of the trunk behind each prefix."""
    kinds = [kind for kind in table.parts if kind != "Dense"]
    trunk = {
        table.layers[layer] + part
        for layer in table.layers_of()
        for kind in kinds
        for part in table.parts[kind].values()
    }
    return Counter(name[:at] for name in arrays for at in _starts(name) if name[at:] in trunk)


def _starts(name: str) -> Iterator[int]:
    yield 0
    yield from (found.end() for found in re.finditer(r"[./]", name))


def _describe_stranger(file: WeightFile) -> str:
    """Says what a file holds instead of a GoogLeNet, and what to do."""
    save = "torch.save(model.state_dict(), 'weights.pth')"
    objects = file.facts.get("objects", {})
    if objects and not any(len(array.shape) == 4 for array in file.arrays.values()):
        first = sorted(objects, key=lambda name: ("model" not in name and name != "", name))
        names = ", ".join(dict.fromkeys(objects[name] for name in first[:SHOWN]))
        return (
            f"it holds pickled objects ({names}), such as a whole model, not its weights; nothing "
            f"of them was run. Where their code is, write {save}."
        )
    if file.facts.get("keras"):
        return "it holds weights of Keras; GoogLeNet(weights=…) takes a .weights.h5 file as it is."
    if not file.arrays:
        return f"it holds no arrays; of a PyTorch model, write {save}."
    stems = [
        array for array in file.arrays if file.arrays[array].shape in ((64, 3, 7, 7), (7, 7, 3, 64))
    ]
    shown = list(dict.fromkeys(stems + list(file.arrays)))[:SHOWN]
    found = ", ".join(f"{name[:80]} {file.arrays[name].shape}" for name in shown)
    return (
        f"it holds {len(file.arrays)} arrays ({found}, …) and none by a name of "
        f"{', '.join(table.name for table in TABLES.values())}; it is another network, or its "
        "layers were renamed: see docs/weights.md for the names."
    )


def nearest(name: str, shape: tuple[int, ...], arrays: Mapping[str, Array], used) -> list[str]:
    """Names the unused arrays of a shape, those first whose names are like one."""
    same = [n for n, array in arrays.items() if array.shape == shape and n not in used]
    close = difflib.get_close_matches(name, same, SHOWN, cutoff=0.3)
    return [brief(found) for found in close or same[:SHOWN]]
