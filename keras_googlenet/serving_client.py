"""A client of TensorFlow Serving: the bytes of an image go out, class names come back.

REST is spoken by requests, gRPC by what requirements-serving.txt lists. Both send again what failed
on the way, since predictions only read.
"""

import base64
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
from keras_googlenet.labels import TOP, Prediction, split_label

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
        raises `ImageRefused` for an image that the server cannot read, and
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
            names = map(printable, classes)
            named = zip(map(split_label, names), scores, strict=True)
            return [Prediction(None, wnid, name, float(score)) for (wnid, name), score in named]
        except UNREADABLE as error:
            raise of_another_kind(model.address) from error

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
            raise of_connection(error, model.address, model.timeout) from error
        if response.status_code >= 300:
            raise of_status(response, answer, model.address)
        return answer

    return send, _read_json


def _post(url: str, body: dict, give_up: float) -> tuple[requests.Response, bytes]:
    retries = _Retries(
        ATTEMPTS - 1,
        other=0,  # a certificate does not change
        allowed_methods=None,  # any
        status_forcelist=BUSY_STATUSES,
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
            raise of_rpc(code, message, model.address, model.timeout) from error

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
        "retryableStatusCodes": BUSY_CODES,
    }
    methods = [{"name": [{}], "retryPolicy": retries}]
    return [
        ("grpc.service_config", json.dumps({"methodConfig": methods})),
        ("grpc.per_rpc_retry_buffer_size", 2**31 - 1),  # what is larger would be sent once
        # the channel's own pause before it connects again, 1 s by default
        ("grpc.initial_reconnect_backoff_ms", int(1000 * FIRST_PAUSE)),
    ]


BUSY_STATUSES = {429, 502, 503}  # HTTP: too many requests, bad gateway, unavailable
BUSY_CODES = ["RESOURCE_EXHAUSTED", "UNAVAILABLE"]  # the same of gRPC
CODES = {400: "INVALID_ARGUMENT", 404: "NOT_FOUND", 413: "INVALID_ARGUMENT"}  # HTTP: gRPC
UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
LONGEST = 400  # characters of a server's own words
PROXY_VARIABLES = {  # the first that is set counts
    "http": ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"),
    "https": ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"),
    "grpc": ("grpc_proxy", "https_proxy", "http_proxy"),
}
PROTOCOLS = {"http": "HTTP", "https": "TLS", "grpc": "gRPC", None: "another protocol"}
GREETINGS = {"\0\0": "grpc", "\x15\x03": "https"}  # first bytes of a port without HTTP/1
FRAME_TYPES = {"80": "http", "79": "http"}  # what gRPC takes the P of HTTP/1.1, the O of <!DOC for
NO_TLS = re.compile("WRONG_VERSION|RECORD_LAYER|PACKET_LENGTH")
TOO_LARGE = re.compile("(?<!CLIENT: Received )message larger than max|exceeds maximum|status: 413")
NOT_SERVING = re.compile("CLIENT: Received message larger|deserializing response")
OF_THE_MODEL = re.compile("Servable|version label|signature (name|key)|match signature")


class ImageRefused(UserError):
    """The server works, but not on this image."""


def of_status(response: requests.Response, answer: bytes, address: str) -> UserError:
    """Reads an HTTP answer whose status is no success."""
    status, message = response.status_code, _error_of_json(answer)
    said = f"HTTP status {status} {http.client.responses.get(status, '')}".rstrip()
    if status in BUSY_STATUSES:
        return _away(address, message or said)
    if message or status == 413:
        return _refusal(address, CODES.get(status), message or said)
    if response.is_redirect:
        place = urljoin(response.url, response.headers["Location"]).partition("/v1/models/")[0]
        return _failed(address, f"redirects to {_without_password(place)}", "give that address")
    if status == 400 and b"HTTPS" in answer:  # what web servers say to HTTP on their TLS port
        return _speaks(address, "https")
    advice = "check the address and the model's name" if status == 404 else ""
    return _failed(address, f"refuses: {said}", advice)


def _error_of_json(answer: bytes) -> str | None:
    try:
        message = json.loads(answer)["error"]
    except UNREADABLE:
        return None
    return message if isinstance(message, str) else None


