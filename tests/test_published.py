"""`weights="imagenet"` against publishers that this test puts in the real ones' places."""

import contextlib
import dataclasses
import errno
import hashlib
import http.server
import tempfile
import threading
import warnings
from pathlib import Path

import caffe_reference
import google_graph
import numpy as np
import pytest
import slim_checkpoint
import thin_network
import torchvision_peer

from keras_googlenet.errors import UserError
from keras_googlenet.googlenet import VARIANTS, GoogLeNet
from keras_googlenet.labels import default_labels, imagenet_labels
from keras_googlenet.weights import convert, published


@pytest.fixture(scope="module")
def caffe_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("publisher") / "bvlc_googlenet.caffemodel"
    blobs = caffe_reference.random_blobs(share=thin_network.SHARE)
    caffe_reference.write_blobs(path, blobs, old_form=True)
    return path


@pytest.fixture(scope="module")
def original(caffe_file):
    """What the file converts to."""
    return convert(caffe_file)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Where downloads go in this test; it does not exist yet."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    return tmp_path / "keras" / "keras_googlenet"


@pytest.fixture
def publish(monkeypatch):
    """Makes a file what a variant's publisher offers."""

    def offer(variant, path, url=None, hash_kind="sha1", digest=None):
        digest = digest or hashlib.new(hash_kind, path.read_bytes()).hexdigest()
        offered = VARIANTS[variant].publisher._replace(
            url=url or path.as_uri(), hash_kind=hash_kind, hash=digest
        )
        for table in (VARIANTS, thin_network.WHOLE):
            spec = dataclasses.replace(table[variant], publisher=offered)
            monkeypatch.setitem(table, variant, spec)
        return offered

    return offer


