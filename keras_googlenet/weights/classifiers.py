"""Finds the classifiers of a file by their shapes: people rename them when their classes change."""

import os
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from keras_googlenet.errors import UserError
from keras_googlenet.googlenet import AUX_TAPS, VARIANTS
from keras_googlenet.weight_files.contents import Array
from keras_googlenet.weights.tables import Table

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
