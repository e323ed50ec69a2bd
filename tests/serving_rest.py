"""TensorFlow Serving's REST interface over a `serving_core.Core`, for tests.

The rules are those of the server's api_rest page: `:predict` by rows (`instances`) or by columns
(`inputs`), `{"b64": …}` for bytes, `_bytes` names answered in base64, model status and metadata,
and errors as `{"error": …}` with the status code that belongs to the error's kind.
"""

import base64
import binascii
import http.server
import json
import re
import urllib.parse

import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from serving_core import DEFAULT_SIGNATURE, Core, ServingError
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, model_pb2, predict_pb2

SERVER_TIMEOUT = 30.0  # seconds; --rest_api_timeout_in_ms
STATUSES = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
WHICH = r"/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
PREDICTION_PATH = re.compile(WHICH + r":(?P<verb>classify|regress|predict)", re.IGNORECASE)
STATUS_PATH = re.compile(WHICH + r"(?P<metadata>/metadata)?", re.IGNORECASE)


def invalid(message: str) -> ServingError:
    return ServingError("INVALID_ARGUMENT", message)


def model_spec(match: re.Match) -> model_pb2.ModelSpec:
    spec = model_pb2.ModelSpec(name=urllib.parse.unquote(match["name"]))
    if match["version"]:
        spec.version.value = int(match["version"])
    if match["label"]:
        spec.version_label = urllib.parse.unquote(match["label"])
    return spec


def answer(core: Core, method: str, path: str, body: bytes) -> str:
    """Answers one request.

    Returns:
        The JSON document of a success.

    Raises:
        ServingError: With the server's own words.
    """
    if method == "POST" and (match := PREDICTION_PATH.fullmatch(path)):
        if match["verb"].lower() == "predict":
            return _predict(core, model_spec(match), body)
        return _classify_or_regress(core, model_spec(match), match["verb"].lower(), body)
    if method == "GET" and (match := STATUS_PATH.fullmatch(path)):
        spec = model_spec(match)
        return _metadata(core, spec) if match["metadata"] else _status(core, spec)
    raise invalid(f"Malformed request: {method} {path}")


def _parse(body: bytes) -> dict:
    try:
        document = json.loads(body)
    except ValueError as error:
        raise invalid(f"JSON Parse error: {error}") from error
    if not isinstance(document, dict):
        raise invalid("JSON Value is not object")
    if not isinstance(document.get("signature_name", ""), str):
        raise invalid("JSON Value not formatted correctly. 'signature_name' key must be a string")
    return document


def _predict(core: Core, spec, body: bytes) -> str:
    document = _parse(body)
    spec.signature_name = document.get("signature_name", "")
    _, model = core.find(spec)
    name = spec.signature_name or DEFAULT_SIGNATURE
    if name not in model.signatures:
        raise invalid(f'Serving signature name: "{name}" not found in signature def')
    infos = dict(model.signatures[name].inputs)
    keys = {"instances", "inputs"} & set(document)
    if not keys:
        raise invalid("Missing 'inputs' or 'instances' key")
    if len(keys) == 2:
        raise invalid("Not formatted correctly expecting only one of 'inputs' or 'instances' keys")
    by_rows = keys == {"instances"}
    columns = _columns(document["instances"], infos) if by_rows else document["inputs"]
    if not isinstance(columns, dict) or _is_base64(columns):
        if len(infos) > 1:
            raise invalid("a plain value or list, but expecting an object with named inputs")
        columns = {next(iter(infos)): columns}
    request = predict_pb2.PredictRequest(model_spec=spec)
    for key, info in infos.items():
        if key not in columns:
            raise invalid(f"Missing named input: {key} in 'inputs' object.")
        array = _array(columns[key], info.dtype)
        request.inputs[key].CopyFrom(tf.make_tensor_proto(array, dtype=info.dtype))
    outputs = core.predict(request, SERVER_TIMEOUT).outputs
    values = {key: _values(key, tf.make_ndarray(proto)) for key, proto in outputs.items()}
    return json.dumps(_rows(values) if by_rows else _only({"outputs": values}), indent=1)


def _columns(instances, infos) -> dict:
    """Turns rows into columns: each row an object of the named inputs, or the one input."""
    if not isinstance(instances, list):
        raise invalid("Excepting 'instances' to be an list/array")
    if not instances:
        raise invalid("No values in 'instances' array")
    named = [isinstance(row, dict) and not _is_base64(row) for row in instances]
    if not any(named):
        if len(infos) > 1:
            raise invalid("instances is a plain list, but expecting list of objects")
        return {next(iter(infos)): instances}
    if not all(named):
        raise invalid("Expecting object but got a list or value in the input list")
    for index, row in enumerate(instances):
        if set(row) != set(infos):
            raise invalid(
                f"Failed to process element: {index} of 'instances' list. JSON object: keys must "
                f"be equal to: {','.join(sorted(infos))}"
            )
    return {key: [row[key] for row in instances] for key in infos}


