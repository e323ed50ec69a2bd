"""Data sets of TensorFlow Datasets: names, folders, splits, and every error that it raises."""

import errno
import json
import shutil
import tarfile
import urllib.error
import zipfile
from pathlib import Path

import numpy as np
import pytest
import requests
import tensorflow as tf
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import extractor, util
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
from tensorflow_datasets.core.utils.version import BlockedVersions

from keras_googlenet.data import listing, tfds_datasets
from keras_googlenet.errors import UserError

SECRET = -1  # how TensorFlow Datasets labels what has no known class


def labeled(**more):
    features = {
        "image": tfds.features.Image(shape=(None, None, 3)),
        "label": tfds.features.ClassLabel(names=["disc", "star"]),
    }
    return tfds.features.FeaturesDict(features | more)


class SmallImages(tfds.core.GeneratorBasedBuilder):
    """Gray squares; each test says which splits and features it has, and what goes wrong."""

    VERSION = tfds.core.Version("1.10.0")
    SUPPORTED_VERSIONS = [tfds.core.Version("1.2.0")]
    features = staticmethod(labeled)
    splits = {"train": [0, 1] * 10, "validation": [1, 0, 1]}
    channels = 3
    fault = staticmethod(lambda builder, manager: None)

    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=self.features())

    def _split_generators(self, dl_manager):
        self.fault(self, dl_manager)
        return {name: self._generate_examples(labels) for name, labels in self.splits.items()}

    def _generate_examples(self, labels):
        for number, label in enumerate(labels):
            image = np.full((4, 4, self.channels), 9 * number, "uint8")
            yield number, {"image": image, "label": label}


class ByHand(SmallImages):
    """The same, as ImageNet's: its archives are fetched by hand."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = "put images.tar\n  there"


class InKinds(SmallImages):
    """The same in two configs."""

    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name=name, version=tfds.core.Version("1.10.0"))
        for name in ("plain-v2", "noisy")
    ]


@pytest.fixture(autouse=True)
def small_images(monkeypatch):
    """Lets a test change the builder, which is as it was after it."""
    for name in ("features", "splits", "channels", "fault", "BLOCKED_VERSIONS"):
        monkeypatch.setattr(SmallImages, name, SmallImages.__dict__.get(name))
    monkeypatch.setattr(tfds.core.download.downloader, "MAX_RETRIES", 0)
    return SmallImages


@pytest.fixture
def ready(tmp_path):
    """A data directory in which `small_images` was prepared."""
    tfds_datasets.open_builder("small_images", str(tmp_path))
    return tmp_path


def refusal(name, data_dir=None):
    """Returns the sentence with which a data set is refused."""
    with pytest.raises(UserError) as caught:
        tfds_datasets.open_builder(name, data_dir and str(data_dir))
    sentence = str(caught.value)
    assert "\n" not in sentence and sentence.endswith((".", "there"))
    return sentence


def test_a_second_run_beside_its_own_folder(ready, monkeypatch):
    """`--data-dir .` makes a folder of the data set's name, which is no folder of classes."""
    monkeypatch.chdir(ready)
    assert listing.made_by_tfds(Path("small_images"))
    opened = tfds_datasets.open_builder("small_images", ".")
    assert opened.info.splits["train"].num_examples == 20


@pytest.mark.parametrize(
    "name",
    [
        "small_images",
        "SmallImages",
        "small_images:1.10.0",
        "small_images:1.*.*",
        "small_images:*.*.*",
        "small_images/version=1.10.0",
        "./small_images",
        "small_images/1.10.0",
        "{}/small_images/1.10.0",
        "{}/small_images",
        "file://{}/small_images",
        "~/small_images/1.10.0",
    ],
)
def test_every_way_to_name_a_prepared_set(name, ready, monkeypatch):
    monkeypatch.chdir(ready)
    monkeypatch.setenv("HOME", str(ready))
    opened = tfds_datasets.open_builder(name.format(ready), "~")
    assert opened.info.full_name == "small_images/1.10.0"
    assert sorted(opened.info.splits) == ["train", "validation"]
    assert opened.info.features["label"].names == ["disc", "star"]


