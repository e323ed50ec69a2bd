"""Networks whose softmax is averaged over the crops of an image, and over the networks."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_googlenet.data import multicrop
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
        variant: Its preprocessing, where it has none inside.
        columns: `(outputs,)`, index of each output among the ensemble's classes.
        size_index: Index of its image size among the ensemble's.
    """

    model: keras.Model
    variant: str
    columns: np.ndarray
    size_index: int = 0


class Ensemble(NamedTuple):
    """Networks, their classes, and the crops of an image that they are evaluated on.

    Attributes:
        members: The networks.
        image_sizes: Their image sizes, each once.
        classes: Classes of their outputs and of the labels.
        crops: Counts of the crop sets to measure, the greatest last, which contains the others.
        sides: Shorter sides of the resized image for a network of 224.
        cumulative: Whether to measure the first network, the first two, … or only all together.
    """

    members: list[Member]
    image_sizes: tuple[int, ...]
    classes: Classes
    crops: tuple[int, ...] = (1,)
    sides: tuple[int, ...] = multicrop.SIDES
    cumulative: bool = False

    @property
    def heads(self) -> list[str]:
        """Heads that all networks have, the main one first."""
        return list(HEADS)[: min(len(member.model.outputs) for member in self.members)]

    @property
    def crop_sets(self) -> list[multicrop.CropSet]:
        """The crop sets to measure; the last contains the others."""
        return [multicrop.crop_set(count, self.sides) for count in self.crops]

    @property
    def crop_counts(self) -> list[int]:
        """Crops of each set, which differ from `crops` for other than four sides."""
        return [len(crop_set.crops()) for crop_set in self.crop_sets]

    @property
    def record_type(self) -> np.dtype:
        """Type of the record of an example."""
        rows = len(self.members) if self.cumulative else 1
        return record_type(rows, len(self.crops), len(self.heads))

    def settings(self, split: Split, dataset: str) -> dict:
        """Returns what decides the records, as JSON values, for `RecordFile`."""
        labels = map(str.encode, self.classes.labels)
        return {
            "model": [_fingerprint(member) for member in self.members],
            "data set": [dataset, split.size, _hash(_examples(split))],
            "set of classes": _hash([*labels, *self.classes.columns, self.classes.targets]),
            "set of crops": [self.crops, self.sides, self.cumulative],
        }


def make_ensemble(
    networks: Sequence,
    classes: Classes,
    crops: Sequence[int],
    sides: tuple[int, ...] = multicrop.SIDES,
    cumulative: bool = False,
) -> Ensemble:
    """Makes an `Ensemble` of networks from `models.load`: `model`, `variant` and `image_size`.

    Raises:
        UserError: If a side is less than a crop, or comes twice.
    """
    if min(sides) < multicrop.PAPER_SIZE or len(set(sides)) < len(sides):
        raise UserError(
            f"--sizes must be different and {multicrop.PAPER_SIZE} or more, the side of a crop "
            f"(for other image sizes they are scaled); they are {', '.join(map(str, sides))}."
        )
    sizes = tuple(sorted({network.image_size for network in networks}))
    members = [
        Member(network.model, network.variant, columns, sizes.index(network.image_size))
        for network, columns in zip(networks, classes.columns, strict=True)
    ]
    return Ensemble(members, sizes, classes, tuple(crops), sides, cumulative)


def compile_networks(
    ensemble: Ensemble, strategy: tf.distribute.Strategy | None = None
) -> list[Callable]:
    """Compiles each network to a function from images to a list of probabilities, a head each.

    Args:
        ensemble: The networks.
        strategy: Distributes each batch over its replicas.
    """
    return [_compile(member, len(ensemble.heads), strategy) for member in ensemble.members]


