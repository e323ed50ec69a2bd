"""Caffe files as others write them: NVIDIA's blobs, HDF5, other classifiers, missing biases."""

import re

import caffe_reference
import h5py
import keras
import numpy as np
import pytest
import thin_network
from test_caffe import logits_of

from keras_googlenet.errors import UserError
from keras_googlenet.imagenet import preprocess_input
from keras_googlenet.weights.conversion import convert_file

CLASSES, FEATURES = 10, 1024 // thin_network.SHARE
TOLERANCE = 1e-3  # of logits whose standard deviation is about 60
IMAGE = np.random.default_rng(3).uniform(0, 255, (224, 224, 3)).astype("float32")
in_both_forms = pytest.mark.parametrize("old_form", [False, True], ids=["layer", "layers"])


@pytest.fixture(scope="module")
def blobs():
    return caffe_reference.random_blobs(heads=3, classes=CLASSES, share=thin_network.SHARE)


def classifier(classes):
    values = np.random.default_rng(1).standard_normal((classes, FEATURES + 1)).astype("float32")
    return [values[:, 1:], values[:, 0]]


def renamed(blobs, names):
    return {names.get(name, name): arrays for name, arrays in blobs.items()}


def check(path, blobs, heads=3, **options):
    """Converts a file and compares its logits with those of the blobs, under Caffe's names."""
    conversion = convert_file(path, **options)
    assert conversion.model.output_names == ["main", "aux1", "aux2"][:heads]
    assert conversion.absent == ["aux1", "aux2"][: 3 - heads]
    expected = caffe_reference.logits(IMAGE, blobs)[:heads]
    for actual, wanted in zip(logits_of(conversion.model, IMAGE[None]), expected, strict=True):
        assert np.std(wanted) > 0.1
        np.testing.assert_allclose(actual[0], wanted, atol=TOLERANCE)
    return conversion


@in_both_forms
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "double_data"])
def test_where_and_how_a_blob_holds_its_numbers(dtype, old_form, blobs, tmp_path):
    field, dtype = (dtype, "float64") if dtype == "double_data" else ("raw_data", dtype)
    stored = {name: [array.astype(dtype) for array in blobs[name]] for name in blobs}
    caffe_reference.write_blobs(tmp_path / "w.caffemodel", stored, old_form, field)
    conversion = check(tmp_path / "w.caffemodel", stored)
    assert conversion.unused == [] and conversion.notes == []


CARS = {f"loss{number}/classifier": f"loss{number}/classifier_cars" for number in (1, 2, 3)}


@in_both_forms
@pytest.mark.parametrize("heads", ["3", "123", "12"], ids=["main", "all", "auxiliary"])
def test_renamed_classifiers(heads, old_form, blobs, tmp_path):
    names = {old: new for old, new in CARS.items() if old[4] in heads}
    caffe_reference.write_blobs(tmp_path / "w", renamed(blobs, names), old_form)
    assert check(tmp_path / "w", blobs).unused == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"loss1/classifier": 1000, "loss2/classifier": 1000}, "1000"),
        ({"loss2/classifier": 12}, "12"),
        ({"loss1/fc": None}, "loss1/fc"),
        ({"loss1/fc": np.nan}, "loss1/fc"),
    ],
    ids=["both of ImageNet", "one of twelve", "array missing", "no numbers"],
)
def test_auxiliary_heads_that_do_not_fit_are_left_out(changes, reason, blobs, tmp_path):
    stored = renamed(blobs, {"loss3/classifier": "loss3/classifier_cars"})
    for layer, change in changes.items():
        arrays = stored.pop(layer)
        if change is not None:
            stored[layer] = classifier(change) if change > 0 else [a * change for a in arrays]
    caffe_reference.write_blobs(tmp_path / "w", stored)
    notes = check(tmp_path / "w", blobs, heads=1).notes
    assert any("aux" in note and reason in note for note in notes), notes


