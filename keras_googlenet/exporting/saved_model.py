"""A SavedModel for TensorFlow Serving: a version directory with three signatures."""

import re
from collections.abc import Callable
from pathlib import Path

import keras
import tensorflow as tf

from keras_googlenet.atomic import replacing
from keras_googlenet.data import preprocessing
from keras_googlenet.errors import UserError
from keras_googlenet.exporting.agreement import Agreement, Run, SampleImages, compare
from keras_googlenet.exporting.formats import PRECISIONS, labels_for
from keras_googlenet.exporting.serving_network import serving_network
from keras_googlenet.labels import TOP, write_labels

DECODERS = 4  # images of a batch that are decoded at once; each may use 0.6 GB
WARMUP_SIDE = 64  # pixels of the image that warms `classify` up


def export_saved_model(
    model: keras.Model,
    path: str | Path,
    labels: list[str] | None = None,
    precision: str = "float32",
    samples: SampleImages | None = None,
) -> tuple[Path, Agreement]:
    """Writes the next version of a SavedModel for TensorFlow Serving.

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
        samples: Images to compare on; generated if not given.

    Returns:
        The new version's folder, and how it compares with `model`.

    Raises:
        UserError: If a probability differs by more than `PRECISIONS` allows, or there are more or
            fewer labels than classes; nothing is written then.
    """
    network = serving_network(model, precision, features=True)
    labels = labels_for(network.output["probabilities"].shape[-1], labels)
    version = _next_version(Path(path))
    with replacing(version) as folder:
        _write(_signatures(network, labels), folder)
        agreement = compare(model, _runner(folder), PRECISIONS[precision], samples)
        extra = folder / "assets.extra"
        extra.mkdir()
        write_labels(extra / "labels.txt", labels)
        _write_warmup(extra / "tf_serving_warmup_requests", network.inputs[0].shape[1])
    return version, agreement


def _next_version(path: Path) -> Path:
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file; give a folder for the versions of the SavedModel.")
    entries = path.iterdir() if path.exists() else []
    versions = [int(entry.name) for entry in entries if entry.name.isdecimal()]
    return path / str(max(versions, default=0) + 1)


def _signatures(network: keras.Model, labels: list[str]) -> dict[str, tuple]:
    """Returns the function and the input of each signature."""
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
    """Refuses anything but a batch of images, for which oneDNN would abort, or return something."""
    image = _not_empty(tf.ensure_shape(image, spec.shape))
    finite = tf.reduce_all(tf.math.is_finite(image))
    return _only_if(finite, image, "the image holds NaN or infinity")


def _not_empty(batch: tf.Tensor) -> tf.Tensor:
    return _only_if(tf.shape(batch)[0] > 0, batch, "the request holds no image")


def _only_if(condition: tf.Tensor, value: tf.Tensor, message: str) -> tf.Tensor:
    with tf.control_dependencies([tf.debugging.Assert(condition, [message])]):
        return tf.identity(value)


def _decoded(encoded: tf.Tensor, size: int) -> tf.Tensor:
    """Decodes, resizes and crops each image of a batch as for evaluation."""
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
        reason = re.search(r"; ([^;]+) \[Op", error.message)  # behind the file's name
        last_line = error.message.strip().rpartition("\n")[2]
        raise OSError(reason[1] if reason else last_line) from error


def _runner(folder: Path) -> Run:
    serve = tf.saved_model.load(str(folder)).signatures["serving_default"]
    return lambda images: serve(image=tf.constant(images))["probabilities"].numpy()


def _write_warmup(file: Path, size: int):
    """Writes one request for each signature, which the server runs before it serves a version."""
    black = tf.make_tensor_proto(0.0, tf.float32, (1, size, size, 3))
    pixels = tf.zeros((WARMUP_SIDE, WARMUP_SIDE, 3), tf.uint8)
    encoded = tf.make_tensor_proto([tf.io.encode_jpeg(pixels).numpy()])
    with tf.io.TFRecordWriter(str(file)) as writer:
        writer.write(_prediction_log("serving_default", "image", black))
        writer.write(_prediction_log("classify", "image_bytes", encoded))
        writer.write(_prediction_log("features", "image", black))


def _prediction_log(signature: str, name: str, tensor) -> bytes:
    """Encodes TensorFlow Serving's PredictionLog of a request with one input.

    The numbers are those of the fields in prediction_log.proto, predict.proto and model.proto;
    the package that has the classes, tensorflow-serving-api, is not needed for an export.
    """
    model_spec = _field(3, signature.encode())  # ModelSpec.signature_name
    entry = _field(1, name.encode()) + _field(2, tensor.SerializeToString())  # key, value
    request = _field(1, model_spec) + _field(2, entry)  # PredictRequest.model_spec, inputs
    return _field(6, _field(1, request))  # PredictionLog.predict_log, PredictLog.request


def _field(number: int, content: bytes) -> bytes:
    """A field of protobuf's wire format that holds bytes, text or a message."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; the eighth bit says that more follow."""
    groups = [number >> shift & 0x7F for shift in range(0, max(number.bit_length(), 1), 7)]
    return bytes(group | 0x80 for group in groups[:-1]) + bytes(groups[-1:])
