import time

import keras
import numpy as np
import pytest
import tensorflow as tf
import thin_network
from ai_edge_litert.interpreter import Interpreter
from conftest import dtype_policy
from PIL import Image
from processes import PATIENCE, SERVER, Process

from keras_googlenet import exporting
from keras_googlenet.data import folders, image_files, multicrop
from keras_googlenet.data.datasets import folder_split
from keras_googlenet.errors import UserError
from keras_googlenet.exporting import agreement, litert, saved_model, serving_network
from keras_googlenet.googlenet import VARIANTS, GoogLeNet, inference_model
from keras_googlenet.imagenet import preprocess_input
from keras_googlenet.layers import BatchNormalization, LocalResponseNormalization

TOLERANCE = 1e-5  # of a probability in float32
INTERRUPTIONS = 20
# Differences of a probability on the images here, measured: 6e-5, 2e-3 and 4e-3. With ranges that
# were found on black images, int8 is off by 4e-2.
QUANTIZED = {"float16": 2e-4, "dynamic": 5e-3, "int8": 1e-2}
MOST = 0.75  # of the images keep their best class, whatever the weights are rounded to


def random_network(variant, photographs):
    """Weights and statistics are all random: fresh ones hide how they are folded."""
    keras.utils.set_random_seed(6)
    generator = np.random.default_rng(6)
    model = GoogLeNet(classes=6, input_shape=(65, 65, 3), variant=variant)
    for weight in model.weights:
        if weight.name in ("gamma", "moving_variance"):
            weight.assign(generator.uniform(0.5, 1.5, weight.shape))
        elif weight.name in ("beta", "moving_mean", "bias"):
            weight.assign(generator.uniform(-0.2, 0.2, weight.shape))
    # A smaller classifier, so that the softmax is not all or nothing.
    features = keras.Model(model.inputs, model.get_layer("pool5").output)
    kernel = model.get_layer("main").kernel
    seen = features(preprocess_input(photographs[:, :65, :65], variant))
    kernel.assign(2 * kernel / np.std(seen @ kernel))
    return model


@pytest.fixture(scope="module")
def networks(photographs):
    return {name: random_network(name, photographs) for name in VARIANTS if name != "naive"}


@pytest.fixture
def whole(photographs):
    """The paper's network with all its filters, whose file is weights above all."""
    with thin_network.installed(thin_network.WHOLE):
        yield random_network("paper", photographs)


@pytest.fixture(scope="module")
def saved(networks, tmp_path_factory):
    """A SavedModel of the paper's network, loaded, and the folder of its version."""
    folder = tmp_path_factory.mktemp("serving")
    version, _ = exporting.export_saved_model(networks["paper"], folder, list("abcdef"))
    return tf.saved_model.load(str(version)).signatures, version


def expected(model, variant, images):
    return inference_model(model).predict_on_batch(preprocess_input(images, variant))


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "naive"])
def test_the_serving_network_computes_the_network(networks, variant, photographs):
    images = photographs[:, :65, :65]
    made = serving_network.serving_network(networks[variant])
    inner = made.get_layer("googlenet").layers
    kinds = {type(layer) for layer in inner}
    assert not kinds & {keras.layers.ReLU, keras.layers.Dropout, BatchNormalization}
    assert (LocalResponseNormalization in kinds) != VARIANTS[variant].batch_norm
    assert sum(isinstance(layer, keras.layers.Conv2D) for layer in inner) == 57  # Table 1
    want = expected(networks[variant], variant, images)
    assert np.abs(want[0] - want[1]).max() > 10 * TOLERANCE
    got = made.predict_on_batch(images)["probabilities"]
    np.testing.assert_allclose(got, want, atol=TOLERANCE)


def test_a_head_of_sigmoids_stays_one(photographs):
    arguments = {"classes": 3, "input_shape": (65, 65, 3), "aux_heads": False}
    model = GoogLeNet(**arguments, classifier_activation="sigmoid")
    images = photographs[:, :65, :65]
    want = expected(model, "paper", images)
    got = serving_network.serving_network(model).predict_on_batch(images)["probabilities"]
    np.testing.assert_allclose(got, want, atol=TOLERANCE)
    assert np.abs(want.sum(axis=1) - 1).max() > 0.1


