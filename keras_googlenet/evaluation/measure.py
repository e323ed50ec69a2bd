"""Measures networks on a split: from crops to the records of its examples."""

import contextlib
import itertools
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from functools import partial as partial_of
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_googlenet.data import multicrop as crop_geometry
from keras_googlenet.data.corrupt_images import CorruptImages, decode
from keras_googlenet.data.datasets import Split
from keras_googlenet.data.image_files import READ_ERRORS, reason_of
from keras_googlenet.errors import UserError
from keras_googlenet.evaluation.ensemble import Member, Plan, heads_of, networks_of, score_examples
from keras_googlenet.evaluation.metrics import (
    blank_records,
    head_metrics,
    is_readable,
    make_records,
    of_ensembles,
)
from keras_googlenet.imagenet import check_images
from keras_googlenet.normal_form import check_classifier, normal_form
from keras_googlenet.progress_bar import Progress

_FOLDER = "evaluation.partial"


class Partial:
    """The part of an evaluation that is done, in a folder `evaluation.partial`.

    The records are rows of bytes, appended a batch at a time: what a crash leaves of a last row
    is cut away.

    Args:
        folder: Where the report will stand.
        settings: What decides the records, as JSON values; a part with others cannot go on.
        kind: Type of a record.
        resume: Whether to go on with what is there; otherwise it is thrown away.

    Raises:
        UserError: If it is to go on with a part of other settings.
    """

    def __init__(self, folder: Path, settings: dict, kind: np.dtype, resume: bool):
        self.folder = folder / _FOLDER
        self.kind = kind
        if not resume:
            self.remove()
        if self.folder.exists():
            self._check_settings(settings)
            self._cut_broken_row()
        else:
            self.folder.mkdir(parents=True)
            self._records.touch()
            self._settings.write_text(json.dumps(settings))

    @property
    def _records(self) -> Path:
        return self.folder / "records"

    @property
    def _settings(self) -> Path:
        return self.folder / "settings.json"

    def _check_settings(self, settings: dict):
        try:
            before = json.loads(self._settings.read_text())
        except (OSError, json.JSONDecodeError):
            before = {}
        now = json.loads(json.dumps(settings))  # tuples become lists, as they did before
        changed = [name for name, value in now.items() if before.get(name) != value]
        if changed:
            raise UserError(
                f"the evaluation in {self.folder} was begun with another {', '.join(changed)}; "
                "give the same again, or leave out --resume to start over."
            )

    def _cut_broken_row(self):
        whole = self._records.stat().st_size // self.kind.itemsize * self.kind.itemsize
        with open(self._records, "ab") as file:
            file.truncate(whole)

    def read(self) -> np.ndarray:
        """Returns the records so far, mapped from the disk."""
        if not self._records.stat().st_size:
            return np.empty(0, self.kind)
        return np.memmap(self._records, self.kind, mode="r")

    def append(self, records: np.ndarray):
        """Adds records of further examples."""
        with open(self._records, "ab") as file:
            file.write(records.tobytes())

    def remove(self):
        """Throws the part away, for instance when the report is written."""
        shutil.rmtree(self.folder, ignore_errors=True)


def measure_split(
    plan: Plan,
    split: Split,
    batch_size: int,
    strategy: tf.distribute.Strategy | None = None,
    partial: Partial | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> np.ndarray:
    """Measures every example of a split once.

    Args:
        plan: What to compute.
        split: What to measure on.
        batch_size: Crops a forward pass, over all replicas together.
        strategy: Spreads each batch over its replicas.
        partial: Keeps the records, and holds those that an earlier attempt made.
        note: Is given a sentence for each unreadable image.

    Returns:
        `(split.size,)` records, in the order of the split; `is_readable` says which of them hold
        something.

    Raises:
        UserError: If more than 1% of the images cannot be read, or a network gives no
            probabilities.
    """
    kept = [np.empty(0, plan.record_type) if partial is None else partial.read()]
    unreadable = CorruptImages(split, note)
    unreadable.indices |= set(np.flatnonzero(~is_readable(kept[0])).tolist())
    done, networks = len(kept[0]), networks_of(plan.members, strategy)
    with contextlib.closing(Progress(split.size, done)) as progress:
        while done < split.size:
            try:
                for records in _measured(plan, split, batch_size, networks, done, unreadable):
                    (kept if partial is None else partial).append(records)
                    progress.update(len(records))
                    done += len(records)
            except READ_ERRORS as error:
                rest = range(done, split.size)
                views = ((number, partial_of(decode, split, number)) for number in rest)
                if not unreadable.search(views, most=1):
                    raise UserError(
                        f"an image after the first {done} cannot be used: {reason_of(error)}."
                    ) from error
    return np.concatenate(kept) if partial is None else partial.read()


def readable(records: np.ndarray, split: Split) -> tuple[np.ndarray, Split]:
    """Returns the records of the images that could be read, and the split of these images."""
    numbers = np.flatnonzero(is_readable(records))
    return records[numbers], split.part(numbers)


def _measured(plan, split, batch_size, networks, first, unreadable) -> Iterator[np.ndarray]:
    """Yields the records from example `first` on, blank ones for unreadable images among them."""
    views = plan.protocols[-1].views()
    taken = [[views.index(view) for view in each.views()] for each in plan.protocols]
    batches = crop_geometry.crop_batches(
        split, plan.sizes, plan.protocols[-1], batch_size, first, unreadable.indices
    )
    scored = score_examples(
        plan.members, _arrays(batches), len(plan.classes.labels), taken, len(views), networks
    )
    numbers = (number for number in range(first, split.size) if number not in unreadable.indices)
    for labels, scores in scored:
        read = np.array(list(itertools.islice(numbers, len(labels))))
        records = blank_records(read[-1] + 1 - first, plan.record_type)
        records[read - first] = make_records(plan.classes.targets[labels], _ensembles(scores, plan))
        yield records
        first = read[-1] + 1
    if first < split.size:
        yield blank_records(split.size - first, plan.record_type)


def evaluate(model: keras.Model, batches: Iterable, variant: str) -> dict[str, float]:
    """Measures every head of a network.

    Args:
        model: A GoogLeNet, as `normal_form` takes it.
        batches: Pairs of images, `(n, size, size, 3)` RGB in [0, 255], and labels, `(n,)`.
        variant: Decides the preprocessing, where the model has none inside.

    Returns:
        `examples`, and for each head `<head>_accuracy`, `<head>_top5` and `<head>_loss`, the
        mean cross-entropy in nats.

    Raises:
        UserError: If the model gives no probabilities, or images are not as `check_images` wants
            them.
    """
    model = normal_form(model)
    check_classifier(model)
    size, classes = model.inputs[0].shape[1:3], model.outputs[0].shape[-1]
    members = [Member(model, variant, np.arange(classes))]
    pictures = (
        ((check_images(images, size).astype("float32", copy=False),), np.asarray(labels))
        for images, labels in batches
    )
    scored = score_examples(members, pictures, classes)
    records = [make_records(labels, scores) for labels, scores in scored]
    return head_metrics(np.concatenate(records), heads_of(members))


def _arrays(batches: tf.data.Dataset):
    for pictures, labels in batches:
        yield pictures, labels.numpy()


def _ensembles(scores: np.ndarray, plan: Plan) -> np.ndarray:
    return of_ensembles(scores) if plan.each_ensemble else scores.mean(axis=0, keepdims=True)


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
