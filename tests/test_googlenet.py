import dataclasses
import functools
import re

import keras
import numpy as np
import pytest
import reference
import thin_network
from conftest import dtype_policy

from keras_googlenet.errors import UserError
from keras_googlenet.googlenet import (
    HEADS,
    TABLE_1,
    VARIANTS,
    GoogLeNet,
    inference_model,
    variant_of,
)
from keras_googlenet.imagenet import preprocess_input
from keras_googlenet.layers import LocalResponseNormalization

# Trainable parameters of the main network and with both heads, multiply-adds of the main network
# for 224 x 224 pixels: arithmetic on Table 1 and on the publishers' definitions.
PUBLISHED = {
    "paper": (1000, 6_998_552, 13_378_280, 1_582_671_872),
    "batchnorm": (1000, 7_005_832, 13_385_816, 1_582_671_872),
    "naive": (1000, 97_526_008, 104_274_376, 12_568_061_056),
    "torchvision": (1000, 6_624_904, 13_004_888, 1_498_376_192),
    "slim": (1001, 6_618_649, 13_000_427, 1_498_376_192 + 1024),  # torchvision's and a class more
    "google": (1008, 7_066_380, 13_461_996, 1_584_881_536),
}

# Stage: output shape, parameters and multiply-adds of the variant "paper".
STAGES = {
    "conv1": ("conv1_7x7_s2", (112, 112, 64), 9_472, 118_013_952),
    "conv2": ("conv2_3x3", (56, 56, 192), 114_944, 359_661_568),
    "inception_3a": ("inception_3a_output", (28, 28, 256), 163_696, 128_049_152),
    "inception_3b": ("inception_3b_output", (28, 28, 480), 388_736, 304_267_264),
    "inception_4a": ("inception_4a_output", (14, 14, 512), 376_176, 73_608_192),
    "inception_4b": ("inception_4b_output", (14, 14, 512), 449_160, 87_908_352),
    "inception_4c": ("inception_4c_output", (14, 14, 512), 510_104, 99_850_240),
    "inception_4d": ("inception_4d_output", (14, 14, 528), 605_376, 118_515_712),
    "inception_4e": ("inception_4e_output", (14, 14, 832), 868_352, 169_996_288),
    "inception_5a": ("inception_5a_output", (7, 7, 832), 1_043_456, 51_079_168),
    "inception_5b": ("inception_5b_output", (7, 7, 1024), 1_444_080, 70_697_984),
    "main": ("main", (1000,), 1_025_000, 1_024_000),
    "aux1": ("aux1", (1000,), 3_188_840, 4_169_728),
    "aux2": ("aux2", (1000,), 3_190_888, 4_202_496),
}
POOLS = {
    "pool1_3x3_s2": (56, 56, 64),
    "pool2_3x3_s2": (28, 28, 192),
    "pool3_3x3_s2": (14, 14, 480),
    "pool4_3x3_s2": (7, 7, 832),
    "pool5": (1024,),
    "aux1_pool": (4, 4, 512),
    "aux2_pool": (4, 4, 528),
}
ROUNDINGS = 6  # of the largest logit, that a network in 16 bits may be off by
PRECISION = {"float16": 2.0**-11, "bfloat16": 2.0**-8}  # a rounding: half the last binary digit
NUMPY_TOLERANCE = 1e-4  # on logits of size 1; float32 against float64


def multiply_adds(layer):
    if isinstance(layer, keras.layers.Conv2D):
        positions = np.prod(layer.output.shape[1:3])
        return int(positions * np.prod(layer.kernel.shape))
    if isinstance(layer, keras.layers.Dense):
        return int(np.prod(layer.kernel.shape))
    return 0


def trainable(layers):
    return sum(int(np.prod(w.shape)) for layer in layers for w in layer.trainable_weights)


@pytest.fixture(scope="module")
def full_size():
    with thin_network.installed(thin_network.WHOLE):
        return {name: GoogLeNet(variant=name, classes=PUBLISHED[name][0]) for name in VARIANTS}


@pytest.fixture(scope="module")
def small_paper():
    """The paper's network at 65 pixels, logits out, with weights that no symmetry protects."""
    keras.utils.set_random_seed(3)
    return GoogLeNet(classes=10, input_shape=(65, 65, 3), classifier_activation=None)


