"""The client of TensorFlow Serving against servers that answer what a test tells them to."""

import base64
import functools
import http.server
import io
import json
import subprocess
import sys
import threading
import time
import types

import numpy as np
import pytest
import serving_peers
import urllib3
from conftest import ROOT, SERVED_LABELS
from PIL import Image
from saved_model_loader import SavedModel

from keras_googlenet import serving_client
from keras_googlenet.errors import UserError
from keras_googlenet.labels import Prediction

ANSWER = {"predictions": [{"classes": ["n02123045 tabby", "star"], "scores": [0.75, 0.25]}]}
TOLERANCE = 1e-5  # of a probability
GRPC = pytest.mark.peers("grpc", "tensorflow_serving")
INTERFACES = ["rest", pytest.param("grpc", marks=GRPC)]


class Server:
    """Answers each request by the next `(status, document)` of its script; the last one stays.

    Headers may follow as a third part.

    Attributes:
        requests: `(path, body)` of those that have come.
        go_on: Set unless requests are to wait.
    """

    def __init__(self):
        self.requests, self.script, self.go_on = [], [(200, ANSWER)], threading.Event()
        self.go_on.set()

    def answer(self, path, body):
        self.requests.append((path, body))
        self.go_on.wait()
        return self.script.pop(0) if len(self.script) > 1 else self.script[0]


@pytest.fixture
def server():
    server = Server()
    with serving_peers.http_server(server.answer) as server.address:
        yield server
        server.go_on.set()


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(serving_client, "FIRST_PAUSE", 0.01)


@pytest.fixture
def pauses(monkeypatch):
    """Those that urllib3 makes, without their random part and without making them."""
    pauses = []
    clock = types.SimpleNamespace(sleep=pauses.append, time=time.time)
    monkeypatch.setattr(urllib3.util.retry, "time", clock)
    monkeypatch.setattr(urllib3.util.retry.random, "random", lambda: 0.0)
    return pauses


def model_of(server, name="net", version=None, timeout=60):
    return serving_client.ServedModel(server.address, name, version, timeout)


@pytest.mark.parametrize(
    ("version", "path"),
    [(None, "net:predict"), ("3", "net/versions/3:predict"), ("a b", "net/labels/a%20b:predict")],
)
def test_a_request_is_what_the_server_documents(server, version, path):
    classify = serving_client.connect(model_of(server, version=version))
    assert classify(b"\xff\xd8 bytes") == [
        Prediction(None, "n02123045", "tabby", 0.75),
        Prediction(None, "", "star", 0.25),
    ]
    ((asked, body),) = server.requests
    assert asked == f"/v1/models/{path}"
    encoded = base64.b64encode(b"\xff\xd8 bytes").decode()
    assert json.loads(body) == {"signature_name": "classify", "instances": [{"b64": encoded}]}


@pytest.mark.parametrize("trouble", [(503, {"error": "queue full"}), (429, {}), None])
def test_temporary_errors_are_retried(server, trouble):
    server.script = [trouble, trouble, (200, ANSWER)]
    assert serving_client.connect(model_of(server))(b"image")[0].name == "tabby"
    assert len(server.requests) == 3


def test_pauses_double(server, pauses):
    server.script = [(503, {"error": "the queue is full"})]
    with pytest.raises(UserError, match=r"does not answer \(the queue is full\); check"):
        serving_client.connect(model_of(server))(b"image")
    assert pauses == pytest.approx([0.02, 0.04, 0.08])  # urllib3 leaves the first one out
    assert len(server.requests) == 5


def test_the_server_may_ask_for_a_pause(server, pauses):
    busy = (429, {"error": "busy"})
    server.script = [(*busy, {"Retry-After": "7"}), (200, ANSWER)]
    assert serving_client.connect(model_of(server, timeout=60))(b"image")[0].name == "tabby"
    server.script = [(*busy, {"Retry-After": "70"})]
    with pytest.raises(UserError, match=r"does not answer \(busy\)"):
        serving_client.connect(model_of(server, timeout=60))(b"image")
    assert pauses == [7] and len(server.requests) == 3


def test_retries_end_with_the_time(server, monkeypatch):
    monkeypatch.setattr(serving_client, "FIRST_PAUSE", 1000)
    server.script = [(503, {"error": "busy"})]
    with pytest.raises(UserError, match=r"does not answer \(busy\)"):
        serving_client.connect(model_of(server, timeout=60))(b"image")
    assert len(server.requests) == 2  # the second one comes without a pause


