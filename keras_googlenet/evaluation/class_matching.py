"""Which output of each network is which class of the data set.

Classes are matched by wnid where they have one, otherwise by the whole label; case, underscores
and the encoding of accents do not matter, unless two classes of a network differ in nothing else.
A class without a wnid also matches the name behind a wnid. Positions count only for a network
whose labels are `class_0`, `class_1`, ….
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from keras_googlenet.errors import UserError
from keras_googlenet.labels import composed_label, plain_label, split_label

_NAMED_IN_ERRORS = 5

Key = tuple[str, int]  # what identifies a class, and how often the list of labels had that before


class Classes(NamedTuple):
    """The classes of several networks and a data set.

    Attributes:
        labels: All classes of the networks: those of the first in its order, then those that only
            others have.
        columns: For each network `(outputs,)`, the index in `labels` of each output.
        targets: `(classes of the data set,)`, the index in `labels` of each class.
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
        dataset: Labels of the data set in the order of its class indices.

    Raises:
        UserError: If a network lacks a class of the data set, or has two with its label.

    Example:
    >>> match_classes([["ant", "bee"], ["bee", "ant"]], ["ant", "bee"]).columns[1].tolist()
    [1, 0]
    >>> match_classes([["Red fox", "wolf", "lynx"]], ["lynx", "red_fox"]).targets.tolist()
    [2, 0]
    """
    networks = [_with_names(labels, dataset) for labels in networks]
    identity = _identify(networks, dataset)
    keys = [_keys(labels, identity) for labels in networks]
    dataset_keys = _keys(dataset, identity)
    targets = [
        _find(dataset_keys, network_keys, labels, dataset)
        for network_keys, labels in zip(keys, networks, strict=True)
    ]
    label_of = {}
    for labels, network_keys in zip(networks, keys, strict=True):
        for label, key in zip(labels, network_keys, strict=True):
            label_of.setdefault(key, label)
    index = {key: position for position, key in enumerate(label_of)}
    columns = [np.array([index[key] for key in network_keys]) for network_keys in keys]
    return Classes(list(label_of.values()), columns, np.array([index[key] for key in targets[0]]))


def _with_names(labels: Sequence[str], dataset: Sequence[str]) -> list[str]:
    """Replaces `class_0`, `class_1`, … by the names of a data set with as many classes."""
    unnamed = len(labels) == len(dataset) and _is_numbered(labels)
    return list(dataset if unnamed and not set(dataset) <= set(labels) else labels)


def _is_numbered(labels: Sequence[str]) -> bool:
    return all(label == f"class_{index}" for index, label in enumerate(labels))


def _identify(networks: Sequence[Sequence[str]], dataset: Sequence[str]) -> dict[str, str]:
    """Returns what identifies each label.

    That is its wnid, or the one wnid that another label gives to its name, or its normalized name;
    for labels of one network that would become equal, the label as it is.
    """
    labels = {label for labels in (*networks, dataset) for label in labels}
    wnids = defaultdict(set)
    for label in labels:
        wnid, name = split_label(label)
        if wnid:
            wnids[plain_label(name)].add(wnid)
    exact = {label: split_label(label)[0] or composed_label(label) for label in labels}
    identity = {}
    for label in labels:
        identity[label] = key = split_label(label)[0] or plain_label(label)
        if len(wnids[key]) == 1:
            (identity[label],) = wnids[key]
    ambiguous = set()
    for network in networks:
        distinct = {(identity[label], exact[label]) for label in network}
        counts = Counter(key for key, _ in distinct)
        ambiguous |= {key for key, count in counts.items() if count > 1}
    return {label: exact[label] if key in ambiguous else key for label, key in identity.items()}


def _keys(labels: Iterable[str], identity: dict[str, str]) -> list[Key]:
    """Returns a key a label; a label that occurs again, such as `dummy`, gets its own."""
    counts, keys = Counter(), []
    for label in labels:
        keys.append((identity[label], counts[identity[label]]))
        counts[identity[label]] += 1
    return keys


def _find(
    dataset_keys: list[Key], network_keys: list[Key], labels: Sequence[str], dataset: Sequence[str]
) -> list[Key]:
    """Returns the network's key of each class of the data set."""
    in_network = Counter(identity for identity, _ in network_keys)
    in_dataset = Counter(identity for identity, _ in dataset_keys)
    named = list(zip(dataset, dataset_keys, strict=True))
    missing = {label for label, (identity, _) in named if identity not in in_network}
    if missing:
        raise _unknown_classes(sorted(missing), labels, dataset)
    for label, (identity, _) in named:
        if in_network[identity] > 1 and in_dataset[identity] != in_network[identity]:
            raise UserError(
                f"the model has {in_network[identity]} classes {label}, and the data set does not "
                "say which; give them different labels, by wnid for example, in the file of the "
                "model's labels."
            )
    return [(key, repeat if in_network[key] > 1 else 0) for key, repeat in dataset_keys]


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
    more = len(missing) - _NAMED_IN_ERRORS
    unknown = ", ".join(missing[:_NAMED_IN_ERRORS]) + (f" and {more} more" if more > 0 else "")
    start = f"{counts}: it" if len(dataset) > len(labels) else "the model"
    return UserError(
        f"{start} has no class {unknown} of the data set; give --dataset with classes that are "
        f"named as the model's are: {', '.join(labels[:3])}, …"
    )
