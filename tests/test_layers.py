import keras
import numpy as np
import pytest
import reference
import tensorflow as tf

from keras_googlenet.layers import BatchNormalization, LocalResponseNormalization

GOOGLE = {"depth_radius": 5, "bias": 2.0, "alpha": 1e-4, "beta": 0.5}
OTHER = {"depth_radius": 1, "bias": 0.5, "alpha": 0.3, "beta": 0.9}


@pytest.fixture(scope="module")
def activations():
    return np.random.default_rng(0).normal(0, 80, (2, 5, 4, 24)).astype("float32")


@pytest.mark.parametrize("arguments", [{}, GOOGLE, OTHER], ids=["bvlc", "google", "other"])
def test_equals_a_loop_over_channels(activations, arguments):
    ours = LocalResponseNormalization(**arguments)(activations)
    names = {"depth_radius": "radius"}
    expected = reference.local_response(
        activations.astype("float64"), **{names.get(k, k): v for k, v in arguments.items()}
    )
    np.testing.assert_allclose(ours, expected, rtol=2e-5)
    assert np.abs(expected - activations).max() > 1  # the layer does something here


def test_equals_tensorflows_own_kernel(activations):
    theirs = tf.nn.lrn(activations, depth_radius=2, bias=1.0, alpha=2e-5, beta=0.75)
    np.testing.assert_allclose(LocalResponseNormalization()(activations), theirs, rtol=2e-5)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16"])
def test_computes_in_float32_under_every_policy(policy):
    # 300 ** 2 overflows float16, so a layer that computed in it would return zeros
    x = np.random.default_rng(0).uniform(260, 900, (1, 2, 2, 8)).astype("float32")
    result = LocalResponseNormalization(dtype=policy)(x)
    assert keras.backend.standardize_dtype(result.dtype) == policy.removeprefix("mixed_")
    expected = reference.local_response(x.astype("float64"))
    np.testing.assert_allclose(np.asarray(result, "float64"), expected, rtol=1e-2)


@pytest.mark.parametrize("arguments", [{}, GOOGLE, OTHER], ids=["bvlc", "google", "other"])
def test_the_gradient_by_hand_is_the_slope(activations, arguments):
    """Against differences in float64 along random directions, and against TensorFlow's own."""
    layer, random = LocalResponseNormalization(**arguments), np.random.default_rng(1)
    names = {"depth_radius": "radius"}
    settings = {names.get(key, key): value for key, value in arguments.items()}
    towards = random.normal(0, 1, activations.shape)
    x, gradients = tf.constant(activations), []
    for training in (True, False):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=training)
            target = tf.reduce_sum(y * towards.astype("float32"))
        gradients.append(tape.gradient(target, x).numpy().astype("float64"))
    np.testing.assert_allclose(*gradients, atol=1e-5 * np.abs(gradients[1]).max())
    for _ in range(3):
        step = 1e-3 * random.normal(0, 1, activations.shape)
        ahead, behind = (
            (reference.local_response(activations + sign * step, **settings) * towards).sum()
            for sign in (1, -1)
        )
        assert (gradients[0] * step).sum() == pytest.approx((ahead - behind) / 2, rel=1e-3)


def test_survives_saving():
    layer = LocalResponseNormalization(**OTHER, name="norm")
    again = LocalResponseNormalization.from_config(layer.get_config())
    assert {key: again.get_config()[key] for key in OTHER} == OTHER
    assert not layer.weights


POLICIES = ("float32", "mixed_bfloat16", "mixed_float16")
ROUNDING = {"float32": 1e-5, "mixed_bfloat16": 2**-7, "mixed_float16": 2**-10}  # of an output
STATISTICS = 1e-5  # relative; they are float32 under every policy


def pair(shape, policy="float32", **arguments):
    """Keras' layer and ours, with the same random weights."""
    random = np.random.default_rng(1)
    layers = [
        kind(momentum=0.7, epsilon=1e-3, dtype=policy, **arguments)
        for kind in (keras.layers.BatchNormalization, BatchNormalization)
    ]
    for layer in layers:
        layer.build(shape)
    weights = [random.uniform(0.5, 1.5, weight.shape) for weight in layers[0].weights]
    for layer in layers:
        layer.set_weights(weights)
    return layers