def test_attempts_share_the_time(server, monkeypatch):
    """The first takes most of it, so the second has no more than what is left."""
    slept = []

    def answer(path, body):
        slept.append(time.monotonic())
        server.go_on.wait(1.2 if len(slept) == 1 else 10)
        return 503, {"error": "busy"}

    monkeypatch.setattr(server, "answer", answer)
    server.go_on.clear()
    with serving_peers.http_server(answer) as server.address:
        begun = time.monotonic()
        with pytest.raises(UserError, match="gave no answer in 2 s"):
            serving_client.connect(model_of(server, timeout=2))(b"image")
        took = time.monotonic() - begun
        server.go_on.set()
    assert len(slept) == 2 and took < 3  # 1.2 s and 2 s if each had all of it


def test_a_server_that_does_not_answer(server):
    server.go_on.clear()
    with pytest.raises(UserError, match="gave no answer in 0.3 s; try again"):
        serving_client.connect(model_of(server, timeout=0.3))(b"image")
    assert len(server.requests) <= 1


def test_a_refused_connection():
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as gone:
        address = f"http://127.0.0.1:{gone.server_address[1]}"
    with pytest.raises(UserError, match=r"does not answer \(Connection refused\)"):
        serving_client.connect(serving_client.ServedModel(address, "net", None, 60))(b"image")


@pytest.mark.parametrize(
    ("status", "message", "kind", "said"),
    [
        (
            400,
            "assertion failed: [the header declares] [70000000] [pixels]\n\t "
            "[[{{function_node map_while_body_2}}{{node map/while/Assert/Assert}}]]",
            serving_client.ImageRefused,
            "refuses: the header declares 70000000 pixels.",
        ),
        (400, 'Serving signature name: "classify" not found', UserError, "check the model's name"),
        (400, "Unrecognized servable version label: x", UserError, "check the model's name"),
        (404, "Servable not found for request: Latest(x)", UserError, "check the model's name"),
        (500, "Internal", UserError, "refuses: Internal."),
    ],
)
def test_messages_of_the_server(server, status, message, kind, said):
    server.script = [(status, {"error": message})]
    with pytest.raises(UserError) as caught:
        serving_client.connect(model_of(server))(b"image")
    assert type(caught.value) is kind
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert len(server.requests) == 1


def foreign(classes, scores):
    return {"predictions": [{"classes": classes, "scores": scores}]}


@pytest.mark.parametrize(
    "document",
    [
        b"<html>",
        [],
        {"predictions": []},
        {"predictions": [3]},
        foreign([281], [1.0]),
        foreign(["a", "b"], [1.0]),
        foreign(["a"], 1.0),
        foreign(["a"], [[1.0]]),
        foreign(["a"], ["much"]),
    ],
)
def test_another_kind_of_server(server, document):
    server.script = [(200, document)]
    with pytest.raises(UserError, match="not as TensorFlow Serving .*; check the address"):
        serving_client.connect(model_of(server))(b"image")


@pytest.mark.parametrize("document", [b"<html>", {"error": {"code": 403}}, {"error": None}, []])
def test_an_error_without_a_message(server, document):
    server.script = [(403, document)]
    with pytest.raises(UserError, match="refuses: HTTP status 403 Forbidden"):
        serving_client.connect(model_of(server))(b"image")


def test_an_error_that_is_cut_short(server, monkeypatch):
    handler = http.server.BaseHTTPRequestHandler
    send_header = handler.send_header
    monkeypatch.setattr(
        handler,
        "send_header",
        lambda self, key, value: send_header(self, key, "99" if "Length" in key else value),
    )
    server.script = [(400, {"error": "bad"})]
    with pytest.raises(UserError, match=r"not answer \(IncompleteRead.*\); check"):
        serving_client.connect(model_of(server))(b"image")


def grpc_answer():
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

    ((row,),) = ANSWER.values()
    outputs = {name: tf.make_tensor_proto([values]) for name, values in row.items()}
    return predict_pb2.PredictResponse(outputs=outputs)


@GRPC
@pytest.mark.parametrize(
    ("version", "number", "label"), [(None, 0, ""), ("3", 3, ""), ("a b", 0, "a b")]
)
def test_a_request_by_grpc_is_what_the_proto_says(version, number, label):
    import tensorflow as tf

    asked = []

    def predict(request, context):
        asked.append(request)
        return grpc_answer()

    with serving_peers.grpc_server(predict) as address:
        classify = serving_client.connect(serving_client.ServedModel(address, "net", version, 60))
        assert [found.name for found in classify(b"\xff\xd8 bytes")] == ["tabby", "star"]
    ((request),) = asked
    spec = request.model_spec
    assert (spec.name, spec.signature_name) == ("net", "classify")
    assert (spec.version.value, spec.version_label) == (number, label)
    ((name, tensor),) = request.inputs.items()
    assert name == "image_bytes" and tf.make_ndarray(tensor).tolist() == [b"\xff\xd8 bytes"]


