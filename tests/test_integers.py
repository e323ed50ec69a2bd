"""Local response normalisation for integers, against sums and powers in NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from keras_googlenet.exporting import integers
from keras_googlenet.exporting.graph import LocalResponse

BVLC = LocalResponse(channels=8, depth_radius=2, bias=1.0, alpha=2e-5, beta=0.75)
GOOGLE = LocalResponse(channels=8, depth_radius=5, bias=2.0, alpha=1e-4, beta=0.5)


def energy(x, norm):
    """Bias and alpha times the squares of the neighbours, channel by channel."""
    total = np.zeros(x.shape)
    for channel in range(norm.channels):
        first = max(0, channel - norm.depth_radius)
        neighbours = x[..., first : channel + norm.depth_radius + 1].astype("float64")
        total[..., channel] = norm.bias + norm.alpha * (neighbours**2).sum(axis=-1)
    return total


@pytest.fixture(scope="module")
def activations():
    """From 0 over four orders of magnitude, as the first convolution of a trained network gives."""
    generator = np.random.default_rng(0)
    return (10 ** generator.uniform(0, 4, (2, 16, 16, 8)) * generator.integers(0, 2, 8)).astype("f")


@pytest.mark.parametrize("norm", [BVLC, GOOGLE])
@pytest.mark.parametrize("split", [None, 3.0, 25.0])
def test_every_split_computes_the_formula(norm, split, activations):
    found = integers.local_response(
        tf.constant(activations), integers.IntegerLocalResponse(norm, split)
    )
    powers = energy(activations, norm) ** norm.beta
    assert (powers > 25).any() and (powers < 3).any()  # both ranges are met
    np.testing.assert_allclose(found, activations / powers, rtol=2e-5)


@pytest.mark.parametrize(
    "largest, split",
    [(10.0, None), (25.0, None), (630.0, 630**0.5)],  # a step of 10 / 255 is small beside 1
)
def test_a_wide_range_is_split(largest, split):
    assert integers._split(BVLC, largest) == pytest.approx(split)


def test_two_ranges_keep_small_energies():
    """What the split is for: in eight bits, one range loses what two keep."""
    activations = np.maximum(0, np.random.default_rng(0).normal(0, 150, (2, 16, 16, 8))).astype("f")
    activations[0, 0, 0] = 4000  # one bright edge sets the range of all
    errors = {}
    for split in (None, 25.0):
        content = convert(integers.IntegerLocalResponse(BVLC, split), activations)
        expected = activations / energy(activations, BVLC) ** BVLC.beta
        errors[split] = np.abs(content(activations) - expected).mean()
    assert errors[25.0] < errors[None] / 2


def convert(operation, x):
    """Returns the operation as LiteRT computes it in integers."""
    from ai_edge_litert.interpreter import Interpreter

    module = tf.Module()
    module.serve = tf.function(
        lambda x: {"y": integers.local_response(x, operation)},
        input_signature=[tf.TensorSpec(x.shape, tf.float32, "x")],
        autograph=False,
    )
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [module.serve.get_concrete_function()], module
    )
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.representative_dataset = lambda: [[x]]
    serve = Interpreter(model_content=converter.convert()).get_signature_runner("serving_default")
    return lambda x: serve(x=x)["y"]
