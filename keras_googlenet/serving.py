"""A client of TensorFlow Serving: the bytes of a picture go out, class names come back.

Both of the server's interfaces are spoken: REST needs nothing but Python, gRPC what
requirements-serving.txt lists. Requests only read, so one that failed on the way is sent again.
"""

import base64
import contextlib
import http.client
import json
import os
import random
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import NamedTuple

from keras_googlenet.errors import UserError
from keras_googlenet.imagenet import TOP, Prediction, split_label

SIGNATURE = "classify"
MOST_CLASSES = TOP  # what the signature names at most
ATTEMPTS = 5
FIRST_PAUSE = 0.25  # seconds; doubles with each attempt
BUSY_STATUSES = {429, 502, 503}  # HTTP: too many requests, bad gateway, unavailable
BUSY_CODES = {"RESOURCE_EXHAUSTED", "UNAVAILABLE"}  # the same of gRPC
# HTTP status -> what the server calls it; 413 is of a proxy before it: the picture is too large
CODES = {400: "INVALID_ARGUMENT", 404: "NOT_FOUND", 413: "INVALID_ARGUMENT"}
TOO_LARGE = "message larger than max"  # what gRPC says about a picture, with a code of BUSY_CODES
OF_THE_MODEL = re.compile("Servable|version label|signature (name|key)|match signature")


class PictureRefused(UserError):
    """The server works, but not on this picture."""


class _NotNow(Exception):
    """Something that another attempt may mend."""


class ServedModel(NamedTuple):
    """Which network on which server.

    Attributes:
        address: `http://host:8501`, `https://…` or `grpc://host:8500`.
        name: What the server's models.config calls it.
        version: A number, a label such as `stable`, or `None` for the server's latest.
        timeout: Seconds to wait for a picture's answer, all attempts together. REST counts them
            anew whenever some of an answer arrives.
    """

    address: str
    name: str
    version: str | None
    timeout: float


def connect(model: ServedModel) -> Callable[[bytes], list[Prediction]]:
    """Makes a function that asks a server what is in a picture.

    Args:
        model: Which network on which server. Nothing is sent yet.

    Returns:
        Maps the bytes of a JPEG, PNG, WebP, BMP or GIF, whose EXIF orientation is ignored, to at
        most five `Prediction`s, the best first, without `index`, which servers do not tell. It
        raises `PictureRefused` for a picture that the server cannot read, and `UserError` where
        the server, the network or the connection is at fault.

    Raises:
        UserError: If the address is of no known kind, or gRPC is not installed.
    """
    scheme, _, host = model.address.partition("://")
    transports = {"http": _rest, "https": _rest, "grpc": _grpc}
    if scheme not in transports or not _is_host(host):
        raise UserError(
            f"{model.address} is no address of a server; give http://host:8501 or grpc://host:8500."
        )
    ask = transports[scheme](model)

    def classify(image: bytes) -> list[Prediction]:
        classes, scores = _with_retries(ask, image, model)
        with _understanding(model):
            named = zip(map(split_label, classes), scores, strict=True)
            return [Prediction(None, wnid, name, float(score)) for (wnid, name), score in named]

    return classify