@GRPC
@pytest.mark.parametrize(
    ("code", "message", "kind", "said", "attempts"),
    [
        ("UNAVAILABLE", "the queue is full", None, None, 3),
        ("RESOURCE_EXHAUSTED", "too many requests", None, None, 3),
        (
            "INVALID_ARGUMENT",
            "bad header",
            serving_client.ImageRefused,
            "refuses: bad header.",
            1,
        ),
        ("NOT_FOUND", "Servable not found: x", UserError, "check the model's name and version", 1),
        ("FAILED_PRECONDITION", "no graph", UserError, "refuses: no graph.", 1),
        (None, None, UserError, "not as TensorFlow Serving with a network of this project", 1),
    ],
)
def test_what_grpc_answers(code, message, kind, said, attempts):
    import grpc
    from tensorflow_serving.apis import predict_pb2

    calls = []

    def predict(request, context):
        calls.append(request)
        if code is None:
            return predict_pb2.PredictResponse()
        if kind or len(calls) < attempts:
            context.abort(getattr(grpc.StatusCode, code), message)
        return grpc_answer()

    with serving_peers.grpc_server(predict) as address:
        classify = serving_client.connect(serving_client.ServedModel(address, "net", None, 60))
        if kind is None:
            assert len(classify(b"x" * 1_000_000)) == 2  # gRPC alone repeats up to 256 KiB
        else:
            with pytest.raises(UserError, match=said) as caught:
                classify(b"image")
            assert type(caught.value) is kind
    assert len(calls) == attempts


@GRPC
def test_grpc_makes_five_attempts_with_growing_pauses(monkeypatch):
    import grpc

    monkeypatch.setattr(serving_client, "FIRST_PAUSE", 0.05)
    calls = []

    def predict(request, context):
        calls.append(time.monotonic())
        context.abort(grpc.StatusCode.UNAVAILABLE, "the queue is full")

    with serving_peers.grpc_server(predict) as address:
        with pytest.raises(UserError, match=r"does not answer \(the queue is full\); check"):
            serving_client.connect(serving_client.ServedModel(address, "net", None, 60))(b"image")
    pauses = np.diff(calls)
    assert len(pauses) == 4
    assert (pauses > 0.75 * 0.05 * 2 ** np.arange(4)).all()  # gRPC varies them by a fifth


@GRPC
def test_grpc_times_out_and_reports_a_refused_connection():
    go_on = threading.Event()
    with serving_peers.grpc_server(lambda *_: go_on.wait() and grpc_answer()) as address:
        with pytest.raises(UserError, match="gave no answer in 0.3 s; try again"):
            serving_client.connect(serving_client.ServedModel(address, "net", None, 0.3))(b"image")
        go_on.set()
    with pytest.raises(UserError, match=r"does not answer \(Connection refused\); check"):
        serving_client.connect(serving_client.ServedModel(address, "net", None, 60))(b"image")


@GRPC
def test_grpc_does_not_send_an_image_that_is_too_large_again():
    small = [("grpc.max_receive_message_length", 100)]
    with serving_peers.grpc_server(lambda *_: grpc_answer(), small) as address:
        classify = serving_client.connect(serving_client.ServedModel(address, "net", None, 60))
        with pytest.raises(serving_client.ImageRefused, match="refuses: .*larger than max"):
            classify(b"x" * 1000)


@pytest.fixture(params=INTERFACES)
def address(request, serving_folder):
    """A server that answers by the C++ loader and the first of two exported networks."""
    model = loaded(serving_folder[0] / "1")
    if request.param == "rest":
        running = serving_peers.http_server(serving_peers.rest_of(model))
    else:
        running = serving_peers.grpc_server(serving_peers.grpc_of(model))
    with running as address:
        yield address


loaded = functools.cache(SavedModel)  # loading takes seconds