def pass_through(layer, inputs, towards, training=True):
    """Output, and gradients of the inputs and weights for a given one of the output."""
    x = tf.constant(inputs)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(tf.cast(x, layer.compute_dtype), training=training)
        target = tf.reduce_sum(tf.cast(y, "float32") * towards)
    weights = [weight.value for weight in layer.trainable_weights]
    return y, tape.gradient(target, [x, *weights])


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("arguments", [{}, {"scale": False}, {"center": False}], ids=str)
@pytest.mark.parametrize("shape", [(4, 7, 5, 8), (1, 2, 1, 8), (1, 1, 1, 8)])
def test_fused_batch_normalization_is_keras_own(shape, arguments, policy):
    """Of two values, n - 1 and n differ by a factor of 2; of one, there is no variance."""
    random = np.random.default_rng(0)
    inputs = random.normal(3, 2, shape).astype("float32")
    towards = random.normal(0, 1, shape).astype("float32")
    theirs, ours = pair(shape, policy, **arguments)
    (expected, wanted), (y, found) = (
        pass_through(layer, inputs, towards) for layer in (theirs, ours)
    )
    assert y.dtype == expected.dtype
    close = ROUNDING[policy] * np.abs(np.asarray(expected, "float32")).max()
    np.testing.assert_allclose(np.float32(y), np.float32(expected), rtol=0, atol=close)
    for gradient, other in zip(found, wanted, strict=True):
        scale = max(np.abs(other).max(), 1)
        np.testing.assert_allclose(gradient, other, rtol=0, atol=ROUNDING[policy] * scale)
    for weight, other in zip(ours.weights, theirs.weights, strict=True):
        np.testing.assert_allclose(weight, other, rtol=STATISTICS)
    assert np.any(ours.moving_mean != pair(shape, policy, **arguments)[1].moving_mean)


def operations(layer, shape, **arguments):
    """Names of the TensorFlow operations that a call is made of."""
    call = tf.function(lambda x: layer(x, **arguments))
    graph = call.get_concrete_function(tf.TensorSpec(shape, layer.compute_dtype)).graph
    return {operation.type for operation in graph.get_operations()}


@pytest.mark.parametrize("policy", POLICIES)
def test_training_is_one_operation(policy):
    theirs, ours = pair((2, 3, 3, 4), policy)
    assert "FusedBatchNormV3" in operations(ours, (2, 3, 3, 4), training=True)
    assert "FusedBatchNormV3" not in operations(theirs, (2, 3, 3, 4), training=True)


@pytest.mark.parametrize(
    ("shape", "arguments", "call"),
    [
        ((2, 3, 3, 4), {}, {"training": False}),
        ((2, 3, 3, 4), {"trainable": False}, {"training": True}),  # frozen
        ((2, 3, 3, 4), {"synchronized": True}, {"training": True}),
        ((2, 3, 3, 4), {"axis": 1}, {"training": True}),
        ((2, 3, 3, 4), {"renorm": True}, {"training": True}),
        ((2, 3, 3, 4), {}, {"training": True, "mask": tf.ones((2, 3, 3), tf.bool)}),
        ((6, 4), {}, {"training": True}),
    ],
    ids=["inference", "frozen", "synchronized", "axis", "renorm", "mask", "dense"],
)
def test_the_rest_is_left_to_keras(shape, arguments, call):
    theirs, ours = pair(shape, **arguments)
    assert operations(ours, shape, **call) == operations(theirs, shape, **call)
    inputs = np.random.default_rng(0).normal(3, 2, shape).astype("float32")
    np.testing.assert_array_equal(ours(inputs, **call), theirs(inputs, **call))
    for weight, other in zip(ours.weights, theirs.weights, strict=True):
        np.testing.assert_array_equal(weight, other)


def test_a_network_saved_with_keras_own_layer_takes_its_weights_to_ours(tmp_path):
    image = keras.Input((3, 3, 4))
    for kind, file in ((keras.layers.BatchNormalization, "theirs"), (BatchNormalization, "ours")):
        model = keras.Model(image, kind(name="bn")(image))
        model.get_layer("bn").set_weights(np.random.default_rng(2).uniform(1, 2, (4, 4)))
        model.save(tmp_path / f"{file}.keras")
        model.save_weights(tmp_path / f"{file}.weights.h5")
    model.set_weights(np.zeros((4, 4)))
    model.load_weights(tmp_path / "theirs.weights.h5")
    for file in ("theirs", "ours"):
        again = keras.models.load_model(tmp_path / f"{file}.keras")
        for weight, other in zip(again.weights, model.weights, strict=True):
            np.testing.assert_array_equal(weight, other)
    assert type(again.get_layer("bn")) is BatchNormalization