def test_configs_and_versions(tmp_path, capsys):
    for name, folder in (("in_kinds", "plain-v2"), ("in_kinds/noisy:1.*.*", "noisy")):
        opened = tfds_datasets.open_builder(name, str(tmp_path))
        assert opened.data_path == tmp_path / "in_kinds" / folder / "1.10.0"
    assert capsys.readouterr().out == "", "standard output is for results"
    assert listing.made_by_tfds(tmp_path / "in_kinds")
    sentence = refusal(str(tmp_path / "in_kinds"))
    assert "noisy/1.10.0" in sentence and "plain-v2/1.10.0" in sentence
    newer = tmp_path / "in_kinds" / "noisy" / "1.9.0"
    shutil.copytree(tmp_path / "in_kinds" / "noisy" / "1.10.0", newer)
    opened = tfds_datasets.open_builder(str(tmp_path / "in_kinds" / "noisy"))
    assert opened.data_dir.endswith("1.10.0"), "10 is newer than 9"


def test_folders_of_images_are_not_taken_for_prepared_ones(tmp_path):
    for folder in ("train/cat", "train/1.0.0", "val/cat", "1.0.0"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "0.jpg").touch()
    assert not listing.made_by_tfds(tmp_path) and not listing.made_by_tfds(tmp_path / "train")
    assert not listing.is_prepared(tmp_path / "1.0.0")
    assert not listing.made_by_tfds(tmp_path / "nowhere")


def test_what_a_killed_preparation_left(tmp_path):
    left = tmp_path / "small_images" / "incomplete.A1B2C3_1.10.0"
    left.mkdir(parents=True)
    (left / "small_images-train.tfrecord-00000-of-00001").touch()
    assert listing.made_by_tfds(tmp_path / "small_images")
    sentence = refusal(str(tmp_path / "small_images"))
    assert f"cut off; give its name and --data-dir {tmp_path}" in sentence
    assert tfds_datasets.open_builder("small_images", str(tmp_path)).info.splits["train"]


def test_urls_are_passed_on(monkeypatch):
    asked = []

    def builder(name, data_dir):
        asked.append((name, data_dir))
        raise tf.errors.UnavailableError(None, None, "no route to storage")

    monkeypatch.setattr(tfds, "builder", builder)
    assert "no route to storage" in refusal("mnist", "gs://bucket/data")
    assert asked == [("mnist", "gs://bucket/data")]
    monkeypatch.setattr(tfds, "builder_from_directory", lambda at: builder(at, None))
    monkeypatch.setattr(tfds_datasets.versions, "list_all_versions", lambda at: ["1.0.0", "3.0.1"])
    assert "no route to storage" in refusal("gs://bucket/data/mnist/")
    assert asked[-1] == ("gs://bucket/data/mnist/3.0.1", None)


@pytest.mark.parametrize(
    ("name", "has"),
    [
        ("coco", "objects (Sequence)"),
        ("voc", "labels (Sequence)"),
        ("bigearthnet", "labels (Sequence)"),
        ("imdb_reviews", "text (Text), label (ClassLabel)"),
        ("lfw", "label (Text), image (Image)"),
        ("eurosat/all", "sentinel2 (Tensor)"),
        ("ucf101", "video (Video)"),
    ],
)
def test_what_is_not_for_classification_is_refused_before_it_is_downloaded(name, has, tmp_path):
    sentence = refusal(name, tmp_path)
    assert "not one for image classification" in sentence and has in sentence
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("features", "sentence"),
    [
        ({"label": tfds.features.Sequence(tfds.features.ClassLabel(num_classes=2))}, "(Sequence)"),
        ({"label": tfds.features.LabeledImage(shape=(4, 4, 1), labels=2)}, "(LabeledImage)"),
        ({"label": tfds.features.Scalar(np.int64)}, "label (Scalar)"),
        ({"image": tfds.features.Image(shape=(4, 4, 4))}, "4 channels of uint8"),
        (
            {"image": tfds.features.Image(shape=(4, 4, 1), dtype=np.float32)},
            "1 channels of float32",
        ),
    ],
)
def test_other_features_are_named(features, sentence, small_images, tmp_path):
    small_images.features = staticmethod(lambda: labeled(**features))
    assert sentence in refusal("small_images", tmp_path)
    assert not list(tmp_path.iterdir())


