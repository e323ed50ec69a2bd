"""Networks as people save them: each is compared with what Keras computes of the whole."""

import functools

import keras
import numpy as np
import pytest
from conftest import dtype_policy
from keras import layers, ops

from keras_googlenet import models
from keras_googlenet.errors import UserError
from keras_googlenet.explaining import branch_maps, gradcam
from keras_googlenet.features.visualization import visualize
from keras_googlenet.googlenet import GoogLeNet
from keras_googlenet.imagenet import preprocess_input
from keras_googlenet.normal_form import (
    check_classifier,
    check_pixels,
    check_trunk_scale,
    has_preprocessing,
    normal_form,
    preprocess_for,
)

SLOW = pytest.mark.slow  # not by the second, but together they would take a minute
SHAPE = (65, 65, 3)
MEAN = (120.0, 110.0, 100.0)


@keras.saving.register_keras_serializable("test_normal_form")
class Halved(layers.Layer):
    def call(self, inputs):
        return inputs / 2


@functools.cache  # nothing changes them
def trunk(pooling="avg", variant="slim", shape=SHAPE):
    return GoogLeNet(include_top=False, pooling=pooling, variant=variant, input_shape=shape)


def whole(**arguments):
    arguments = {"classes": 3, "variant": "slim", "aux_heads": False} | arguments
    return GoogLeNet(input_shape=SHAPE, **arguments)


def chain(*steps, shape=SHAPE, dtype="float32"):
    """A functional model of layers and functions, one after the other."""
    image = keras.Input(shape, dtype=dtype)
    x = image
    for step in steps:
        x = step(x)
    return keras.Model(image, x)


def softmax(classes=3):
    return layers.Dense(classes, "softmax")


def scaled(x):
    return x / 127.5 - 1


def tripled(x):
    return ops.repeat(x[..., None], 3, axis=-1)


def planes(x):
    red, green, blue = ops.split(x, 3, axis=-1)
    return ops.concatenate([blue - 104.0, green - 117.0, red - 123.0], axis=-1)


def adapted(images):
    layer = layers.Normalization()
    layer.adapt(images)
    return layer


def tutorial():
    """Keras' guide to transfer learning."""
    augmentation = keras.Sequential([layers.RandomFlip(), layers.RandomRotation(0.1)])
    base, scale = trunk(None), layers.Rescaling(1 / 127.5, offset=-1)
    return chain(
        lambda x: augmentation(x, training=True),
        scale,
        lambda x: base(x, training=False),
        layers.GlobalAveragePooling2D(),
        layers.Dropout(0.2),
        softmax(5),
    )


def reordered():
    inner = whole(aux_heads=True, classifier_activation=None)
    image = keras.Input(SHAPE)
    main, aux1, aux2 = inner(layers.Rescaling(1 / 127.5, offset=-1)(image))
    return keras.Model(image, [layers.Softmax()(one) for one in (aux2, main, aux1)])


def with_features():
    model = chain(scaled, whole())
    inner = model.layers[-1]
    pooled = keras.Model(inner.inputs, [inner.get_layer("pool5").output, inner.output])
    return chain(scaled, pooled)


def low_rank():
    head = softmax()
    model = chain(scaled, trunk(), head)
    head.enable_lora(2)
    head.lora_kernel_b.assign(keras.random.normal(head.lora_kernel_b.shape, seed=1))
    return model


@pytest.fixture(scope="module")
def images(photographs):
    return np.round(photographs[:2, :65, :65])


TAKEN = {  # model, and which of its outputs is the main head
    "rescaled": lambda _: keras.Sequential(
        [keras.Input(SHAPE), layers.Rescaling(1 / 127.5, offset=-1), whole()]
    ),
    "tutorial": lambda _: tutorial(),
    "normalized": lambda images: chain(adapted(images), trunk(), softmax()),
    "operators": lambda _: chain(scaled, trunk("max"), layers.Dense(1, "sigmoid")),
    "integers": lambda _: chain(scaled, trunk(), softmax(), dtype="uint8"),
    "preprocess_input": lambda _: chain(preprocess_input, trunk(variant="paper"), softmax()),
    "planes": lambda _: chain(planes, trunk(variant="paper"), softmax()),
    "hidden": lambda _: chain(
        scaled,
        trunk(),
        layers.Dense(7, "relu", name="main"),
        layers.BatchNormalization(),
        layers.Dense(4, name="logits"),
        layers.Activation("softmax"),
    ),
    "softmax of keras.ops": lambda _: chain(scaled, trunk(), layers.Dense(4), ops.softmax),
    "outputs in another order": lambda _: reordered(),
    "features beside": lambda _: with_features(),
    "adapters": lambda _: low_rank(),
    "crop": lambda _: chain(layers.CenterCrop(48, 48), scaled, trunk(shape=(48, 48, 3)), softmax()),
}
RARE = ("operators", "integers", "planes", "softmax of keras.ops", "features beside", "crop")
MAIN = {"outputs in another order": 1, "features beside": 1}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[SLOW] * (name in RARE)) for name in TAKEN]
)
def test_files_answer_as_keras_does(name, images, tmp_path):
    keras.utils.set_random_seed(3)
    model = TAKEN[name](images)
    expected = model(images, training=False)
    expected = expected[MAIN[name]] if name in MAIN else expected
    model.save(tmp_path / "model.keras")
    loaded = models.load(tmp_path / "model.keras")
    network = loaded.model
    ours = network(preprocess_for(network, images), training=False)
    ours = ours[0] if isinstance(ours, list) else ours
    np.testing.assert_allclose(ours, expected, atol=1e-5)
    assert network.get_layer("main").activation.__name__ in ("softmax", "sigmoid")
    assert network.get_layer("pool5").output.shape == (None, trunk().output.shape[-1])
    assert len(network.outputs) == (3 if name == "outputs in another order" else 1)
    assert normal_form(network) is network and has_preprocessing(network)