def test_signatures(networks, saved, photographs):
    signatures, _ = saved
    assert set(signatures) == {"serving_default", "classify", "features"}
    images = tf.constant(photographs[:, :65, :65])
    inputs = signatures["serving_default"].structured_input_signature[1]
    assert list(inputs) == ["image"] and inputs["image"].shape.as_list() == [None, 65, 65, 3]
    assert list(signatures["serving_default"].structured_outputs) == ["probabilities"]
    network = inference_model(networks["paper"])
    pooled = keras.Model(network.inputs, network.get_layer("pool5").output)
    features = pooled.predict_on_batch(preprocess_input(images.numpy(), "paper"))
    got = signatures["features"](image=images)["features"]
    np.testing.assert_allclose(got, features, rtol=1e-4, atol=1e-4)
    for count in (1, 4):
        got = signatures["serving_default"](image=images[:count])["probabilities"]
        want = expected(networks["paper"], "paper", images.numpy()[:count])
        assert got.dtype == tf.float32
        np.testing.assert_allclose(got, want, atol=TOLERANCE)


@pytest.fixture(scope="module")
def mixed_files(tmp_path_factory):
    """Images of every format, of several sizes and of 1, 3 and 4 channels."""
    folder = tmp_path_factory.mktemp("mixed")
    generator = np.random.default_rng(1)
    shapes = {"a.jpg": (80, 120, 3), "b.png": (200, 90, 4), "c.bmp": (65, 65, 3)}
    shapes |= {"d.gif": (30, 40), "e.jpg": (300, 70), "f.png": (1, 3, 3), "g.bmp": (75, 74)}
    shapes |= {"h.webp": (90, 70, 3), "i.webp": (66, 130, 4)}
    for name, shape in shapes.items():
        image = Image.fromarray(generator.integers(0, 256, shape, dtype="uint8"))
        image.save(folder / name)
    return folders.list_images([str(folder)])


def test_classify_agrees_with_predict_and_evaluate(networks, saved, mixed_files):
    (batch,) = image_files.image_batches(mixed_files, 65, [])
    predicted = expected(networks["paper"], "paper", batch.images)
    split = folder_split({"x": mixed_files}, ["x"])
    ((crops, _),) = multicrop.crop_batches(split, (65,), multicrop.crop_set(1), 16)
    evaluated = expected(networks["paper"], "paper", crops[0].numpy())
    encoded = [tf.io.read_file(file).numpy() for file in mixed_files]
    answer = saved[0]["classify"](image_bytes=tf.constant(encoded))
    assert answer["scores"].shape == (9, 5) and answer["classes"].dtype == tf.string
    for probabilities in (predicted, evaluated):
        order = np.argsort(-probabilities, kind="stable")[:, :5]
        best = np.take_along_axis(probabilities, order, axis=1)
        np.testing.assert_allclose(answer["scores"], best, atol=TOLERANCE)
    names = np.array([label.encode() for label in "abcdef"], object)[order]
    np.testing.assert_array_equal(answer["classes"], names)


def test_classify_fails_as_a_whole(saved, mixed_files):
    good = tf.io.read_file(mixed_files[0]).numpy()
    for bad, message in ((b"bad", "not a JPEG, PNG, GIF, BMP or WebP"), (good[:200], "JPEG")):
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            saved[0]["classify"](image_bytes=tf.constant([good, bad]))
    with pytest.raises(tf.errors.InvalidArgumentError, match="holds no image"):
        saved[0]["classify"](image_bytes=tf.constant([], tf.string))


def test_classify_decodes_on_the_processor(saved):
    library = saved[0]["classify"].graph.as_graph_def().library
    nodes = [node for function in library.function for node in function.node_def]
    devices = {node.device for node in nodes if node.op == "DecodeImage"}
    assert devices == {"/device:CPU:0"}


def test_files_of_a_version(saved):
    _, version = saved
    extra = version / "assets.extra"
    assert (extra / "labels.txt").read_text().split() == list("abcdef")
    requests = list(tf.data.TFRecordDataset(str(extra / "tf_serving_warmup_requests")))
    assert len(requests) == 3
    variables = [path.stat().st_size for path in (version / "variables").iterdir()]
    assert sum(variables) < 1000, "weights are constants"


