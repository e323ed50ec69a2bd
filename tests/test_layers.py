import keras
import numpy as np
import pytest
import reference

from keras_googlenet.layers import LocalResponseNormalization

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
    import tensorflow as tf

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


def test_survives_saving():
    layer = LocalResponseNormalization(**OTHER, name="norm")
    again = LocalResponseNormalization.from_config(layer.get_config())
    assert {key: again.get_config()[key] for key in OTHER} == OTHER
    assert not layer.weights