@pytest.mark.parametrize("variant", ["paper", "torchvision"])
def test_what_we_build_is_the_form(variant):
    model = whole(variant=variant, aux_heads=True)
    assert normal_form(model) is model and not has_preprocessing(model)


def test_files_of_before_have_keras_own_batch_normalization(images):
    model = whole()

    def plain(layer):
        kind = type(layer)
        if isinstance(layer, layers.BatchNormalization):
            kind = layers.BatchNormalization
        return kind.from_config(layer.get_config())

    old = keras.models.clone_model(model, clone_function=plain)
    assert normal_form(old) is old


def test_preprocessing_outside_is_ours(images):
    """A nested trunk, and layers that only move pixels, change no values."""
    for model in (
        chain(layers.RandomFlip(), trunk(), softmax()),
        chain(layers.Resizing(65, 65), trunk(), softmax(), shape=(None, None, 3)),
    ):
        network = normal_form(model)
        assert network.input_shape == (None, *SHAPE)
        ours = network(preprocess_for(network, images), training=False)
        expected = model(images / np.float32(127.5) - 1, training=False)
        np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_an_output_by_name_is_one_output(images):
    plain = whole()
    named = keras.Model(plain.input, {"probabilities": plain.output})
    found = normal_form(named)(preprocess_for(plain, images), training=False)
    np.testing.assert_allclose(found, plain(scaled(images), training=False), atol=1e-6)


def test_a_layer_that_scales_by_one_is_no_preprocessing():
    assert not has_preprocessing(normal_form(chain(layers.Rescaling(1.0), trunk(), softmax())))


@pytest.mark.parametrize(
    "step", [layers.Rescaling(2.0, offset=-1), lambda x: (x - 0.45) / 0.225], ids=["slim", "torch"]
)
def test_preprocessing_for_pixels_up_to_one_is_refused(step):
    with pytest.raises(UserError, match="for pixels of another range"):
        check_pixels(normal_form(chain(step, trunk(), softmax())))


def test_the_classifier_computes_in_float32():
    with dtype_policy("mixed_bfloat16"):
        base = GoogLeNet(include_top=False, pooling="avg", input_shape=SHAPE)
        model = chain(scaled, base, layers.Dense(3), layers.Activation("softmax"))
    network = normal_form(model)
    assert network.get_layer("main").compute_dtype == "float32"
    assert network.get_layer("inception_3a_1x1").compute_dtype == "bfloat16"


def test_the_callers_model_is_unchanged(images):
    model = chain(scaled, trunk(), softmax())
    before, names = model(images), [one.name for one in model.operations]
    nodes = sum(len(one._inbound_nodes) for one in model.layers[-2].layers)
    normal_form(model)
    np.testing.assert_array_equal(model(images), before)
    assert [one.name for one in model.operations] == names
    assert sum(len(one._inbound_nodes) for one in model.layers[-2].layers) == nodes


def changed(name, **changes):
    def copy(layer):
        config = layer.get_config() | (changes if layer.name == name else {})
        return type(layer).from_config(config)

    return keras.models.clone_model(whole(), clone_function=copy)


def quantized():
    model = whole()
    model.quantize("int8")
    return model


def two_inputs():
    image, other = keras.Input(SHAPE), keras.Input((2,))
    x = layers.Concatenate()([trunk()(image), other])
    return keras.Model([image, other], softmax()(x))


def two_classifiers():
    image = keras.Input(SHAPE)
    x = trunk()(image)
    return keras.Model(image, [softmax(3)(x), softmax(4)(x)])


def residual(x):
    return x + layers.Dense(x.shape[-1])(x)