def of_connection(error: Exception, address: str, timeout: float) -> UserError:
    """Reads an error of requests or urllib3."""
    cause = _cause(error)
    if isinstance(cause, TimeoutError):
        return _late(address, timeout)
    if type(cause) is http.client.BadStatusLine:
        known = (scheme for first, scheme in GREETINGS.items() if cause.line.startswith(first))
        return _speaks(address, next(known, None))
    if isinstance(cause, ssl.SSLCertVerificationError):
        reason = f"has a certificate that is not trusted ({_sentence(cause.verify_message)})"
        advice = "check the address, or name the file of its authority in REQUESTS_CA_BUNDLE"
        return _failed(address, reason, advice)
    if isinstance(cause, ssl.SSLError) and NO_TLS.search(str(cause)):
        return _failed(address, "does not speak TLS", "give http:// in place of https://")
    return _away(address, getattr(cause, "strerror", None) or str(cause))


def _cause(error: BaseException) -> BaseException:
    """The innermost of the errors that requests and urllib3 wrap into each other."""
    for inner in (getattr(error, "reason", None), *reversed(error.args), error.__cause__):
        if isinstance(inner, BaseException):
            return _cause(inner)
    return error


def of_rpc(code: str, message: str, address: str, timeout: float) -> UserError:
    """Reads the code and the details of an error of gRPC."""
    if code == "DEADLINE_EXCEEDED":
        return _late(address, timeout)
    if TOO_LARGE.search(message):
        return _refusal(address, "INVALID_ARGUMENT", message)
    if code == "UNIMPLEMENTED" or NOT_SERVING.search(message):
        return of_another_kind(address)
    if found := re.search(r"Failed parsing HTTP/2.*frame type (\d+)", message):
        return _speaks(address, FRAME_TYPES.get(found[1]))
    if code in BUSY_CODES:
        reason = re.sub(r"^(failed to connect|errors resolving) .*: ", "", message).rstrip("]")
        return _away(address, reason or code)
    return _refusal(address, code, message or code)


def of_another_kind(address: str) -> UserError:
    """Returns what is said of an answer that cannot be read."""
    sentence = "answers, but not as TensorFlow Serving with a network of this project does"
    return _failed(address, sentence, "check the address and the model's name")


def _refusal(address: str, code: str | None, message: str) -> UserError:
    refusal = f"{_without_password(address)} refuses: {_sentence(message)}"
    if code == "NOT_FOUND" or OF_THE_MODEL.search(message):
        return UserError(f"{refusal}; check the model's name and version.")
    return ImageRefused(f"{refusal}.") if code == "INVALID_ARGUMENT" else UserError(f"{refusal}.")


def _away(address: str, reason: str) -> UserError:
    advice = "check the address and that the server runs"
    return _failed(address, f"does not answer ({_sentence(reason)})", advice)


def _late(address: str, timeout: float) -> UserError:
    return _failed(address, f"gave no answer in {timeout:g} s", "try again, or wait longer")


def _speaks(address: str, scheme: str | None) -> UserError:
    own, _, host = _without_password(address).partition("://")
    advice = f"give {scheme}://{host}" if scheme else "check the address and its port"
    return _failed(address, f"speaks {PROTOCOLS[scheme]}, not {PROTOCOLS[own]}", advice)


def _failed(address: str, sentence: str, advice: str) -> UserError:
    rest = _proxy(address) or (advice and f"; {advice}")
    return UserError(f"{_without_password(address)} {sentence}{rest}.")


def _proxy(address: str) -> str:
    """Names the proxy that requests go through: where there is one, it may be what fails."""
    parts = urlsplit(address)
    variable = next(filter(os.environ.get, PROXY_VARIABLES[parts.scheme]), None)
    proxy, direct = os.environ.get(variable or "", ""), None  # requests reads no_proxy itself
    if parts.scheme == "grpc":
        proxy = proxy if proxy.startswith("http://") else ""  # gRPC passes over others
        direct = os.environ.get("no_grpc_proxy") or os.environ.get("no_proxy") or ""
    if not proxy or requests.utils.should_bypass_proxies(address, direct):
        return ""
    return (
        f", asked through {_without_password(proxy)}, the proxy in {variable}; check that, or add "
        f"{parts.hostname} to no_proxy"
    )


def _without_password(address: str) -> str:
    return _line(re.sub("^([a-z0-9]+://)?.*@", r"\1", address))


def _sentence(message: str) -> str:
    """What a session of TensorFlow says, without its brackets and the names of its nodes."""
    text = re.sub(r"\s*\[?\[?\{\{(function_)?node [^}]*\}\}\]?\]?", "", message)
    text = re.sub(r"assertion failed: \[(.*)\]", lambda found: found[1].replace("] [", " "), text)
    return _line(text).rstrip(".")


def _line(text: str) -> str:
    return textwrap.shorten(printable(text), LONGEST, placeholder=" …")


def printable(text: str) -> str:
    """Replaces what would move a terminal's cursor, color it, or worse, by spaces."""
    return "".join(character if character.isprintable() else " " for character in text)
