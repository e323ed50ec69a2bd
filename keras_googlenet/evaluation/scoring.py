"""Averages the softmax of several networks over the crops of each image."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_googlenet.errors import UserError
from keras_googlenet.googlenet import HEADS
from keras_googlenet.normal_form import preprocessing_for

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
