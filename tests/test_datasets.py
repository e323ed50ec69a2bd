"""Data sets by name: the real ImageNet builder on small archives, and drawn ones."""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
import test_tfds_records
from conftest import read_json

from keras_googlenet.data import datasets, folders, pipeline
from keras_googlenet.errors import UserError


def flags(miniature_imagenet, workdir, *more):
    data = ["--dataset", "imagenet2012", "--data-dir", miniature_imagenet, "--workdir", workdir]
    few = ["--image-size", 65, "--batch-size", 8, "--epochs", 1, "--warmup-epochs", 0]
    return [*data, *few, *more]


@pytest.mark.slow
def test_imagenet_is_built_trained_and_evaluated(miniature_imagenet, run_script, tmp_path):
    workdir = tmp_path / "run"
    outcome = run_script("train.py", *flags(miniature_imagenet, workdir))
    assert outcome.status == 0, outcome.err
    assert len((workdir / "labels.txt").read_text().splitlines()) == 1000
    outcome = run_script("evaluate.py", workdir, "--json")
    assert outcome.status == 0, outcome.err
    result, metrics = json.loads(outcome.out), read_json(workdir / "metrics.json")
    assert result["examples"] == 6
    for head in ("main", "aux1", "aux2"):
        assert result[f"{head}_loss"] == pytest.approx(metrics[f"val_{head}_loss"], rel=1e-4)


class Digits(tfds.core.GeneratorBasedBuilder):
    """As `mnist`: one channel, and here no split for validation."""

    VERSION = tfds.core.Version("1.2.0")
    CHANNELS = 1

    def _info(self):
        image = tfds.features.Image(shape=(28, 28, self.CHANNELS))
        features = {"image": image, "label": tfds.features.ClassLabel(num_classes=10)}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for number in range(16):
            image = np.full((28, 28, self.CHANNELS), 10 * number, "uint8")
            yield number, {"image": image, "label": number % 10}


class ColoredDigits(Digits):
    """As `cifar10`."""

    CHANNELS = 3


@pytest.mark.parametrize("name", ["digits", "colored_digits:1.*.*"])
def test_any_data_set_of_tfds(name, tmp_path):
    opened = datasets.open_dataset(name, str(tmp_path), validation_split=0.25)
    assert len(opened.labels) == 10 and (opened.train.size, opened.validation.size) == (12, 4)
    batches = pipeline.train_batches(opened.train, 65, 4, 0, pipeline.Augmentation())
    assert [images.shape for images, _ in batches] == [(4, 65, 65, 3)] * 3
    images, labels = next(iter(pipeline.evaluation_batches(opened.validation, 65, 100)))
    shades = {
        (int(image[0, 0, 0]), int(label)) for image, label in zip(images, labels, strict=True)
    }
    learned = np.concatenate(list(pipeline.read_labels(opened.train)))
    assert len(shades) == 4 and all(shade // 10 % 10 == label for shade, label in shades)
    assert sorted([*learned, *labels]) == sorted(number % 10 for number in range(16))
    source = f"{name.partition(':')[0]}/1.2.0 train[75%:]"
    assert opened.contents.as_json()["validation"] == {
        "source": source,
        "images": 4,
        "classes": 10,
        "names": [],
    }
    assert "12 images of 10 classes in" in str(opened.contents)


def test_names_of_classes_that_tensorflow_datasets_cannot_read(tmp_path):
    builder = test_tfds_records.prepare(tmp_path)
    file = Path(builder.data_dir) / "label.labels.txt"
    assert datasets.open_dataset(str(builder.data_dir)).labels == ["even", "odd"]
    file.write_bytes("pair\nimpair é\n".encode("latin-1"))
    opened = datasets.open_dataset(str(builder.data_dir))
    assert opened.labels == ["pair", "impair é"]
    assert "2 classes (pair, impair é)" in str(opened.contents)
    file.write_text("even\n")
    with pytest.raises(UserError, match="names 1 classes, but the data set has"):
        datasets.open_dataset(str(builder.data_dir))


@pytest.mark.parametrize(("share", "empty"), [(0.001, "train.100%:."), (0.999, "train.:0%.")])
def test_a_split_of_tfds_that_is_empty_is_refused(share, empty, tmp_path):
    with pytest.raises(UserError, match=f"{empty} of the data set digits holds no image"):
        datasets.open_dataset("digits", str(tmp_path), validation_split=share)
    whole = datasets.open_dataset("digits", str(tmp_path))
    assert whole.train is None and whole.validation.size == 16


def test_a_data_set_wins_over_the_folder_that_tfds_made_of_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert datasets.open_dataset("digits", ".").labels == [str(digit) for digit in range(10)]
    assert folders.resolve_dataset("digits") == "digits"
    assert datasets.open_dataset("digits/1.2.0").validation.size == 16
    (tmp_path / "mine" / "ant").mkdir(parents=True)
    assert folders.resolve_dataset("mine") == str(tmp_path / "mine")


@pytest.mark.parametrize("name", ["imagenette/nonsense", "cifar10:9.9.9", "nobody_has_this"])
def test_names_with_config_and_version_reach_tfds(name, tmp_path):
    with pytest.raises(UserError, match="TensorFlow Datasets knows no data set"):
        datasets.open_dataset(name, str(tmp_path))


def test_the_manual_folder_of_a_builder_with_configs(tmp_path):
    with pytest.raises(UserError, match=f"by hand into {tmp_path}/downloads/manual"):
        datasets.open_dataset("imagenet2012_subset/1pct", str(tmp_path))
