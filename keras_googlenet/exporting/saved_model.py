"""A SavedModel for TF Serving: a version directory with three signatures."""

import re
from collections.abc import Callable
from pathlib import Path

import keras
import tensorflow as tf
from tensorflow.core.framework.tensor_pb2 import TensorProto

from keras_googlenet.atomic import replacing
from keras_googlenet.data import preprocessing
from keras_googlenet.errors import UserError
from keras_googlenet.exporting.agreement import TOLERANCE, Agreement, Run, SampleImages, compare
from keras_googlenet.exporting.formats import labels_of
from keras_googlenet.exporting.serving_network import exported_network, serving_network
from keras_googlenet.labels import TOP, write_labels

_PREDICT_LOG, _REQUEST = 6, 1  # PredictionLog.predict_log, PredictLog.request
_MODEL_SPEC, _INPUTS = 1, 2  # PredictRequest
_SIGNATURE_NAME = 3  # ModelSpec
_KEY, _VALUE = 1, 2  # an entry of a map


def write_requests(file: Path, requests: dict[str, dict[str, TensorProto]]):
    """Writes one request for each signature.

    Args:
        file: `assets.extra/tf_serving_warmup_requests` of a SavedModel.
        requests: Inputs by name, for each signature.
    """
    with tf.io.TFRecordWriter(str(file)) as writer:
        for signature, inputs in requests.items():
            writer.write(_prediction_log(signature, inputs))


def _prediction_log(signature: str, inputs: dict[str, TensorProto]) -> bytes:
    request = _field(_MODEL_SPEC, _field(_SIGNATURE_NAME, signature.encode()))
    for name, tensor in inputs.items():
        value = tensor.SerializeToString()
        request += _field(_INPUTS, _field(_KEY, name.encode()) + _field(_VALUE, value))
    return _field(_PREDICT_LOG, _field(_REQUEST, request))


def _field(number: int, content: bytes) -> bytes:
    """A field of protobuf's wire format that holds bytes, text or a message."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; the eighth says that more follow."""
    groups = [number >> shift & 0x7F for shift in range(0, max(number.bit_length(), 1), 7)]
    return bytes(group | 0x80 for group in groups[:-1]) + bytes(groups[-1:])


TOLERANCES = {"float32": TOLERANCE, "bfloat16": 0.1}  # greatest difference of a probability
DECODERS = 4  # images of a batch that are decoded at once; each may take 0.6 GB
WARMUP_SIDE = 64  # pixels of the image that warms `classify` up


def export_saved_model(
    model: keras.Model,
    path: str | Path,
    labels: list[str] | None = None,
    precision: str = "float32",
    pictures: SampleImages | None = None,
) -> tuple[Path, Agreement]:
    """Writes the next version of a SavedModel for TF Serving.

    Its signatures, with the preprocessing inside:

    - `serving_default`: `image`, float32 `(n, size, size, 3)` RGB in [0, 255], to
      `probabilities`, float32 `(n, classes)`;
    - `classify`: `image_bytes`, string `(n,)`, JPEG, PNG, WebP, BMP or GIF of any size, to
      `classes`, string, and `scores`, float32, both `(n, min(5, classes))`, the best first;
    - `features`: `image` to `features`, float32 `(n, channels)`.

    Args:
        model: Any GoogLeNet; the main head is exported.
        path: Folder of the versions: `1/`, `2/`, … are made inside.
        labels: Class names; `default_labels` if not given.
        precision: "float32" or "bfloat16", which processors with AVX512-BF16 or AMX compute
            faster.
        pictures: What to compare on; `sample_images` if not given.

    Returns:
        The new version's folder, and how it compares with `model`.

    Raises:
        UserError: If a probability differs by more than `TOLERANCES` allow, or labels and classes
            are not equally many; nothing is written then.
    """
    model = exported_network(model)
    labels = labels_of(model, labels)
    network = serving_network(model, precision)
    size = network.inputs[0].shape[1]
    version = _next_version(Path(path))
    with replacing(version) as folder:
        _write(_signatures(network, labels), folder)
        agreement = compare(model, _run(folder), TOLERANCES[precision], pictures)
        extra = folder / "assets.extra"
        extra.mkdir()
        write_labels(extra / "labels.txt", labels)
        write_requests(extra / "tf_serving_warmup_requests", _warmup_inputs(size))
    return version, agreement


