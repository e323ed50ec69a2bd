"""Data sets by name: the real ImageNet builder on small archives, and mocked ones of TFDS."""

import json

import pytest
import tensorflow_datasets as tfds
from conftest import read_json
from tensorflow_datasets.core import naming

from keras_googlenet.data import datasets, pipeline
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


@pytest.fixture
def declared_splits(monkeypatch):
    """Gives mocked builders the split sizes that a prepared data set has on disk."""
    original = datasets._prepared_builder

    def prepared(name, data_dir):
        builder = original(name, data_dir)
        template = naming.ShardedFileTemplate(
            builder.data_dir, dataset_name=name, filetype_suffix="tfrecord"
        )
        train = tfds.core.SplitInfo(
            name="train", shard_lengths=[16], num_bytes=0, filename_template=template
        )
        builder.info.set_splits(tfds.core.splits.SplitDict([train]))
        return builder

    monkeypatch.setattr(datasets, "_prepared_builder", prepared)


@pytest.mark.parametrize("name", ["cifar10", "mnist"])
def test_any_data_set_of_tfds(name, declared_splits, tmp_path):
    """mnist has one channel; neither has a split for validation here."""
    with tfds.testing.mock_data(num_examples=12):
        opened = datasets.open_dataset(name, str(tmp_path), validation_split=0.25)
        batches = pipeline.train_batches(opened.train, 65, 4, 0, pipeline.Augmentation())
        shapes = [images.shape for images, _ in batches]
        images, labels = next(iter(pipeline.evaluation_batches(opened.validation, 65, 100)))
    assert shapes == [(4, 65, 65, 3)] * 3 and len(opened.labels) == 10
    assert (opened.train.size, opened.validation.size) == (12, 4)
    assert images.shape == (12, 65, 65, 3) and labels.shape == (12,)


@pytest.mark.parametrize(("share", "empty"), [(0.001, "train.100%:."), (0.999, "train.:0%.")])
def test_a_split_of_tfds_that_is_empty_is_refused(share, empty, declared_splits, tmp_path):
    with tfds.testing.mock_data(num_examples=12):
        with pytest.raises(UserError, match=f"{empty} of the data set mnist holds no image"):
            datasets.open_dataset("mnist", str(tmp_path), validation_split=share)
        whole = datasets.open_dataset("mnist", str(tmp_path))
    assert whole.train is None and whole.validation.size == 16


@pytest.mark.parametrize("name", ["imagenette/nonsense", "cifar10:9.9.9", "nobody_has_this"])
def test_names_with_config_and_version_reach_tfds(name, tmp_path):
    with pytest.raises(UserError, match="TensorFlow Datasets knows no data set"):
        datasets.open_dataset(name, str(tmp_path))


def test_the_manual_folder_of_a_builder_with_configs(tmp_path):
    with pytest.raises(UserError, match=f"by hand into {tmp_path}/downloads/manual"):
        datasets.open_dataset("imagenet2012_subset/1pct", str(tmp_path))