def test_gray_images_are_taken(small_images, tmp_path):
    gray = tfds.features.Image(shape=(None, None, 1))
    small_images.features = staticmethod(lambda: labeled(image=gray))
    small_images.channels = 1
    opened = tfds_datasets.open_builder("small_images", str(tmp_path))
    assert tfds_datasets.choose_splits(opened, 0.1) == ("train", "validation")


@pytest.mark.parametrize("name", ["imagenet_v2", "imagenet_a", "cifar10_1", "stanford_dogs"])
def test_sets_for_classification_are_to_be_downloaded(name, tmp_path, monkeypatch):
    """The next thing that happens to them is the download, which is not there."""

    def download(self, **_):
        raise requests.exceptions.ConnectionError("no network")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", download)
    sentence = refusal(name, tmp_path)
    assert "no network" in sentence and f"copy its folder into {tmp_path}" in sentence


@pytest.mark.parametrize(
    ("splits", "share", "expected"),
    [
        ({"train": 20, "validation": 4, "test": 4}, 0.1, ("train", "validation")),
        ({"train": 20, "test": 4}, 0.1, ("train", "test")),
        ({"Training": 20, "VALID": 4, "test": 4}, 0.1, ("Training", "VALID")),
        ({"train": 20, "dev": 4}, 0.0, ("train", "dev")),
        ({"train": 20}, 0.1, ("train[:90%]", "train[90%:]")),
        ({"train": 20}, 0.25, ("train[:75%]", "train[75%:]")),
        ({"train": 20}, 0.0, (None, "train")),
        ({"test": 4}, 0.1, (None, "test")),
        ({"test": 4, "validation": 4}, 0.1, (None, "validation")),
        ({"everything": 4}, 0.1, (None, "everything")),
        ({"train": 20, "unlabeled": 9, "extra": 9}, 0.1, ("train[:90%]", "train[90%:]")),
        ({"train": 20, "validation": 0, "test": 4}, 0.1, ("train", "test")),
        ({"train": 20, "test": SECRET}, 0.1, ("train[:90%]", "train[90%:]")),
        ({"train": 20, "validation": SECRET, "test": 4}, 0.1, ("train", "test")),
    ],
)
def test_which_splits_are_used(splits, share, expected, small_images, tmp_path):
    opened = open_with(splits, small_images, tmp_path)
    assert tfds_datasets.choose_splits(opened, share) == expected


def open_with(splits, small_images, tmp_path):
    """Prepares splits by their sizes; an empty one, as Beam writes it, has no file."""
    labels = {name: [0] * n if n != SECRET else [SECRET] * 3 for name, n in splits.items()}
    small_images.splits = {name: labels for name, labels in labels.items() if labels}
    tfds_datasets.open_builder("small_images", str(tmp_path))
    file = tmp_path / "small_images" / "1.10.0" / "dataset_info.json"
    info = json.loads(file.read_text())
    info["splits"] += [{"name": name, "shardLengths": []} for name, n in splits.items() if not n]
    file.write_text(json.dumps(info))
    return tfds_datasets.open_builder("small_images", str(tmp_path))


