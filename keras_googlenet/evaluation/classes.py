"""Which output of which network means which class of the data set.

Classes are told apart by wnid where they have one and by their whole label otherwise, never by
position, unless a network's labels are mere numbers.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from keras_googlenet.errors import UserError
from keras_googlenet.imagenet import split_label

_NAMED_IN_ERRORS = 5


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

    Args:
        networks: Labels of each network in the order of its outputs.
        dataset: Labels of the data set in the order of its label numbers.

    Returns:
        How all of them fit together.

    Raises:
        UserError: If a network lacks a class of the data set, or the labels are no wnids and the
            data set has fewer classes than a network.

    Example:
    >>> match_classes([["ant", "bee"], ["bee", "ant"]], ["ant", "bee"]).columns[1].tolist()
    [1, 0]
    """
    networks = [_named(labels, dataset) for labels in networks]
    for labels in networks:
        _check_labels(labels, dataset)
    places, all_labels = {}, []
    for labels in networks:
        for label, key in zip(labels, _keys(labels), strict=True):
            if key not in places:
                places[key] = len(all_labels)
                all_labels.append(label)
    columns = [np.array([places[key] for key in _keys(labels)]) for labels in networks]
    targets = np.array([places[_key(label)] for label in dataset])
    return Classes(all_labels, columns, targets)


def _named(labels: Sequence[str], dataset: Sequence[str]) -> list[str]:
    """Returns the data set's own names in place of `class_0`, `class_1`, …."""
    numbered = [f"class_{index}" for index in range(len(dataset))]
    return list(dataset) if list(labels) == numbered else list(labels)


def _check_labels(labels: list[str], dataset: Sequence[str]):
    by_wnid = all(split_label(label)[0] for label in dataset)
    if len(labels) != len(dataset) and not (by_wnid and len(labels) > len(dataset)):
        raise UserError(
            f"the model has {len(labels)} classes but the data set has {len(dataset)}; "
            "give --dataset with the classes that it was trained on, or name them by wnid."
        )
    missing = sorted({_key(label) for label in dataset} - set(_keys(labels)))
    if missing:
        more = f" and {len(missing) - _NAMED_IN_ERRORS} more"
        raise UserError(
            f"the model knows no class {', '.join(missing[:_NAMED_IN_ERRORS])}"
            f"{more if len(missing) > _NAMED_IN_ERRORS else ''} of the data set; give --dataset "
            f"with classes that are named as the model's are: {', '.join(labels[:3])}, …"
        )


def _key(label: str) -> str:
    wnid, name = split_label(label)
    return wnid or name


def _keys(labels: Sequence[str]) -> list[str]:
    """Returns a key an output; a label that comes again, such as a dummy's, gets its own."""
    seen, keys = {}, []
    for label in labels:
        key = _key(label)
        seen[key] = seen.get(key, 0) + 1
        keys.append(key if seen[key] == 1 else f"{key} ({seen[key]})")
    return keys
