"""Random access to the records of a data set that TensorFlow Datasets prepared.

The format array_record has an index. For TFRecord, the usual format, the offset of each record is
found once, by the lengths in the files, and saved beside them.
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
_THREADS = 16  # that find the records of different files
_FEATURES = tfds.decode.PartialDecoding(
    {"image": True, "label": True}, {"image": tfds.decode.SkipDecoding()}
)


def record_fetcher(builder: tfds.core.DatasetBuilder, split: str) -> Callable:
    """Returns the function that maps indices, `(n,)` int64, to records, `(n,)` strings.

    `split` may be a part, such as "train[:90%]". It runs in a graph, and reads nothing but these
    records. Checksums are not verified: damage shows when an image is decoded. Raises UserError if
    the files are in a format without random access, or one is cut off.
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

    def read_all(indices):
        try:
            records = read(indices)
        except Exception:  # of any library: the other records are still readable
            records = [_or_empty(read, index) for index in indices]
        return np.array([*records, None], object)[:-1]  # an array of objects in any case

    def fetch(indices):
        records = tf.numpy_function(read_all, [indices], tf.string, stateful=False)
        return tf.ensure_shape(records, indices.shape)

    return fetch


def _or_empty(read: Callable, index: int) -> bytes:
    try:
        return read(np.array([index]))[0]
    except Exception:
        return b""  # decoding it fails, as for any corrupt image


def record_opener(builder: tfds.core.DatasetBuilder) -> Callable:
    """Returns the function that maps a record to its encoded image and its label, in a graph."""
    features = _FEATURES.extract_features(builder.info.features)

    def open_record(record):
        example = features.deserialize_example(record, decoders=_FEATURES.decoders)
        return example["image"], example["label"]

    return open_record


def _array_records(builder, split: str) -> Callable[[np.ndarray], list[bytes]]:
    from array_record.python import array_record_data_source

    source = array_record_data_source.ArrayRecordDataSource(
        builder.info.splits[split].file_instructions,
        reader_options={"footer_prefetch_bytes": "0"},  # the default is 1 MB of each file
    )
    return lambda indices: source.__getitems__(indices.tolist())


def _tfrecords(builder, split: str) -> Callable[[np.ndarray], list[bytes]]:
    parts = builder.info.splits[split].file_instructions
    whole = builder.info.splits[split.partition("[")[0]]
    offsets = _offsets(whole.filepaths, whole.shard_lengths)
    files = [os.fspath(part.filename) for part in parts]
    of_split = np.concatenate(
        [offsets[os.path.basename(part.filename)][part.skip :][: part.take] for part in parts]
    )
    ends = np.cumsum([part.take for part in parts])
    read = _read_remote if _is_remote(files[0]) else _read_local

    def read_all(indices):
        files_of = np.searchsorted(ends, indices, side="right").tolist()
        offsets_of = of_split[indices].tolist()
        return [read(files[f], *offset) for f, offset in zip(files_of, offsets_of, strict=True)]

    return read_all


def _read_local(file: str, start: int, length: int) -> bytes:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        return os.pread(descriptor, length, start + _BEFORE)
    finally:
        os.close(descriptor)


def _read_remote(file: str, start: int, length: int) -> bytes:
    """As `_read_local`, by TensorFlow, which opens storage on the network."""
    stream = tf.raw_ops.TFRecordDatasetV2(
        filenames=[file], compression_type="", buffer_size=0, byte_offsets=[start], metadata=""
    )
    kind = {"output_types": [tf.string], "output_shapes": [()]}
    first = tf.raw_ops.TakeDataset(input_dataset=stream, count=1, **kind)
    return tf.raw_ops.DatasetToSingleElement(dataset=first, **kind)[0].numpy()


def _offsets(files: Sequence, lengths: Sequence[int]) -> dict[str, np.ndarray]:
    """Returns for each file `(n, 2)` starts and lengths of its records, saved or found."""
    paths = [os.fspath(file) for file in files]
    stats = [tf.io.gfile.stat(path) for path in paths]
    sizes = np.array([[stat.length, stat.mtime_nsec] for stat in stats])
    first = Path(paths[0])
    saved = first.with_name(f".{first.name.partition('.')[0]}.offsets.npz")  # hidden from TFDS
    offsets = _load_offsets(saved, sizes, sum(lengths))
    if offsets is None:
        with ThreadPoolExecutor(_THREADS) as pool:
            offsets = np.concatenate(list(pool.map(_find_offsets, paths, lengths)))
        if not _is_remote(paths[0]):
            with contextlib.suppress(WriteError), replacing(saved) as file:
                np.savez(file, sizes=sizes, places=offsets)
    parts = np.split(offsets, np.cumsum(lengths)[:-1])
    return {os.path.basename(path): part for path, part in zip(paths, parts, strict=True)}


def _load_offsets(saved: Path, sizes: np.ndarray, count: int) -> np.ndarray | None:
    """Returns the saved offsets, unless they are of other files."""
    try:
        with np.load(saved) as arrays:
            offsets, same = arrays["places"], np.array_equal(arrays["sizes"], sizes)
            return offsets if same and offsets.shape == (count, 2) else None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _is_remote(path: str) -> bool:
    return "://" in path


def _find_offsets(file: str, count: int) -> np.ndarray:
    """Returns `(count, 2)` starts and lengths of the records of one file."""
    try:
        starts = _remote_starts(file) if _is_remote(file) else _local_starts(file)
    except PermissionError as error:
        raise UserError(
            f"{file} cannot be opened ({error.strerror}); check its read permission."
        ) from error
    if starts is None or len(starts) != count + 1:
        raise UserError(
            f"{file} is cut off or damaged; remove its folder, and the data set is prepared again."
        )
    return np.stack([starts[:-1], np.diff(starts) - _FRAME], axis=1)


def _local_starts(file: str) -> np.ndarray | None:
    """Returns where each record starts, and the end of the file; `None` if it is damaged."""
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


def _remote_starts(file: str) -> np.ndarray | None:
    """As `_local_starts`, in storage on the network: TensorFlow reads the whole file for it."""
    lengths = tf.data.TFRecordDataset(file).map(lambda record: tf.strings.length(record) + _FRAME)
    try:
        return np.cumsum([0, *lengths.as_numpy_iterator()])
    except tf.errors.DataLossError:
        return None