@pytest.mark.peers("tensorflow_serving")
def test_warmup_requests_are_what_the_server_reads(saved):
    from tensorflow_serving.apis import prediction_log_pb2

    signatures, version = saved
    file = version / "assets.extra" / "tf_serving_warmup_requests"
    names = []
    for record in tf.data.TFRecordDataset(str(file)):
        log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
        request = log.predict_log.request
        names.append(request.model_spec.signature_name)
        inputs = {name: tf.constant(tf.make_ndarray(t)) for name, t in request.inputs.items()}
        answer = signatures[names[-1]](**inputs)
        assert all(output.shape[0] == 1 for output in answer.values())
    assert sorted(names) == sorted(signatures)


def test_version_is_one_more_than_the_last(networks, tmp_path):
    for name in ("3", "12", "notes"):
        (tmp_path / "net" / name).mkdir(parents=True)
    version, report = exporting.export_saved_model(
        networks["slim"], tmp_path / "net", precision="bfloat16"
    )
    assert version.name == "13"
    assert 1e-4 < report.largest < 0.1, "bfloat16 is not float32"


def test_a_file_in_the_way(networks, tmp_path):
    (tmp_path / "net").write_text("")
    with pytest.raises(UserError, match="net is a file; give a folder"):
        exporting.export_saved_model(networks["slim"], tmp_path / "net")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"include_top": False}, "ends in features"),
        ({"classifier_activation": None}, "ends in logits"),
        ({"input_shape": (None, None, 3)}, "one fixed square size"),
        ({"input_shape": (32, 64, 3)}, "one fixed square size"),
    ],
)
def test_networks_that_cannot_be_exported(arguments, message):
    arguments = {"classes": 2, "input_shape": (32, 32, 3), "aux_heads": False} | arguments
    with pytest.raises(UserError, match=message):
        serving_network.exported_network(GoogLeNet(**arguments))


def test_a_network_in_mixed_precision_is_exported_in_float32(photographs, tmp_path):
    with dtype_policy("mixed_bfloat16"):
        model = GoogLeNet(classes=4, input_shape=(65, 65, 3))
    _, report = exporting.export_saved_model(model, tmp_path / "net")
    assert report.largest < agreement.LOW_PRECISION_TOLERANCE


def test_litert_file(networks, photographs, tmp_path):
    images = photographs[:, :65, :65]
    path, _ = exporting.export_litert(networks["paper"], tmp_path / "net.tflite", list("abcdef"))
    serve = Interpreter(model_path=str(path)).get_signature_runner("serving_default")
    assert list(serve.get_input_details()) == ["image"]
    for count in (1, 32):
        some = np.resize(images, (count, 65, 65, 3))
        got = serve(image=some)["probabilities"]
        np.testing.assert_allclose(got, expected(networks["paper"], "paper", some), atol=TOLERANCE)
    assert (tmp_path / "net.labels.txt").read_text() == "a\nb\nc\nd\ne\nf\n"


@pytest.mark.slow
def test_preprocessing_that_a_format_cannot_hold_is_one_sentence(networks, tmp_path):
    """LiteRT has no operator for what antialiasing is made of."""
    image = keras.Input((96, 96, 3))
    resized = keras.layers.Resizing(65, 65, antialias=True)(image)
    inner = networks["slim"].get_layer("main").output
    inner = keras.Model(networks["slim"].input, inner)
    model = keras.Model(image, inner(resized / 127.5 - 1))
    with pytest.raises(UserError, match=r"cannot be written as LiteRT \(.*; write a SavedModel"):
        exporting.export_litert(model, tmp_path / "net.tflite")
    assert not list(tmp_path.iterdir())
    _, report = exporting.export_saved_model(model, tmp_path / "net")
    assert report.largest < TOLERANCE


def test_a_litert_file_refuses_other_shapes(networks, photographs, tmp_path):
    path, _ = exporting.export_litert(networks["paper"], tmp_path / "net.tflite")
    images = photographs[:, :65, :65]
    for wrong in (images[..., :1], images[:, 1:], images[None], images[0], images[:0]):
        serve = Interpreter(model_path=str(path)).get_signature_runner("serving_default")
        with pytest.raises(RuntimeError, match="failed to"):
            serve(image=wrong)


