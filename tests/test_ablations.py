"""The runs behind docs/results.md: what a setting changes, what is measured, and how it resumes."""

import argparse
import dataclasses
import statistics

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from thin_network import WHOLE, thinned

from benchmarks import ablation_results, ablations
from docs import predictions
from keras_googlenet.errors import UserError
from keras_googlenet.layers import LocalResponseNormalization

THIN = {
    name: getattr(thinned(WHOLE["batchnorm"]), name)
    for name in ("widths", "stem", "aux_conv", "aux_fc")
}
CLASSES = ("circle", "square")


def build(name):
    setting = ablations.SETTINGS[name]
    return ablations.build(dataclasses.replace(setting, variant=setting.variant | THIN), 2)


@pytest.fixture(scope="module")
def reference():
    return build(ablation_results.REFERENCE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder, random = tmp_path_factory.mktemp("cifar10"), np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 3)):
        for name in CLASSES:
            (folder / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = random.integers(0, 256, (32, 32, 3), "uint8")
                Image.fromarray(pixels).save(folder / split / name / f"{index}.png")
    return folder


def names_of(model):
    return {layer.name for layer in model.layers}


def test_the_reference_is_the_variant_batchnorm(reference):
    from keras_googlenet.googlenet import GoogLeNet

    network = GoogLeNet(variant="batchnorm", classes=2, input_shape=(65, 65, 3))  # thin: conftest
    assert names_of(reference) == names_of(network)
    assert [w.shape for w in reference.weights] == [w.shape for w in network.weights]
    assert reference.get_layer("dropout").rate == 0.4


def test_third_branch():
    kernels = {
        layer.kernel_size
        for layer in build("3x3 for 5x5").layers
        if layer.name.startswith("inception") and layer.name.endswith("_5x5")
    }
    assert kernels == {(3, 3)}


def test_normalization():
    lrn, nothing = build("LRN"), build("no normalization")
    for model, alpha in ((lrn, 2e-5), (nothing, 0.0)):
        layers = [x for x in model.layers if isinstance(x, LocalResponseNormalization)]
        assert [layer.alpha for layer in layers] == [alpha] * 2
        assert not [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
    x = np.random.default_rng(0).normal(size=(1, 3, 3, 8)).astype("float32")
    np.testing.assert_allclose(nothing.get_layer("pool1_norm1")(x), x, rtol=1e-6)


def test_reductions(reference):
    removed = names_of(reference) - names_of(build("naive, equal steps"))
    modules = ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")
    layers = ("3x3_reduce", "5x5_reduce", "pool_proj")
    assert removed == {
        f"inception_{module}_{layer}{end}"
        for module in modules
        for layer in layers
        for end in ("", "_bn", "_relu")
    }


def test_fully_connected_head():
    model = build("fully connected")
    assert model.get_layer("fc").kernel.shape == (3 * 3 * 128, 128)  # 5b is 3 x 3 at 65 pixels
    assert "pool5" not in names_of(model)
    assert [output.shape for output in model.outputs] == [(None, 2)] * 3


def test_norms_are_those_of_a_tape(folder):
    data = ablations.Data.read(folder, 12)
    model = build("dropout 0")
    for layer in model.layers:  # the tape below must see the same network
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0
    model.compile(
        keras.optimizers.Adam(1e-3),
        loss=["sparse_categorical_crossentropy"] * 3,
        loss_weights=[1, 0.3, 0.3],
    )
    images, labels = data.batch(0, 4, seed=0)
    kernels = [
        v
        for v in model.trainable_variables
        if v.path.startswith("inception_3a") and v.path.endswith("kernel")
    ]
    with tf.GradientTape() as tape:
        losses = [
            tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(labels, p))
            for p in model(images, training=True)
        ]
        loss = losses[0] + 0.3 * losses[1] + 0.3 * losses[2]
    expected = tf.linalg.global_norm(tape.gradient(loss, [k.value for k in kernels]))
    norms = ablations.Norms(model)
    for part in ("start", None):
        with norms.measured(part):
            model.train_on_batch(images, [labels] * 3)
    rows = {(row["part"], row["module"]): float(row["norm"]) for row in norms.rows()}
    assert set(rows) == {("start", module) for module in ablations.MODULES}
    assert rows["start", "inception_3a"] == pytest.approx(float(expected), rel=1e-3)


def test_an_epoch_has_each_image_once(folder):
    data = ablations.Data.read(folder, 12)
    assert data.images.shape == (12, 65, 65, 3) and data.test_images.shape == (6, 65, 65, 3)
    marked = dataclasses.replace(data, labels=np.arange(12))
    seen = [marked.batch(step, 4, seed=1)[1].tolist() for step in range(6)]
    assert sorted(sum(seen[:3], [])) == sorted(sum(seen[3:], [])) == list(range(12))
    assert seen[:3] != seen[3:]
    first, again = data.batch(2, 4, seed=1)[0], data.batch(2, 4, seed=1)[0]
    np.testing.assert_array_equal(first, again)


def test_a_run_is_done_once(tmp_path, monkeypatch):
    trained = []

    def train(setting, seed, data, flags):
        trained.append(seed)
        return {"main_accuracy": 0.5, "seconds": 1.0}, [{"part": "start", "norm": "1"}]

    monkeypatch.setattr(ablations, "train", train)
    settings = {"images": 12, "epochs": 1, "batch_size": 4, "precision": "float32"}
    flags = argparse.Namespace(output=tmp_path, **settings)
    for seed in (0, 1, 0, 1):
        ablations.run_once("aux off", seed, None, flags)
    ablations.run_once("aux 1", 0, None, flags)
    flags.epochs = 2
    ablations.run_once("aux off", 1, None, flags)
    assert trained == [0, 1, 0, 1]
    (tmp_path / "ablations.csv").unlink()  # as after a kill between the two files
    ablations.run_once("aux off", 1, None, flags)
    assert len(ablation_results.read(tmp_path / "ablations.csv")) == 1
    assert len(ablation_results.read(tmp_path / "gradient_norms.csv")) == 4


def test_summary_and_figure(tmp_path, capsys):
    values = {"reference": [0.5, 0.6, 0.7], "aux off": [0.4, 0.4]}  # differences: -0.1, -0.2
    same = dict.fromkeys(("images", "epochs", "batch_size", "precision"), "1")
    rows = [
        {"setting": name, "seed": str(seed), "main_accuracy": str(value), **same}
        for name, those in values.items()
        for seed, value in enumerate(those)
    ]
    mean, spread, runs = ablation_results.summary(rows, list(values))["reference"]
    assert (mean, spread, runs) == pytest.approx((0.6, statistics.stdev((0.5, 0.6, 0.7)), 3))
    ablation_results.draw(rows, list(values), tmp_path / "figure.png")
    assert "| aux off | 40.0 ± 0.0 | -15.0 ± 7.1 | 2 |" in capsys.readouterr().out
    with Image.open(tmp_path / "figure.png") as figure:
        assert figure.width > 500
    with pytest.raises(UserError, match="differ in"):
        ablation_results.summary([*rows, rows[0] | {"epochs": "2"}], list(values))
    with pytest.raises(UserError, match="reference has no run"):
        ablation_results.summary(rows[3:], list(values))


def test_table_of_gradients(capsys):
    rows = [
        {"part": part, "module": "conv1", "setting": name, "norm": norm}
        for part in ("start", "end")
        for name, norm in (("aux 1", "3"), ("aux off", "1"), ("aux off", "2"), ("other", "9"))
    ]
    ablation_results.print_gradients(rows)
    expected = "| start | aux off | aux 1 |\n|---|---|---|\n| conv1 | 1.50 | 3.00 |"
    assert expected in capsys.readouterr().out


def test_figures_of_predictions(folder, tmp_path):
    rows = [
        {
            "file": f"{folder}/test/{name}/{index}.png",
            "label": name,
            "class_1": guess,
            "score_1": str(score),
        }
        for name, guesses in zip(CLASSES, ("csc", "ssc"), strict=True)
        for index, (guess, score) in enumerate(zip(guesses, (0.9, 0.8, 0.7), strict=True))
        for guess in [{"c": "circle", "s": "square"}[guess]]
    ]
    np.testing.assert_array_equal(predictions.counts_of(rows), [[2, 1], [1, 2]])
    pairs = predictions.chosen(rows)
    files = {name: [row["file"][-12:] for row in pair] for name, pair in pairs.items()}
    assert files["circle"] == ["circle/0.png", "circle/1.png"]
    assert files["square"] == ["square/0.png", "square/2.png"]
    predictions.examples(rows).savefig(tmp_path / "examples.png")
