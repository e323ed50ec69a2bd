"""A client of TensorFlow Serving: sends the bytes of an image, returns class names.

REST uses requests, gRPC the packages of requirements-serving.txt. Both repeat failed requests,
which is safe because predictions change nothing on the server.
"""

import base64
import contextlib
import http.client
import json
import os
import re
import ssl
import textwrap
import time
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import quote, urljoin, urlsplit

import requests
import urllib3

from keras_googlenet.errors import UserError
from keras_googlenet.labels import Prediction, split_label

SIGNATURE = "classify"
ATTEMPTS = 5  # the most that gRPC allows
FIRST_PAUSE = 0.25  # seconds; doubles with each attempt, and urllib3 leaves the first one out
LONGEST_ANSWER = 2**20  # bytes; five classes take a few hundred
VERSION_NUMBER = re.compile("[0-9]{1,18}")
BUSY_STATUSES = {429, 502, 503}  # HTTP: too many requests, bad gateway, unavailable
BUSY_CODES = ["RESOURCE_EXHAUSTED", "UNAVAILABLE"]  # gRPC
CODES = {400: "INVALID_ARGUMENT", 404: "NOT_FOUND", 413: "INVALID_ARGUMENT"}  # HTTP -> gRPC
BAD_ANSWER = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
LONGEST_MESSAGE = 400  # characters of a server's own message
PROXY_VARIABLES = {  # the first that is set is used
    "http": ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"),
    "https": ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"),
    "grpc": ("grpc_proxy", "https_proxy", "http_proxy"),
}
PROTOCOLS = {"http": "HTTP", "https": "TLS", "grpc": "gRPC", None: "another protocol"}
FIRST_BYTES = {"\0\0": "grpc", "\x15\x03": "https"}  # of an answer that is not HTTP/1
FRAME_TYPES = {"80": "http", "79": "http"}  # the P of HTTP/1.1, the O of <!DOC
NOT_TLS = re.compile("WRONG_VERSION|RECORD_LAYER|PACKET_LENGTH")
TOO_LARGE = re.compile("(?<!CLIENT: Received )message larger than max|exceeds maximum|status: 413")
NOT_SERVING = re.compile("CLIENT: Received message larger|deserializing response")
WRONG_MODEL = re.compile("Servable|version label|signature (name|key)|match signature")


class ServedModel(NamedTuple):
    """A network on a server."""

    address: str  # http://host:8501, https://… or grpc://host:8500
    name: str  # in the server's models.config
    version: str | None  # a number, a label such as "stable", or None for the latest
    timeout: float  # seconds for an answer, retries included; REST restarts at each packet


class ImageRefused(UserError):
    """The server refuses this image, but works."""


def connect(model: ServedModel) -> Callable[[bytes], list[Prediction]]:
    """Returns a function that classifies images on a server; nothing is sent yet.

    It maps the bytes of a JPEG, PNG, WebP, BMP or GIF, whose EXIF orientation is ignored, to at
    most five `Prediction`s, the best first, without `index`. It raises `ImageRefused` for an image
    that the server cannot decode, and `UserError` where the server or the connection fails.

    Raises:
        UserError: If the address is invalid, or gRPC is not installed.
    """
    scheme, _, host = model.address.partition("://")
    transports = {"http": _rest, "https": _rest, "grpc": _grpc}
    if scheme not in transports or not _is_host(host):
        raise UserError(
            f"{model.address} is not the address of a server; give http://host:8501 or "
            "grpc://host:8500."
        )
    ask = transports[scheme](model)

    def classify(image: bytes) -> list[Prediction]:
        try:
            classes, scores = ask(image)
            labels = map(split_label, map(_printable, classes))
            scored = zip(labels, scores, strict=True)
            return [Prediction(None, wnid, name, float(score)) for (wnid, name), score in scored]
        except UserError:  # a ValueError
            raise
        except BAD_ANSWER as error:
            raise _not_serving(model.address) from error

    return classify


def _is_host(text: str) -> bool:
    try:
        parts = urlsplit(f"//{text}")
        return bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # an invalid port, a bracket that is not closed
        return False


def _rest(model: ServedModel) -> Callable[[bytes], tuple[list[str], list[float]]]:
    version = ""
    if model.version:
        kind = "versions" if VERSION_NUMBER.fullmatch(model.version) else "labels"
        version = f"/{kind}/{quote(model.version, safe='')}"
    name = quote(model.name, safe="")
    url = f"{model.address.rstrip('/')}/v1/models/{name}{version}:predict"

    def ask(image: bytes):
        encoded = base64.b64encode(image).decode("ascii")
        body = {"signature_name": SIGNATURE, "instances": [{"b64": encoded}]}
        try:
            response, answer = _post(url, body, time.monotonic() + model.timeout)
        except (OSError, urllib3.exceptions.HTTPError, ValueError) as error:
            raise _connection_error(error, model.address, model.timeout) from error
        if response.status_code >= 300:
            raise _status_error(response, answer, model.address)
        prediction = json.loads(answer)["predictions"][0]
        return prediction["classes"], prediction["scores"]

    return ask