@pytest.fixture(scope="module")
def small():
    """Each variant at 65 pixels, logits out, built when it is asked for."""

    @functools.cache
    def build(variant):
        return GoogLeNet(
            classes=10, input_shape=(65, 65, 3), variant=variant, classifier_activation=None
        )

    return build


def like(model, **arguments):
    """A network of other arguments with the weights of `model`."""
    other = GoogLeNet(**{"classes": 10, "input_shape": (65, 65, 3)} | arguments)
    other.set_weights(model.get_weights())
    return other


@pytest.fixture(scope="module")
def images(photographs):
    return photographs[:2, :65, :65] - np.float32([123, 117, 104])


@pytest.mark.parametrize("variant", VARIANTS)
def test_parameters_and_multiply_adds(full_size, variant):
    model = full_size[variant]
    main = inference_model(model)
    classes, main_parameters, all_parameters, operations = PUBLISHED[variant]
    assert VARIANTS[variant].classes == classes
    assert trainable(main.layers) == main_parameters
    assert trainable(model.layers) == all_parameters
    assert sum(map(multiply_adds, main.layers)) == operations


def test_multiply_adds_of_three_outputs(full_size):
    assert sum(map(multiply_adds, full_size["paper"].layers)) == 1_591_044_096


@pytest.mark.parametrize("stage", STAGES)
def test_stages_of_table_1(full_size, stage):
    model = full_size["paper"]
    last, shape, parameters, operations = STAGES[stage]
    layers = [layer for layer in model.layers if re.match(rf"{stage}(_|$)", layer.name)]
    assert model.get_layer(last).output.shape[1:] == shape
    assert trainable(layers) == parameters
    assert sum(map(multiply_adds, layers)) == operations


@pytest.mark.parametrize("pool", POOLS)
def test_pool_shapes(full_size, pool):
    assert full_size["paper"].get_layer(pool).output.shape[1:] == POOLS[pool]


def test_batch_norm_has_two_statistics_a_channel(full_size):
    main = inference_model(full_size["batchnorm"])
    assert main.count_params() - trainable(main.layers) == 14_560


def test_naive_module_costs_what_the_reductions_save(full_size):
    naive, paper = (inference_model(full_size[name]) for name in ("naive", "paper"))
    assert naive.get_layer("inception_5b_output").output.shape[-1] == 4944
    ratio = sum(map(multiply_adds, naive.layers)) / sum(map(multiply_adds, paper.layers))
    assert round(ratio, 2) == 7.94
    extra = re.compile(r"inception_.*(reduce|proj)")
    assert sum(bool(extra.match(layer.name)) for layer in paper.layers) == 9 * 3 * 2  # with ReLU
    assert not any(extra.match(layer.name) for layer in naive.layers)


def test_google_differs_from_the_table_in_two_widths(full_size):
    model = full_size["google"]
    assert model.get_layer("inception_4a_output").output.shape[-1] == 508
    assert model.get_layer("inception_5a_5x5_reduce").filters == 48
    published = {"depth_radius": 5, "bias": 2.0, "alpha": 1e-4, "beta": 0.5}  # its graph's LRN
    for name in ("pool1_norm1", "conv2_norm2"):
        assert published.items() <= model.get_layer(name).get_config().items()


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_layer_has_a_name_that_exports(full_size, variant):
    names = [layer.name for layer in full_size[variant].layers]
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name in names)
    automatic = re.compile(r"(conv2d|dense|re_lu|concatenate|input_layer|flatten|dropout_\d)")
    assert not [name for name in names if automatic.match(name)]
    assert names[0] == "image"
    assert full_size[variant].output_names == list(HEADS)


def test_inception_module_equals_numpy(small_paper):
    before = small_paper.get_layer("pool2_3x3_s2").output
    module = keras.Model(before, small_paper.get_layer("inception_3a_output").output)
    x = np.random.default_rng(0).normal(size=(2, *before.shape[1:])).astype("float32")
    expected = reference.inception(
        x.astype("float64"), reference.weights_of(small_paper), "inception_3a"
    )
    np.testing.assert_allclose(module.predict_on_batch(x), expected, atol=1e-4)
    assert expected.std() > 0.1


