import numpy as np
import tensorflow as tf

from keras_googlenet.data import mixing

IMAGES = np.random.default_rng(0).uniform(0, 255, (4, 12, 10, 3)).astype("float32")
LABELS = np.eye(4, dtype="float32")


def test_mixup_blends_pictures_and_labels_by_the_same_share():
    images, labels = mixing.mixup(tf.constant(IMAGES), tf.constant(LABELS), 1.0, (1, 2))
    share = float(labels[0, 0])
    assert 0 < share < 1
    expected = share * IMAGES + (1 - share) * IMAGES[::-1]
    np.testing.assert_allclose(images, expected, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(labels, share * LABELS + (1 - share) * LABELS[::-1], atol=1e-6)


def test_cutmix_pastes_one_window_and_mixes_labels_by_its_area():
    for number in range(5):
        images, labels = mixing.cutmix(tf.constant(IMAGES), tf.constant(LABELS), 1.0, (1, number))
        pasted = np.any(images.numpy() != IMAGES, axis=-1)
        np.testing.assert_array_equal(images.numpy()[pasted], IMAGES[::-1][pasted])
        assert np.all(pasted == pasted[0])
        rows, columns = pasted[0].any(axis=1), pasted[0].any(axis=0)
        np.testing.assert_array_equal(pasted[0], rows[:, None] & columns[None, :])
        np.testing.assert_allclose(labels[0, 3], pasted[0].mean(), atol=1e-6)
        np.testing.assert_allclose(tf.reduce_sum(labels, axis=-1), np.ones(4), atol=1e-6)


def test_beta_has_the_moments_of_the_beta_distribution():
    drawn = np.array([float(mixing.beta(0.4, (7, number))) for number in range(1500)])
    assert abs(drawn.mean() - 0.5) < 0.03
    assert abs(drawn.var() - 1 / (4 * (2 * 0.4 + 1))) < 0.015  # 1 / (4 (2 alpha + 1))
