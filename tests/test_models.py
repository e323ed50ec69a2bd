import keras
import numpy as np
import pytest

from keras_googlenet import models
from keras_googlenet.errors import UserError
from keras_googlenet.googlenet import GoogLeNet
from keras_googlenet.labels import imagenet_labels


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "slim.keras"
    GoogLeNet(classes=3, variant="slim", input_shape=(65, 65, 3)).save(path)
    return path


def test_a_file_has_all_that_is_needed(saved):
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
    if "probabilities" in sentence:  # training can start from a trunk
        models.load(tmp_path / "model.keras", need_classifier=False)


@pytest.mark.parametrize(
    ("layer", "value", "sentence"),
    [
        ("conv1_7x7_s2", np.nan, r"NaN or infinity in its weights \(conv1_7x7_s2\)"),
        ("main", np.inf, r"NaN or infinity in its weights \(main\)"),
    ],
)
def test_weights_with_nan_or_infinity_are_refused(layer, value, sentence, tmp_path):
    model = GoogLeNet(classes=3, aux_heads=False, input_shape=(32, 32, 3))
    weights = model.get_layer(layer).get_weights()
    weights[0].flat[3] = value
    model.get_layer(layer).set_weights(weights)
    model.save(tmp_path / "model.keras")
    for need_classifier in (True, False):
        with pytest.raises(UserError, match=sentence):
            models.load(tmp_path / "model.keras", need_classifier=need_classifier)


def test_preprocessing_for_other_pixels_is_refused(tmp_path):
    """ImageNet's statistics are of pixels in [0, 1]."""
    trunk = GoogLeNet(include_top=False, pooling="avg", input_shape=(32, 32, 3))
    norm = keras.layers.Normalization(mean=[0.485, 0.456, 0.406], variance=[0.05] * 3)
    steps = [keras.Input((32, 32, 3)), norm, trunk, keras.layers.Dense(3, "softmax")]
    keras.Sequential(steps).save(tmp_path / "model.keras")
    with pytest.raises(UserError, match="values up to 1139, so it is for pixels of another"):
        models.load(tmp_path / "model.keras")


def test_weights_to_start_from_need_the_preprocessing_of_the_variant(tmp_path):
    trunk = GoogLeNet(include_top=False, pooling="avg", input_shape=(32, 32, 3))
    steps = [keras.Input((32, 32, 3)), keras.layers.Rescaling(1 / 255), trunk]
    keras.Sequential([*steps, keras.layers.Dense(3, "softmax")]).save(tmp_path / "model.keras")
    models.load(tmp_path / "model.keras")
    with pytest.raises(UserError, match="255, 255, 255 into 1, 1, 1, but .* 132, 138, 151"):
        models.load(tmp_path / "model.keras", need_classifier=False)


def test_predict_checks_its_images(saved):
    loaded = models.load(saved)
    with pytest.raises(UserError, match=r"n x 65 x 65 x 3.*shape \(2, 65, 65, 1\)"):
        loaded.predict(np.zeros((2, 65, 65, 1)))


def test_a_run_that_is_not_finished_is_refused(tmp_path):
    with pytest.raises(UserError, match="train.py has finished"):
        models.load(tmp_path)


def test_other_suffixes_are_refused(tmp_path):
    (tmp_path / "model.h5").write_text("")
    with pytest.raises(UserError, match="is not a .keras file"):
        models.load(tmp_path / "model.h5")
