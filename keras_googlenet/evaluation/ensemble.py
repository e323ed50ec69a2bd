"""The networks of an evaluation: which crops each sees, and how their softmax is averaged."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_googlenet.data import multicrop as crop_geometry
from keras_googlenet.data.datasets import Split
from keras_googlenet.errors import UserError
from keras_googlenet.evaluation.class_matching import Classes
from keras_googlenet.evaluation.metrics import record_type
from keras_googlenet.googlenet import HEADS
from keras_googlenet.normal_form import preprocessing_for, trunk_pixels

_SUM_TOLERANCE = 0.02  # of the probabilities of a crop; bfloat16 has three decimal digits


class Member(NamedTuple):
    """One network of an ensemble.

    Attributes:
        model: A GoogLeNet in normal form, with three outputs or one.
        variant: Decides its preprocessing, where it has none inside.
        columns: `(outputs,)`, the place of each output among the ensemble's classes.
        view: Which of the pictures of a batch it looks at: its image size's.
    """

    model: keras.Model
    variant: str
    columns: np.ndarray
    view: int = 0


def heads_of(members: Sequence[Member]) -> list[str]:
    """Returns the heads that all members have, the main one first."""
    return list(HEADS)[: min(len(member.model.outputs) for member in members)]


def networks_of(
    members: Sequence[Member], strategy: tf.distribute.Strategy | None = None
) -> list[Callable]:
    """Makes of each member a function from pictures to a list of probabilities, a head each.

    Args:
        members: Networks.
        strategy: Spreads each batch over its replicas.
    """
    return [_spread(member, len(heads_of(members)), strategy) for member in members]


def score_examples(
    members: Sequence[Member],
    batches: Iterable,
    classes: int,
    protocols: Sequence[Sequence[int]] = ((0,),),
    views: int = 1,
    networks: Sequence[Callable] | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Averages over crops, whose batches may begin and end within an example.

    Args:
        members: Networks.
        batches: Pairs of pictures, a tuple with `(n, size, size, 3)` RGB in [0, 255] for each
            image size, and labels, `(n,)`: a row a crop, those of an example one after another.
        classes: Number of classes of the ensemble.
        protocols: For each average the numbers of the views that it takes.
        views: Crops an example.
        networks: What `networks_of` makes of `members`, where several passes share them.

    Yields:
        Labels `(n,)` and probabilities `(members, protocols, heads, n, classes)`, float64, of the
        examples that a batch completes.

    Raises:
        UserError: If a network gives no probabilities.
    """
    networks = networks_of(members) if networks is None else networks
    labels, rows = np.empty(0, "int64"), None
    for pictures, new_labels in batches:
        new = np.stack(
            [
                _in_place(network(pictures[member.view]), member.columns, classes)
                for network, member in zip(networks, members, strict=True)
            ]
        )
        rows = new if rows is None else np.concatenate([rows, new], axis=2)
        labels = np.concatenate([labels, new_labels])
        whole = len(labels) // views
        if whole:
            yield labels[: whole * views : views], _average(rows, whole, views, protocols)
            labels, rows = labels[whole * views :], rows[:, :, whole * views :]


def _average(rows: np.ndarray, examples: int, views: int, protocols) -> np.ndarray:
    """Maps `(members, heads, crops, classes)` to the shape that `score_examples` yields."""
    members, heads, _, classes = rows.shape
    rows = rows[:, :, : examples * views].reshape(members, heads, examples, views, classes)
    means = [rows[:, :, :, list(taken)].mean(axis=3, dtype="float64") for taken in protocols]
    return np.stack(means, axis=1)


def _in_place(heads: list, columns: np.ndarray, classes: int) -> np.ndarray:
    """Puts each output where its class stands; a class that the network lacks gets 0."""
    probabilities = np.stack([np.asarray(head, "float32") for head in heads])
    if not np.isfinite(probabilities).all():
        raise UserError(
            "the outputs of the model are no probabilities but NaN, though its weights may be "
            "finite: it overflows; train it again with a lower learning rate, or in float32."
        )
    if not np.allclose(probabilities.sum(axis=-1), 1, atol=_SUM_TOLERANCE):
        raise UserError(
            "the outputs of the model are no probabilities of classes that exclude each other: "
            "they do not add up to 1; give one that ends in softmax."
        )
    placed = np.zeros((*probabilities.shape[:2], classes), "float32")
    placed[..., columns] = probabilities
    return placed


def _spread(member: Member, heads: int, strategy: tf.distribute.Strategy | None):
    """Returns a function from pictures to a list of probabilities, a head each."""
    prepare = preprocessing_for(member.model, member.variant)

    def forward(images):
        outputs = member.model(prepare(images), training=False)
        return tf.nest.flatten(outputs)[:heads]

    if strategy is None or strategy.num_replicas_in_sync == 1:
        shape = (None, *member.model.inputs[0].shape[1:])
        return tf.function(forward, input_signature=[tf.TensorSpec(shape)])
    replicas = strategy.num_replicas_in_sync
    network = tf.function(lambda share: strategy.run(forward, args=(share,)))

    def over_replicas(images):
        """Fills the batch up until it divides among the replicas, and drops what was added."""
        added = -len(images) % replicas
        shares = tf.split(tf.pad(images, [[0, added], [0, 0], [0, 0], [0, 0]]), replicas)
        share = strategy.experimental_distribute_values_from_function(
            lambda context: shares[context.replica_id_in_sync_group]
        )
        outputs = network(share)
        gathered = [strategy.experimental_local_results(head) for head in outputs]
        return [np.concatenate(head)[: len(images)] for head in gathered]

    return over_replicas


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
