import numpy as np
import pytest

from keras_googlenet.errors import UserError
from keras_googlenet.imagenet import check_images, decode_predictions, preprocess_input


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        ("paper", (132, -17, -94)),
        ("batchnorm", (132, -17, -94)),
        ("naive", (132, -17, -94)),
        ("torchvision", (1, -55 / 255, -235 / 255)),
        ("slim", (1, -55 / 255, -235 / 255)),
        ("google", (138, -17, -107)),
    ],
)
def test_preprocessing_by_arithmetic(variant, expected):
    orange = np.array([[[255, 100, 10]]], "uint8")
    np.testing.assert_allclose(preprocess_input(orange, variant)[0, 0], expected, atol=1e-6)


def test_unknown_variant():
    with pytest.raises(ValueError, match="must be one of.*variant='v3'"):
        preprocess_input(np.zeros((1, 1, 3)), "v3")


def test_decode_predictions_orders_and_names():
    scores = np.array([[0.1, 0.6, 0.3], [0.5, 0.2, 0.3]])
    rows = decode_predictions(scores, top=2, labels=["cat", "n00000001 dog", "two words"])
    assert rows[0] == [(1, "n00000001", "dog", 0.6), (2, "", "two words", 0.3)]
    assert [prediction.name for prediction in rows[1]] == ["cat", "two words"]


def test_decode_predictions_names_all_if_there_are_fewer():
    assert len(decode_predictions(np.ones((1, 3)), top=5)[0]) == 3


def test_decode_predictions_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"must be \(n, classes\).*\(3,\)"):
        decode_predictions(np.zeros(3))
    with pytest.raises(ValueError, match="2 labels"):
        decode_predictions(np.zeros((1, 3)), labels=["a", "b"])


@pytest.mark.parametrize("shape", [(8, 8, 1), (2, 8, 8, 4), (1,)])
def test_preprocessing_refuses_other_channels(shape):
    with pytest.raises(ValueError, match=r"must be \(..., 3\) RGB. Received: x of shape"):
        preprocess_input(np.zeros(shape, "uint8"))


IMAGES = np.full((2, 8, 8, 3), 9.0)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (IMAGES[0], r"n x 8 x 8 x 3.*shape \(8, 8, 3\)"),
        (IMAGES[..., :1], r"shape \(2, 8, 8, 1\)"),
        (IMAGES[:, :7], r"shape \(2, 7, 8, 3\)"),
        (IMAGES[:0], r"at least one image.*shape \(0, 8, 8, 3\)"),
        (np.where(np.arange(2)[:, None, None, None], np.nan, IMAGES), "1 of 2 with NaN"),
        (IMAGES * np.inf, "2 of 2 with NaN or infinity"),
        (IMAGES.astype("str"), "must be numbers. Received: images of dtype <U"),
        (IMAGES > 0, "dtype bool"),
        (None, r"shape \(\)"),
    ],
)
def test_images_that_a_network_does_not_take(images, message):
    with pytest.raises(UserError, match=message):
        check_images(images, (8, 8))


@pytest.mark.filterwarnings("error")
def test_images_that_a_network_takes():
    for dtype in ("uint8", "int64", "float16", "float64"):
        assert check_images(IMAGES.astype(dtype), (8, None)).dtype == dtype
    assert check_images(0 * IMAGES, (8, 8)).shape == (2, 8, 8, 3)  # black
    check_images(IMAGES / 255, (8, 8), pixels=False)
    with pytest.warns(UserWarning, match="at most 0.0353, but must be RGB in \\[0, 255\\]"):
        check_images(IMAGES / 255, (8, 8))
