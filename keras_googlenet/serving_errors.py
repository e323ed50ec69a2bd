"""What went wrong with a request to a server, as one sentence that is safe on a terminal."""

import http.client
import json
import os
import re
import ssl
import textwrap
from urllib.parse import urljoin, urlsplit

import requests

from keras_googlenet.errors import UserError

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


class PictureRefused(UserError):
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
    return PictureRefused(f"{refusal}.") if code == "INVALID_ARGUMENT" else UserError(f"{refusal}.")


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
