"""predict.py --server against the loopback peer: the real loader behind REST and gRPC."""

import base64
import functools
import io
import json
import threading
import urllib.error
import urllib.request

import numpy as np
import pytest
from conftest import SERVED_LABELS
from PIL import Image

from keras_googlenet import serving
from keras_googlenet.errors import UserError

pytestmark = pytest.mark.peers("grpc", "tensorflow_serving")
TOLERANCE = 1e-5


@pytest.fixture(scope="module", autouse=True)
def load_each_version_once():
    """Loading takes seconds, and several tests serve the same two versions."""
    import serving_core

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serving_core, "SavedModel", functools.cache(serving_core.SavedModel))
        yield


@pytest.fixture(scope="module")
def peer(serving_folder):
    import serving_peer

    with serving_peer.Peer(serving_peer.core_of(serving_folder[0])) as peer:
        yield peer


@pytest.fixture(scope="module")
def merging(serving_folder):
    """A peer with batching that waits long enough for four clients to meet."""
    import serving_peer

    core = serving_peer.core_of(serving_folder[0], batching=True)
    for batches in core.models["googlenet"].values():
        batches._timeout, batches._most = 5.0, 4
    with serving_peer.Peer(core) as peer:
        yield peer


@pytest.fixture(scope="module")
def picture(photographs):
    file = io.BytesIO()
    Image.fromarray(photographs[0].astype("uint8")).save(file, "PNG")
    return file.getvalue()


def connect(address, version=None, name="googlenet", timeout=30):
    return serving.connect(serving.ServedModel(address, name, version, timeout))


