"""Google's graph against TensorFlow running the very graph."""

import zipfile

import google_graph
import numpy as np
import pytest
from test_caffe import logits_of

from keras_googlenet.errors import UserError
from keras_googlenet.imagenet import preprocess_input
from keras_googlenet.weights import convert

FULL_WIDTH = True
TOLERANCE = 1e-3  # of logits
pytestmark = pytest.mark.usefixtures("read_in_this_process")


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).uniform(0, 255, (1, 224, 224, 3)).astype("float32")


def write(graph_def, path):
    path.write_bytes(graph_def.SerializeToString())
    return path


# The graph's constants are not taken for granted: another graph has others.
@pytest.mark.parametrize(
    "lrn", [google_graph.LRN, {"depth_radius": 3, "bias": 1.5, "alpha": 2e-3, "beta": 0.75}]
)
def test_weights_and_normalization_come_from_the_graph(lrn, images, tmp_path):
    graph = google_graph.build(lrn=lrn)
    model = convert(write(graph, tmp_path / "graph"))
    assert model.output_names == ["main", "aux1", "aux2"] and model.count_params() == 13_461_996
    expected = google_graph.logits(graph, preprocess_input(images, "google"))
    for actual, wanted in zip(logits_of(model, images), expected, strict=True):
        assert np.std(wanted) > 0.1
        print("greatest logit difference", np.abs(actual - wanted).max())
        np.testing.assert_allclose(actual, wanted, atol=TOLERANCE)


def test_a_graph_in_a_zip_without_auxiliary_heads(images, tmp_path):
    graph = google_graph.build(heads=False)
    with zipfile.ZipFile(tmp_path / "model.bin", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("LICENSE", "text")
        archive.writestr("tensorflow_inception_graph.pb", graph.SerializeToString())
    model = convert(tmp_path / "model.bin")
    assert model.output_names == ["main"] and model.count_params() == 7_066_380
    expected = google_graph.logits(graph, preprocess_input(images, "google"), heads=(2,))
    np.testing.assert_allclose(logits_of(model, images)[0], expected[0], atol=TOLERANCE)


def test_another_padding_is_another_network(tmp_path):
    graph = google_graph.build(heads=False)
    for node in graph.node:
        if node.name == "conv2d0_pre_relu/conv":
            node.attr["padding"].s = b"VALID"
    with pytest.raises(UserError, match="conv2d0_pre_relu/conv is not padded by SAME"):
        convert(write(graph, tmp_path / "graph.pb"))


@pytest.mark.parametrize(
    ("node", "change", "message"),
    [
        ("conv2d1_pre_relu/conv", {"stride": 2}, "conv2d1_pre_relu/conv has the stride 2"),
        ("mixed3a_pool", {"op": "AvgPool"}, "mixed3a_pool is AvgPool"),
        ("conv2d1", {"op": "Relu6"}, "its graph computes Relu6"),
    ],
)
def test_other_operations_are_another_network(node, change, message, tmp_path):
    graph = google_graph.build(heads=False)
    (found,) = [each for each in graph.node if each.name == node]
    found.op = change.get("op", found.op)
    if "stride" in change:
        found.attr["strides"].list.i[1:3] = [change["stride"]] * 2
    with pytest.raises(UserError, match=message):
        convert(write(graph, tmp_path / "graph.pb"))


def test_a_graph_without_normalization_is_another_network(tmp_path):
    graph = google_graph.build(heads=False)
    for node in graph.node:
        if node.op == "LRN":
            node.op = "Identity"
    with pytest.raises(UserError, match="localresponsenorm0 is missing"):
        convert(write(graph, tmp_path / "graph.pb"))