def test_aux_head_equals_numpy(small_paper):
    tap = small_paper.get_layer("inception_4d_output").output
    x = np.random.default_rng(0).normal(size=(2, *tap.shape[1:])).astype("float32")
    head = keras.Model(tap, small_paper.get_layer("aux2").output)
    expected = reference.aux_logits(x.astype("float64"), reference.weights_of(small_paper), "aux2")
    np.testing.assert_allclose(head.predict_on_batch(x), expected, atol=1e-4)
    assert expected.std() > 0.01


def test_whole_network_equals_numpy(small_paper, images):
    ours = small_paper.predict_on_batch(images)
    expected = reference.googlenet_logits(
        images.astype("float64"), reference.weights_of(small_paper)
    )
    for head, got, want in zip(HEADS, ours, expected, strict=True):
        np.testing.assert_allclose(got, want, atol=NUMPY_TOLERANCE, err_msg=head)
        assert np.abs(want[0] - want[1]).max() > 100 * NUMPY_TOLERANCE  # pixels decide


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_weight_receives_a_gradient(variant, small, images):
    import tensorflow as tf

    model = small(variant)
    with tf.GradientTape() as tape:
        outputs = model(images / 255, training=True)  # so small that no ReLU of few filters dies
        loss = tf.add_n([tf.reduce_sum(output**2) for output in outputs])
    gradients = tape.gradient(loss, model.trainable_weights)
    for weight, gradient in zip(model.trainable_weights, gradients, strict=True):
        assert gradient is not None and np.abs(gradient).max() > 0, weight.path