def _post(url: str, body: dict, deadline: float) -> tuple[requests.Response, bytes]:
    retries = _Retries(
        ATTEMPTS - 1,
        other=0,  # a certificate does not change
        allowed_methods=None,  # any
        status_forcelist=BUSY_STATUSES,
        raise_on_status=False,  # the error shows the server's own message
        backoff_factor=FIRST_PAUSE,
        backoff_jitter=FIRST_PAUSE / 2,
    )
    retries.deadline = deadline
    with requests.Session() as session:
        for scheme in ("http://", "https://"):
            session.mount(scheme, requests.adapters.HTTPAdapter(max_retries=retries))
        options = {"timeout": _TimeLeft(deadline), "stream": True, "allow_redirects": False}
        with session.post(url, json=body, **options) as response:
            return response, response.raw.read(LONGEST_ANSWER, decode_content=True)


class _Retries(urllib3.Retry):
    """Retries that stop where the next pause would pass the deadline."""

    def new(self, **changes):
        retries = super().new(**changes)
        retries.deadline = self.deadline
        return retries

    def increment(self, method, url, response=None, error=None, _pool=None, _stacktrace=None):
        retries = super().increment(method, url, response, error, _pool, _stacktrace)
        pause = (response and retries.get_retry_after(response)) or retries.get_backoff_time()
        if time.monotonic() + pause > self.deadline:
            raise urllib3.exceptions.MaxRetryError(_pool, url, error)
        return retries


class _TimeLeft(urllib3.Timeout):
    """The time until the deadline when an attempt starts: urllib3 clones it for each."""

    def __init__(self, deadline: float):
        super().__init__()
        self.deadline = deadline

    def clone(self):
        return urllib3.Timeout(total=max(self.deadline - time.monotonic(), 0.001))


def _grpc(model: ServedModel) -> Callable[[bytes], tuple[list[str], list[float]]]:
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # errors are raised anyway
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

    def ask(image: bytes):
        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = model.name, SIGNATURE
        if VERSION_NUMBER.fullmatch(model.version or ""):
            request.model_spec.version.value = int(model.version)
        elif model.version:
            request.model_spec.version_label = model.version
        request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto([image]))
        try:
            outputs = stub.Predict(request, timeout=model.timeout).outputs
        except grpc.RpcError as error:
            code, message = error.code().name, error.details() or ""
            raise _rpc_error(code, message, model.address, model.timeout) from error
        classes = [name.decode("utf-8") for name in tf.make_ndarray(outputs["classes"])[0]]
        return classes, tf.make_ndarray(outputs["scores"])[0].tolist()

    return ask


def _options() -> list[tuple[str, int | str]]:
    retries = {"maxAttempts": ATTEMPTS, "backoffMultiplier": 2, "retryableStatusCodes": BUSY_CODES}
    retries |= {"initialBackoff": f"{FIRST_PAUSE}s", "maxBackoff": f"{FIRST_PAUSE * 2**ATTEMPTS}s"}
    config = {"methodConfig": [{"name": [{}], "retryPolicy": retries}]}
    return [
        ("grpc.service_config", json.dumps(config)),
        ("grpc.per_rpc_retry_buffer_size", 2**31 - 1),  # larger requests would not be repeated
        ("grpc.initial_reconnect_backoff_ms", int(1000 * FIRST_PAUSE)),  # 1 s by default
    ]


def _status_error(response: requests.Response, answer: bytes, address: str) -> UserError:
    status, message = response.status_code, _error_of_json(answer)
    described = f"HTTP status {status} {http.client.responses.get(status, '')}".rstrip()
    if status in BUSY_STATUSES:
        return _no_answer(address, message or described)
    if message or status == 413:
        return _refusal(address, CODES.get(status), message or described)
    if response.is_redirect:
        target = urljoin(response.url, response.headers["Location"]).partition("/v1/models/")[0]
        return _failed(address, f"redirects to {_without_password(target)}", "give that address")
    if status == 400 and b"HTTPS" in answer:  # web servers to HTTP on their TLS port
        return _other_protocol(address, "https")
    advice = "check the address and the model's name" if status == 404 else ""
    return _failed(address, f"refuses: {described}", advice)


def _error_of_json(answer: bytes) -> str | None:
    with contextlib.suppress(*BAD_ANSWER):
        message = json.loads(answer)["error"]
        return message if isinstance(message, str) else None