@pytest.mark.parametrize("heads", ["3", "123"], ids=["main", "all"])
def test_a_missing_bias_is_zeros(heads, blobs, tmp_path):
    names = [f"loss{number}/classifier" for number in heads]
    caffe_reference.write_blobs(tmp_path / "w", blobs | {name: blobs[name][:1] for name in names})
    zeros = np.zeros(CLASSES, "float32")
    check(tmp_path / "w", blobs | {name: [blobs[name][0], zeros] for name in names})


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_hdf5(dtype, blobs, tmp_path):
    # Net::ToHDF5: data/<layer>/<number of the blob>, and a group for layers without blobs too
    with h5py.File(tmp_path / "w.caffemodel.h5", "w") as file:
        file.create_group("data/conv1/relu_7x7")
        for name, arrays in renamed(blobs, CARS).items():
            for index, array in enumerate(arrays):
                file[f"data/{name}/{index}"] = array.astype(dtype)
    assert check(tmp_path / "w.caffemodel.h5", blobs).unused == []


def test_one_class_is_a_sigmoid(tmp_path):
    blobs = caffe_reference.random_blobs(heads=3, classes=1, share=thin_network.SHARE)
    for name in CARS:
        blobs[name][0] /= 100  # so that no output is 0 or 1
    caffe_reference.write_blobs(tmp_path / "w", blobs)
    outputs = convert_file(tmp_path / "w").model(preprocess_input(IMAGE[None]))
    for actual, logit in zip(outputs, caffe_reference.logits(IMAGE, blobs), strict=True):
        np.testing.assert_allclose(actual[0], 1 / (1 + np.exp(-logit)), atol=1e-5)


@pytest.fixture(scope="module")
def two_classifiers(blobs, tmp_path_factory):
    path = tmp_path_factory.mktemp("two") / "w.caffemodel"
    more = renamed(blobs, {"loss3/classifier": "loss3/cars"}) | {"loss3/colors": classifier(12)}
    caffe_reference.write_blobs(path, more)
    return path


def test_which_of_two_classifiers_is_a_question(two_classifiers, blobs):
    with pytest.raises(UserError, match="--classifier NAME") as error:
        convert_file(two_classifiers)
    for name, count in (("loss3/cars", 10), ("loss3/colors", 12)):
        assert re.search(rf"{name}\S* .*\b{count}(, {FEATURES}| classes)\b", str(error.value))
    conversion = check(two_classifiers, blobs, classifier="loss3/cars")
    assert conversion.unused == ["loss3/colors[0]", "loss3/colors[1]"]
    with pytest.raises(UserError, match=r"loss3/shapes.*loss3/cars"):
        convert_file(two_classifiers, classifier="loss3/shapes")


def test_the_script_takes_a_classifier_and_labels(two_classifiers, blobs, run_script, tmp_path):
    names = [f"color {index}" for index in range(12)]
    (tmp_path / "names.txt").write_text("\n".join(names) + "\n")
    flags = ["--classifier", "loss3/colors", "--labels", tmp_path / "names.txt"]
    outcome = run_script("convert.py", two_classifiers, tmp_path / "out.keras", *flags)
    assert outcome.status == 0, outcome.err
    assert (tmp_path / "out.labels.txt").read_text().splitlines() == names
    model = keras.models.load_model(tmp_path / "out.keras")
    expected = caffe_reference.logits(IMAGE, blobs | {"loss3/classifier": classifier(12)})[0]
    np.testing.assert_allclose(logits_of(model, IMAGE[None])[0][0], expected, atol=TOLERANCE)


def test_a_layer_that_computes_and_has_no_place_is_refused(blobs, tmp_path):
    path = tmp_path / "w.caffemodel"
    caffe_reference.write_blobs(path, blobs)
    net = caffe_reference.net_parameter()()
    net.ParseFromString(path.read_bytes())
    layer = net.layer.add(name="bn_conv1", type="BatchNorm")
    layer.blobs.add(data=[1.0] * 8).shape.dim.append(8)
    path.write_bytes(net.SerializeToString())
    with pytest.raises(UserError, match=r"Caffe's GoogLeNet has no place for bn_conv1\[0\] \(8,\)"):
        convert_file(path)
    assert "bn_conv1" in check(path, blobs, classifier="loss3/classifier").notes[-1]
