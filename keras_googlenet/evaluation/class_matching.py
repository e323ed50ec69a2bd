"""Which output of which network means which class of the data set.

Classes are told apart by wnid where they have one and by their whole label otherwise, whatever its
case, its underscores or how its accents are encoded, as long as these tell no two classes of a
network apart. A class without a wnid is also the one whose name stands behind a wnid. Positions
count only for a network whose labels are mere numbers.
"""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from keras_googlenet.errors import UserError
from keras_googlenet.labels import one_line, split_label

_NAMED_IN_ERRORS = 5

Key = tuple[str, int]  # what a class is told by, and how often its list had that before


class Classes(NamedTuple):
    """The classes that several networks and a data set speak of.

    Attributes:
        labels: All classes of the networks: those of the first in its order, then what only
            others know.
        columns: For each network `(outputs,)`, the place in `labels` of each output.
        targets: `(classes of the data set,)`, the place in `labels` of each label number.
    """

    labels: list[str]
    columns: list[np.ndarray]
    targets: np.ndarray


def match_classes(networks: Sequence[Sequence[str]], dataset: Sequence[str]) -> Classes:
    """Finds the classes of a data set among those of networks.

    The data set may have fewer classes than the networks, in any order. It is then measured among
    all classes of the networks.

    Args:
        networks: Labels of each network in the order of its outputs.
        dataset: Labels of the data set in the order of its label numbers.

    Returns:
        How all of them fit together.

    Raises:
        UserError: If a network lacks a class of the data set, or has two of its label.

    Example:
    >>> match_classes([["ant", "bee"], ["bee", "ant"]], ["ant", "bee"]).columns[1].tolist()
    [1, 0]
    >>> match_classes([["Red fox", "wolf", "lynx"]], ["lynx", "red_fox"]).targets.tolist()
    [2, 0]
    """
    networks = [_named(labels, dataset) for labels in networks]
    told_by = _what_tells_apart(networks, dataset)
    keys = [_keys(labels, told_by) for labels in networks]
    wanted = _keys(dataset, told_by)
    targets = [
        _targets(wanted, of_network, labels, dataset)
        for of_network, labels in zip(keys, networks, strict=True)
    ]
    places, all_labels = {}, []
    for labels, of_network in zip(networks, keys, strict=True):
        for label, key in zip(labels, of_network, strict=True):
            if key not in places:
                places[key] = len(all_labels)
                all_labels.append(label)
    columns = [np.array([places[key] for key in of_network]) for of_network in keys]
    return Classes(all_labels, columns, np.array([places[key] for key in targets[0]]))


def _named(labels: Sequence[str], dataset: Sequence[str]) -> list[str]:
    """Returns the data set's own names in place of `class_0`, `class_1`, ….

    Only for as many classes: the place of a class among fewer says nothing.
    """
    takes_names = len(labels) == len(dataset) and _is_numbered(labels)
    return list(labels) if not takes_names or set(dataset) <= set(labels) else list(dataset)


def _is_numbered(labels: Sequence[str]) -> bool:
    return all(label == f"class_{index}" for index, label in enumerate(labels))


def _what_tells_apart(networks: Sequence[Sequence[str]], dataset: Sequence[str]) -> dict[str, str]:
    """Returns what each label is told by.

    That is its wnid, also one that another label gives to its name, or its name as `_plainly`
    writes it; for labels of a network that would be one then, the label as it stands.
    """
    labels = {label for labels in (*networks, dataset) for label in labels}
    wnids = defaultdict(set)
    for label in labels:
        wnid, name = split_label(label)
        if wnid:
            wnids[_plainly(name)].add(wnid)
    plain = {label: split_label(label)[0] or _plainly(label) for label in labels}
    for label, key in plain.items():
        if len(wnids[key]) == 1:
            plain[label] = min(wnids[key])
    as_it_stands = {label: split_label(label)[0] or _composed(label) for label in labels}
    variants = [defaultdict(set) for _ in networks]
    for of_network, labels in zip(variants, networks, strict=True):
        for label in labels:
            of_network[plain[label]].add(as_it_stands[label])
    doubtful = {key for of_key in variants for key, found in of_key.items() if len(found) > 1}
    return {label: as_it_stands[label] if key in doubtful else key for label, key in plain.items()}


def _composed(label: str) -> str:
    return unicodedata.normalize("NFC", one_line(label))


def _plainly(label: str) -> str:
    return " ".join(_composed(label).casefold().replace("_", " ").split())


def _keys(labels: Iterable[str], told_by: dict[str, str]) -> list[Key]:
    """Returns a key a label; one that comes again, such as a dummy's, gets its own."""
    times = defaultdict(int)
    keys = []
    for label in labels:
        keys.append((told_by[label], times[told_by[label]]))
        times[told_by[label]] += 1
    return keys


def _targets(
    wanted: list[Key], keys: list[Key], labels: Sequence[str], dataset: Sequence[str]
) -> list[Key]:
    """Returns the network's key of each class of the data set."""
    theirs, ours = defaultdict(int), defaultdict(int)
    for key, _ in keys:
        theirs[key] += 1
    for key, _ in wanted:
        ours[key] += 1
    missing = [label for label, (key, _) in zip(dataset, wanted, strict=True) if key not in theirs]
    if missing:
        raise _unknown_classes(missing, labels, dataset)
    for label, (key, _) in zip(dataset, wanted, strict=True):
        if theirs[key] > 1 and ours[key] != theirs[key]:
            raise UserError(
                f"the model has {theirs[key]} classes {label}, and the data set does not say "
                "which; tell them apart, by wnid for example, in the file of the model's labels."
            )
    return [(key, time if theirs[key] > 1 else 0) for key, time in wanted]


def _unknown_classes(
    missing: list[str], labels: Sequence[str], dataset: Sequence[str]
) -> UserError:
    counts = f"the model has {len(labels)} classes but the data set has {len(dataset)}"
    if _is_numbered(labels):
        return UserError(
            f"{counts}, and the model's are named by number only; give --dataset with all "
            "classes that it was trained on, or write their names, one a line, into the file of "
            "the model's labels."
        )
    missing = sorted(set(missing))
    more = len(missing) - _NAMED_IN_ERRORS
    unknown = ", ".join(missing[:_NAMED_IN_ERRORS]) + (f" and {more} more" if more > 0 else "")
    start = f"{counts}: it" if len(dataset) > len(labels) else "the model"
    return UserError(
        f"{start} knows no class {unknown} of the data set; give --dataset with classes that are "
        f"named as the model's are: {', '.join(labels[:3])}, …"
    )