@contextlib.contextmanager
def server(content, announced=None):
    """A web server on this machine that gives `content` and says that it is `announced` long."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.requests += 1
            self.send_response(200)
            self.send_header("Content-Length", str(announced or len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.requests = 0
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running, f"http://127.0.0.1:{running.server_port}/bvlc_googlenet.caffemodel"
        running.shutdown()


def test_downloaded_once_converted_once(caffe_file, original, cache, publish, capsys):
    with server(caffe_file.read_bytes()) as (running, url):
        publish("paper", caffe_file, url)
        first, second = (GoogLeNet(weights="imagenet") for _ in range(2))
        assert running.requests == 1
    assert capsys.readouterr().out == "", "progress belongs on standard error"
    assert sorted(path.suffix for path in cache.iterdir()) == [".caffemodel", ".keras"]
    next(cache.glob("*.caffemodel")).unlink()
    third = GoogLeNet(weights="imagenet")  # the converted file is enough
    for model in (first, second, third):
        assert equal_layers(model, original) == weighted(model)


def test_wrong_hash(caffe_file, cache, publish):
    expected = "0" * 40
    publish("paper", caffe_file, digest=expected)
    actual = hashlib.sha1(caffe_file.read_bytes()).hexdigest()
    with pytest.raises(UserError, match=f"sha1 is {actual}.*thrown away.*{expected}.*{cache}"):
        GoogLeNet(weights="imagenet")
    assert not list(cache.glob("*"))


def test_cut_off_download(caffe_file, cache, publish):
    content = caffe_file.read_bytes()
    with server(content[:1000], announced=len(content)) as (_, url):
        publish("paper", caffe_file, url)
        with pytest.raises(UserError, match="cannot be fetched .*put the file .sha1"):
            GoogLeNet(weights="imagenet")
    assert not list(cache.glob("*"))


def test_without_a_network_a_file_put_there_works(caffe_file, original, cache, publish):
    with server(b"") as (_, url):
        pass  # now nobody listens there
    offered = publish("paper", caffe_file, url)
    place = cache / "bvlc_googlenet.caffemodel"
    with pytest.raises(UserError) as error:
        GoogLeNet(weights="imagenet")
    for part in (url, offered.hash, str(place)):
        assert part in str(error.value)
    place.parent.mkdir(parents=True)
    place.write_bytes(caffe_file.read_bytes()[:-1])
    with pytest.raises(UserError, match="is not the file that was published.*remove it"):
        GoogLeNet(weights="imagenet")
    place.write_bytes(caffe_file.read_bytes())
    model = GoogLeNet(weights="imagenet")
    assert equal_layers(model, original) == weighted(model)


def test_read_only_cache(caffe_file, original, cache, publish, monkeypatch):
    publish("paper", caffe_file)

    make = tempfile.mkdtemp

    def refuse(suffix=None, prefix=None, dir=None):
        if dir is None:  # the reader's own, elsewhere
            return make(suffix, prefix, dir)
        raise PermissionError(errno.EROFS, "Read-only file system", str(cache))

    monkeypatch.setattr("keras_googlenet.atomic.tempfile.mkdtemp", refuse)
    with pytest.raises(
        UserError, match="keras_googlenet cannot be written; set KERAS_HOME, or put the file"
    ):
        GoogLeNet(weights="imagenet")
    cache.mkdir(parents=True, exist_ok=True)
    (cache / "bvlc_googlenet.caffemodel").write_bytes(caffe_file.read_bytes())
    model = GoogLeNet(weights="imagenet")
    assert equal_layers(model, original) == weighted(model)
    assert not list(cache.glob("*.keras"))


def test_a_damaged_conversion_is_made_again(caffe_file, original, cache, publish):
    publish("paper", caffe_file)
    GoogLeNet(weights="imagenet")
    converted = next(cache.glob("*.keras"))
    whole = converted.stat().st_size
    converted.write_bytes(converted.read_bytes()[:5000])
    model = GoogLeNet(weights="imagenet")
    assert equal_layers(model, original) == weighted(model)
    assert converted.stat().st_size == pytest.approx(whole, rel=0.01)


@pytest.mark.parametrize("variant", ["batchnorm", "naive"])
def test_variants_that_nobody_published(variant):
    with pytest.raises(UserError, match=f"variant {variant}; choose one of paper, torchv"):
        GoogLeNet(weights="imagenet", variant=variant, input_shape=(65, 65, 3))


def equal_layers(model, other):
    """Names of the layers whose weights are those of the other network."""
    return {
        layer.name
        for layer in model.layers
        if layer.weights
        and all(
            np.array_equal(a, b)
            for a, b in zip(
                layer.get_weights(), other.get_layer(layer.name).get_weights(), strict=True
            )
        )
    }


def weighted(model):
    return {layer.name for layer in model.layers if layer.weights}


def test_other_classes_keep_the_trunk(caffe_file, original, cache, publish):
    publish("paper", caffe_file)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model = GoogLeNet(weights="imagenet", classes=7)
    assert weighted(model) - equal_layers(model, original) == {"main", "aux1", "aux2"}
    without = GoogLeNet(weights="imagenet", include_top=False, pooling="avg")
    assert equal_layers(without, original) == weighted(without)


def test_other_sizes_keep_what_fits(caffe_file, original, cache, publish):
    publish("paper", caffe_file)
    for size, fits in ((208, False), (209, True), (256, True), (257, False)):
        arguments = {"weights": "imagenet", "input_shape": (size, size, 3)}
        if fits:
            with warnings.catch_warnings():
                warnings.simplefilter("error", UserWarning)
                model = GoogLeNet(**arguments)
            assert equal_layers(model, original) == weighted(model)
        else:
            with pytest.warns(UserWarning, match="aux1 and aux2 start.*209 to 256") as caught:
                model = GoogLeNet(**arguments)
            assert [w.category for w in caught].count(UserWarning) == 1
            fresh = {name for name in weighted(model) if name.startswith("aux")}
            assert equal_layers(model, original) == weighted(model) - fresh
    with pytest.raises(ValueError, match="three channels.*conv1_7x7_s2"):
        GoogLeNet(weights="imagenet", input_shape=(224, 224, 1))


@pytest.mark.peers("torch", "torchvision")
def test_untrained_heads_stay_fresh_with_one_warning(cache, publish, tmp_path):
    import torch

    network = torchvision_peer.random_network()
    path = tmp_path / "googlenet-1378be20.pth"
    torch.save(network.state_dict(), path)
    publish("torchvision", path, hash_kind="sha256", digest=None)
    with thin_network.installed(thin_network.WHOLE):
        with pytest.warns(UserWarning, match="aux1 and aux2 start.*no trained ones") as caught:
            model = GoogLeNet(weights="imagenet", variant="torchvision")
        assert [w.category for w in caught].count(UserWarning) == 1 and len(model.outputs) == 3
        original = convert(path)
        fresh = {name for name in weighted(model) if name.startswith("aux")}
        assert equal_layers(model, original).isdisjoint({"aux1_fc", "aux2_fc", "aux1", "aux2"})
        assert weighted(model) - fresh <= equal_layers(model, original)


@pytest.mark.parametrize("variant", ["slim", "google"])
def test_the_1000_classes_come_in_the_usual_order(
    variant, cache, publish, tmp_path, read_in_this_process
):
    if variant == "slim":
        variables = slim_checkpoint.variables(share=thin_network.SHARE)
        path = slim_checkpoint.save(variables, tmp_path / "inception_v1.ckpt")
    else:
        path = tmp_path / "graph.pb"
        path.write_bytes(google_graph.build(share=thin_network.SHARE).SerializeToString())
    publish(variant, path)
    model = GoogLeNet(weights="imagenet", variant=variant, aux_heads=variant == "google")
    original = convert(path)
    names = default_labels(original.outputs[0].shape[-1])
    for head in model.output_names:
        ours, theirs = (m.get_layer(head).get_weights() for m in (model, original))
        for index in (0, 134, 281, 639, 640, 999):
            there = names.index(imagenet_labels()[index])
            np.testing.assert_array_equal(ours[0][:, index], theirs[0][:, there])
            assert ours[1][index] == theirs[1][there]
    whole = GoogLeNet(weights="imagenet", variant=variant, classes=len(names), aux_heads=False)
    np.testing.assert_array_equal(
        whole.get_layer("main").get_weights()[0], original.get_layer("main").get_weights()[0]
    )


@pytest.mark.parametrize("script", ["predict.py", "explain.py", "export.py", "evaluate.py"])
def test_every_script_takes_imagenet(
    script, caffe_file, cache, publish, run_script, image_folder, tmp_path, monkeypatch
):
    photo = image_folder / "val" / "star" / "0.jpg"
    arguments = {
        "predict.py": [photo, "--json"],
        "explain.py": [photo, "--output", tmp_path / "cam.png"],
        "export.py": [tmp_path / "serving"],
        "evaluate.py": ["--dataset", image_folder],
    }[script]
    publish("paper", caffe_file)
    outcome = run_script(script, "imagenet", *arguments)
    if script == "evaluate.py":  # three classes are not ImageNet's
        assert outcome.status == 2 and "classes" in outcome.err
    else:
        assert outcome.status == 0, outcome.err
    wrong = run_script(script, "imagenet", *arguments, "--variant", "batchnorm")
    assert wrong.status == 2 and "nobody has published" in wrong.err


def test_the_cache_is_below_keras_own_folder(monkeypatch):
    monkeypatch.delenv("KERAS_HOME", raising=False)
    assert published.cache_folder() == Path.home() / ".keras" / "keras_googlenet"