def score_examples(
    ensemble: Ensemble, networks: list[Callable], batches: Iterable
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Computes the probabilities of examples, averaged over each crop set.

    Args:
        ensemble: The networks and their crops.
        networks: From `compile_networks`.
        batches: Pairs of images, a tuple with `(n, size, size, 3)` RGB in [0, 255] for each image
            size, and labels, `(n,)`: one row per crop, the crops of an example one after another. A
            batch may start and end within an example.

    Yields:
        Labels `(n,)` and probabilities `(members, crop sets, heads, n, classes)`, float64, of the
        examples that a batch completes.

    Raises:
        UserError: If the outputs of a network are not probabilities.
    """
    classes = len(ensemble.classes.labels)
    crops = ensemble.crop_sets[-1].crops()
    indices = [[crops.index(crop) for crop in each.crops()] for each in ensemble.crop_sets]
    labels, rows = np.empty(0, "int64"), None  # of the crops of an incomplete example
    for images, new_labels in batches:
        scored = [
            _in_columns(network(images[member.size_index]), member.columns, classes)
            for network, member in zip(networks, ensemble.members, strict=True)
        ]
        rows = np.stack(scored) if rows is None else np.concatenate([rows, scored], axis=2)
        labels = np.concatenate([labels, new_labels])
        complete = len(labels) // len(crops)
        end = complete * len(crops)
        if complete:
            grouped = rows[:, :, :end].reshape(*rows.shape[:2], complete, len(crops), classes)
            means = [grouped[:, :, :, each].mean(axis=3, dtype="float64") for each in indices]
            yield labels[: end : len(crops)], np.stack(means, axis=1)
            labels, rows = labels[end:], rows[:, :, end:]


def _in_columns(heads: list, columns: np.ndarray, classes: int) -> np.ndarray:
    """Moves outputs, `(heads, n, outputs)`, to the columns of their classes; others are 0."""
    probabilities = np.stack([np.asarray(head, "float32") for head in heads])
    if not np.isfinite(probabilities).all():
        raise UserError(
            "the outputs of the model are not probabilities but NaN, though its weights may be "
            "finite: it overflows; train it again with a lower learning rate, or in float32."
        )
    if not np.allclose(probabilities.sum(axis=-1), 1, atol=_SUM_TOLERANCE):
        raise UserError(
            "the outputs of the model are not probabilities of classes that exclude each other: "
            "they do not add up to 1; give a model that ends in softmax."
        )
    moved = np.zeros((*probabilities.shape[:2], classes), "float32")
    moved[..., columns] = probabilities
    return moved


def _compile(member: Member, heads: int, strategy: tf.distribute.Strategy | None) -> Callable:
    prepare = preprocessing_for(member.model, member.variant)

    def forward(images):
        outputs = member.model(prepare(images), training=False)
        return tf.nest.flatten(outputs)[:heads]

    if strategy is None or strategy.num_replicas_in_sync == 1:
        shape = (None, *member.model.inputs[0].shape[1:])
        return tf.function(forward, input_signature=[tf.TensorSpec(shape)])
    replicas = strategy.num_replicas_in_sync
    network = tf.function(lambda share: strategy.run(forward, args=(share,)))

    def on_replicas(images):
        """Pads the batch until it divides among the replicas, and drops what was added."""
        padding = -len(images) % replicas
        shares = tf.split(tf.pad(images, [[0, padding], [0, 0], [0, 0], [0, 0]]), replicas)
        share = strategy.experimental_distribute_values_from_function(
            lambda context: shares[context.replica_id_in_sync_group]
        )
        gathered = [strategy.experimental_local_results(head) for head in network(share)]
        return [np.concatenate(head)[: len(images)] for head in gathered]

    return on_replicas


def _examples(split: Split) -> Iterator[bytes]:
    """Yields name, size and label of each file; nothing for a prepared data set."""
    if split.files:
        for file, label in zip(split.files, split.labels, strict=True):
            yield os.fsencode(f"{file} {os.stat(file).st_size} {label}\n")


def _fingerprint(member: Member) -> str:
    pixels = trunk_pixels(member.model)  # depends on the preprocessing inside
    return _hash([member.variant.encode(), pixels, *member.model.get_weights()])


def _hash(parts: Iterable) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(np.ascontiguousarray(part).data if isinstance(part, np.ndarray) else part)
    return digest.hexdigest()
