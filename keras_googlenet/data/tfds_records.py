"""Random access to what TensorFlow Datasets prepared: any examples by their numbers.

A set that was prepared as array_record brings an index. For one prepared as TFRecord, the usual
format, where each record lies is found once, by the lengths in the files, and kept beside them.
"""

import contextlib
import os
import struct
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from keras_googlenet.atomic import replacing
from keras_googlenet.errors import UserError, WriteError

_LENGTH, _CHECKSUM = 8, 4  # bytes: a TFRecord is length, checksum, content, checksum
_BEFORE = _LENGTH + _CHECKSUM
_FRAME = _BEFORE + _CHECKSUM
_THREADS = 16  # that look for the records of different files
_WANTED = tfds.decode.PartialDecoding(
    {"image": True, "label": True}, {"image": tfds.decode.SkipDecoding()}
)


def record_fetcher(builder: tfds.core.DatasetBuilder, split: str) -> Callable:
    """Makes the function that reads examples of a split.

    Args:
        builder: Of a prepared data set.
        split: Name of a split, or a part of one such as "train[:90%]".

    Returns:
        Maps numbers, `(n,)` int64, to records, `(n,)` strings; it runs in a graph. It reads no more
        than these records, whose checksums it leaves alone: damage shows when an image is decoded.

    Raises:
        UserError: If the files are in a format without random access, or one is cut off.
    """
    formats = {
        tfds.core.FileFormat.ARRAY_RECORD: _array_records,
        tfds.core.FileFormat.TFRECORD: _tfrecords,
    }
    if builder.info.file_format not in formats:
        raise UserError(
            f"the data set {builder.info.full_name} was prepared as "
            f"{builder.info.file_format.value}, which cannot be read here; prepare it as tfrecord "
            "or array_record in another --data-dir."
        )
    read = formats[builder.info.file_format](builder, split)

    def read_all(numbers):
        try:
            found = read(numbers)
        except Exception:  # of any library: one damaged record must not cost the others
            found = [_or_nothing(read, number) for number in numbers]
        return np.array([*found, None], object)[:-1]  # an array of objects in any case

    def fetch(numbers):
        found = tf.numpy_function(read_all, [numbers], tf.string, stateful=False)
        return tf.ensure_shape(found, numbers.shape)

    return fetch


def _or_nothing(read: Callable, number: int) -> bytes:
    try:
        return read(np.array([number]))[0]
    except Exception:
        return b""  # which fails as the image that it is


def record_opener(builder: tfds.core.DatasetBuilder) -> Callable:
    """Makes the function that maps a record to its encoded image and its label, in a graph."""
    features = _WANTED.extract_features(builder.info.features)

    def open_record(record):
        example = features.deserialize_example(record, decoders=_WANTED.decoders)
        return example["image"], example["label"]

    return open_record


def _array_records(builder, split: str) -> Callable[[np.ndarray], list[bytes]]:
    from array_record.python import array_record_data_source

    source = array_record_data_source.ArrayRecordDataSource(
        builder.info.splits[split].file_instructions,
        reader_options={"footer_prefetch_bytes": "0"},  # 1 MB of each file, if it is not said
    )
    return lambda numbers: source.__getitems__(numbers.tolist())


def _tfrecords(builder, split: str) -> Callable[[np.ndarray], list[bytes]]:
    parts = builder.info.splits[split].file_instructions
    whole = builder.info.splits[split.partition("[")[0]]
    places = _places(whole.filepaths, whole.shard_lengths)
    files = [os.fspath(part.filename) for part in parts]
    starts = np.concatenate(
        [places[os.path.basename(part.filename)][part.skip :][: part.take] for part in parts]
    )
    ends = np.cumsum([part.take for part in parts])
    read = _read_remote if _is_remote(files[0]) else _read_local

    def read_all(numbers):
        files_of = np.searchsorted(ends, numbers, side="right").tolist()
        places_of = starts[numbers].tolist()
        return [read(files[f], *place) for f, place in zip(files_of, places_of, strict=True)]

    return read_all


def _read_local(file: str, start: int, length: int) -> bytes:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        return os.pread(descriptor, length, start + _BEFORE)
    finally:
        os.close(descriptor)


def _read_remote(file: str, start: int, length: int) -> bytes:
    """The same by TensorFlow, which opens storage on the network."""
    stream = tf.raw_ops.TFRecordDatasetV2(
        filenames=[file], compression_type="", buffer_size=0, byte_offsets=[start], metadata=""
    )
    kind = {"output_types": [tf.string], "output_shapes": [()]}
    first = tf.raw_ops.TakeDataset(input_dataset=stream, count=1, **kind)
    return tf.raw_ops.DatasetToSingleElement(dataset=first, **kind)[0].numpy()


def _places(files: Sequence, lengths: Sequence[int]) -> dict[str, np.ndarray]:
    """Returns for each file `(n, 2)` starts and lengths of its records, kept or found anew."""
    paths = [os.fspath(file) for file in files]
    found = [tf.io.gfile.stat(path) for path in paths]
    sizes = np.array([[stat.length, stat.mtime_nsec] for stat in found])
    first = Path(paths[0])
    kept = first.with_name(f".{first.name.partition('.')[0]}.offsets.npz")  # TFDS overlooks it
    places = _kept_places(kept, sizes, sum(lengths))
    if places is None:
        with ThreadPoolExecutor(_THREADS) as pool:
            places = np.concatenate(list(pool.map(_places_in, paths, lengths)))
        if not _is_remote(paths[0]):
            with contextlib.suppress(WriteError), replacing(kept) as written:
                np.savez(written, sizes=sizes, places=places)
    parts = np.split(places, np.cumsum(lengths)[:-1])
    return {os.path.basename(path): part for path, part in zip(paths, parts, strict=True)}


def _kept_places(kept: Path, sizes: np.ndarray, count: int) -> np.ndarray | None:
    """Returns what was found before, unless it is of other files."""
    try:
        with np.load(kept) as found:
            places, same = found["places"], np.array_equal(found["sizes"], sizes)
            return places if same and places.shape == (count, 2) else None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _is_remote(path: str) -> bool:
    return "://" in path


def _places_in(file: str, count: int) -> np.ndarray:
    """Walks from record to record of one file by their lengths."""
    try:
        starts = _stream(file) if _is_remote(file) else _walk(file)
    except PermissionError as error:
        raise UserError(
            f"{file} cannot be opened ({error.strerror}); give yourself the right to read it."
        ) from error
    if starts is None or len(starts) != count + 1:
        raise UserError(
            f"{file} is cut off or damaged; remove its folder, and the data set is prepared again."
        )
    return np.stack([starts[:-1], np.diff(starts) - _FRAME], axis=1)


def _walk(file: str) -> np.ndarray | None:
    size, starts = os.path.getsize(file), [0]
    descriptor = os.open(file, os.O_RDONLY)
    try:
        while starts[-1] < size:
            header = os.pread(descriptor, _LENGTH, starts[-1])
            if len(header) < _LENGTH:
                return None
            starts.append(starts[-1] + struct.unpack("<Q", header)[0] + _FRAME)
    finally:
        os.close(descriptor)
    return np.array(starts) if starts[-1] == size else None


def _stream(file: str) -> np.ndarray | None:
    """The same for what only TensorFlow can open, in storage on the network: reads all of it."""
    lengths = tf.data.TFRecordDataset(file).map(lambda record: tf.strings.length(record) + _FRAME)
    try:
        return np.cumsum([0, *lengths.as_numpy_iterator()])
    except tf.errors.DataLossError:
        return None
