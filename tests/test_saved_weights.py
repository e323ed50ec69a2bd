"""Weights of a file go to the layers of the same name, whatever else the file's network had."""

import copy
import pickle
import shutil
import warnings
import zipfile
import zlib

import h5py
import keras
import numpy as np
import pytest
from conftest import dtype_policy

from keras_googlenet import GoogLeNet
from keras_googlenet.errors import UserError
from keras_googlenet.googlenet import Functional

ONE_HEAD, FEATURES = {"aux_heads": False}, {"include_top": False}
AUX = ["aux1_conv", "aux2_conv", "aux1_fc", "aux2_fc", "aux1", "aux2"]


def network(**arguments):
    """Built and filled with numbers that no initializer gives."""
    model = GoogLeNet(**({"classes": 10, "input_shape": (65, 65, 3)} | arguments))
    return filled(model, 1)


def filled(model, seed):
    """The numbers depend on the names of layer and weight, and on nothing else."""

    def numbers(weight):
        generator = np.random.default_rng([seed, zlib.crc32(weight.path.encode())])
        return generator.normal(1, 0.1, weight.shape)

    model.set_weights([numbers(weight) for weight in model.weights])
    return model


def saved(model, path):
    (model.save if path.suffix == ".keras" else model.save_weights)(path)
    return path


def weights(model):
    return {layer.name: layer.get_weights() for layer in model.layers if layer.weights}


