"""An export in the C++ loader that TensorFlow Serving uses: every signature, without Python."""

import io

import numpy as np
import pytest
import tensorflow as tf
from conftest import SERVED_LABELS
from PIL import Image
from saved_model_loader import LoaderError, SavedModel

from keras_googlenet.data import preprocessing
from keras_googlenet.googlenet import inference_model
from keras_googlenet.imagenet import preprocess_input

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def served(serving_folder):
    return SavedModel(serving_folder[0] / "1")


@pytest.fixture(scope="module")
def network(serving_folder):
    return serving_folder[1][0]


def encoded(photograph, form="PNG", size=None):
    image = Image.fromarray(photograph.astype("uint8"))
    file = io.BytesIO()
    (image.resize(size) if size else image).save(file, form)
    return file.getvalue()


def test_the_loader_finds_the_signatures(served):
    kinds = {
        name: (
            {key: (info.dtype, len(info.tensor_shape.dim)) for key, info in part.inputs.items()},
            {key: info.dtype for key, info in part.outputs.items()},
        )
        for name, part in served.signatures.items()
        if part.method_name == "tensorflow/serving/predict"
    }
    number, text = tf.float32.as_datatype_enum, tf.string.as_datatype_enum
    assert kinds == {
        "serving_default": ({"image": (number, 4)}, {"probabilities": number}),
        "classify": ({"image_bytes": (text, 1)}, {"classes": text, "scores": number}),
        "features": ({"image": (number, 4)}, {"features": number}),
    }


@pytest.mark.parametrize("count", [1, 4])
def test_pixels_to_probabilities_and_features(served, network, photographs, count):
    images = photographs[:count, :65, :65]
    prepared = preprocess_input(images, "paper")
    got = served.run("serving_default", {"image": images})["probabilities"]
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, network.predict_on_batch(prepared), atol=TOLERANCE)
    pooled = inference_model(network).get_layer("pool5").output
    expected = tf.keras.Model(network.inputs, pooled).predict_on_batch(prepared)
    features = served.run("features", {"image": images})["features"]
    np.testing.assert_allclose(features, expected.reshape(count, -1), rtol=1e-3, atol=1e-4)


def test_bytes_to_class_names(served, network, photographs):
    images = [
        encoded(photographs[0]),
        encoded(photographs[1], "JPEG", size=(300, 120)),
        encoded(photographs[2], "BMP", size=(70, 90)),
        encoded(photographs[3], "GIF", size=(66, 400)),
        encoded(photographs[0, ::-1], "WEBP", size=(90, 80)),
    ]
    answer = served.run("classify", {"image_bytes": np.array(images, object)})
    crops = [preprocessing.evaluation_crop(preprocessing.decode(bits), 65) for bits in images]
    expected = network.predict_on_batch(preprocess_input(np.stack(crops), "paper"))
    order = np.argsort(-expected)
    np.testing.assert_allclose(answer["scores"], -np.sort(-expected), atol=TOLERANCE)
    names = [[SERVED_LABELS[index].encode() for index in row] for row in order]
    assert answer["classes"].tolist() == names
    assert len({row[0] for row in answer["scores"].tolist()}) == 5  # five different images


def test_a_corrupt_image_is_an_error_with_a_message(served, photographs):
    images = np.array([encoded(photographs[0]), b"no image"], object)
    with pytest.raises(LoaderError, match="not a JPEG, PNG, GIF, BMP or WebP") as caught:
        served.run("classify", {"image_bytes": images})
    assert caught.value.code == "INVALID_ARGUMENT"


@pytest.mark.peers("openvino")
def test_openvino_reads_the_saved_model_by_itself(serving_folder, network, photographs):
    import openvino

    core, exact = openvino.Core(), {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(serving_folder[0] / "1"), "CPU", exact)
    images = photographs[:, :65, :65]
    want = network.predict_on_batch(preprocess_input(images, "paper"))
    np.testing.assert_allclose(compiled({"image": images})["probabilities"], want, atol=TOLERANCE)
