import keras
import numpy as np
import pytest

from keras_googlenet import models
from keras_googlenet.errors import UserError
from keras_googlenet.googlenet import GoogLeNet
from keras_googlenet.imagenet import imagenet_labels


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "slim.keras"
    GoogLeNet(classes=3, variant="slim", input_shape=(65, 65, 3)).save(path)
    return path


def test_a_file_says_all_that_is_needed(saved):
    loaded = models.load(saved)
    assert loaded.variant == "slim"
    assert loaded.image_size == 65
    assert loaded.labels == ["class_0", "class_1", "class_2"]
    assert loaded.recipe is None


def test_labels_beside_a_file(saved):
    saved.with_name("slim.labels.txt").write_text("cat\ndog\nfish\n")
    try:
        assert models.load(saved).labels == ["cat", "dog", "fish"]
    finally:
        saved.with_name("slim.labels.txt").unlink()


def test_a_thousand_classes_are_imagenets(tmp_path):
    GoogLeNet(aux_heads=False, input_shape=(32, 32, 3)).save(tmp_path / "model.keras")
    assert models.load(tmp_path / "model.keras").labels == list(imagenet_labels())


def test_predict_applies_the_variants_preprocessing(saved, photographs):
    images = photographs[:2, :65, :65]
    model = keras.models.load_model(saved)
    expected = model.predict_on_batch(images / 127.5 - 1)[0]
    np.testing.assert_allclose(models.load(saved).predict(images), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"input_shape": (None, None, 3)}, "images of NonexNone with 3 channels"),
        ({"input_shape": (32, 64, 3)}, "images of 32x64 with 3 channels"),
        ({"input_shape": (32, 32, 1)}, "images of 32x32 with 1 channels"),
        ({"include_top": False}, "gives no probabilities"),
        ({"classifier_activation": None}, "gives no probabilities"),
    ],
)
def test_networks_that_the_scripts_cannot_use_are_refused(arguments, sentence, tmp_path):
    arguments = {"input_shape": (32, 32, 3), "classes": 3, "aux_heads": False} | arguments
    GoogLeNet(**arguments).save(tmp_path / "model.keras")
    with pytest.raises(UserError, match=sentence):
        models.load(tmp_path / "model.keras")
    if "probabilities" in sentence:  # a trunk is enough to begin training from
        models.load(tmp_path / "model.keras", need_classifier=False)


def test_a_run_that_is_not_finished_is_refused(tmp_path):
    with pytest.raises(UserError, match="train.py has finished"):
        models.load(tmp_path)


def test_other_suffixes_are_refused(tmp_path):
    (tmp_path / "model.h5").write_text("")
    with pytest.raises(UserError, match="is no .keras file"):
        models.load(tmp_path / "model.h5")