@pytest.mark.parametrize(
    ("splits", "share", "sentence"),
    [
        ({"extra": 4, "unlabeled": 4}, 0.1, "it has extra, unlabeled, and train"),
        ({"test": SECRET}, 0.1, "has no split to evaluate; it has test"),
        ({"train": 20}, 0.001, r"train\[100%:\] of the data set small_images holds no image"),
        ({"train": 20}, 0.999, r"train\[:0%\] of the data set small_images holds no image"),
        ({"train": 0, "test": 3}, 0.1, "train of the data set small_images holds no image"),
    ],
)
def test_splits_that_cannot_be_used(splits, share, sentence, small_images, tmp_path):
    opened = open_with(splits, small_images, tmp_path)
    with pytest.raises(UserError, match=sentence):
        tfds_datasets.choose_splits(opened, share)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("nobody_has_this", "knows no data set 'nobody_has_this', and there is no such folder"),
        ("cifar01", "(cifar10"),
        ("nobody:mnist", "knows no data set 'nobody:mnist'"),
        ("./nowhere", "there is no folder ./nowhere; give one that holds a folder for each"),
        (
            "small_images:1.10",
            "TensorFlow Datasets reads: name, name/config or",
        ),
        ("small_images:9.9.9", "has no version 9.9.9; it has 1.10.0, 1.2.0."),
        ("small_images:2.*.*", "has no version 2.*.*; it has 1.10.0, 1.2.0."),
        ("small_images:1.2.0", "version 1.2.0 of the data set"),
        ("small_images:1.2.0", "give small_images:1.10.0."),
        ("small_images/other", "has no config other; leave it out."),
        ("small_images/1.10.0", "has no config 1.10.0; give small_images:1.10.0."),
        ("in_kinds/plain", "has no config plain; it has noisy, plain-v2."),
        ("in_kinds/noisy:3.0.0", "in_kinds has no version 3.0.0; it has 1.10.0, 1.2.0."),
        ("small_images/color=red", "unexpected keyword argument 'color'"),
    ],
)
def test_names_that_nobody_knows(name, sentence, tmp_path):
    assert sentence in refusal(name, tmp_path)
    assert not list(tmp_path.iterdir())


UNRESOLVED = requests.exceptions.ConnectionError(
    "HTTPSConnectionPool(host='x.org', port=443): Max retries exceeded with url: /a.tar (Caused by "
    "NameResolutionError(\"HTTPSConnection(host='x.org', port=443): Failed to resolve\"))"
)


def raising(error, cause=None):
    def fault(builder, manager):
        raise error from cause

    return staticmethod(fault)


NOT_PUBLISHED = NonMatchingChecksumError(
    "Artifact https://x.org/a.tar, downloaded to /data/downloads/a.tar.tmp.1/a.tar, has wrong "
    "checksum:\n* Expected: 1\n* Got: 2"
)
FULL = OSError(errno.ENOSPC, "No space left on device", "/data/x")
CONNECTION = "check the connection and try again, or prepare it on a machine that has one"