def post(peer, path, document):
    """Status and JSON of one REST request."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    request = urllib.request.Request(f"{peer.rest}/v1/models/{path}", body)
    try:
        with urllib.request.urlopen(request) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def get(peer, path):
    with urllib.request.urlopen(f"{peer.rest}/v1/models/{path}") as response:
        return json.load(response)


def base64_of(picture):
    return {"b64": base64.b64encode(picture).decode()}


def expected(serving_folder, picture, version):
    """Class names and scores by the Keras network that was exported as `version`."""
    from keras_googlenet.data import preprocessing
    from keras_googlenet.imagenet import decode_predictions, preprocess_input

    view = preprocessing.evaluation_view(preprocessing.decode(picture), 65)
    network = serving_folder[1][version - 1]
    scores = network.predict_on_batch(preprocess_input(view[None].numpy(), "paper"))
    return [(p.wnid, p.name, p.score) for p in decode_predictions(scores, 5, SERVED_LABELS)[0]]


@pytest.mark.parametrize("interface", ["rest", "grpc"])
@pytest.mark.parametrize("version", [None, "1", "2"])
def test_the_answer_is_the_keras_networks(peer, serving_folder, picture, interface, version):
    answer = connect(getattr(peer, interface), version)(picture)
    want = expected(serving_folder, picture, int(version or 2))
    assert [(found.wnid, found.name) for found in answer] == [(w, n) for w, n, _ in want]
    got = [found.score for found in answer]
    np.testing.assert_allclose(got, [score for _, _, score in want], atol=TOLERANCE)


def test_versions_differ(serving_folder, picture):
    """Else the tests of versions and labels could not fail."""
    first, second = (expected(serving_folder, picture, version) for version in (1, 2))
    assert abs(first[0][2] - second[0][2]) > 100 * TOLERANCE


@pytest.mark.parametrize("interface", ["rest", "grpc"])
def test_predict_prints_as_with_a_local_network(
    peer, run_script, image_folder, tmp_path, interface
):
    bad = tmp_path / "bad.png"
    bad.write_text("no picture")
    photos = sorted((image_folder / "val" / "star").iterdir())
    flags = ["--server", getattr(peer, interface), bad, *photos]
    outcome = run_script("predict.py", *flags, "--json")
    assert outcome.status == 2
    assert outcome.err.strip().endswith("refuses: the image is no JPEG, PNG, GIF or BMP.")
    assert f"{bad}: " in outcome.err
    results = json.loads(outcome.out)
    assert [row["file"] for row in results] == [str(photo) for photo in photos]
    for row in results:
        names = [found["name"] for found in row["predictions"]]
        assert sorted(names) == sorted(["tabby", *SERVED_LABELS[1:]])
        assert sum(found["score"] for found in row["predictions"]) == pytest.approx(1, abs=1e-4)
        assert [found.get("wnid") for found in row["predictions"] if found["name"] == "tabby"] == [
            "n02123045"
        ]
    text = run_script("predict.py", *flags[:2], photos[0], "--top", 2).out.splitlines()
    assert text[0] == str(photos[0]) and len(text) == 3 and "%  " in text[1]


def test_rows_and_columns(peer, photographs, picture):
    image = photographs[:2, :65, :65].tolist()
    path = "googlenet:predict"
    status, rows = post(peer, path, {"instances": image})
    assert status == 200 and len(rows["predictions"]) == 2
    _, named = post(peer, path, {"instances": [{"image": picture} for picture in image]})
    _, columns = post(peer, path, {"inputs": image})
    _, named_columns = post(peer, path, {"inputs": {"image": image}})
    assert rows["predictions"] == named["predictions"] == columns["outputs"]
    assert columns == named_columns
    _, features = post(peer, path, {"signature_name": "features", "inputs": image})
    assert np.shape(features["outputs"]) == (2, 1024)
    encoded = base64_of(picture)
    _, rows = post(peer, path, {"signature_name": "classify", "instances": [encoded] * 2})
    _, columns = post(peer, path, {"signature_name": "classify", "inputs": [encoded] * 2})
    assert set(columns["outputs"]) == {"classes", "scores"}
    assert [row["scores"] for row in rows["predictions"]] == columns["outputs"]["scores"]
    assert [row["classes"] for row in rows["predictions"]] == columns["outputs"]["classes"]


@pytest.mark.parametrize(
    ("path", "document", "status", "said"),
    [
        ("googlenet:classify", {"examples": [{"x": 1}]}, 400, "classification signature method"),
        ("googlenet:regress", {"examples": [{"x": 1}]}, 400, "regression signature method_name"),
        ("googlenet:predict", b"{", 400, "JSON Parse error"),
        ("googlenet:predict", {}, 400, "Missing 'inputs' or 'instances' key"),
        ("googlenet:predict", {"instances": []}, 400, "No values in 'instances'"),
        ("googlenet:predict", {"instances": [1], "inputs": [1]}, 400, "only one of"),
        ("googlenet:predict", {"instances": ["text"]}, 400, "expected type: float"),
        ("googlenet:predict", {"signature_name": "x", "inputs": [1]}, 400, "not found in sign"),
        (
            "googlenet:predict",
            {"signature_name": "classify", "instances": [{"b64": "%%"}]},
            400,
            "Unable to base64 decode",
        ),
        ("nobody:predict", {"inputs": [1]}, 404, "Servable not found for request: Latest(nobody)"),
        ("googlenet/versions/7:predict", {"inputs": [1]}, 404, "Specific(googlenet, 7)"),
        ("googlenet/labels/x:predict", {"inputs": [1]}, 400, "Unrecognized servable version label"),
        ("googlenet:explain", {}, 400, "Malformed request"),
    ],
)
def test_errors_of_the_rest_interface(peer, path, document, status, said):
    found, answer = post(peer, path, document)
    assert found == status and said in answer["error"]


def test_status_and_metadata(peer):
    states = get(peer, "googlenet")["model_version_status"]
    healthy = {"error_code": "OK", "error_message": ""}
    assert states == [
        {"version": version, "state": "AVAILABLE", "status": healthy} for version in ("2", "1")
    ]
    assert [
        row["version"] for row in get(peer, "googlenet/versions/1")["model_version_status"]
    ] == ["1"]
    signatures = get(peer, "googlenet/metadata")["metadata"]["signature_def"]["signature_def"]
    assert {"serving_default", "classify", "features"} <= set(signatures)
    assert signatures["classify"]["inputs"]["image_bytes"]["dtype"] == "DT_STRING"


def test_grpc_refuses_classify_as_rest_does(peer):
    import grpc
    from tensorflow_serving.apis import classification_pb2, prediction_service_pb2_grpc

    with grpc.insecure_channel(peer.grpc.removeprefix("grpc://")) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        request = classification_pb2.ClassificationRequest()
        request.model_spec.name = "googlenet"
        with pytest.raises(grpc.RpcError, match="classification signature method_name"):
            stub.Classify(request, timeout=5)


@pytest.mark.parametrize(
    ("name", "version", "said"),
    [
        ("nobody", None, "Servable not found for request: Latest(nobody); check the model's name"),
        ("googlenet", "9", "Specific(googlenet, 9); check the model's name and version."),
        ("googlenet", "x", "Unrecognized servable version label: x; check"),
    ],
)
@pytest.mark.parametrize("interface", ["rest", "grpc"])
def test_a_wrong_model_reaches_the_user(peer, picture, interface, name, version, said):
    with pytest.raises(UserError) as caught:
        connect(getattr(peer, interface), version, name)(picture)
    assert said in str(caught.value) and type(caught.value) is UserError


@pytest.mark.parametrize("interface", ["rest", "grpc"])
def test_a_busy_server_is_asked_again(peer, picture, interface, monkeypatch):
    from serving_core import ServingError

    predict, calls = peer.core.predict, []

    def busy_twice(*arguments):
        calls.append(arguments)
        if len(calls) < 3:
            raise ServingError("UNAVAILABLE", "The batch scheduling queue is full")
        return predict(*arguments)

    monkeypatch.setattr(peer.core, "predict", busy_twice)
    monkeypatch.setattr(serving, "FIRST_PAUSE", 0.01)
    assert len(connect(getattr(peer, interface))(picture)) == 4
    assert len(calls) == 3


@pytest.mark.parametrize("interface", ["rest", "grpc"])
def test_a_slow_server_is_given_up(peer, picture, interface, monkeypatch):
    go_on = threading.Event()
    monkeypatch.setattr(peer.core, "predict", lambda *_: go_on.wait(10))
    try:
        with pytest.raises(UserError, match="gave no answer in 0.3 s; try again"):
            connect(getattr(peer, interface), timeout=0.3)(picture)
    finally:
        go_on.set()


def test_a_foreign_model_by_grpc(peer, picture, monkeypatch):
    from tensorflow_serving.apis import predict_pb2

    monkeypatch.setattr(peer.core, "predict", lambda *_: predict_pb2.PredictResponse())
    with pytest.raises(UserError, match="not as TensorFlow Serving with a network of this project"):
        connect(peer.grpc)(picture)


def test_grpc_to_nobody(monkeypatch):
    monkeypatch.setattr(serving, "FIRST_PAUSE", 0.01)
    with pytest.raises(UserError, match=r"does not answer \(.*refused.*; attempts: 5\); check"):
        connect("grpc://127.0.0.1:1")(b"picture")


def policy(core, *versions, **labels):
    """The configuration with these versions and labels in place of its own."""
    config = type(core.config)()
    config.CopyFrom(core.config)
    model = config.model_config_list.config[0]
    model.model_version_policy.specific.versions.extend(versions)
    model.version_labels.update(labels)
    return config


@pytest.mark.parametrize("interface", ["rest", "grpc"])
def test_rolling_back(serving_folder, picture, interface):
    import serving_peer
    from serving_core import ServingError

    core = serving_peer.core_of(serving_folder[0])
    with serving_peer.Peer(core) as peer:
        address = getattr(peer, interface)
        first, second = (connect(address, version)(picture) for version in ("1", "2"))
        assert first != second and connect(address)(picture) == second
        core.apply(policy(core, 1, 2, stable=1, canary=2))
        assert connect(address, "stable")(picture) == first
        assert connect(address, "canary")(picture) == second
        core.apply(policy(core, 1, 2, stable=2))  # promoted …
        assert connect(address, "stable")(picture) == second
        core.apply(policy(core, 1, 2, stable=1))  # … and rolled back
        assert connect(address, "stable")(picture) == first
        with pytest.raises(ServingError, match="label to version 3"):
            core.apply(policy(core, 1, 2, stable=3))


def test_rolling_back_by_a_pinned_version(serving_folder, picture):
    import serving_peer

    core = serving_peer.core_of(serving_folder[0])
    with serving_peer.Peer(core) as peer:
        first = connect(peer.rest, "1")(picture)
        core.apply(policy(core, 1))
        assert connect(peer.rest)(picture) == connect(peer.grpc)(picture) == first
        states = {
            row["version"]: row["state"] for row in get(peer, "googlenet")["model_version_status"]
        }
        assert states == {"1": "AVAILABLE", "2": "END"}
        with pytest.raises(UserError, match=r"Specific\(googlenet, 2\)"):
            connect(peer.rest, "2")(picture)


def test_a_new_configuration_by_grpc(serving_folder, picture):
    import grpc
    import serving_peer
    from tensorflow_serving.apis import model_management_pb2, model_service_pb2_grpc

    core = serving_peer.core_of(serving_folder[0])
    with serving_peer.Peer(core) as peer:
        with grpc.insecure_channel(peer.grpc.removeprefix("grpc://")) as channel:
            request = model_management_pb2.ReloadConfigRequest(config=policy(core, 1))
            model_service_pb2_grpc.ModelServiceStub(channel).HandleReloadConfigRequest(request)
        assert connect(peer.rest)(picture) == connect(peer.rest, "1")(picture)


def ask_at_once(address, pictures):
    """Asks from a client a picture, all at once; the answer or the error of each."""
    results = [None] * len(pictures)

    def ask(index):
        try:
            results[index] = connect(address)(pictures[index])
        except UserError as error:
            results[index] = error

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(len(pictures))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.mark.parametrize("interface", ["rest", "grpc"])
def test_without_batching_a_bad_picture_is_alone(peer, picture, interface):
    results = ask_at_once(getattr(peer, interface), [picture, picture, b"bad", picture])
    kinds = [type(result) for result in results]
    assert kinds == [list, list, serving.PictureRefused, list]


@pytest.mark.parametrize("interface", ["rest", "grpc"])
def test_with_batching_a_bad_picture_fails_the_others(merging, picture, interface):
    batches = merging.core.models["googlenet"][2]
    batches.sizes.clear()
    results = ask_at_once(getattr(merging, interface), [picture, picture, b"bad", picture])
    assert [type(result) for result in results] == [serving.PictureRefused] * 4
    assert batches.sizes == [4]


def test_with_batching_good_pictures_get_what_they_get_alone(merging, peer, picture, photographs):
    file = io.BytesIO()
    Image.fromarray(photographs[1].astype("uint8")).save(file, "PNG")
    pictures = [picture, file.getvalue()] * 2
    together = ask_at_once(merging.rest, pictures)
    for answer, bits in zip(together, pictures, strict=True):
        alone = connect(peer.rest)(bits)
        assert [found.name for found in answer] == [found.name for found in alone]
        np.testing.assert_allclose(
            [found.score for found in answer], [found.score for found in alone], atol=TOLERANCE
        )
    assert together[0][0].score != together[1][0].score


def test_warm_up_requests_are_the_official_proto_and_run(peer, serving_folder):
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    file = serving_folder[0] / "1" / "assets.extra" / "tf_serving_warmup_requests"
    signatures = set()
    for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
        log = prediction_log_pb2.PredictionLog.FromString(record)
        request = log.predict_log.request
        signatures.add(request.model_spec.signature_name)
        request.model_spec.name = "googlenet"
        assert peer.core.predict(request).outputs
    assert signatures == {"serving_default", "classify", "features"}