def assert_taken(target, source, random=()):
    """All layers have the source's weights, but for those that are called random."""
    for name, values in weights(target).items():
        same = [np.array_equal(a, b) for a, b in zip(values, source.get(name, []), strict=False)]
        assert all(same) and len(same) == len(values) if name not in random else not any(same), name


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three heads, one and none, as `.keras` and as `.weights.h5`."""
    root = tmp_path_factory.mktemp("saved")
    for name, arguments in (("three", {}), ("one", ONE_HEAD), ("none", FEATURES)):
        model = network(**arguments)
        for suffix in (".keras", ".weights.h5"):
            saved(model, root / f"{name}{suffix}")
    return root


@pytest.fixture(scope="module")
def target():
    return network(**ONE_HEAD)


@pytest.fixture(scope="module")
def three(folder):
    """The weights of the three heads; the other files hold the same of their layers."""
    return weights(keras.models.load_model(folder / "three.keras"))


@pytest.mark.parametrize(
    ("name", "arguments", "random"),
    [
        ("three", {}, []),
        ("three", ONE_HEAD, []),
        ("three", FEATURES, []),
        ("one", {}, AUX),
        ("none", {}, [*AUX, "main"]),
        ("none", ONE_HEAD, ["main"]),
        ("three", {"classes": 3}, ["main", "aux1", "aux2"]),
        ("one", ONE_HEAD | {"classes": 3}, ["main"]),
        ("three", {"input_shape": (128, 128, 3)}, ["aux1_fc", "aux2_fc"]),
    ],
)
def test_what_fits_is_taken_and_the_rest_is_told(name, arguments, random, folder, three):
    arguments = {"classes": 10, "input_shape": (65, 65, 3)} | arguments
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        model = GoogLeNet(weights=str(folder / f"{name}.keras"), **arguments)
        assert_taken(model, three, random)
        filled(model, 2).load_weights(folder / f"{name}.weights.h5")
        assert_taken(model, three, random)
    told = [str(each.message) for each in caught if each.category is UserWarning]
    assert len(told) == (2 if random else 0)
    for message, suffix in zip(told, (".keras", ".weights.h5"), strict=False):
        sentence, _, names = message.partition(": ")
        assert sorted(names.split(", ")) == sorted(random)
        assert f"{name}{suffix} has no weights of a matching shape" in sentence


def test_moving_statistics_are_taken(tmp_path):
    source = network(variant="batchnorm")
    path = saved(source, tmp_path / "source.keras")
    arguments = ONE_HEAD | {"classes": 10, "variant": "batchnorm"}
    assert_taken(GoogLeNet(weights=path, **arguments), weights(source))


def text_file(path, _):
    path.write_text("no weights")


def truncated(path, folder):
    whole = (folder / path.name).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def damaged_inside(path, folder):
    content = bytearray((folder / "one.keras").read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


def with_link(path, folder):
    shutil.copy(folder / "one.weights.h5", path)
    with h5py.File(path, "a") as file:
        del file["layers/conv2d_3"]
        file["layers/conv2d_3"] = h5py.ExternalLink("other.h5", "/")


def expanding(path, _):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", bytes(10**6))


def other_variant(path, _):
    saved(network(variant="slim", **FEATURES), path)


def other_channels(path, _):
    saved(network(input_shape=(65, 65, 1), **FEATURES), path)


def other_network(path, _):
    saved(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]), path)


def keras_2(path, _):
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = ["conv1"]


def quantized(path, folder):
    model = keras.models.load_model(folder / "one.keras")
    model.quantize("int8", filters="main")
    saved(model, path)


def two_networks(path, folder):
    shutil.copy(folder / "none.weights.h5", path)
    with h5py.File(path, "a") as file:
        file.copy("layers", file.create_group("functional"))
        file.move("functional", "layers/functional")


@pytest.mark.parametrize(
    ("make", "name", "message"),
    [
        (lambda path, _: None, "a.keras", "there is no file .*a.keras"),
        (text_file, "a.weights.h5", "is damaged, or no .keras or .weights.h5 file"),
        (text_file, "a.caffemodel", "convert weights in other formats with convert.py first"),
        (truncated, "one.keras", "is damaged"),
        (truncated, "one.weights.h5", "is damaged"),
        (damaged_inside, "a.keras", "is damaged"),
        (with_link, "a.weights.h5", "is damaged"),
        (expanding, "a.keras", "is damaged"),
        (other_variant, "a.keras", "conv1_7x7_s2 has weights of .* of the same variant"),
        (other_channels, "a.keras", r"conv1_7x7_s2 has .*\(7, 7, 1, 8\).* not .*\(7, 7, 3, 8\)"),
        (other_network, "a.weights.h5", "its layer conv1_7x7_s2 is missing"),
        (keras_2, "a.weights.h5", "its layer conv1_7x7_s2 is missing"),
        (quantized, "a.keras", "its layer main has weights of the shapes"),
        (two_networks, "a.weights.h5", "holds several layers conv1_7x7_s2"),
    ],
)
@pytest.mark.filterwarnings("ignore:Skipping nested container")
def test_what_does_not_fit_changes_nothing(make, name, message, tmp_path, folder, target, three):
    make(tmp_path / name, folder)
    with pytest.raises(UserError, match=message) as caught:
        target.load_weights(tmp_path / name)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")
    assert_taken(target, three)


def test_layers_of_the_trunk_may_be_skipped(tmp_path, three):
    path = saved(network(input_shape=(65, 65, 1)), tmp_path / "gray.weights.h5")
    model = filled(network(), 2)
    with pytest.warns(UserWarning, match="random weights: conv1_7x7_s2$"):
        model.load_weights(path, skip_mismatch=True)
    trunk = three | {"conv1_7x7_s2": [np.zeros(0), three["conv1_7x7_s2"][1]]}
    assert_taken(model, trunk, ["conv1_7x7_s2"])


@pytest.mark.filterwarnings("ignore:Skipping nested container")
def test_a_file_without_names_is_left_to_keras(tmp_path, folder, three, target):
    """Before 3.13 Keras wrote none."""
    path = tmp_path / "older.weights.h5"
    shutil.copy(folder / "three.weights.h5", path)
    with h5py.File(path, "a") as file:
        for layer in file["layers"].values():
            layer["vars"].attrs.pop("name")
        del file["layers/dropout/vars"]  # nor groups without content
    model = filled(network(), 2)
    model.load_weights(path)
    assert_taken(model, three)
    with pytest.raises(UserError, match="its layer conv1_7x7_s2 is missing"):
        target.load_weights(path)
    assert_taken(target, three)


def test_layers_are_found_by_name_in_any_order(tmp_path, three):
    """Keras numbers layers of one class, here the heads of equal shapes, in the order it meets."""
    model = network()
    turned = keras.Model(model.inputs, model.outputs[::-1])
    path = saved(turned, tmp_path / "turned.weights.h5")
    assert [layer.name for layer in turned.layers] != [layer.name for layer in model.layers]
    again = filled(network(), 2)
    again.load_weights(path)
    assert_taken(again, three)


def test_the_optimizer_comes_back_with_the_same_network(tmp_path):
    model = network()
    model.compile("sgd", ["mse"] * 3)
    model.optimizer.build(model.trainable_variables)
    model.optimizer.iterations.assign(7)
    path = saved(model, tmp_path / "compiled.weights.h5")
    model.optimizer.iterations.assign(0)
    filled(model, 2).load_weights(path)
    assert int(model.optimizer.iterations) == 7


def test_layers_before_the_trunk_are_left_to_keras(tmp_path):
    def build():
        image = keras.Input((65, 65, 3))
        x = keras.layers.Normalization()(image)
        return filled(GoogLeNet(input_tensor=x, classes=10, **ONE_HEAD), 3)

    model = build()
    again = filled(build(), 2)
    again.load_weights(saved(model, tmp_path / "normalizing.weights.h5"))
    for ours, theirs in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_other_precisions_are_converted(tmp_path):
    """h5py gives bfloat16 back as bytes."""
    with dtype_policy("bfloat16"):
        low = network()
    stored = low.get_layer("conv2_3x3").kernel.numpy().astype("float32")
    path = saved(low, tmp_path / "low.weights.h5")
    high = GoogLeNet(weights=path, classes=10, input_shape=(65, 65, 3), **ONE_HEAD)
    np.testing.assert_array_equal(high.get_layer("conv2_3x3").kernel, stored)
    low.load_weights(saved(network(), tmp_path / "high.weights.h5"))
    np.testing.assert_array_equal(
        low.get_layer("conv2_3x3").kernel.numpy().astype("float32"), stored
    )


def reloaded(model, tmp_path):
    return keras.models.load_model(saved(model, tmp_path / "again.keras"))


COPIES = {
    "load_model": reloaded,
    "clone_model": lambda model, _: keras.models.clone_model(model),
    "from_config": lambda model, _: type(model).from_config(model.get_config()),
    "pickle": lambda model, _: pickle.loads(pickle.dumps(model)),
    "deepcopy": lambda model, _: copy.deepcopy(model),
}


@pytest.mark.parametrize("kind", COPIES)
def test_copies_load_by_name_too(kind, tmp_path, folder, three, target):
    again = COPIES[kind](target, tmp_path)
    assert type(again) is Functional
    filled(again, 2).load_weights(folder / "three.weights.h5")
    assert_taken(again, three)


def test_files_nest_the_network_as_keras_own_class(tmp_path, three):
    """So that weights go between `GoogLeNet()`, `inference_model` and files from before."""

    def around(model):
        return keras.Sequential([keras.Input((65, 65, 3)), keras.layers.Rescaling(1 / 255), model])

    ours, three_heads = network(**ONE_HEAD), network()
    main = three_heads.get_layer("main").output
    plain = keras.Model(three_heads.input, main, name=ours.name)
    assert type(plain) is not Functional
    path = saved(around(ours), tmp_path / "ours.weights.h5")
    filled(plain, 2)
    around(plain).load_weights(path)
    assert_taken(plain, three)
    assert_taken(GoogLeNet(weights=path, classes=10, **ONE_HEAD), three)
    again = reloaded(around(plain), tmp_path)
    assert_taken(again.layers[-1], three)
    assert type(reloaded(around(ours), tmp_path).layers[-1]) is Functional