@pytest.mark.parametrize(
    ("error", "cause", "sentences"),
    [
        (UNRESOLVED, None, ["cannot be downloaded (x.org: NameResolutionError); check"]),
        (requests.exceptions.ConnectionError("no route"), None, ["no route", CONNECTION]),
        (requests.exceptions.ReadTimeout("slow"), None, ["slow", CONNECTION]),
        (requests.exceptions.ChunkedEncodingError("broken"), None, ["broken", CONNECTION]),
        (requests.exceptions.SSLError("certificate"), None, ["certificate", CONNECTION]),
        (urllib.error.URLError("unknown host"), None, ["unknown host", CONNECTION]),
        (ConnectionResetError(104, "reset by peer"), None, ["reset by peer", CONNECTION]),
        (TimeoutError("timed out"), None, ["timed out", CONNECTION]),
        (util.DownloadError("Failed to get url u. HTTP code: 404."), None, ["404", CONNECTION]),
        (tf.errors.UnavailableError(None, None, "it is gone"), None, ["it is gone", CONNECTION]),
        (RuntimeError("wrapped"), requests.exceptions.ConnectionError("x"), [CONNECTION]),
        (NOT_PUBLISHED, None, ["https://x.org/a.tar", "delete /data/downloads/a.tar.tmp.1/a.tar"]),
        (FULL, None, ["no space", "--data-dir on another disk"]),
        (OSError(errno.EDQUOT, "Quota"), None, ["no space", "--data-dir on another disk"]),
        (extractor.ExtractError("Error while extracting"), FULL, ["no space for the data set"]),
        (
            tf.errors.ResourceExhaustedError(None, None, "it is full"),
            None,
            ["no space", "it is full"],
        ),
        (
            PermissionError(13, "Permission denied", "/x"),
            None,
            ["denied", "another --data-dir"],
        ),
        (OSError(errno.EROFS, "Read-only file system"), None, ["Read-only", "another --data-dir"]),
        (tf.errors.PermissionDeniedError(None, None, "no"), None, ["another --data-dir"]),
        (
            extractor.ExtractError("Error in a.tar"),
            None,
            ["damaged", "delete it from"],
        ),
        (tarfile.ReadError("unexpected end"), None, ["an archive", "unexpected end", "downloads"]),
        (zipfile.BadZipFile("no zip file"), None, ["an archive", "no zip file", "try again"]),
        (EOFError("Compressed file ended"), None, ["an archive", "Compressed file ended"]),
        (ModuleNotFoundError("no", name="cv2"), None, ["`python -m pip install opencv-python`"]),
        (ImportError("Failed\nuse pip"), ImportError("x", name="apache_beam"), ["apache-beam"]),
        (ImportError("libGL.so.1: cannot open"), None, ["libGL.so.1", "ImportError"]),
        (ValueError("strange\nlines"), None, ["(ValueError('strange", "try another version"]),
        (KeyError("label"), None, ["(KeyError('label')", "or give a folder of images"]),
        (AssertionError(), None, ["(AssertionError()"]),
        (FileNotFoundError(2, "No such file", "a.csv"), None, ["FileNotFoundError", "a.csv"]),
        (UserError("Mine."), None, ["Mine."]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_what_goes_wrong_in_a_preparation(error, cause, sentences, small_images, tmp_path):
    small_images.fault = raising(error, cause)
    sentence = refusal("small_images", tmp_path)
    assert all(part in sentence for part in sentences), sentence
    assert "small_images" in sentence or str(tmp_path) in sentence or "x.org" in sentence + "x.org"
    left = [path.name for path in tmp_path.glob("small_images/*")]
    assert left == [], "nothing that the next run would take for prepared"


def test_a_record_that_cannot_be_read(ready):
    shard = ready / "small_images/1.10.0/small_images-validation.tfrecord-00000-of-00001"
    content = bytearray(shard.read_bytes())
    content[20] ^= 1  # inside the first record, which its checksum tells
    shard.write_bytes(content)
    opened = tfds_datasets.open_builder("small_images", str(ready))
    with pytest.raises(UserError, match="first record of validation in .*1.10.0 cannot be read"):
        tfds_datasets.choose_splits(opened, 0.1)


def test_an_interruption_passes(small_images, tmp_path):
    small_images.fault = raising(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        tfds_datasets.open_builder("small_images", str(tmp_path))


def test_a_disk_that_is_too_small_from_the_start(small_images, tmp_path, monkeypatch):
    """TensorFlow Datasets asks before it begins, where it knows the size."""
    known = {"https://x.org/a": tfds.core.download.checksums.UrlInfo(3 << 30, "0", "a")}
    monkeypatch.setattr(small_images, "url_infos", known)
    monkeypatch.setattr(tfds.core.utils, "has_sufficient_disk_space", lambda *_, **__: False)
    sentence = refusal("small_images", tmp_path)
    assert f"in {tmp_path}: it needs 3.00 GiB, and " in sentence and "are free" in sentence


@pytest.mark.parametrize(
    "error",
    [
        AssertionError("Manual directory does not exist or is empty."),
        FileNotFoundError(2, "No such file or directory", "images.tar"),
        tf.errors.NotFoundError(None, None, "images.tar; No such file"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_is_fetched_by_hand(error, small_images, tmp_path):
    small_images.fault = raising(error)
    sentence = refusal("by_hand", tmp_path)
    assert f"by hand into {tmp_path}/downloads/manual: put images.tar there" in sentence


def test_a_data_dir_that_is_a_file(tmp_path):
    (tmp_path / "file").touch()
    assert f"{tmp_path}/file cannot be read and written" in refusal(
        "small_images", tmp_path / "file"
    )


def test_a_withdrawn_version(small_images, tmp_path):
    small_images.BLOCKED_VERSIONS = BlockedVersions(versions={"1.10.0": "its labels are wrong"})
    assert "its labels are wrong" in refusal("small_images", tmp_path)


def test_a_builder_that_cannot_be_made(small_images, tmp_path):
    def features():
        raise FileNotFoundError(2, "No such file or directory", "labels.txt")

    small_images.features = staticmethod(features)
    sentence = refusal("small_images", tmp_path)
    assert "cannot open the data set small_images (FileNotFoundError" in sentence


def test_another_process_may_be_done_first(small_images, tmp_path):
    def fault(builder, manager):
        small_images.fault = staticmethod(lambda *_: None)
        tfds.builder("small_images", data_dir=str(tmp_path)).download_and_prepare()

    small_images.fault = staticmethod(fault)
    opened = tfds_datasets.open_builder("small_images", str(tmp_path))
    assert opened.info.splits["validation"].num_examples == 3


@pytest.mark.parametrize("name", ["small_images", "{}/small_images/1.10.0"])
@pytest.mark.parametrize("file", ["dataset_info.json", "features.json"])
@pytest.mark.parametrize("content", ["", "{", "[]", "no JSON", "\udcff"])
def test_damaged_descriptions(name, file, content, ready):
    path = ready / "small_images" / "1.10.0" / file
    path.write_bytes(content.encode(errors="surrogateescape"))
    if name == "small_images" and file == "features.json":
        return  # the builder's own code says it
    sentence = refusal(name.format(ready), ready)
    assert "is damaged" in sentence and "prepare it again" in sentence


def test_a_description_without_features(ready):
    """As TensorFlow Datasets wrote them before its version 4."""
    (ready / "small_images" / "1.10.0" / "features.json").unlink()
    assert "old TFDS version" in refusal(f"{ready}/small_images/1.10.0")


def test_a_description_of_another_version(ready):
    path = ready / "small_images" / "1.10.0" / "dataset_info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": "7.0.0"}))
    assert "is damaged" in refusal("small_images", ready)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda shard: shard.unlink(), "are missing, such as small_images-train.tfrecord"),
        (lambda shard: shard.write_bytes(b""), "00000-of-00001 is empty"),
        (lambda shard: shard.write_bytes(shard.read_bytes()[:-500]), "are cut off"),
        (lambda shard: (shard.parent / "dataset_info.json").unlink(), "not prepared completely"),
        (
            lambda shard: [file.unlink() for file in shard.parent.iterdir()],
            "not prepared completely",
        ),
    ],
    ids=["missing", "empty", "cut off", "no description", "no file"],
)
def test_incomplete_files(damage, sentence, ready):
    folder = ready / "small_images" / "1.10.0"
    damage(folder / "small_images-train.tfrecord-00000-of-00001")
    told = refusal("small_images", ready)
    assert sentence in told and f"remove {folder}, and the data set" in told
    shutil.rmtree(folder)
    assert tfds_datasets.open_builder("small_images", str(ready)), "as the sentence says"
