"""Whose network a file holds, and which of its arrays belong to which of our layers.

The names of the trunk decide, behind whatever prefix; the classifiers are found by their shapes.
"""

import difflib
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from keras_googlenet.errors import UserError
from keras_googlenet.weight_files.contents import Array
from keras_googlenet.weights.classifiers import (
    Found,
    Linear,
    aux_layers,
    brief,
    linear_layers,
    main_layers,
)
from keras_googlenet.weights.reading import WeightFile
from keras_googlenet.weights.tables import TABLES, Table

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