def _connection_error(error: Exception, address: str, timeout: float) -> UserError:
    cause = _cause(error)
    if isinstance(cause, TimeoutError):
        return _timed_out(address, timeout)
    if type(cause) is http.client.BadStatusLine:
        schemes = (FIRST_BYTES[first] for first in FIRST_BYTES if cause.line.startswith(first))
        return _other_protocol(address, next(schemes, None))
    if isinstance(cause, ssl.SSLCertVerificationError):
        problem = f"has a certificate that is not trusted ({_sentence(cause.verify_message)})"
        advice = "check the address, or name the file of its authority in REQUESTS_CA_BUNDLE"
        return _failed(address, problem, advice)
    if isinstance(cause, ssl.SSLError) and NOT_TLS.search(str(cause)):
        return _failed(address, "does not speak TLS", "give http:// in place of https://")
    return _no_answer(address, getattr(cause, "strerror", None) or str(cause))


def _cause(error: BaseException) -> BaseException:
    """Returns the innermost of the errors that requests and urllib3 wrap."""
    for inner in (getattr(error, "reason", None), *reversed(error.args), error.__cause__):
        if isinstance(inner, BaseException):
            return _cause(inner)
    return error


def _rpc_error(code: str, message: str, address: str, timeout: float) -> UserError:
    if code == "DEADLINE_EXCEEDED":
        return _timed_out(address, timeout)
    if TOO_LARGE.search(message):
        return _refusal(address, "INVALID_ARGUMENT", message)
    if code == "UNIMPLEMENTED" or NOT_SERVING.search(message):
        return _not_serving(address)
    if match := re.search(r"Failed parsing HTTP/2.*frame type (\d+)", message):
        return _other_protocol(address, FRAME_TYPES.get(match[1]))
    if code in BUSY_CODES:
        reason = re.sub(r"^(failed to connect|errors resolving) .*: ", "", message).rstrip("]")
        return _no_answer(address, reason or code)
    return _refusal(address, code, message or code)


def _not_serving(address: str) -> UserError:
    problem = "answers, but not as TensorFlow Serving with a network of this project does"
    return _failed(address, problem, "check the address and the model's name")


def _refusal(address: str, code: str | None, message: str) -> UserError:
    refusal = f"{_without_password(address)} refuses: {_sentence(message)}"
    if code == "NOT_FOUND" or WRONG_MODEL.search(message):
        return UserError(f"{refusal}; check the model's name and version.")
    return ImageRefused(f"{refusal}.") if code == "INVALID_ARGUMENT" else UserError(f"{refusal}.")


def _no_answer(address: str, reason: str) -> UserError:
    advice = "check the address and that the server runs"
    return _failed(address, f"does not answer ({_sentence(reason)})", advice)


def _timed_out(address: str, timeout: float) -> UserError:
    return _failed(address, f"gave no answer in {timeout:g} s", "try again, or wait longer")


def _other_protocol(address: str, scheme: str | None) -> UserError:
    own, _, host = _without_password(address).partition("://")
    advice = f"give {scheme}://{host}" if scheme else "check the address and its port"
    return _failed(address, f"uses {PROTOCOLS[scheme]}, not {PROTOCOLS[own]}", advice)


def _failed(address: str, problem: str, advice: str) -> UserError:
    rest = _proxy(address) or (advice and f"; {advice}")
    return UserError(f"{_without_password(address)} {problem}{rest}.")


def _proxy(address: str) -> str:
    """Names the proxy that requests go through, if any, which may be what fails."""
    parts = urlsplit(address)
    variable = next(filter(os.environ.get, PROXY_VARIABLES[parts.scheme]), None)
    proxy, direct = os.environ.get(variable or "", ""), None  # requests reads no_proxy itself
    if parts.scheme == "grpc":
        proxy = proxy if proxy.startswith("http://") else ""  # gRPC ignores others
        direct = os.environ.get("no_grpc_proxy") or os.environ.get("no_proxy") or ""
    if not proxy or requests.utils.should_bypass_proxies(address, direct):
        return ""
    return (
        f", asked through {_without_password(proxy)}, the proxy in {variable}; check that, or add "
        f"{parts.hostname} to no_proxy"
    )


def _without_password(address: str) -> str:
    return _shorten(re.sub("^([a-z0-9]+://)?.*@", r"\1", address))


def _sentence(message: str) -> str:
    """Removes brackets and the names of nodes from a message of TensorFlow."""
    text = re.sub(r"\s*\[?\[?\{\{(function_)?node [^}]*\}\}\]?\]?", "", message)
    text = re.sub(r"assertion failed: \[(.*)\]", lambda match: match[1].replace("] [", " "), text)
    return _shorten(text).rstrip(".")


def _shorten(text: str) -> str:
    return textwrap.shorten(_printable(text), LONGEST_MESSAGE, placeholder=" …")


def _printable(text: str) -> str:
    """Replaces characters that control a terminal by spaces."""
    return "".join(character if character.isprintable() else " " for character in text)
