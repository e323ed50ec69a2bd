import time

import numpy as np
import pytest

from keras_googlenet.errors import UserError
from keras_googlenet.evaluation.class_matching import match_classes
from keras_googlenet.labels import default_labels

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
        (["a", "b", "c"], ["a", "d"], "the model has no class d of the data set"),
        (["a", "b"], ["a", "b", "c"], "2 classes but the data set has 3"),
        (["a", "b"], ["a", "d"], "has no class d of the data set"),
        ([ANT, BEE, CAT], ["n02219486", "n07614500"], "has no class n07614500"),
        (["ant", "bee", "tabby"], ["n02219486", "n02206856"], "no class n02206856, n02219486"),
        (default_labels(3), ["a", "b"], "3 classes but the data set has 2, .* number only"),
        (default_labels(3), ["class_0", "class_3"], "3 classes but .* has 2, .* number only"),
        (["Cat", "cat", "dog"], ["CAT", "dog"], "has no class CAT"),  # which of the two?
        (["crane", "crane", "dog"], ["dog", "crane"], "has 2 classes crane, and .* not say which"),
        ([ANT, "n02206856 ant"], ["ant"], "has no class ant"),
        ([ANT, BEE], ["n00000001 ant"], "has no class n00000001 ant"),  # another of that name
        (list("abc"), list("zyxwvut"), "has no class t, u, v, w, x and 2 more of"),
    ],
)
def test_a_mismatch_is_an_error(model, dataset, sentence):
    with pytest.raises(UserError, match=sentence):
        match_classes([model], dataset)


def test_every_network_of_an_ensemble_must_know_the_classes():
    with pytest.raises(UserError, match="no class n02206856"):
        match_classes([[ANT, BEE], [ANT, CAT]], ["n02219486", "n02206856"])


@pytest.mark.parametrize(
    ("model", "dataset", "targets"),
    [
        (["ant", "bee", "cat"], ["cat", "ant"], [2, 0]),
        (["Red fox", "gray_wolf", "LYNX"], ["lynx", "red_fox", "Gray  Wolf"], [2, 0, 1]),
        (["cafe\u0301", "th\u00e9"], ["the\u0301"], [1]),
        (["stra\u00dfe", "weg"], ["STRASSE"], [0]),
        (["Cat", "cat", "dog"], ["cat", "Dog"], [1, 2]),  # as it stands where case tells apart
        (["cat", "dog"], ["Cat", "cat"], [0, 0]),
        (["red fox", "dog"], ["red\nfox"], [0]),  # as a folder's name is written to labels.txt
        ([ANT, BEE, CAT], ["tabby", "n02206856"], [2, 1]),  # a name and a wnid
        ([ANT, BEE, CAT], ["Tabby", "ANT"], [2, 0]),
        (["tabby", "ant"], ["n02219486 ant"], [1]),
        (default_labels(12), ["class_10", "class_2"], [10, 2]),
        (default_labels(1000), ["n02012849", "crane"], [134, 517]),  # crane bird, crane
        (["crane", "dog", "crane"], ["dog", "crane", "crane"], [1, 0, 2]),  # the same two
    ],
)
def test_fewer_classes_are_measured_among_all(model, dataset, targets):
    matched = match_classes([model], dataset)
    assert matched.labels == model and matched.targets.tolist() == targets
    assert matched.columns[0].tolist() == list(range(len(model)))


def test_numbered_classes_are_not_positions():
    """Sorted as names, `class_10` comes before `class_2`."""
    labels = default_labels(12)
    matched = match_classes([labels], sorted(labels))
    assert matched.labels == labels
    assert [labels[place] for place in matched.targets] == sorted(labels)


def test_networks_share_classes_with_other_spellings():
    networks = [["Red_fox", "lynx"], ["LYNX", "red fox", "wolf"], ["lynx", "red fox"]]
    matched = match_classes(networks, ["lynx"])
    assert matched.labels == ["Red_fox", "lynx", "wolf"]
    assert [columns.tolist() for columns in matched.columns] == [[0, 1], [1, 0, 2], [1, 0]]
    assert matched.targets.tolist() == [1]


def test_a_case_sensitive_network_decides_for_all():
    matched = match_classes([["CAT", "cat"], ["cat", "CAT"]], ["cat"])
    assert matched.labels == ["CAT", "cat"] and matched.targets.tolist() == [1]
    assert matched.columns[1].tolist() == [1, 0]


def test_many_classes_take_linear_time():
    labels = [f"class of {index}" for index in range(50_000)]
    began = time.process_time()
    matched = match_classes([labels], labels[::-1])
    assert time.process_time() - began < 10
    assert matched.targets.tolist() == list(range(50_000))[::-1]
