"""Random access to prepared data sets, beside what TensorFlow Datasets reads in a row."""

import io
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from keras_googlenet.data import datasets, pipeline, preprocessing, tfds_records
from keras_googlenet.data.image_files import READ_ERRORS, reason_of
from keras_googlenet.errors import UserError

COUNT, SHARDS = 23, 3


class Grays(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Images of one gray each, which is three times their number."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        image = tfds.features.Image(shape=(None, None, 3), encoding_format="png")
        features = {"image": image, "label": tfds.features.ClassLabel(names=["even", "odd"])}
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features | {"id": tf.int64})
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(COUNT)}

    def _generate_examples(self, count):
        for number in range(count):
            content = io.BytesIO()
            Image.new("RGB", (8 + number, 9), (3 * number,) * 3).save(content, "PNG")
            content.seek(0)
            yield number, {"image": content, "label": number % 2, "id": number}


def prepare(folder, kind="tfrecord"):
    builder = Grays(data_dir=folder, file_format=kind)
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(num_shards=SHARDS),
        file_format=kind,
    )
    return builder


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("grays"))


def read(builder, split, numbers):
    fetched = tfds_records.record_fetcher(builder, split)(tf.constant(list(numbers), tf.int64))
    assert fetched.shape == (len(numbers),)
    found = []
    for record in fetched:
        encoded, label = tfds_records.record_opener(builder)(record)
        assert encoded.shape == () and label.shape == ()
        found.append((int(tf.io.decode_png(encoded)[0, 0, 0]), int(label)))
    return found


def in_a_row(builder, split):
    examples = builder.as_dataset(split=split, shuffle_files=False)
    return [(int(example["image"][0, 0, 0]), int(example["label"])) for example in examples]


@pytest.mark.parametrize("split", ["train", "train[:60%]", "train[60%:]", "train[5:9]"])
def test_any_record_by_its_number(prepared, split):
    expected = in_a_row(prepared, split)
    assert len(expected) == prepared.info.splits[split].num_examples
    numbers = np.random.default_rng(0).permutation(len(expected))
    assert read(prepared, split, numbers) == [expected[number] for number in numbers]


def test_array_record_gives_every_example_once(tmp_path):
    builder = prepare(tmp_path, "array_record")
    found = read(builder, "train", range(COUNT))
    assert sorted(found) == [(3 * number, number % 2) for number in range(COUNT)]
    assert len(read(builder, "train[:50%]", range(12))) == 12


def test_places_are_found_once_and_anew_for_other_files(prepared, monkeypatch, tmp_path):
    folder = shutil.copytree(prepared.data_dir, tmp_path / "grays" / "1.0.0")
    builder = tfds.builder_from_directory(folder)
    expected = in_a_row(builder, "train")
    assert read(builder, "train", range(COUNT)) == expected
    (kept,) = folder.glob(".*.offsets.npz")

    def refuse(*_):
        raise AssertionError("looked again")

    with monkeypatch.context() as patch:
        patch.setattr(tfds_records, "_find_offsets", refuse)
        assert read(builder, "train", range(COUNT)) == expected
    for content in (b"", b"damaged", kept.read_bytes()[:90]):
        kept.write_bytes(content)
        assert read(builder, "train", [4]) == expected[4:5]
    assert kept.stat().st_size > 100
    np.savez(
        kept, sizes=np.zeros(SHARDS), places=np.zeros((COUNT, 2), "int64")
    )  # of another version
    assert read(builder, "train", [4]) == expected[4:5]


def test_a_folder_that_nobody_may_write_to(prepared, monkeypatch, tmp_path):
    folder = shutil.copytree(
        prepared.data_dir, tmp_path / "1.0.0", ignore=shutil.ignore_patterns(".*")
    )
    monkeypatch.setattr(tfds_records, "replacing", lambda path: _raise(path))
    builder = tfds.builder_from_directory(folder)
    assert read(builder, "train", [7]) == in_a_row(builder, "train")[7:8]
    assert not list(folder.glob(".*"))


def _raise(path):
    raise tfds_records.WriteError(f"{path} cannot be written")


def test_files_that_only_tensorflow_opens(prepared):
    """`file://` stands for storage on the network: no path of this machine's."""
    for file in map(str, prepared.info.splits["train"].filepaths):
        np.testing.assert_array_equal(
            tfds_records._remote_starts(f"file://{file}"), tfds_records._local_starts(file)
        )
        count = len(tfds_records._local_starts(file)) - 1
        for place in tfds_records._find_offsets(file, count).tolist():
            record = tfds_records._read_remote(f"file://{file}", *place)
            assert record == tfds_records._read_local(file, *place) and len(record) == place[1]