@pytest.mark.slow
@pytest.mark.parametrize("io", ["uint8", "int8"])
def test_integers_in_and_out(networks, photographs, io, tmp_path):
    """On whole pixel values they lose nothing beside the file with float32 at both ends."""
    images = np.rint(photographs[:, :65, :65])
    samples = agreement.SampleImages(images, None, "photographs")
    runners = {}
    for kind in ("float32", io):
        path, _ = exporting.export_litert(
            networks["batchnorm"], tmp_path / f"{kind}.tflite", None, "int8", samples, kind
        )
        runners[kind] = Interpreter(model_path=str(path)).get_signature_runner("serving_default")
    least = np.iinfo(io).min
    (image,) = runners[io].get_input_details().values()
    (answer,) = runners[io].get_output_details().values()
    assert (image["dtype"], answer["dtype"]) == (np.dtype(io), np.dtype(io))
    assert image["quantization"] == (1, least), "a pixel is a step"
    assert answer["quantization"] == (1 / 256, least)
    got = runners[io](image=(images + least).astype(io))["probabilities"]
    want = runners["float32"](image=images)["probabilities"]
    np.testing.assert_allclose((got.astype("float32") - least) / 256, want, atol=1e-6)
    assert np.abs(want[0] - want[1]).max() > 1 / 256


@pytest.mark.slow
@pytest.mark.parametrize("quantize", ["float16", "dynamic", "int8"])
def test_quantized_litert(whole, photographs, quantize, tmp_path):
    samples = agreement.SampleImages(photographs[:, :65, :65], np.arange(4), "photographs")
    path, report = exporting.export_litert(whole, tmp_path / "net.tflite", None, quantize, samples)
    weights = sum(weight.numpy().size for weight in inference_model(whole).weights)
    bytes_each = {"float16": 2, "dynamic": 1, "int8": 1}[quantize]
    assert path.stat().st_size == pytest.approx(weights * bytes_each, rel=0.15)
    assert report.accuracies is not None and "accuracy" in str(report)
    types = {name.split()[1] for name in litert.operators(path) if "QUANTIZE" not in name}
    assert types == ({"int8"} if quantize == "int8" else {"float32"})
    serve = Interpreter(model_path=str(path)).get_signature_runner("serving_default")
    for count in (1, 32):
        got = serve(image=np.resize(samples.images, (count, 65, 65, 3)))["probabilities"]
        assert got.shape == (count, 6) and got.dtype == np.float32
        want = np.resize(expected(whole, "paper", samples.images), (count, 6))
        np.testing.assert_allclose(got, want, atol=QUANTIZED[quantize])
        assert np.mean(got.argmax(axis=-1) == want.argmax(axis=-1)) >= MOST


def test_int8_needs_images(networks, tmp_path):
    with pytest.raises(UserError, match="int8 needs images"):
        exporting.export_litert(networks["paper"], tmp_path / "net.tflite", quantize="int8")
    assert not list(tmp_path.iterdir())


@pytest.mark.peers("onnx", "onnxruntime", "openvino")
@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "naive"])
def test_onnx_and_openvino(networks, variant, photographs, tmp_path):
    import onnx
    import onnxruntime
    import openvino

    labels = list("abcdef")
    path, report = exporting.export_onnx(networks[variant], tmp_path / "net.onnx", labels)
    assert report.largest < TOLERANCE
    onnx.checker.check_model(str(path), full_check=True)
    session = onnxruntime.InferenceSession(path)
    path, report = exporting.export_openvino(networks[variant], tmp_path / "net.xml", labels)
    assert report.largest < TOLERANCE
    made = {file.name for file in tmp_path.iterdir()}
    assert made == {"net.onnx", "net.xml", "net.bin", "net.labels.txt"}
    images = photographs[:, :65, :65]
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    want = expected(networks[variant], variant, images)
    np.testing.assert_allclose(compiled({"image": images})["probabilities"], want, atol=TOLERANCE)
    np.testing.assert_allclose(session.run(None, {"image": images})[0], want, atol=TOLERANCE)


