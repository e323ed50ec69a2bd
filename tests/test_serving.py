"""The client of TensorFlow Serving against servers that answer what a test tells them to."""

import base64
import contextlib
import http.server
import json
import subprocess
import sys
import threading
import time

import pytest
from conftest import ROOT

from keras_googlenet import serving
from keras_googlenet.errors import UserError
from keras_googlenet.imagenet import Prediction

ANSWER = {"predictions": [{"classes": ["n02123045 tabby", "star"], "scores": [0.75, 0.25]}]}


class Scripted(http.server.BaseHTTPRequestHandler):
    """Answers each request by the next `(status, document)` of the script; the last one stays."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((self.path, body))
        script = self.server.script
        status, document = script.pop(0) if len(script) > 1 else script[0]
        if status is None:
            return  # hangs up without a word
        if self.server.pause:
            time.sleep(self.server.pause)
        content = document if isinstance(document, bytes) else json.dumps(document).encode()
        with contextlib.suppress(OSError):  # the client may have given up
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Scripted) as server:
        server.requests, server.script, server.pause = [], [(200, ANSWER)], 0
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(serving, "FIRST_PAUSE", 0.01)


def model_of(server, name="googlenet", version=None, timeout=5):
    address = f"http://127.0.0.1:{server.server_address[1]}"
    return serving.ServedModel(address, name, version, timeout)


@pytest.mark.parametrize(
    ("version", "path"),
    [(None, "net:predict"), ("3", "net/versions/3:predict"), ("a b", "net/labels/a%20b:predict")],
)
def test_a_request_is_what_the_server_documents(server, version, path):
    classify = serving.connect(model_of(server, "net", version))
    assert classify(b"\xff\xd8 bytes") == [
        Prediction(None, "n02123045", "tabby", 0.75),
        Prediction(None, "", "star", 0.25),
    ]
    ((asked, body),) = server.requests
    assert asked == f"/v1/models/{path}"
    encoded = base64.b64encode(b"\xff\xd8 bytes").decode()
    assert json.loads(body) == {"signature_name": "classify", "instances": [{"b64": encoded}]}


@pytest.mark.parametrize("trouble", [(503, {"error": "queue full"}), (429, {}), (None, None)])
def test_what_may_pass_is_tried_again(server, trouble):
    server.script = [trouble, trouble, (200, ANSWER)]
    assert serving.connect(model_of(server))(b"picture")[0].name == "tabby"
    assert len(server.requests) == 3


def test_pauses_double(server, monkeypatch):
    pauses = []
    monkeypatch.setattr(serving.time, "sleep", pauses.append)
    monkeypatch.setattr(serving.random, "uniform", lambda low, high: high)
    server.script = [(503, {"error": "the queue is full"})]
    with pytest.raises(UserError, match=r"\(the queue is full; attempts: 5\); check"):
        serving.connect(model_of(server))(b"picture")
    assert pauses == pytest.approx([0.01, 0.02, 0.04, 0.08])
    assert len(server.requests) == serving.ATTEMPTS


def test_retries_end_with_the_time(server, monkeypatch):
    monkeypatch.setattr(serving, "FIRST_PAUSE", 30)
    server.script = [(503, {"error": "busy"})]
    with pytest.raises(UserError, match="busy; attempts: 1"):
        serving.connect(model_of(server, timeout=1))(b"picture")


def test_a_server_that_does_not_answer(server):
    server.pause = 3
    start = time.monotonic()
    with pytest.raises(UserError, match="gave no answer in 0.3 s"):
        serving.connect(model_of(server, timeout=0.3))(b"picture")
    assert time.monotonic() - start < 2
    assert len(server.requests) == 1


def test_nobody_listens():
    with http.server.HTTPServer(("127.0.0.1", 0), Scripted) as server:
        model = model_of(server)
    with pytest.raises(UserError, match=r"does not answer \(Connection refused; attempts: 5\)"):
        serving.connect(model)(b"picture")


@pytest.mark.parametrize(
    ("status", "message", "kind", "said"),
    [
        (
            400,
            "assertion failed: [the header declares] [70000000] [pixels]\n\t "
            "[[{{function_node map_while_body_2}}{{node map/while/Assert/Assert}}]]",
            serving.PictureRefused,
            "refuses: the header declares 70000000 pixels.",
        ),
        (400, 'Serving signature name: "classify" not found', UserError, "check the model's name"),
        (400, "Unrecognized servable version label: x", UserError, "check the model's name"),
        (404, "Servable not found for request: Latest(x)", UserError, "check the model's name"),
        (500, "Internal", UserError, "refuses: Internal."),
    ],
)
def test_the_servers_own_words(server, status, message, kind, said):
    server.script = [(status, {"error": message})]
    with pytest.raises(UserError) as caught:
        serving.connect(model_of(server))(b"picture")
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
        serving.connect(model_of(server))(b"picture")


@pytest.mark.parametrize("document", [b"<html>", {"error": {"code": 403}}, {"error": None}, []])
def test_an_error_without_a_message(server, document):
    server.script = [(403, document)]
    with pytest.raises(UserError, match="refuses: HTTP status 403 Forbidden"):
        serving.connect(model_of(server))(b"picture")


def test_an_error_that_is_cut_short(server, monkeypatch):
    send_header = Scripted.send_header
    monkeypatch.setattr(
        Scripted,
        "send_header",
        lambda self, key, value: send_header(self, key, "99" if "Length" in key else value),
    )
    server.script = [(400, {"error": "bad"})]
    with pytest.raises(UserError, match=r"not answer \(IncompleteRead.*; attempts: 5\); check"):
        serving.connect(model_of(server))(b"picture")


@pytest.mark.peers("grpc", "tensorflow_serving")
def test_grpc_does_not_send_a_picture_that_is_too_large_again():
    from concurrent import futures

    import grpc

    executor = futures.ThreadPoolExecutor(1)
    peer = grpc.server(executor, options=[("grpc.max_receive_message_length", 100)])
    handlers = {"Predict": grpc.unary_unary_rpc_method_handler(lambda *_: None)}
    service = "tensorflow.serving.PredictionService"
    peer.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, handlers)])
    port = peer.add_insecure_port("127.0.0.1:0")
    peer.start()
    model = serving.ServedModel(f"grpc://127.0.0.1:{port}", "googlenet", None, 5)
    try:
        with pytest.raises(serving.PictureRefused, match="refuses: .*larger than max"):
            serving.connect(model)(b"x" * 1000)
    finally:
        peer.stop(None)


@pytest.mark.parametrize(
    "address", ["localhost:8501", "ftp://host", "http://", "grpc:///", "http://[::1", "http://a:b"]
)
def test_an_address_of_no_kind(address):
    with pytest.raises(UserError, match="no address of a server; give http://host:8501 or grpc"):
        serving.connect(serving.ServedModel(address, "googlenet", None, 5))


def test_grpc_without_its_packages(monkeypatch):
    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(UserError, match="install -r requirements-serving.txt"):
        serving.connect(serving.ServedModel("grpc://localhost:1", "googlenet", None, 5))


def test_predict_stops_where_the_next_picture_would_fail_too(server, run_script, image_folder):
    answers = [(200, ANSWER), (400, {"error": "bad picture"}), (200, ANSWER)]
    server.script = [*answers, (404, {"error": "Servable not found"})]
    address = model_of(server).address
    outcome = run_script("predict.py", "--server", address, image_folder / "val", "--json")
    assert outcome.status == 2
    assert len(json.loads(outcome.out)) == 2  # the others were not asked for
    bad, gone = outcome.err.splitlines()
    assert "1.jpg: " in bad and bad.endswith("refuses: bad picture.")
    assert gone.endswith("Servable not found; check the model's name and version.")
    assert len(server.requests) == 4


def test_predict_goes_on_after_what_no_one_can_read(server, run_script, image_folder, tmp_path):
    photo = (image_folder / "val" / "star" / "0.jpg").read_bytes()
    for name in ("a.jpg", "e.jpg", "f.jpg"):
        (tmp_path / name).write_bytes(photo)
    (tmp_path / "b.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "c.jpg").mkdir()
    server.script = [(200, ANSWER), (413, b"<html>"), (200, ANSWER)]
    address = model_of(server).address
    outcome = run_script("predict.py", "--server", address, tmp_path, "--json")
    answered = [row["file"] for row in json.loads(outcome.out)]
    assert answered == [str(tmp_path / name) for name in ("a.jpg", "f.jpg")]
    assert outcome.status == 2
    dangling, folder, large = outcome.err.splitlines()
    assert "b.jpg cannot be read (No such file or directory)" in dangling
    assert "c.jpg cannot be read (Is a directory)" in folder
    assert "e.jpg: " in large and "HTTP status 413" in large


def test_rest_needs_no_tensorflow(server, image_folder):
    picture = image_folder / "val" / "star" / "0.jpg"
    code = (
        "import runpy, sys; "
        f"sys.argv = ['predict.py', '--server', {model_of(server).address!r}, {str(picture)!r}]; "
        "runpy.run_path('predict.py', run_name='__main__'); "
        "print({'tensorflow', 'keras', 'grpc'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert lines == [str(picture), "  75.00%  tabby", "  25.00%  star", "set()"], done.stderr


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
