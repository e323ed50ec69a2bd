import numpy as np
import pytest

from keras_googlenet.errors import UserError
from keras_googlenet.evaluation.classes import match_classes
from keras_googlenet.imagenet import default_labels

ANT, BEE, CAT = "n02219486 ant", "n02206856 bee", "n02123045 tabby"


def test_wnids_beat_positions_and_names():
    model = [CAT, BEE, ANT]
    matched = match_classes([model], ["n02219486", "n02206856 honey bee"])
    assert [matched.labels[number] for number in matched.targets] == [ANT, BEE]
    assert matched.labels == model


def test_published_networks_of_all_orders_fit_together():
    """TF-slim has a background class before the others; Google has its own order and 8 dummies."""
    networks = [default_labels(1000), default_labels(1001), default_labels(1008)]
    matched = match_classes(networks, ["n02219486", "n02206856"])
    assert len(matched.labels) == 1000 + 1 + 8 and matched.targets.tolist() == [310, 309]
    for labels, columns in zip(networks, matched.columns, strict=True):
        assert [matched.labels[place] for place in columns] == labels


def test_other_labels_match_by_name_in_any_order():
    matched = match_classes([["ant", "bee", "cat"], ["cat", "ant", "bee"]], ["bee", "cat", "ant"])
    assert matched.labels == ["ant", "bee", "cat"]
    assert matched.columns[1].tolist() == [2, 0, 1]
    assert matched.targets.tolist() == [1, 2, 0]


def test_a_model_without_names_takes_the_order_of_the_data_set():
    matched = match_classes([default_labels(3), ["c", "b", "a"]], ["a", "b", "c"])
    assert matched.labels == ["a", "b", "c"]
    np.testing.assert_array_equal(matched.columns, [[0, 1, 2], [2, 1, 0]])


def test_labels_that_come_twice_keep_their_own_place():
    matched = match_classes([["dummy", CAT, "dummy"]], ["n02123045"])
    assert matched.columns[0].tolist() == [0, 1, 2] and matched.targets.tolist() == [1]


@pytest.mark.parametrize(
    ("model", "dataset", "sentence"),
    [
        (["a", "b", "c"], ["a", "b"], "3 classes but the data set has 2"),
        (["a", "b"], ["a", "b", "c"], "2 classes but the data set has 3"),
        (["a", "b"], ["a", "d"], "knows no class d of the data set"),
        ([ANT, BEE, CAT], ["n02219486", "n07614500"], "knows no class n07614500"),
        (["ant", "bee", "tabby"], ["n02219486", "n02206856"], "no class n02206856, n02219486"),
    ],
)
def test_a_mismatch_is_an_error(model, dataset, sentence):
    with pytest.raises(UserError, match=sentence):
        match_classes([model], dataset)


def test_every_network_of_an_ensemble_must_know_the_classes():
    with pytest.raises(UserError, match="no class n02206856"):
        match_classes([[ANT, BEE], [ANT, CAT]], ["n02219486", "n02206856"])