@pytest.mark.peers("onnx", "openvino")
def test_an_openvino_file_never_meets_other_weights(networks, tmp_path, monkeypatch):
    """A kill between the two renames leaves no model rather than half of each."""
    from keras_googlenet import atomic

    (tmp_path / "net.xml").write_text("old")
    (tmp_path / "net.bin").write_text("old")
    renames = atomic.os.replace

    def killed(source, target):
        if str(target).endswith("net.xml"):
            raise KeyboardInterrupt
        renames(source, target)

    monkeypatch.setattr(atomic.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        exporting.export_openvino(networks["slim"], tmp_path / "net.xml")
    assert not (tmp_path / "net.xml").exists()
    assert (tmp_path / "net.bin").stat().st_size > 1000


@pytest.mark.parametrize("kind", ["saved_model", "litert", "onnx", "openvino"])
def test_labels_are_counted(networks, kind, tmp_path):
    export = getattr(exporting, f"export_{kind}")
    with pytest.raises(UserError, match="5 labels cannot name 6 classes"):
        export(networks["slim"], tmp_path / "net.xml", list("abcde"))
    assert not list(tmp_path.iterdir())


def test_what_gives_no_probabilities_is_refused(networks):
    with pytest.raises(
        UserError, match=r"no probabilities: they add up to 0, not 1, on .* generated"
    ):
        agreement.compare(networks["paper"], lambda images: np.zeros((len(images), 6)), 0.9)


def test_what_gives_the_probabilities_of_other_classes_is_refused(networks):
    def other_way_round(images):
        return expected(networks["paper"], "paper", images)[:, ::-1]

    with pytest.raises(UserError, match="differs from the Keras model by .*; nothing was written"):
        agreement.compare(networks["paper"], other_way_round, 1e-4)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("{{node Save}} /x/variables; No space left on device [Op:SaveV2]", "No space left on dev"),
        ("something else\nquota exceeded", "quota exceeded"),
        ("", ""),
    ],
)
def test_the_reason_of_a_full_disk_is_kept(tmp_path, monkeypatch, message, reason):
    def fail(*_, **__):
        raise tf.errors.UnknownError(None, None, message)

    monkeypatch.setattr(tf.saved_model, "save", fail)
    signatures = {"serving_default": (lambda x: {"y": x}, tf.TensorSpec((None,)))}
    with pytest.raises(OSError, match=f"^{reason}"):
        saved_model._write(signatures, tmp_path)


def test_a_missing_package_is_one_sentence(networks, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(UserError, match="needs the package tf2onnx; install it with"):
        exporting.export_onnx(networks["slim"], tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


def export_one(folder, ready):
    """Exports one network and says when it starts."""
    thin_network.install()
    model = GoogLeNet(classes=3, input_shape=(32, 32, 3), aux_heads=False)
    ready.set()
    exporting.export_saved_model(model, folder)


@pytest.mark.slow
def test_an_export_killed_at_any_moment_leaves_whole_versions_only(tmp_path):
    folder, generator = tmp_path / "serving", np.random.default_rng(5)
    whole = seconds = None
    for interruption in range(1 + INTERRUPTIONS):
        ready = SERVER.Event()
        process = Process(export_one, folder, ready, folder=tmp_path)
        assert ready.wait(PATIENCE), process.text
        began = time.monotonic()
        process.join(PATIENCE if whole is None else generator.uniform(0, seconds))
        if whole is None:
            seconds, whole = time.monotonic() - began, files_of(folder / "1")
        process.kill()
        process.join()
        versions = [path for path in folder.iterdir() if path.name.isdecimal()]
        assert all(files_of(path) == whole for path in versions), interruption
    assert len(versions) < 1 + INTERRUPTIONS, "no export was interrupted"


def files_of(version):
    """Names and sizes; fingerprints and variables' indices vary in length by some bytes."""
    files = [path for path in version.rglob("*") if path.is_file()]
    return {str(path.relative_to(version)): path.stat().st_size // 1000 for path in files}


def test_generated_images_differ():
    images = agreement.generated_images(65).images
    assert images.shape == (agreement.GENERATED, 65, 65, 3)
    assert images.min() >= 0 and images.max() <= 255
    coarseness = [np.abs(np.diff(image, axis=0)).mean() for image in images]
    assert coarseness == sorted(coarseness)
