"""Measures networks on a split: from crops to the records of its examples."""

from collections.abc import Iterable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_googlenet.data import crops as crop_geometry
from keras_googlenet.data import pipeline
from keras_googlenet.data.datasets import Split
from keras_googlenet.errors import UserError
from keras_googlenet.evaluation.metrics import head_metrics
from keras_googlenet.evaluation.partial import Partial
from keras_googlenet.evaluation.plan import Plan
from keras_googlenet.evaluation.progress import Progress
from keras_googlenet.evaluation.records import make_records, of_ensembles
from keras_googlenet.evaluation.scoring import Member, heads_of, score_examples


def measure_split(
    plan: Plan,
    split: Split,
    batch_size: int,
    strategy: tf.distribute.Strategy | None = None,
    partial: Partial | None = None,
) -> np.ndarray:
    """Measures every example of a split once.

    Args:
        plan: What to compute.
        split: What to measure on.
        batch_size: Crops a forward pass, over all replicas together.
        strategy: Spreads each batch over its replicas.
        partial: Keeps the records, and holds those that an earlier attempt made.

    Returns:
        `(split.size,)` records, in the order of the split.

    Raises:
        UserError: If an image cannot be decoded, or a network gives no probabilities.
    """
    views = plan.protocols[-1].views()
    taken = [[views.index(view) for view in each.views()] for each in plan.protocols]
    done = 0 if partial is None else len(partial.read())
    batches = crop_geometry.crop_batches(split, plan.sizes, plan.protocols[-1], batch_size, done)
    progress = Progress(split.size, done)
    scored = score_examples(
        plan.members, _arrays(batches), len(plan.classes.labels), taken, len(views), strategy
    )
    kept = [np.empty(0, plan.record_type)]
    try:
        for labels, scores in scored:
            records = make_records(plan.classes.targets[labels], _ensembles(scores, plan))
            (kept if partial is None else partial).append(records)
            progress.update(len(records))
    except tf.errors.InvalidArgumentError as error:
        raise _bad_image(split, progress.done, error) from error
    finally:
        progress.close()
    return np.concatenate(kept) if partial is None else partial.read()


def evaluate(model: keras.Model, batches: Iterable, variant: str) -> dict[str, float]:
    """Measures every head of a network.

    Args:
        model: A GoogLeNet with three outputs or one.
        batches: Pairs of images, `(n, size, size, 3)` RGB in [0, 255], and labels, `(n,)`.
        variant: Decides the preprocessing.

    Returns:
        `examples`, and for each head `<head>_accuracy`, `<head>_top5` and `<head>_loss`, the
        mean cross-entropy in nats.
    """
    classes = model.outputs[0].shape[-1]
    members = [Member(model, variant, np.arange(classes))]
    pictures = (((images,), np.asarray(labels)) for images, labels in batches)
    scored = score_examples(members, pictures, classes)
    records = [make_records(labels, scores) for labels, scores in scored]
    return head_metrics(np.concatenate(records), heads_of(members))


def _arrays(batches: tf.data.Dataset):
    for pictures, labels in batches:
        yield pictures, labels.numpy()


def _ensembles(scores: np.ndarray, plan: Plan) -> np.ndarray:
    return of_ensembles(scores) if plan.each_ensemble else scores.mean(axis=0, keepdims=True)


def _bad_image(split: Split, done: int, error: Exception) -> UserError:
    """Finds the image that stopped a pass after `done` examples."""
    for file in (split.files or [])[done:]:
        try:
            pipeline.read_image(file)
        except UserError as bad:
            return bad
    return UserError(f"an image after the first {done} cannot be used: {error.message}")


def keep_in(folder: Path, plan: Plan, split: Split, dataset: str, resume: bool) -> Partial:
    """Opens the folder that holds the finished part of an evaluation.

    Args:
        folder: Where the report will stand.
        plan: What is computed.
        split: What is measured on.
        dataset: What the data set is called.
        resume: Whether to go on with what is there.
    """
    return Partial(folder, plan.settings(split, dataset), plan.record_type, resume)