def _is_base64(value) -> bool:
    return isinstance(value, dict) and set(value) == {"b64"} and isinstance(value["b64"], str)


def _array(value, dtype: int) -> np.ndarray:
    if dtype == types_pb2.DT_STRING:
        leaves, shape = _strings(value)
        array = np.empty(len(leaves), object)
        array[:] = leaves
        return array.reshape(shape)
    try:
        return np.asarray(value, tf.as_dtype(dtype).as_numpy_dtype)
    except (TypeError, ValueError) as error:
        name = types_pb2.DataType.Name(dtype).removeprefix("DT_").lower()
        raise invalid(f"JSON Value is not of expected type: {name} ({error})") from error


def _strings(value) -> tuple[list[bytes], tuple[int, ...]]:
    """The leaves of nested lists, and their shape."""
    if isinstance(value, list):
        parts = [_strings(entry) for entry in value]
        if len({shape for _, shape in parts}) > 1:
            raise invalid("Encountered list at unexpected size")
        inner = parts[0][1] if parts else ()
        return [leaf for leaves, _ in parts for leaf in leaves], (len(value), *inner)
    if isinstance(value, str):
        return [value.encode("utf-8")], ()
    if not _is_base64(value):
        raise invalid("JSON Value not formatted correctly for base64 data")
    try:
        return [base64.b64decode(value["b64"], validate=True)], ()
    except binascii.Error as error:
        raise invalid("Unable to base64 decode") from error


def _values(name: str, array: np.ndarray):
    """Plain JSON values; bytes in base64 where the output's name ends in `_bytes`."""
    if array.dtype != object:
        return array.tolist()
    if name.endswith("_bytes"):
        encoded = [{"b64": base64.b64encode(text).decode()} for text in array.ravel()]
    else:
        encoded = [text.decode("utf-8") for text in array.ravel()]
    result = np.empty(array.size, object)
    result[:] = encoded
    return result.reshape(array.shape).tolist()


def _rows(values: dict) -> dict:
    if len({len(column) for column in values.values()}) > 1:
        raise invalid("Tensor has inconsistent batch size")
    rows = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
    return {"predictions": [next(iter(row.values())) if len(row) == 1 else row for row in rows]}


def _only(document: dict) -> dict:
    """A single output stands for itself."""
    values = document["outputs"]
    return {"outputs": next(iter(values.values())) if len(values) == 1 else values}


def _classify_or_regress(core: Core, spec, verb: str, body: bytes):
    """Refuses: exports of TensorFlow 2 have signatures of the predict kind only."""
    document = _parse(body)
    spec.signature_name = document.get("signature_name", "")
    if "examples" not in document:
        raise invalid("When method is classify, key 'examples' is expected and was not found")
    _, model = core.find(spec)
    name = spec.signature_name or DEFAULT_SIGNATURE
    if name not in model.signatures:
        raise invalid(f"No signature was found with the name: {name}")
    raise wrong_method(verb, model.signatures[name].method_name)


def wrong_method(verb: str, method_name: str) -> ServingError:
    kind = {"classify": "classification", "regress": "regression"}[verb]
    return invalid(
        f"Expected {kind} signature method_name to be tensorflow/serving/{verb}. Was: {method_name}"
    )


def _status(core: Core, spec) -> str:
    return json_format.MessageToJson(
        core.status(spec), always_print_fields_with_no_presence=True, indent=1
    )


def _metadata(core: Core, spec) -> str:
    version, model = core.find(spec)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    for key, signature in model.signatures.items():
        signatures.signature_def[key].CopyFrom(signature)
    described = json_format.MessageToDict(
        signatures, always_print_fields_with_no_presence=True, preserving_proto_field_name=True
    )
    found = {"name": spec.name, "signature_name": "", "version": str(version)}
    return json.dumps({"model_spec": found, "metadata": {"signature_def": described}}, indent=1)


def handler(core: Core) -> type[http.server.BaseHTTPRequestHandler]:
    """The request handler of a `http.server` server."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # keeps connections open, as the server does

        def do_GET(self):
            self._answer("GET")

        def do_POST(self):
            self._answer("POST")

        def _answer(self, method):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            try:
                status, content = 200, answer(core, method, self.path, body)
            except ServingError as error:
                status = STATUSES.get(error.code, 500)
                content = json.dumps({"error": error.message}, indent=1)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content.encode())))
            self.end_headers()
            self.wfile.write(content.encode())

        def log_message(self, *arguments):
            pass

    return Handler