@pytest.mark.parametrize("variant", ["batchnorm", "slim", "torchvision"])
def test_statistics_move_a_tenth_of_the_way_a_step(variant, small, images):
    """As torchvision's, whose momentum of 0.1 is the share of the new batch; epsilon as slim's."""
    model = keras.models.clone_model(small(variant))
    norm, conv = (model.get_layer(f"conv1_7x7_s2{end}") for end in ("_bn", ""))
    model(images, training=True)
    seen = keras.Model(model.inputs, conv.output)(images).numpy()
    moved = [np.asarray(norm.moving_mean), np.asarray(norm.moving_variance)]
    np.testing.assert_allclose(moved[0], 0.1 * seen.mean((0, 1, 2)), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(moved[1], 0.9 + 0.1 * seen.var((0, 1, 2)), rtol=1e-3)
    assert norm.epsilon == 0.001


@pytest.mark.parametrize("variant", VARIANTS)
def test_survives_saving(variant, small, images, tmp_path):
    model = small(variant)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert variant_of(again) == variant
    for ours, theirs in zip(model(images), again(images), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_weights_from_a_file(suffix, images, tmp_path):
    def build(**weights):
        return GoogLeNet(classes=10, input_shape=(65, 65, 3), **weights)

    model = build()
    path = tmp_path / f"model{suffix}"
    (model.save if suffix == ".keras" else model.save_weights)(path)
    again = build(weights=str(path))
    np.testing.assert_array_equal(model(images)[0], again(images)[0])


def test_inference_model_shares_the_main_head(small_paper, images):
    main = inference_model(small_paper)
    np.testing.assert_allclose(
        main.predict_on_batch(images), small_paper.predict_on_batch(images)[0], rtol=1e-5
    )
    assert main.get_layer("main") is small_paper.get_layer("main")
    assert not any(layer.name.startswith("aux") for layer in main.layers)
    assert inference_model(main) is main


@pytest.mark.parametrize("variant", VARIANTS)
def test_variant_is_recognized(variant, small):
    model = small(variant)
    assert variant_of(model) == variant
    assert variant_of(inference_model(model)) == variant
    assert variant_of(keras.models.clone_model(model)) == variant
    assert variant_of(GoogLeNet(variant=variant, include_top=False)) == variant


def test_a_new_variant_is_one_entry_of_the_table(monkeypatch):
    changes = {"kernel5x5": 7, "mean": 5.0, "scale": 2.0, "publisher": None}
    new = dataclasses.replace(VARIANTS["paper"], **changes)
    monkeypatch.setitem(VARIANTS, "new", new)
    model = GoogLeNet(variant="new", include_top=False, input_shape=(32, 32, 3))
    assert model.get_layer("inception_5b_5x5").kernel.shape[:2] == (7, 7)
    assert variant_of(model) == "new"
    assert preprocess_input(np.full((1, 1, 3), 6), "new").tolist() == [[[0.5] * 3]]
    with pytest.raises(UserError, match="nobody has published weights of the variant new"):
        GoogLeNet(variant="new", weights="imagenet", include_top=False)


def test_variant_of_something_else():
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="must be a GoogLeNet"):
        variant_of(other)


def test_without_top(images):
    model = GoogLeNet(include_top=False, input_shape=(65, 65, 3))
    features = np.asarray(model(images))
    assert features.shape == (2, 3, 3, 1024 // thin_network.SHARE)
    for pooling, pool in (("avg", np.mean), ("max", np.max)):
        pooled = like(model, include_top=False, pooling=pooling)(images)
        np.testing.assert_allclose(pooled, pool(features, axis=(1, 2)), atol=1e-5)
    assert np.abs(features.max(axis=(1, 2)) - features.mean(axis=(1, 2))).max() > 0.01


def test_open_size_without_auxiliary_heads(small_paper, images):
    main = inference_model(small_paper)
    model = like(main, input_shape=(None, None, 3), aux_heads=False, classifier_activation=None)
    np.testing.assert_allclose(model(images), main(images), atol=1e-5)
    for size in (32, 100):
        assert model(np.resize(images, (1, size, size, 3))).shape == (1, 10)


@pytest.mark.parametrize("size", [65, 96, 225, 512])
@pytest.mark.parametrize("variant", ["paper", "torchvision"])
def test_sizes(size, variant):
    model = GoogLeNet(input_shape=(size, size, 3), classes=7, variant=variant)
    halved = size
    for _ in range(5):
        halved = -(-halved // 2)
    assert model.get_layer("inception_5b_output").output.shape[1:3] == (halved, halved)
    assert [tuple(output.shape) for output in model.outputs] == [(None, 7)] * 3
    if size in (65, 512):
        image = np.random.default_rng(0).normal(0, 80, (1, size, size, 3))
        for probabilities in model(image):
            np.testing.assert_allclose(np.sum(probabilities), 1, atol=1e-5)
            assert np.ptp(probabilities) > 1e-3


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels(channels):
    model = GoogLeNet(input_shape=(65, 65, channels), classes=10)
    assert model.get_layer("conv1_7x7_s2").kernel.shape[:3] == (7, 7, channels)
    x = np.random.default_rng(0).normal(0, 50, (1, 65, 65, channels)).astype("float32")
    assert np.isfinite(model.predict_on_batch(x)[0]).all()


def test_one_class(images):
    model = GoogLeNet(classes=1, classifier_activation="sigmoid", input_shape=(65, 65, 3))
    logits = like(model, classes=1, classifier_activation=None)(images)
    np.testing.assert_allclose(model(images), 1 / (1 + np.exp(-np.asarray(logits))), atol=1e-5)


@pytest.mark.parametrize("integer", [np.int64, np.uint8])
def test_any_integer_counts_classes(integer, tmp_path):
    model = GoogLeNet(classes=integer(10), input_shape=(32, 32, 3), aux_heads=False)
    assert model.output.shape == (None, 10)
    assert type(model.get_layer("main").get_config()["units"]) is int


def test_input_tensor(small_paper, images):
    image = keras.Input((65, 65, 3), name="photograph")
    doubled = keras.layers.Rescaling(2.0)(image)
    model = like(small_paper, input_tensor=doubled, classifier_activation=None, input_shape=None)
    assert model.inputs[0] is image
    for ours, expected in zip(model(images), small_paper(2 * images), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16", "bfloat16"])
def test_dtype_policies(policy, small_paper, images):
    with dtype_policy(policy):
        model = like(small_paper, classifier_activation=None)
    contrary = np.stack([images[0], -images[0]])
    tolerance = ROUNDINGS * PRECISION[policy.removeprefix("mixed_")]
    for ours, exact in zip(model(contrary), small_paper(contrary), strict=True):
        assert keras.backend.standardize_dtype(ours.dtype) == "float32"  # the heads stay exact
        exact = np.asarray(exact)
        scale = np.abs(exact).max()
        np.testing.assert_allclose(ours / scale, exact / scale, atol=tolerance)
        assert np.abs(exact[0] - exact[1]).max() / scale > 2 * tolerance  # pixels decide
    assert np.abs(ours - exact).max() > 0  # it did compute in 16 bits


def test_initializers_are_those_of_bvlc(full_size):
    model = full_size["paper"]
    kernel = np.asarray(model.get_layer("inception_3b_3x3").kernel)
    limit = np.sqrt(3 / (3 * 3 * 128))  # Caffe's xavier: U(+-sqrt(3 / fan in))
    assert 0.99 * limit < np.abs(kernel).max() < 1.00001 * limit
    np.testing.assert_allclose(kernel.std(), limit / np.sqrt(3), rtol=0.01)
    biases = {
        layer.name: set(np.asarray(layer.bias).tolist())
        for layer in model.layers
        if getattr(layer, "bias", None) is not None
        and not isinstance(layer, LocalResponseNormalization)
    }
    assert len(biases) == 57 + 7
    for name, values in biases.items():
        assert values == ({0.0} if name in HEADS else {np.float32(0.2).item()}), name


def test_dropout_rates():
    model = GoogLeNet(dropout=0.1, aux_dropout=0.7)
    assert [model.get_layer(name).rate for name in ("dropout", "aux1_dropout", "aux2_dropout")] == [
        0.1,
        0.7,
        0.7,
    ]


@pytest.mark.parametrize(("variant", "before"), [("paper", 3), ("google", 2)])
def test_every_pixel_counts_in_the_stem(variant, before):
    """Caffe pads 3 before and 3 after 224 pixels, "same" 2 and 3: every window lies one further."""
    model = GoogLeNet(variant=variant, include_top=False)
    layer = model.get_layer("conv1_7x7_s2")
    kernel, bias = np.asarray(layer.kernel), np.asarray(layer.bias)
    spots = np.zeros((2, 224, 224, 3), "float32")
    spots[0, 0, 0, 1] = spots[1, 223, 223, 1] = 1.0
    first, last = keras.Model(model.inputs, layer.output)(spots) - bias
    assert first.shape[:2] == (112, 112)
    at = 223 - (2 * 111 - before)  # the last window begins at pixel 2 * 111 - before
    np.testing.assert_allclose(first[0, 0], kernel[before, before, 1], atol=1e-6)
    np.testing.assert_allclose(last[111, 111], kernel[at, at, 1], atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_shape": (48, 48, 3)}, r"at least 65x65 with `aux_heads=True`.*\(48, 48, 3\)"),
        ({"input_shape": (31, 64, 3), "aux_heads": False}, r"at least 32x32.*\(31, 64, 3\)"),
        ({"input_shape": (None, None, 3)}, "must be fixed with `aux_heads=True`"),
        ({"input_shape": (65, 65)}, r"\(height, width, channels\)"),
        ({"classes": 1}, 'classifier_activation="sigmoid"'),
        ({"classes": 0}, "positive integer.*classes=0"),
        ({"classes": True}, "positive integer.*classes=True"),
        ({"classes": 10.0}, "positive integer.*classes=10.0"),
        ({"variant": "v3"}, "must be one of.*'paper'.*variant='v3'"),
        ({"pooling": "avg"}, "`pooling` is for `include_top=False`"),
        ({"pooling": "sum", "include_top": False}, "pooling='sum'"),
        ({"weights": "caffe.bin"}, "weights='caffe.bin'"),
        ({"input_tensor": np.zeros((1, 65, 65, 3))}, "must be a Keras tensor.*ndarray"),
    ],
)
def test_errors_say_what_to_do(arguments, message):
    with pytest.raises(ValueError, match=message):
        GoogLeNet(**arguments)


def test_input_shape_must_be_that_of_input_tensor():
    with pytest.raises(ValueError, match="must be that of `input_tensor`"):
        GoogLeNet(input_tensor=keras.Input((65, 65, 3)), input_shape=(96, 96, 3))


def test_table_is_the_papers():
    assert {name: tuple(widths) for name, widths in TABLE_1.items()} == reference.INCEPTION
