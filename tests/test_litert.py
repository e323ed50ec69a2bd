"""Local response normalization for integers, against sums and powers in NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_googlenet.exporting import litert
from keras_googlenet.exporting.litert import IntegerNormalization
from keras_googlenet.googlenet import GoogLeNet

BVLC = {"depth_radius": 2, "bias": 1.0, "alpha": 2e-5, "beta": 0.75}
GOOGLE = {"depth_radius": 5, "bias": 2.0, "alpha": 1e-4, "beta": 0.5}


def energy(x, norm):
    """Bias and alpha times the squares of the neighbors, channel by channel."""
    total = np.zeros(x.shape)
    for channel in range(x.shape[-1]):
        first = max(0, channel - norm["depth_radius"])
        neighbors = x[..., first : channel + norm["depth_radius"] + 1].astype("float64")
        total[..., channel] = norm["bias"] + norm["alpha"] * (neighbors**2).sum(axis=-1)
    return total


@pytest.fixture(scope="module")
def activations():
    """From 0 over four orders of magnitude, as the first convolution of a trained network gives."""
    generator = np.random.default_rng(0)
    return (10 ** generator.uniform(0, 4, (2, 16, 16, 8)) * generator.integers(0, 2, 8)).astype("f")


@pytest.mark.parametrize("norm", [BVLC, GOOGLE])
@pytest.mark.parametrize("split", [None, 3.0, 25.0])
def test_every_split_computes_the_formula(norm, split, activations):
    found = IntegerNormalization(split, **norm)(activations)
    powers = energy(activations, norm) ** norm["beta"]
    assert (powers > 25).any() and (powers < 3).any()  # both ranges are met
    np.testing.assert_allclose(found, activations / powers, rtol=2e-5)


@pytest.mark.parametrize(
    "largest, split",
    [(10.0, None), (25.0, None), (630.0, 630**0.5)],  # a step of 10 / 255 is small beside 1
)
def test_a_wide_range_is_split(largest, split):
    assert litert._split(BVLC["bias"], largest) == pytest.approx(split)


def test_the_ranges_are_those_of_what_is_normalized(photographs):
    keras.utils.set_random_seed(6)
    model = GoogLeNet(classes=3, input_shape=(65, 65, 3), aux_heads=False)
    kernel = model.get_layer("conv1_7x7_s2").kernel
    kernel.assign(20 * kernel)  # as large as a trained network's answers to edges
    images = photographs[:, :65, :65]
    made = litert.integer_normalizations(model, images)
    splits = {name: layer.split for name, layer in made.items()}
    for name, before in (("pool1_norm1", "pool1_3x3_s2"), ("conv2_norm2", "conv2_3x3_relu")):
        below = keras.Model(model.inputs, model.get_layer(before).output)
        maps = below(images - np.float32([123, 117, 104])).numpy()
        largest = energy(maps, BVLC).max()
        expected = largest**0.5 if largest > 25.5 else None
        assert splits[name] == (expected and pytest.approx(expected, rel=1e-4))
    assert splits["pool1_norm1"]


def test_two_ranges_keep_small_energies():
    """What the split is for: in eight bits, one range loses what two keep."""
    activations = np.maximum(0, np.random.default_rng(0).normal(0, 150, (2, 16, 16, 8))).astype("f")
    activations[0, 0, 0] = 4000  # one bright edge sets the range of all
    errors = {}
    for split in (None, 25.0):
        content = convert(IntegerNormalization(split, **BVLC), activations)
        expected = activations / energy(activations, BVLC) ** BVLC["beta"]
        errors[split] = np.abs(content(activations) - expected).mean()
    assert errors[25.0] < errors[None] / 2


def convert(layer, x):
    """Returns the layer as LiteRT computes it in integers."""
    from ai_edge_litert.interpreter import Interpreter

    layer.build(x.shape)
    serve = tf.function(
        lambda x: {"y": layer(x)}, input_signature=[tf.TensorSpec(x.shape, name="x")]
    )
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [serve.get_concrete_function()], layer
    )
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.representative_dataset = lambda: [[x]]
    serve = Interpreter(model_content=converter.convert()).get_signature_runner("serving_default")
    return lambda x: serve(x=x)["y"]