def _is_host(text: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(f"//{text}")
        return bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # a port that is no number, a bracket that is not closed
        return False


def _with_retries(ask, image: bytes, model: ServedModel) -> tuple[list[str], list[float]]:
    give_up = time.monotonic() + model.timeout
    for attempt in range(ATTEMPTS):
        try:
            return ask(image, max(give_up - time.monotonic(), 0.001))
        except TimeoutError as error:
            raise UserError(
                f"{model.address} gave no answer in {model.timeout:g} s; try again, or wait longer."
            ) from error
        except _NotNow as error:
            reason = error
        pause = FIRST_PAUSE * 2**attempt * random.uniform(0.5, 1)
        if attempt + 1 == ATTEMPTS or time.monotonic() + pause > give_up:
            break
        time.sleep(pause)
    raise UserError(
        f"{model.address} does not answer ({reason}; attempts: {attempt + 1}); check the address "
        "and that the server runs."
    )


def _rest(model: ServedModel):
    quote = urllib.parse.quote
    version = ""
    if model.version:
        kind = "versions" if model.version.isdecimal() else "labels"
        version = f"/{kind}/{quote(model.version, safe='')}"
    base = model.address.rstrip("/")
    url = f"{base}/v1/models/{quote(model.name, safe='')}{version}:predict"

    def ask(image: bytes, timeout: float) -> tuple[list[str], list[float]]:
        encoded = base64.b64encode(image).decode("ascii")
        body = {"signature_name": SIGNATURE, "instances": [{"b64": encoded}]}
        request = urllib.request.Request(
            url, json.dumps(body).encode("ascii"), {"Content-Type": "application/json"}
        )
        answer = _send(request, timeout, model)
        with _understanding(model):
            prediction = json.loads(answer)["predictions"][0]
            return prediction["classes"], prediction["scores"]

    return ask


def _send(request: urllib.request.Request, timeout: float, model: ServedModel) -> bytes:
    status, reason, body = _exchange(request, timeout)
    if status < 300:
        return body
    message = _error_of_json(body) or f"HTTP status {status} {reason}"
    if status in BUSY_STATUSES:
        raise _NotNow(message)
    raise _refusal(model, CODES.get(status), message)


def _exchange(request: urllib.request.Request, timeout: float) -> tuple[int, str, bytes]:
    """Returns the status, its name and the body of whatever is answered."""
    try:
        try:
            response = urllib.request.urlopen(request, timeout=timeout)
        except urllib.error.HTTPError as error:
            response = error
        with response:
            return response.status, response.reason, response.read()
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise error.reason from error
        raise _NotNow(getattr(error.reason, "strerror", None) or error.reason) from error
    except TimeoutError:
        raise
    except (OSError, http.client.HTTPException) as error:  # the connection broke
        raise _NotNow(str(error) or type(error).__name__) from error


@contextlib.contextmanager
def _understanding(model: ServedModel):
    """Blames the server for an answer that the block cannot read."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(
            f"{model.address} answers, but not as TensorFlow Serving with a network of this "
            "project does; check the address and the model's name."
        ) from error


def _error_of_json(body: bytes) -> str | None:
    try:
        message = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        return None
    return message if isinstance(message, str) else None


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

    target = model.address.partition("://")[2].rstrip("/")
    # the channel's own pause before it connects again, 1 s by default
    options = [("grpc.initial_reconnect_backoff_ms", int(1000 * FIRST_PAUSE))]
    stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(target, options))

    def ask(image: bytes, timeout: float) -> tuple[list[str], list[float]]:
        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = model.name, SIGNATURE
        if model.version and model.version.isdecimal():
            request.model_spec.version.value = int(model.version)
        elif model.version:
            request.model_spec.version_label = model.version
        request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto([image]))
        try:
            outputs = stub.Predict(request, timeout=timeout).outputs
        except grpc.RpcError as error:
            raise _of_rpc(error, model) from error
        with _understanding(model):
            classes = [name.decode("utf-8") for name in tf.make_ndarray(outputs["classes"])[0]]
            return classes, tf.make_ndarray(outputs["scores"])[0].tolist()

    return ask


def _of_rpc(error, model: ServedModel) -> Exception:
    code, message = error.code().name, error.details() or error.code().name
    if code == "DEADLINE_EXCEEDED":
        return TimeoutError(message)
    if TOO_LARGE in message:
        code = "INVALID_ARGUMENT"
    if code in BUSY_CODES:
        return _NotNow(_sentence(message))
    return _refusal(model, code, message)


def _refusal(model: ServedModel, code: str | None, message: str) -> UserError:
    refusal = f"{model.address} refuses: {_sentence(message)}"
    if code == "NOT_FOUND" or OF_THE_MODEL.search(message):
        return UserError(f"{refusal}; check the model's name and version.")
    return PictureRefused(f"{refusal}.") if code == "INVALID_ARGUMENT" else UserError(f"{refusal}.")


def _sentence(message: str) -> str:
    """What a session of TensorFlow says, without its brackets and the names of its nodes."""
    text = re.sub(r"\s*\[?\[?\{\{(function_)?node [^}]*\}\}\]?\]?", "", message)
    text = re.sub(r"assertion failed: \[(.*)\]", lambda found: found[1].replace("] [", " "), text)
    return " ".join(text.split()).rstrip(".")