class Subclass(keras.Model):
    def __init__(self):
        super().__init__()
        self.base = trunk()

    def call(self, inputs):
        return self.base(inputs)


REFUSED = {
    "no fit": (lambda: chain(layers.Flatten(), softmax()), "must be a GoogLeNet"),
    "filters": (lambda: changed("inception_5b_3x3", filters=5), "filters=5, but .* slim has 48"),
    "pool": (lambda: changed("pool4_3x3_s2", pool_size=3), r"pool4_3x3_s2 has pool_size=\(3, 3\)"),
    "slope": (
        lambda: changed("inception_3a_1x1_relu", negative_slope=0.1),
        "negative_slope=0.1",
    ),
    "custom before": (lambda: chain(Halved(), trunk(), softmax()), r"halved.*\(Halved\) before"),
    "custom behind": (lambda: chain(trunk(), Halved(), softmax()), r"\(Halved\) after the trunk"),
    "lambda": (lambda: chain(layers.Lambda(scaled), trunk(), softmax()), r"\(Lambda\) before"),
    "learned before": (
        lambda: chain(layers.Conv2D(3, 1), trunk(), softmax()),
        r"\(Conv2D\) before",
    ),
    "flat map": (lambda: chain(trunk(None), layers.Flatten(), softmax()), r"\(Flatten\) on the"),
    "quantized": (quantized, r"is quantized \(main: int8\)"),
    "inputs": (two_inputs, "has 2 inputs"),
    "classifiers": (two_classifiers, "several classifiers"),
    "residual": (lambda: chain(trunk(), residual, softmax()), "with 2 inputs, after the trunk"),
    "twice": (lambda: chain(trunk(), softmax(), layers.Softmax()), "has the activation softmax"),
    "one class": (lambda: chain(trunk(), softmax(1)), "one class, for which softmax"),
    "no dense": (lambda: chain(trunk(), layers.Softmax()), "no classifier"),
    "gray": (
        lambda: chain(
            lambda x: ops.repeat(x[..., None], 3, -1), trunk(), softmax(), shape=(65, 65)
        ),
        r"inputs of shape \(None, 65, 65\), not color images",
    ),
    "bytes": (
        lambda: chain(lambda x: x * 2, scaled, trunk(), softmax(), dtype="uint8"),
        "computes in uint8 before the trunk .*; cast",
    ),
    "subclass": (Subclass, "functional or Sequential"),
    "tanh": (lambda: chain(trunk(), layers.Dense(3, "tanh")), "ends in tanh"),
    "logits": (lambda: chain(trunk(), layers.Dense(3)), "ends in logits"),
    "features": (trunk, "features, without a classifier"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method")
def test_others_are_refused(name):
    make, message = REFUSED[name]
    with pytest.raises(UserError, match=message):
        check_classifier(normal_form(make()))


def test_maps_of_a_nested_network_are_those_of_its_trunk(images):
    plain = whole()
    nested = chain(scaled, plain)
    ours, expected = (gradcam(one, images, 1) for one in (nested, plain))
    assert expected.max() > 0
    np.testing.assert_allclose(ours, expected, atol=1e-5)


@SLOW
def test_other_explanations_of_a_nested_network_are_those_of_its_trunk(images):
    plain = whole()
    nested = chain(scaled, plain)
    ours, expected = (gradcam(one, images, 1, method="saliency") for one in (nested, plain))
    np.testing.assert_allclose(ours, expected, atol=1e-5)
    ours, expected = (branch_maps(one, images[0], "5b", 1) for one in (nested, plain))
    for branch, found in ours.items():
        np.testing.assert_allclose(found, expected[branch], atol=1e-5)
    drawn = [visualize(one, "conv2_3x3", [1], size=32, steps=2) for one in (nested, plain)]
    np.testing.assert_allclose(*drawn, atol=0.01)


def test_maps_have_the_size_of_the_image_where_the_network_resizes(images):
    model = chain(layers.Resizing(48, 48), scaled, trunk(shape=(48, 48, 3)), softmax())
    assert gradcam(model, images).shape == (2, 65, 65)
    cropped = chain(layers.CenterCrop(48, 48), scaled, trunk(shape=(48, 48, 3)), softmax())
    with pytest.raises(UserError, match="cuts or pads the image by its layer center_crop"):
        gradcam(cropped, images)


def test_training_begins_on_the_scale_of_the_variant():
    check_trunk_scale(normal_form(chain(scaled, trunk(), softmax())))
    check_trunk_scale(normal_form(trunk()))
    with pytest.raises(UserError, match="into 135, 145, 155, but .* slim feeds 1, 1, 1"):
        check_trunk_scale(normal_form(chain(lambda x: x - np.float32(MEAN), trunk(), softmax())))
