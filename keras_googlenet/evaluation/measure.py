"""Measures an ensemble on a split: from crops to a record of each example."""

import contextlib
import functools
import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_googlenet.data import multicrop
from keras_googlenet.data.corrupt_images import CorruptImages, decode
from keras_googlenet.data.datasets import Split
from keras_googlenet.data.image_files import READ_ERRORS, reason_of
from keras_googlenet.errors import UserError
from keras_googlenet.evaluation import metrics
from keras_googlenet.evaluation.ensemble import Ensemble, compile_networks, score_examples
from keras_googlenet.evaluation.metrics import make_records
from keras_googlenet.progress_bar import Progress


class RecordFile:
    """The records of an unfinished evaluation, in a folder `evaluation.partial`.

    Records are appended a batch at a time; an incomplete last record, left by a crash, is cut off.

    Args:
        folder: Folder of the report.
        settings: From `Ensemble.settings`.
        dtype: Type of a record.
        resume: Whether to continue the evaluation in the folder, or delete it.

    Raises:
        UserError: If the evaluation to resume has other settings.
    """

    def __init__(self, folder: Path, settings: dict, dtype: np.dtype, resume: bool):
        self.folder, self.dtype = folder / "evaluation.partial", dtype
        self._records, self._settings = self.folder / "records", self.folder / "settings.json"
        if not resume:
            self.remove()
        if self.folder.exists():
            self._check_settings(settings)
            complete = self._records.stat().st_size // dtype.itemsize
            with open(self._records, "ab") as file:
                file.truncate(complete * dtype.itemsize)
        else:
            self.folder.mkdir(parents=True)
            self._records.touch()
            self._settings.write_text(json.dumps(settings))

    def _check_settings(self, settings: dict):
        try:
            before = json.loads(self._settings.read_text())
        except (OSError, json.JSONDecodeError):
            before = {}
        now = json.loads(json.dumps(settings))  # tuples become lists, as in the file
        changed = [name for name, value in now.items() if before.get(name) != value]
        if changed:
            raise UserError(
                f"the evaluation in {self.folder} was started with another {', '.join(changed)}; "
                "give the same again, or leave out --resume to start over."
            )

    def read(self) -> np.ndarray:
        """Returns the records so far, mapped from the disk."""
        if not self._records.stat().st_size:
            return np.empty(0, self.dtype)
        return np.memmap(self._records, self.dtype, mode="r")

    def append(self, records: np.ndarray):
        """Adds the records of further examples."""
        with open(self._records, "ab") as file:
            file.write(records.tobytes())

    def remove(self):
        """Deletes the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)


def measure_split(
    ensemble: Ensemble,
    split: Split,
    batch_size: int,
    strategy: tf.distribute.Strategy | None = None,
    record_file: RecordFile | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> np.ndarray:
    """Measures every example of a split once.

    Args:
        ensemble: What to measure.
        split: What to measure it on.
        batch_size: Crops a forward pass, over all replicas together.
        strategy: Distributes each batch over its replicas.
        record_file: Stores the records, and holds those of an interrupted evaluation.
        note: Called with a sentence for each corrupt image.

    Returns:
        `(split.size,)` records, in the order of the split; `without_corrupt` selects those of
        images that could be decoded.

    Raises:
        UserError: If more than 1% of the images are corrupt, or the outputs of a network are not
            probabilities.
    """
    parts = [np.empty(0, ensemble.record_type) if record_file is None else record_file.read()]
    corrupt = CorruptImages(split, note)
    corrupt.indices |= set(np.flatnonzero(metrics.is_corrupt(parts[0])).tolist())
    done, networks = len(parts[0]), compile_networks(ensemble, strategy)
    with contextlib.closing(Progress(split.size, done)) as progress:
        while done < split.size:
            try:
                for records in _measure(ensemble, networks, split, batch_size, done, corrupt):
                    (parts if record_file is None else record_file).append(records)
                    progress.update(len(records))
                    done += len(records)
            except READ_ERRORS as error:
                rest = range(done, split.size)
                decoders = ((index, functools.partial(decode, split, index)) for index in rest)
                if not corrupt.search(decoders, most=1):
                    raise UserError(
                        f"an image after the first {done} cannot be used: {reason_of(error)}."
                    ) from error
    return np.concatenate(parts) if record_file is None else record_file.read()


def _measure(ensemble, networks, split, batch_size, first, corrupt) -> Iterator[np.ndarray]:
    """Yields the records from example `first` on, those of corrupt images included."""
    crops = multicrop.crop_batches(
        split, ensemble.image_sizes, ensemble.crop_sets[-1], batch_size, first, corrupt.indices
    )
    batches = ((images, labels.numpy()) for images, labels in crops)
    indices = (index for index in range(first, split.size) if index not in corrupt.indices)
    for labels, scores in score_examples(ensemble, networks, batches):
        if ensemble.cumulative:
            scores = metrics.cumulative_means(scores)
        else:
            scores = scores.mean(axis=0, keepdims=True)
        decoded = np.array(list(itertools.islice(indices, len(labels))))
        records = metrics.corrupt_records(decoded[-1] + 1 - first, ensemble.record_type)
        records[decoded - first] = make_records(ensemble.classes.targets[labels], scores)
        yield records
        first = decoded[-1] + 1
    if first < split.size:
        yield metrics.corrupt_records(split.size - first, ensemble.record_type)


def without_corrupt(records: np.ndarray, split: Split) -> tuple[np.ndarray, Split]:
    """Returns the records of the images that could be decoded, and the split of these images."""
    indices = np.flatnonzero(~metrics.is_corrupt(records))
    return records[indices], split.part(indices)