def _signatures(network: keras.Model, labels: list[str]) -> dict[str, tuple]:
    """Returns the function of each signature, and what it takes."""
    size, run = network.inputs[0].shape[1], _frozen(network)
    images = tf.TensorSpec((None, size, size, 3), tf.float32, name="image")
    encoded = tf.TensorSpec((None,), tf.string, name="image_bytes")

    def probabilities(image):
        return {"probabilities": run(_checked(image, images))["probabilities"]}

    def features(image):
        return {"features": run(_checked(image, images))["features"]}

    def classify(image_bytes):
        image = _decoded(_not_empty(tf.ensure_shape(image_bytes, encoded.shape)), size)
        scores, best = tf.math.top_k(run(image)["probabilities"], min(TOP, len(labels)))
        return {"classes": tf.gather(tf.constant(labels), best), "scores": scores}

    return {
        "serving_default": (probabilities, images),
        "classify": (classify, encoded),
        "features": (features, images),
    }


def _frozen(network: keras.Model) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """Returns a network as a function whose weights are constants.

    Constants, unlike variables, let TensorFlow lay the weights out once for its kernels, and leave
    nothing to restore.
    """
    weights = [
        [variable.numpy() for variable in variables]
        for variables in (network.trainable_variables, network.non_trainable_variables)
    ]

    @tf.function(input_signature=[tf.TensorSpec(network.inputs[0].shape)], autograph=False)
    def run(image):
        constants = [list(map(tf.constant, arrays)) for arrays in weights]
        return network.stateless_call(*constants, image, training=False)[0]

    return run


def _checked(image: tf.Tensor, spec: tf.TensorSpec) -> tf.Tensor:
    """Refuses what is no batch of images: oneDNN would abort the process, or answer something."""
    image = _not_empty(tf.ensure_shape(image, spec.shape))
    finite = tf.reduce_all(tf.math.is_finite(image))
    return _if(finite, "the image holds NaN or infinity", image)


def _not_empty(batch: tf.Tensor) -> tf.Tensor:
    return _if(tf.shape(batch)[0] > 0, "the request holds no image", batch)


def _if(condition: tf.Tensor, otherwise: str, value: tf.Tensor) -> tf.Tensor:
    """Returns `value`; where the condition does not hold, the request fails with `otherwise`."""
    with tf.control_dependencies([tf.debugging.Assert(condition, [otherwise])]):
        return tf.identity(value)


def _decoded(encoded: tf.Tensor, size: int) -> tf.Tensor:
    """Decodes, resizes and crops each image of a batch as it is evaluated."""
    with tf.device("/CPU:0"):
        return tf.map_fn(
            lambda image: preprocessing.evaluation_crop(preprocessing.decode(image), size),
            encoded,
            fn_output_signature=tf.TensorSpec((size, size, 3), tf.float32),
            parallel_iterations=DECODERS,
        )


def _write(signatures: dict[str, tuple], folder: Path):
    archive = keras.export.ExportArchive()
    for name, (function, spec) in signatures.items():
        archive.add_endpoint(name, function, [spec])
    try:
        archive.write_out(str(folder), verbose=False)
    except tf.errors.OpError as error:  # how TensorFlow reports a full disk
        found = re.search(r"; ([^;]+) \[Op", error.message)  # behind the file's name
        raise OSError(found[1] if found else error.message.strip().rpartition("\n")[2]) from error


def _warmup_inputs(size: int) -> dict[str, dict]:
    black = tf.make_tensor_proto(0.0, tf.float32, (1, size, size, 3))
    pixels = tf.zeros((WARMUP_SIDE, WARMUP_SIDE, 3), tf.uint8)
    encoded = tf.make_tensor_proto([tf.io.encode_jpeg(pixels).numpy()])
    return {
        "serving_default": {"image": black},
        "classify": {"image_bytes": encoded},
        "features": {"image": black},
    }


def _next_version(path: Path) -> Path:
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file; give a folder for the versions of the SavedModel.")
    found = path.iterdir() if path.exists() else []
    versions = [int(entry.name) for entry in found if entry.name.isdecimal()]
    return path / str(max(versions, default=0) + 1)


def _run(folder: Path) -> Run:
    serve = tf.saved_model.load(str(folder)).signatures["serving_default"]
    return lambda images: serve(image=tf.constant(images))["probabilities"].numpy()
