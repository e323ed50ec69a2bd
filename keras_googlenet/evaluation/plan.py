"""What an evaluation computes for each example."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from keras_googlenet.data import crops as crop_geometry
from keras_googlenet.data.datasets import Split
from keras_googlenet.errors import UserError
from keras_googlenet.evaluation.classes import Classes
from keras_googlenet.evaluation.records import record_type
from keras_googlenet.evaluation.scoring import Member, heads_of
from keras_googlenet.normal_form import trunk_pixels


class Plan(NamedTuple):
    """What is computed for each example, and kept.

    Attributes:
        members: The networks.
        sizes: Image sizes that occur among them; a member's `view` counts them.
        classes: What their outputs and the label numbers mean.
        crops: Protocols to average over, from fewest crops to most.
        sides: Shorter sides of the resized image for a network of 224.
        each_ensemble: Whether to keep the results of the first network, the first two, … or
            those of all together alone.
    """

    members: list[Member]
    sizes: tuple[int, ...]
    classes: Classes
    crops: tuple[int, ...] = (1,)
    sides: tuple[int, ...] = crop_geometry.SIDES
    each_ensemble: bool = False

    @property
    def heads(self) -> list[str]:
        """Heads that all networks have."""
        return heads_of(self.members)

    @property
    def protocols(self) -> list[crop_geometry.Protocol]:
        """The protocols; the last holds the views of all."""
        return [crop_geometry.protocol(crops, self.sides) for crops in self.crops]

    @property
    def crop_counts(self) -> list[int]:
        """Crops of each protocol, which `sides` may make other than `crops`."""
        return [len(protocol.views()) for protocol in self.protocols]

    @property
    def record_type(self) -> np.dtype:
        """Type of what is kept of an example."""
        ensembles = len(self.members) if self.each_ensemble else 1
        return record_type(ensembles, len(self.crops), len(self.heads))

    def settings(self, split: Split, dataset: str) -> dict:
        """Returns what an evaluation that goes on must have in common with what is there."""
        return {
            "model": [_fingerprint(member) for member in self.members],
            "data set": [dataset, split.size, _hash(_examples(split))],
            "set of classes": _hash(
                [*map(str.encode, self.classes.labels), *self.classes.columns, self.classes.targets]
            ),
            "protocol": [self.crops, self.sides, self.each_ensemble],
        }


def make_plan(
    networks: Sequence,
    classes: Classes,
    crops: Sequence[int],
    sides: tuple[int, ...] = crop_geometry.SIDES,
    each_ensemble: bool = False,
) -> Plan:
    """Makes a plan for networks as `models.load` gives them.

    Args:
        networks: Objects with `model`, `variant` and `image_size`.
        classes: What their outputs mean.
        crops: Of the protocols, the greatest last.
        sides: Shorter sides of the resized image for a network of 224; at least 224.
        each_ensemble: As in `Plan`.

    Raises:
        UserError: If a side is less than a crop, or comes twice.
    """
    if min(sides) < crop_geometry.PAPER_SIZE or len(set(sides)) < len(sides):
        raise UserError(
            f"--sizes must be different and {crop_geometry.PAPER_SIZE} or more, the side of a "
            f"crop (for other image sizes they are scaled); they are {', '.join(map(str, sides))}."
        )
    sizes = tuple(sorted({network.image_size for network in networks}))
    members = [
        Member(network.model, network.variant, columns, sizes.index(network.image_size))
        for network, columns in zip(networks, classes.columns, strict=True)
    ]
    return Plan(members, sizes, classes, tuple(crops), sides, each_ensemble)


def _examples(split: Split) -> Iterator[bytes]:
    """Yields name, size and class of each file; nothing for a prepared data set."""
    if split.files:
        for file, number in zip(split.files, split.labels, strict=True):
            yield os.fsencode(f"{file} {os.stat(file).st_size} {number}\n")


def _fingerprint(member: Member) -> str:
    pixels = trunk_pixels(member.model)  # what its own preprocessing makes of colors
    return _hash([member.variant.encode(), pixels, *member.model.get_weights()])


def _hash(parts: Iterable) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(np.ascontiguousarray(part).data if isinstance(part, np.ndarray) else part)
    return digest.hexdigest()