@pytest.mark.parametrize("lost", [1, 100])
def test_a_file_that_is_cut_off_is_refused(lost, prepared, tmp_path):
    folder = shutil.copytree(
        prepared.data_dir, tmp_path / "1.0.0", ignore=shutil.ignore_patterns(".*")
    )
    file = sorted(folder.glob("*.tfrecord*"))[1]
    file.write_bytes(file.read_bytes()[:-lost])
    with pytest.raises(UserError, match="00001-of-00003 is cut off or damaged; remove its folder"):
        tfds_records.record_fetcher(tfds.builder_from_directory(folder), "train")
    assert tfds_records._remote_starts(str(file)) is None


def test_a_damaged_record_and_a_lost_file_are_errors_of_their_own_images(prepared, tmp_path):
    folder = shutil.copytree(prepared.data_dir, tmp_path / "1.0.0")
    first, second, _ = sorted(folder.glob("*.tfrecord*"))
    fetch = tfds_records.record_fetcher(tfds.builder_from_directory(folder), "train")
    content = bytearray(first.read_bytes())
    content[12] ^= 0xFF
    first.write_bytes(content)
    second.unlink()
    at = len(tfds_records._local_starts(first)) - 1
    sources = fetch(tf.constant([0, 1, at], tf.int64))
    opener = tfds_records.record_opener(prepared)
    for damaged in (sources[0], sources[2]):
        with pytest.raises(READ_ERRORS) as caught:
            preprocessing.decode(opener(damaged)[0])
        assert "\n" not in reason_of(caught.value)
    assert preprocessing.decode(opener(sources[1])[0]).shape[2] == 3


class Photographs(Grays, skip_registration=True):
    """128 JPEGs of about 90 kB."""

    def _generate_examples(self, count):
        generator = np.random.default_rng(count)
        for number in range(128):
            content = io.BytesIO()
            noise = generator.integers(0, 256, (256, 256, 3), "uint8")
            Image.fromarray(noise).save(content, "JPEG", quality=97)
            content.seek(0)
            yield number, {"image": content, "label": number % 2, "id": number}


def bytes_read():
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["rchar"])


@pytest.mark.skipif(sys.platform != "linux", reason="bytes are counted as on Linux")
@pytest.mark.parametrize("kind", ["tfrecord", "array_record"])
def test_a_worker_reads_its_share_and_a_resume_its_batch(kind, tmp_path):
    """A batch is 16 of the 128."""
    builder = Photographs(data_dir=tmp_path, file_format=kind)
    builder.download_and_prepare()
    split = datasets.open_dataset(str(builder.data_dir), validation_split=0.0).validation
    whole = sum(len(split.read(number)[0].numpy()) for number in range(128))

    def cost(steps, first_step=0, worker=pipeline.ONE_WORKER):
        batches = pipeline.train_batches(
            split, 32, 16, 0, pipeline.Augmentation(), first_step, worker=worker
        )
        iterator = iter(batches)
        before = bytes_read()
        for _ in range(steps):
            next(iterator)
        return bytes_read() - before

    for count in (1, 2, 4):
        share = sum(cost(8, worker=pipeline.Worker(index, count)) for index in range(count))
        assert share == pytest.approx(whole, rel=0.05)
    for step in (9, 12, 15):  # a busy machine may read on while this process waits for its turn
        assert 0.5 < min(cost(1, step) for _ in range(3)) / (whole / 8) < 2


def test_a_damaged_record_of_array_record_costs_no_other(tmp_path):
    builder = prepare(tmp_path, "array_record")
    whole = tfds_records.record_fetcher(builder, "train")(tf.range(COUNT, dtype=tf.int64)).numpy()
    file = sorted(Path(builder.data_dir).glob("*.array_record*"))[0]
    content = bytearray(file.read_bytes())
    at = content.find(whole[1][:60])
    content[at + 30] ^= 0xFF
    file.write_bytes(content)
    damaged = tfds_records.record_fetcher(builder, "train")(tf.range(COUNT, dtype=tf.int64)).numpy()
    assert [i for i in range(COUNT) if damaged[i] != whole[i]] == [1] and damaged[1] == b""
    split = datasets.open_dataset(str(builder.data_dir)).validation
    counted = np.concatenate(list(pipeline.read_labels(split)))
    assert len(counted) == COUNT - 1