def test_the_answer_is_the_keras_networks(
    address, serving_folder, photographs, run_script, tmp_path
):
    """From the pixels of a file to the names that predict.py prints, with a bad file among them."""
    from keras_googlenet.data import preprocessing
    from keras_googlenet.imagenet import decode_predictions, preprocess_input

    file = io.BytesIO()
    Image.fromarray(photographs[0].astype("uint8")).save(file, "PNG")
    (tmp_path / "photo.png").write_bytes(file.getvalue())
    (tmp_path / "bad.png").write_text("no image")
    flags = ["--server", address, tmp_path / "bad.png", tmp_path / "photo.png"]
    outcome = run_script("predict.py", *flags, "--json")
    assert outcome.status == 2
    assert outcome.err.strip().endswith("refuses: the image is not a JPEG, PNG, GIF, BMP or WebP.")
    assert f"{tmp_path / 'bad.png'}: " in outcome.err
    (row,) = json.loads(outcome.out)
    assert row["file"] == str(tmp_path / "photo.png")
    crop = preprocessing.evaluation_crop(preprocessing.decode(file.getvalue()), 65)
    scores = serving_folder[1][0].predict_on_batch(preprocess_input(crop[None].numpy(), "paper"))
    want = decode_predictions(scores, 5, SERVED_LABELS)[0]
    assert np.ptp([p.score for p in want]) > 100 * TOLERANCE
    for found, expected in zip(row["predictions"], want, strict=True):
        assert found["name"] == expected.name
        assert found.get("wnid", "") == expected.wnid
        assert found["score"] == pytest.approx(expected.score, abs=TOLERANCE)
    text = run_script("predict.py", *flags[:2], flags[3], "--top", 2).out.splitlines()
    best = [f"{p.score:8.2%}  {p.name}" for p in want[:2]]
    assert text == [str(tmp_path / "photo.png"), *best]


@pytest.mark.parametrize(
    "address", ["localhost:8501", "ftp://host", "http://", "grpc:///", "http://[::1", "http://a:b"]
)
def test_an_invalid_address(address):
    with pytest.raises(UserError, match="not the address of a server; give http://host:8501"):
        serving_client.connect(serving_client.ServedModel(address, "googlenet", None, 5))


def test_grpc_without_its_packages(monkeypatch):
    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(UserError, match="install -r requirements-serving.txt"):
        serving_client.connect(
            serving_client.ServedModel("grpc://localhost:1", "googlenet", None, 5)
        )


def test_predict_stops_where_the_next_image_would_fail_too(server, run_script, image_folder):
    answers = [(200, ANSWER), (400, {"error": "bad image"}), (200, ANSWER)]
    server.script = [*answers, (404, {"error": "Servable not found"})]
    outcome = run_script("predict.py", "--server", server.address, image_folder / "val", "--json")
    assert outcome.status == 2
    assert len(json.loads(outcome.out)) == 2  # the others were not asked for
    bad, gone = outcome.err.splitlines()
    assert "1.jpg: " in bad and bad.endswith("refuses: bad image.")
    assert gone.endswith("Servable not found; check the model's name and version.")
    assert len(server.requests) == 4


def test_predict_skips_images_that_cannot_be_read(server, run_script, image_folder, tmp_path):
    photo = (image_folder / "val" / "star" / "0.jpg").read_bytes()
    for name in ("a.jpg", "e.jpg", "f.jpg"):
        (tmp_path / name).write_bytes(photo)
    (tmp_path / "b.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "c.jpg").mkdir()
    (tmp_path / "d.tif").write_bytes(b"II*\0 and no more")
    server.script = [(200, ANSWER), (413, b"<html>"), (200, ANSWER)]
    outcome = run_script("predict.py", "--server", server.address, tmp_path, "--json")
    answered = [row["file"] for row in json.loads(outcome.out)]
    assert answered == [str(tmp_path / name) for name in ("a.jpg", "f.jpg")]
    assert outcome.status == 2
    dangling, damaged, large = outcome.err.splitlines()
    assert "4 images; skipped: 1 broken link" in dangling
    assert "d.tif cannot be read (it is TIFF" in damaged
    assert "e.jpg: " in large and "HTTP status 413" in large


def test_rest_needs_no_tensorflow(server, image_folder):
    image = image_folder / "val" / "star" / "0.jpg"
    code = (
        "import runpy, sys; "
        f"sys.argv = ['predict.py', '--server', {server.address!r}, {str(image)!r}]; "
        "runpy.run_path('predict.py', run_name='__main__'); "
        "print({'tensorflow', 'keras', 'grpc'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert lines == [str(image), "  75.00%  tabby", "  25.00%  star", "set()"], done.stderr


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--server", "http://x:1"], "IMAGE"),
        (["--server", "http://x:1", "a.jpg", "--top", 6], "5"),
        (["--server", "http://x:1", "a.jpg", "--variant", "slim"], "--variant is not for --server"),
        (["net.keras", "a.jpg", "--timeout", 3], "--timeout is for --server only; leave it out"),
        (["net.keras", "a.jpg", "--model-name", "x"], "--model-name is for --server only"),
        (["net.keras", "a.jpg", "--model-version", "1"], "--model-version is for --server only"),
    ],
)
def test_a_wrong_command_line(run_script, flags, said):
    outcome = run_script("predict.py", *flags)
    assert outcome.status == 2
    assert said in outcome.err and "Traceback" not in outcome.err
