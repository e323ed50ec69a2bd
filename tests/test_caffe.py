"""Caffe's weights against a forward pass in NumPy that shares nothing with the package."""

import caffe_reference
import keras
import numpy as np
import pytest
from conftest import ROOT

from keras_googlenet.googlenet import variant_of
from keras_googlenet.imagenet import decode_predictions, preprocess_input
from keras_googlenet.weights import convert
from keras_googlenet.weights.conversion import convert_file

FULL_WIDTH = True
TOLERANCE = 1e-3  # of logits: float32 through 22 layers
DATA = ROOT.parent / "shared" / "data"
REAL = DATA / "bvlc_googlenet_main.caffemodel"
PHOTOGRAPHS = ("cat.jpg", "fish_bike.jpg")
needs_data = pytest.mark.skipif(not REAL.exists(), reason=f"{REAL.name} is not beside the project")


def logits_of(model, images):
    """Logits of every head; its classifiers are linear from now on."""
    for name in model.output_names:
        model.get_layer(name).activation = keras.activations.linear
    outputs = model(preprocess_input(images, variant_of(model)), training=False)
    return [np.asarray(output) for output in (outputs if isinstance(outputs, list) else [outputs])]


def photograph(name, size=224):
    from keras_googlenet.data import image_files, preprocessing

    image = image_files.read_image(str(DATA / "photos" / name))
    return preprocessing.evaluation_crop(image, size).numpy()


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(3).uniform(0, 255, (224, 224, 3)).astype("float32")


@pytest.fixture(scope="module", params=[1, 3])
def blobs(request):
    return caffe_reference.random_blobs(heads=request.param)


@pytest.fixture(scope="module")
def expected(blobs, noise):
    return caffe_reference.logits(noise, blobs)


@pytest.mark.parametrize("old_form", [False, True], ids=["layer", "layers"])
def test_synthetic_weights_in_both_forms(blobs, expected, old_form, noise, tmp_path):
    caffe_reference.write_blobs(tmp_path / "weights.bin", blobs, old_form)
    model = convert(tmp_path / "weights.bin")
    heads = len(expected)
    assert model.output_names == ["main", "aux1", "aux2"][:heads]
    assert model.count_params() == (6_998_552 if heads == 1 else 13_378_280)
    for one, other in zip(logits_of(model, noise[None]), expected, strict=True):
        assert np.std(other) > 0.1
        print("greatest logit difference", np.abs(one[0] - other).max())
        np.testing.assert_allclose(one[0], other, atol=TOLERANCE)


@needs_data
@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_real_weights_to_the_logit(name):
    conversion = convert_file(REAL)
    assert conversion.absent == ["aux1", "aux2"] and conversion.unused == []
    assert conversion.model.count_params() == 6_998_552
    blobs = caffe_reference.read_blobs(REAL)
    image = photograph(name)
    expected = caffe_reference.logits(image, blobs)[0]
    probabilities = conversion.model(preprocess_input(image[None]))[0]
    actual = logits_of(conversion.model, image[None])[0][0]
    print(name, "greatest logit difference", np.abs(actual - expected).max())
    np.testing.assert_allclose(actual, expected, atol=TOLERANCE)
    softmax = np.exp(expected - expected.max())
    np.testing.assert_allclose(probabilities, softmax / softmax.sum(), atol=1e-4)


@needs_data
def test_the_cat_is_a_cat():
    model = convert(REAL)
    probabilities = model.predict(preprocess_input(photograph("cat.jpg")[None]), verbose=0)
    best = decode_predictions(probabilities, top=3)[0]
    assert {row.name for row in best} == {"tiger cat", "tabby", "Egyptian cat"}
