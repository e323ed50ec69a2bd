"""Pixels of any kind against arithmetic in float64."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import CLASSES, ROOT
from processes import PATIENCE

from keras_googlenet.imagenet import preprocess_input

FRAMEWORKS = [name for name in ("jax", "torch") if importlib.util.find_spec(name)]
DTYPES = ["bool", "uint8", "int32", "int64", "float16", "bfloat16", "float32", "float64"]
PIXELS = np.array([[[0, 0, 0], [255, 100, 10]], [[1, 254, 128], [3, 17, 92]]])
PRECISION = {"float16": 2**-10, "bfloat16": 2**-7}


def to_tensorflow(pixels, dtype):
    return tf.cast(tf.constant(pixels), dtype)


def to_jax(pixels, dtype):
    import jax.numpy as jnp

    return jnp.asarray(pixels).astype(dtype)


def to_torch(pixels, dtype):
    import torch

    return torch.tensor(pixels).to(getattr(torch, dtype))


def in_graph(function, x):
    return next(iter(tf.data.Dataset.from_tensors(x).map(function)))


def ragged(function, x):
    result = function(tf.RaggedTensor.from_tensor(x, ragged_rank=1))
    assert isinstance(result, tf.RaggedTensor)
    return result.to_tensor()


def symbolic(function, x):
    image = keras.Input(x.shape[1:], dtype=keras.backend.standardize_dtype(x.dtype))
    return keras.Model(image, function(image))(x)


def call(function, x):
    return function(x)


KINDS = {  # how pixels are made, and how they reach the function
    "numpy": (lambda pixels, dtype: pixels.astype(dtype), call),
    "list": (lambda pixels, dtype: pixels.astype(dtype).tolist(), call),
    "tensorflow": (to_tensorflow, call),
    "tf.Variable": (lambda pixels, dtype: tf.Variable(to_tensorflow(pixels, dtype)), call),
    "tf.data": (to_tensorflow, in_graph),
    "tf.function": (to_tensorflow, lambda function, x: tf.function(function)(x)),
    "ragged": (to_tensorflow, ragged),
    "keras": (keras.ops.cast, call),
    "keras.Input": (keras.ops.cast, symbolic),
    "jax": (to_jax, call),
    "torch": (to_torch, call),
}
INSTALLED = [kind for kind in KINDS if kind not in ("jax", "torch") or kind in FRAMEWORKS]


def check(kind, dtype, variant):
    make, reach = KINDS[kind]
    pixels = PIXELS > 100 if dtype == "bool" else PIXELS
    x = make(pixels, dtype)
    result = reach(lambda x: preprocess_input(x, variant), x)
    subtract, divide = {"paper": ((123, 117, 104), 1), "slim": (127.5, 127.5)}[variant]
    expected = (pixels.astype("float64") - subtract) / divide
    kept = "float" in dtype and kind not in ("numpy", "list")
    assert keras.backend.standardize_dtype(result.dtype) == (
        keras.backend.standardize_dtype(x.dtype) if kept else "float32"
    )
    if kind not in ("numpy", "list", "tf.Variable", "keras.Input"):
        assert type(result) is type(x)
    values = result.float() if hasattr(result, "float") else result
    tolerance = PRECISION.get(dtype, 1e-6) if kept and divide != 1 else 1e-6
    np.testing.assert_allclose(np.asarray(values).astype("float64"), expected, atol=tolerance)


@pytest.mark.parametrize("variant", ["paper", "slim"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", INSTALLED)
def test_kinds_of_pixels(kind, dtype, variant):
    check(kind, dtype, variant)


def check_all():
    for kind in INSTALLED:
        for dtype in DTYPES:
            check(kind, dtype, "paper")
            check(kind, dtype, "slim")
    print("checked", len(INSTALLED))


@pytest.mark.parametrize(
    "backend",
    [
        pytest.param("jax", marks=pytest.mark.slow),
        pytest.param("torch", marks=[pytest.mark.slow, pytest.mark.peers("torch")]),
    ],
)
def test_kinds_of_pixels_under_other_backends(backend):
    if backend not in FRAMEWORKS:
        pytest.skip(f"{backend} is not installed: see requirements-dev.txt, requirements-bench.txt")
    environment = os.environ | {
        "KERAS_BACKEND": backend,
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests"))),
    }
    command = [sys.executable, "-c", "import test_preprocess_input as t; t.check_all()"]
    done = subprocess.run(
        command, env=environment, timeout=PATIENCE, capture_output=True, text=True
    )
    assert done.stdout.split() == ["checked", str(len(INSTALLED))], done.stderr


def test_images_of_a_folder(image_folder):
    images = keras.utils.image_dataset_from_directory(
        image_folder / "train", image_size=(20, 20), batch_size=8, shuffle=False, verbose=False
    ).map(lambda x, y: (tf.cast(x, tf.uint8), y))
    prepared = images.map(lambda x, y: (preprocess_input(x), (y, y, y)))
    count = 0
    for (x, y), (inputs, labels) in zip(images, prepared, strict=True):
        np.testing.assert_allclose(inputs, x.numpy().astype(float) - (123, 117, 104), atol=1e-5)
        assert all(np.array_equal(y, each) for each in labels)
        count += len(y)
    assert count == 8 * len(CLASSES)


def run_python_of(page, names):
    text = (ROOT / page).read_text(encoding="utf-8")
    exec(re.search(r"```python\n(.*?)```", text, re.DOTALL)[1], names)


def test_the_docs_train(image_folder, tmp_path, monkeypatch):
    """The Python of docs/training.md runs on a folder of images."""
    shutil.copytree(image_folder / "train", tmp_path / "path/to/folders")
    monkeypatch.chdir(tmp_path)
    names = {}
    run_python_of("docs/training.md", names)
    history = names["model"].history.history
    assert {"main_accuracy", "aux1_accuracy", "aux2_loss"} <= set(history)
    assert np.isfinite(history["loss"]).all()
    assert names["main"].output_shape == (None, 10)


def test_the_readme_classifies(tmp_path, monkeypatch, capsys):
    """The Python of README.md runs on a photograph, but for the download."""
    from keras_googlenet import weights

    keras.utils.save_img(tmp_path / "photo.jpg", np.full((300, 400, 3), 99.0))
    monkeypatch.chdir(tmp_path)
    asked = []
    monkeypatch.setattr(weights, "load_published", lambda model, variant: asked.append(variant))
    run_python_of("README.md", {})
    assert asked == ["paper"]
    assert len(re.findall(r"n\d{8}", capsys.readouterr().out)) == 5
