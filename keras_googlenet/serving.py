"""A client of TensorFlow Serving: the bytes of an image go out, class names come back.

REST is spoken by requests, gRPC by what requirements-serving.txt lists. Both send again what failed
on the way, since predictions only read.
"""

import base64
import json
import os
import re
import time
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import quote, urlsplit

import requests
import urllib3

from keras_googlenet import serving_errors
from keras_googlenet.errors import UserError
from keras_googlenet.imagenet import TOP, Prediction, split_label

SIGNATURE = "classify"
MOST_CLASSES = TOP  # what the signature names at most
ATTEMPTS = 5  # gRPC makes no more
FIRST_PAUSE = 0.25  # seconds; doubles with each attempt, and urllib3 leaves the first one out
LONGEST_ANSWER = 2**20  # bytes; five classes take a few hundred
VERSION_NUMBER = re.compile("[0-9]{1,18}")


class ServedModel(NamedTuple):
    """Which network on which server.

    Attributes:
        address: `http://host:8501`, `https://…` or `grpc://host:8500`.
        name: What the server's models.config calls it.
        version: A number, a label such as `stable`, or `None` for the server's latest.
        timeout: Seconds to wait for an image's answer, all attempts and pauses together. REST
            counts them anew whenever some of an answer arrives.
    """

    address: str
    name: str
    version: str | None
    timeout: float


def connect(model: ServedModel) -> Callable[[bytes], list[Prediction]]:
    """Makes a function that asks a server what is in an image.

    Args:
        model: Which network on which server. Nothing is sent yet.

    Returns:
        Maps the bytes of a JPEG, PNG, WebP, BMP or GIF, whose EXIF orientation is ignored, to at
        most five `Prediction`s, the best first, without `index`, which servers do not tell. It
        raises `serving_errors.PictureRefused` for an image that the server cannot read, and
        `UserError` where the server, the network or the connection is at fault.

    Raises:
        UserError: If the address is of no known kind, or gRPC is not installed.
    """
    scheme, _, host = model.address.partition("://")
    transports = {"http": _rest, "https": _rest, "grpc": _grpc}
    if scheme not in transports or not _is_host(host):
        raise UserError(
            f"{model.address} is no address of a server; give http://host:8501 or grpc://host:8500."
        )
    send, read = transports[scheme](model)

    def classify(image: bytes) -> list[Prediction]:
        answer = send(image)
        try:
            classes, scores = read(answer)
            names = map(serving_errors.printable, classes)
            named = zip(map(split_label, names), scores, strict=True)
            return [Prediction(None, wnid, name, float(score)) for (wnid, name), score in named]
        except serving_errors.UNREADABLE as error:
            raise serving_errors.of_another_kind(model.address) from error

    return classify


def _is_host(text: str) -> bool:
    try:
        parts = urlsplit(f"//{text}")
        return bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # a port that is no number, a bracket that is not closed
        return False


def _rest(model: ServedModel):
    version = ""
    if model.version:
        kind = "versions" if VERSION_NUMBER.fullmatch(model.version) else "labels"
        version = f"/{kind}/{quote(model.version, safe='')}"
    base = model.address.rstrip("/")
    url = f"{base}/v1/models/{quote(model.name, safe='')}{version}:predict"

    def send(image: bytes) -> bytes:
        encoded = base64.b64encode(image).decode("ascii")
        body = {"signature_name": SIGNATURE, "instances": [{"b64": encoded}]}
        try:
            response, answer = _post(url, body, time.monotonic() + model.timeout)
        except (OSError, urllib3.exceptions.HTTPError, ValueError) as error:
            raise serving_errors.of_connection(error, model.address, model.timeout) from error
        if response.status_code >= 300:
            raise serving_errors.of_status(response, answer, model.address)
        return answer

    return send, _read_json


