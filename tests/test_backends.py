"""The network computes the same under each Keras backend."""

import importlib.util
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from conftest import ROOT
from processes import PATIENCE

from keras_googlenet.googlenet import VARIANTS, GoogLeNet

TOLERANCE = 1e-4  # of logits
FORWARD = """
import sys
import keras
import numpy as np
import thin_network
from keras_googlenet.googlenet import GoogLeNet

# These numbers are replaced below, and JAX would compile a program for each shape of them.
keras.initializers.VarianceScaling.__call__ = lambda self, shape, dtype: np.zeros(shape, dtype)
thin_network.install()
given, results = np.load(sys.argv[1]), {}
for variant in sys.argv[3:]:
    model = GoogLeNet(
        classes=10, input_shape=(65, 65, 3), classifier_activation=None, variant=variant
    )
    model.set_weights([given[f"{variant}_{i}"] for i in range(len(model.weights))])
    results[variant] = np.stack(model.predict(given["images"], verbose=0))
np.savez(sys.argv[2], **results)
"""


@pytest.fixture(scope="module")
def tensorflow_side(photographs, tmp_path_factory):
    """A file of images and weights, and the logits of every variant under TensorFlow."""
    given = {"images": photographs[:2, :65, :65] - np.float32(117)}
    logits = {}
    for variant in VARIANTS:
        keras.utils.set_random_seed(5)
        model = GoogLeNet(
            classes=10, input_shape=(65, 65, 3), classifier_activation=None, variant=variant
        )
        given |= {f"{variant}_{i}": weight for i, weight in enumerate(model.get_weights())}
        logits[variant] = np.stack(model.predict_on_batch(given["images"]))
    path = tmp_path_factory.mktemp("backends") / "given.npz"
    np.savez(path, **given)
    return path, logits


@pytest.mark.parametrize(
    ("backend", "variants"),
    [
        pytest.param("jax", [*VARIANTS], marks=pytest.mark.slow),
        pytest.param("torch", [*VARIANTS], marks=[pytest.mark.slow, pytest.mark.peers("torch")]),
    ],
)
def test_equals_tensorflow(backend, variants, tensorflow_side, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed: see requirements-dev.txt, requirements-bench.txt")
    given, expected = tensorflow_side
    environment = os.environ | {
        "KERAS_BACKEND": backend,
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests"))),
    }
    command = [sys.executable, "-c", FORWARD, given, tmp_path / "logits.npz", *variants]
    subprocess.run(command, check=True, env=environment, timeout=PATIENCE)
    logits = np.load(tmp_path / "logits.npz")
    for variant in variants:
        scale = max(1.0, np.abs(expected[variant]).max())
        difference = np.abs(logits[variant] - expected[variant]).max() / scale
        assert difference < TOLERANCE, variant
        assert np.ptp(expected[variant], axis=1).max() > 100 * TOLERANCE
