"""Random access to what TensorFlow Datasets prepared: any example by its number.

A set that was prepared as array_record brings an index. For one prepared as TFRecord, the usual
format, where each record begins is found once, by its lengths, and kept beside the files.
"""

import contextlib
import os
import struct
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from keras_googlenet.atomic import replacing
from keras_googlenet.errors import UserError, WriteError

_LENGTH, _CHECKSUM = 8, 4  # bytes: a TFRecord is length, checksum, content, checksum
_FRAME = _LENGTH + 2 * _CHECKSUM
_THREADS = 16  # that look for the records of different files
_WANTED = tfds.decode.PartialDecoding(
    {"image": True, "label": True}, {"image": tfds.decode.SkipDecoding()}
)


def record_reader(builder: tfds.core.DatasetBuilder, split: str) -> Callable:
    """Makes the function that reads one example of a split.

    Args:
        builder: Of a prepared data set with an `image` and a `label`.
        split: Name of a split, or a part of one such as "train[:90%]".

    Returns:
        Maps a number, a scalar int64 tensor, to `(encoded image, label)`, scalar string and int64.
        It runs in a graph, and reads no more than the record.

    Raises:
        UserError: If the files are in a format without random access, or one is cut off.
    """
    if builder.info.file_format == tfds.core.FileFormat.ARRAY_RECORD:
        record = _array_records(builder, split)
    elif builder.info.file_format == tfds.core.FileFormat.TFRECORD:
        record = _tfrecords(builder, split)
    else:
        raise UserError(
            f"the data set {builder.info.full_name} was prepared as "
            f"{builder.info.file_format.value}, which cannot be read here; prepare it as tfrecord "
            "or array_record in another --data-dir."
        )
    features = _WANTED.extract_features(builder.info.features)

    def read(number):
        example = features.deserialize_example(record(number), decoders=_WANTED.decoders)
        return example["image"], example["label"]

    return read


def _array_records(builder, split: str) -> Callable:
    from array_record.python import array_record_data_source

    source = array_record_data_source.ArrayRecordDataSource(
        builder.info.splits[split].file_instructions,
        reader_options={"footer_prefetch_bytes": "0"},  # 1 MB of each file, if it is not said
    )

    def record(number):
        content = tf.numpy_function(lambda n: source[int(n)], [number], tf.string, stateful=False)
        return tf.ensure_shape(content, ())

    return record


def _tfrecords(builder, split: str) -> Callable:
    parts = builder.info.splits[split].file_instructions
    whole = builder.info.splits[split.partition("[")[0]]
    starts = _starts(whole.filepaths, whole.shard_lengths)
    files = [os.fspath(part.filename) for part in parts]
    offsets = tf.constant(
        np.concatenate(
            [starts[os.path.basename(part.filename)][part.skip :][: part.take] for part in parts]
        )
    )
    ends = tf.constant(np.cumsum([part.take for part in parts]), tf.int64)
    paths = tf.constant(files)

    def record(number):
        file = tf.searchsorted(ends, number[None], side="right")  # (1,)
        stream = tf.raw_ops.TFRecordDatasetV2(
            filenames=tf.gather(paths, file),
            compression_type="",
            buffer_size=0,  # reads what it is asked for, and nothing ahead
            byte_offsets=tf.gather(offsets, number[None]),
            metadata="",
        )
        kind = {"output_types": [tf.string], "output_shapes": [()]}
        first = tf.raw_ops.TakeDataset(input_dataset=stream, count=1, **kind)
        return tf.raw_ops.DatasetToSingleElement(dataset=first, **kind)[0]

    return record


def _starts(files: Sequence, lengths: Sequence[int]) -> dict[str, np.ndarray]:
    """Returns for each file where its records begin, from what was found before or anew."""
    paths = [os.fspath(file) for file in files]
    sizes = np.array([tf.io.gfile.stat(path).length for path in paths])
    first = Path(paths[0])
    kept = first.with_name(f".{first.name.partition('.')[0]}.offsets.npz")  # TFDS overlooks it
    starts = _kept_starts(kept, sizes, sum(lengths))
    if starts is None:
        with ThreadPoolExecutor(_THREADS) as pool:
            starts = np.concatenate(list(pool.map(_starts_in, paths, lengths)))
        if not _is_remote(paths[0]):
            with contextlib.suppress(WriteError), replacing(kept) as written:
                np.savez(written, sizes=sizes, starts=starts)
    parts = np.split(starts, np.cumsum(lengths)[:-1])
    return {os.path.basename(path): part for path, part in zip(paths, parts, strict=True)}


def _kept_starts(kept: Path, sizes: np.ndarray, count: int) -> np.ndarray | None:
    """Returns what was found before, unless it is of other files."""
    try:
        with np.load(kept) as found:
            starts = found["starts"]
            return (
                starts if np.array_equal(found["sizes"], sizes) and len(starts) == count else None
            )
    except (OSError, ValueError, KeyError):
        return None


def _is_remote(path: str) -> bool:
    return "://" in path


def _starts_in(file: str, count: int) -> np.ndarray:
    """Walks from record to record of one file by their lengths."""
    starts = _walk(file) if not _is_remote(file) else _stream(file)
    if starts is None or len(starts) != count + 1:
        raise UserError(
            f"{file} is cut off or damaged; remove its folder, and the data set is prepared again."
        )
    return starts[:-1]


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