def _post(url: str, body: dict, give_up: float) -> tuple[requests.Response, bytes]:
    retries = _Retries(
        ATTEMPTS - 1,
        other=0,  # a certificate does not change
        allowed_methods=None,  # any
        status_forcelist=serving_errors.BUSY_STATUSES,
        raise_on_status=False,  # the server's own words are shown
        backoff_factor=FIRST_PAUSE,
        backoff_jitter=FIRST_PAUSE / 2,
    )
    retries.give_up = give_up
    with requests.Session() as session:
        for scheme in ("http://", "https://"):
            session.mount(scheme, requests.adapters.HTTPAdapter(max_retries=retries))
        timeout = _TimeLeft(give_up)
        with session.post(
            url, json=body, timeout=timeout, stream=True, allow_redirects=False
        ) as response:
            return response, response.raw.read(LONGEST_ANSWER, decode_content=True)


class _Retries(urllib3.Retry):
    """Retries that also end at the time `give_up`, instead of with a pause that passes it."""

    def new(self, **changes):
        retries = super().new(**changes)
        retries.give_up = self.give_up
        return retries

    def increment(self, method, url, response=None, error=None, _pool=None, _stacktrace=None):
        retries = super().increment(method, url, response, error, _pool, _stacktrace)
        asked_for = response and retries.get_retry_after(response)
        if time.monotonic() + (asked_for or retries.get_backoff_time()) > self.give_up:
            raise urllib3.exceptions.MaxRetryError(_pool, url, error)
        return retries


class _TimeLeft(urllib3.Timeout):
    """The time until `give_up`, as it is when an attempt starts: urllib3 copies it for each."""

    def __init__(self, give_up: float):
        super().__init__()
        self.give_up = give_up

    def clone(self):
        return urllib3.Timeout(total=max(self.give_up - time.monotonic(), 0.001))


def _read_json(answer: bytes) -> tuple[list[str], list[float]]:
    prediction = json.loads(answer)["predictions"][0]
    return prediction["classes"], prediction["scores"]


def _grpc(model: ServedModel):
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what matters arrives as an error
    try:
        import grpc
        from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
    except ImportError as error:
        raise UserError(
            f"gRPC needs {error.name}, which is not installed; run `python -m pip install -r "
            "requirements-serving.txt`, or give http://host:8501."
        ) from error
    import tensorflow as tf

    channel = grpc.insecure_channel(model.address.partition("://")[2].rstrip("/"), _options())
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

    def send(image: bytes):
        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = model.name, SIGNATURE
        if VERSION_NUMBER.fullmatch(model.version or ""):
            request.model_spec.version.value = int(model.version)
        elif model.version:
            request.model_spec.version_label = model.version
        request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto([image]))
        try:
            return stub.Predict(request, timeout=model.timeout).outputs
        except grpc.RpcError as error:
            code, message = error.code().name, error.details() or ""
            raise serving_errors.of_rpc(code, message, model.address, model.timeout) from error

    def read(outputs) -> tuple[list[str], list[float]]:
        classes = [name.decode("utf-8") for name in tf.make_ndarray(outputs["classes"])[0]]
        return classes, tf.make_ndarray(outputs["scores"])[0].tolist()

    return send, read


def _options() -> list[tuple[str, int | str]]:
    retries = {
        "maxAttempts": ATTEMPTS,
        "initialBackoff": f"{FIRST_PAUSE}s",
        "maxBackoff": f"{FIRST_PAUSE * 2**ATTEMPTS}s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": serving_errors.BUSY_CODES,
    }
    methods = [{"name": [{}], "retryPolicy": retries}]
    return [
        ("grpc.service_config", json.dumps({"methodConfig": methods})),
        ("grpc.per_rpc_retry_buffer_size", 2**31 - 1),  # what is larger would be sent once
        # the channel's own pause before it connects again, 1 s by default
        ("grpc.initial_reconnect_backoff_ms", int(1000 * FIRST_PAUSE)),
    ]
