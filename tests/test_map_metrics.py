import random

import keras
import numpy as np
import pytest

from benchmarks import map_metrics
from keras_googlenet.explaining.cam import logit_network
from keras_googlenet.googlenet import GoogLeNet

SIDE = 20


@pytest.fixture
def masks():
    masks = np.zeros((2, SIDE, SIDE), bool)
    masks[0, 4:8, 4:8] = True
    masks[1, :, 10:] = True
    return masks


def point(row, column):
    found = np.zeros((SIDE, SIDE), "float32")
    found[row, column] = 1
    return found


def test_pointing_game_counts_hits_and_near_misses(masks):
    both = np.stack([point(5, 7), point(0, 0)])
    assert map_metrics.pointing_game(both, masks, 0).tolist() == [True, False]
    beside = np.stack([point(5, 9), point(3, 8)])  # 2 pixels from the object of each
    assert map_metrics.pointing_game(beside, masks, 0.1).tolist() == [True, True]
    assert map_metrics.pointing_game(beside, masks, 0.09).tolist() == [False, False]
    assert not map_metrics.pointing_game(np.ones((2, SIDE, SIDE)), masks, 1).any()


def test_energy_and_overlap_of_known_maps(masks):
    maps = masks.astype("float32")
    np.testing.assert_allclose(map_metrics.energy_inside(maps, masks), 1)
    np.testing.assert_allclose(map_metrics.thresholded_iou(maps, masks), 1)
    even = np.ones_like(maps)
    np.testing.assert_allclose(map_metrics.energy_inside(even, masks), [16 / 400, 0.5])
    np.testing.assert_allclose(map_metrics.thresholded_iou(even, masks), [16 / 400, 0.5])
    half = np.where(masks, 1.0, 0.4)
    np.testing.assert_allclose(map_metrics.thresholded_iou(half, masks), 1)
    np.testing.assert_allclose(map_metrics.thresholded_iou(half, masks, 0.3), [16 / 400, 0.5])
    empty = np.zeros_like(maps)
    assert not map_metrics.energy_inside(empty, masks).any()
    assert not map_metrics.thresholded_iou(empty, masks).any()


def test_a_box_has_no_holes():
    ring = np.zeros((1, SIDE, SIDE), bool)
    ring[0, 3:9, 5:12] = True
    ring[0, 5:7, 7:10] = False
    ring[0, 3, 5] = False
    expected = np.zeros((SIDE, SIDE), bool)
    expected[3:9, 5:12] = True
    np.testing.assert_array_equal(map_metrics.boxes(ring)[0], expected)
    assert not map_metrics.boxes(np.zeros((1, SIDE, SIDE), bool)).any()


def of_the_object(images):
    """A network whose probability is the share of 4 x 4 white pixels that is left."""
    left = (images[:, 4:8, 4:8] > 250).all(axis=-1).mean(axis=(1, 2))
    return np.stack([1 - left, left], axis=1)


def test_curves_of_a_perfect_and_of_the_worst_map():
    images = np.zeros((1, SIDE, SIDE, 3), "float32")
    images[0, 4:8, 4:8] = 255
    perfect = np.zeros((1, SIDE, SIDE))
    perfect[0, 4:8, 4:8] = 1
    for curve, best, worst in (
        (map_metrics.deletion_curve, [1, *[0] * 10], [*[1] * 10, 0]),
        (map_metrics.insertion_curve, [0, *[1] * 10], [*[0] * 10, 1]),
    ):
        found = curve(of_the_object, images, perfect, [1])
        np.testing.assert_array_equal(found, [best])
        found = curve(of_the_object, images, -perfect, [1])
        assert found[0, -2] == best[0] and found[0, -1] == worst[-1]
    deleted = map_metrics.deletion_curve(of_the_object, images, perfect, [1])
    assert map_metrics.area_under(deleted)[0] == pytest.approx(0.05)
    assert map_metrics.area_under(np.ones((1, 11)))[0] == 1


def test_rank_correlation_of_known_pairs():
    generator = np.random.default_rng(0)
    maps = generator.random((1, SIDE, SIDE))
    assert map_metrics.rank_correlation(maps, maps**3)[0] == pytest.approx(1)
    assert map_metrics.rank_correlation(maps, -maps)[0] == pytest.approx(-1)
    assert abs(map_metrics.rank_correlation(maps, generator.random((1, SIDE, SIDE)))[0]) < 0.15
    assert map_metrics.rank_correlation(maps, np.ones_like(maps))[0] == 0


def test_the_seed_decides_what_is_random_and_nothing_else():
    image = keras.Input((4,), name="image")
    network = keras.Model(image, keras.layers.Dense(3, name="last")(image))
    random.seed(1), np.random.seed(1)
    before = random.getstate(), np.random.get_state()[1].tobytes()
    ours, again, other = (
        map_metrics.randomize(network, "last", seed).get_weights()[0] for seed in (9, 9, 8)
    )
    np.testing.assert_array_equal(ours, again)
    assert not np.allclose(ours, other)
    assert (random.getstate(), np.random.get_state()[1].tobytes()) == before


@pytest.mark.slow
def test_a_network_is_random_from_its_end_down():
    keras.utils.set_random_seed(1)
    model = GoogLeNet(classes=4, input_shape=(32, 32, 3), aux_heads=False)
    network = logit_network(model)
    before = [weights.copy() for weights in network.get_weights()]
    forgotten = map_metrics.randomize(network, "inception_5a_1x1", seed=9)

    def same(name):
        ours, theirs = (net.get_layer(name).get_weights()[0] for net in (forgotten, network))
        return np.array_equal(ours, theirs)

    assert all(map(same, ("conv1_7x7_s2", "inception_4e_3x3", "inception_4e_pool_proj")))
    assert not any(map(same, ("inception_5a_1x1", "inception_5b_5x5", "main")))
    assert forgotten.get_layer("main").activation is keras.activations.linear
    for ours, theirs in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(ValueError, match="lowest='inception_9a'"):
        map_metrics.randomize(network, "inception_9a")
