"""TF-slim's checkpoint against plain TensorFlow operations on its variables."""

import tarfile

import numpy as np
import pytest
import slim_checkpoint
from test_caffe import logits_of

from keras_googlenet.imagenet import preprocess_input
from keras_googlenet.weights.conversion import convert_file

FULL_WIDTH = True
TOLERANCE = 1e-3  # of logits


@pytest.fixture(scope="module")
def values():
    return slim_checkpoint.variables()


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).uniform(0, 255, (1, 224, 224, 3)).astype("float32")


@pytest.fixture(scope="module")
def expected(values, images):
    return slim_checkpoint.logits(values, preprocess_input(images, "slim"))


in_a_process = pytest.param("in a process", marks=pytest.mark.slow)  # which imports TensorFlow


@pytest.mark.parametrize(
    "form", ["one file of 2016", in_a_process, "tar.gz", "prefix of two", "index"]
)
def test_every_form_agrees(form, values, images, expected, tmp_path, request):
    if form != "in a process":
        request.getfixturevalue("read_in_this_process")
    prefix = tmp_path / "inception_v1.ckpt"
    slim_checkpoint.save(values, prefix, old_form=form not in ("prefix of two", "index"))
    source = prefix
    if form == "tar.gz":
        source = tmp_path / "download"
        with tarfile.open(source, "w:gz") as archive:
            archive.add(prefix, "./inception_v1.ckpt")
        prefix.unlink()
    elif form == "index":
        source = tmp_path / "inception_v1.ckpt.index"
    conversion = convert_file(source)
    assert conversion.model.output_names == ["main"]
    assert conversion.absent == ["aux1", "aux2"] and conversion.unused == ["global_step"]
    trained = [weight for weight in conversion.model.trainable_weights]
    assert sum(int(np.prod(weight.shape)) for weight in trained) == 6_618_649
    actual = logits_of(conversion.model, images)[0]
    assert np.std(expected) > 0.1
    print("greatest logit difference", np.abs(actual - expected).max())
    np.testing.assert_allclose(actual, expected, atol=TOLERANCE)
