"""export.py: what it writes where, and the flags that it refuses."""

import functools

import pytest

from keras_googlenet import exporting, models
from keras_googlenet.exporting.agreement import Agreement
from keras_googlenet.exporting.formats import FORMATS
from keras_googlenet.googlenet import GoogLeNet


@pytest.mark.parametrize(
    ("arguments", "kind", "written"),
    [
        (["net"], "saved_model", "net"),
        (["net.v2"], "saved_model", "net.v2"),
        (["net.prod", "--format", "saved_model"], "saved_model", "net.prod"),
        (["net.ONNX"], "onnx", "net.onnx"),
        (["net", "--format", "openvino"], "openvino", "net.xml"),
        (["net.v2", "--format", "onnx"], "onnx", "net.v2.onnx"),
        (["net.TFLITE", "--format", "litert"], "litert", "net.tflite"),
    ],
)
def test_the_suffix_and_the_format(written_by, tmp_path, arguments, kind, written):
    outcome, calls = written_by(tmp_path / arguments[0], *arguments[1:])
    assert outcome.status == 0, outcome.err
    assert [(call["kind"], call["path"]) for call in calls] == [(kind, tmp_path / written)]


@pytest.fixture(scope="module")
def network():
    return GoogLeNet(classes=6, input_shape=(65, 65, 3), variant="slim", aux_heads=False)


@pytest.fixture
def written_by(network, run_script, monkeypatch):
    """Runs export.py with exports that write nothing; its outcome, and the arguments of each."""
    calls = []
    loaded = models.LoadedModel(network, "slim", list("abcdef"), 65, None)
    monkeypatch.setattr(models, "load", lambda *_: loaded)

    def pretend(kind, _, path, labels, **options):
        calls.append({"kind": kind, "path": path, **options})
        return path, Agreement(0.0, 0.0, 1.0, "8 generated images", None)

    for kind in FORMATS:
        monkeypatch.setattr(exporting, f"export_{kind}", functools.partial(pretend, kind))
    return lambda *flags: (run_script("export.py", "net.keras", *flags), calls)


def test_flags_of_a_saved_model(written_by, tmp_path):
    outcome, calls = written_by(tmp_path / "net", "--precision", "bfloat16", "--batching")
    assert outcome.status == 0 and calls[-1]["precision"] == "bfloat16"
    compose = tmp_path / "net" / "compose.yaml"
    assert "enable_batching" in compose.read_text()
    written_by(tmp_path / "net", "--no-batching")
    assert "enable_batching" not in compose.read_text() and calls[-1]["precision"] == "float32"
    compose.write_text("mine")
    outcome, _ = written_by(tmp_path / "net")
    assert f"{compose} has been edited; it is left as it is" in outcome.err
    assert outcome.status == 0 and compose.read_text() == "mine"


def test_a_network_of_any_size_is_refused_before_calibration(run_script, tmp_path, monkeypatch):
    model = GoogLeNet(classes=2, input_shape=(None, None, 3), aux_heads=False)
    loaded = models.LoadedModel(model, "batchnorm", list("ab"), None, None)
    monkeypatch.setattr(models, "load", lambda *_: loaded)
    flags = ["net.keras", tmp_path / "net", "--calibration", tmp_path]
    outcome = run_script("export.py", *flags)
    assert outcome.status == 2 and "for color images of one fixed square size" in outcome.err


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["net.onnx", "--quantize", "int8"], "--quantize is for --format litert, not onnx"),
        (["net.tflite", "--precision", "bfloat16"], "--precision is for --format saved_model"),
        (["net.onnx", "--io", "uint8"], "--io is for --format litert, not onnx"),
        (["net.tflite", "--io", "uint8"], "--io uint8 needs --quantize int8; give it too"),
        (["net.tfl"], "net.tfl has the suffix of no format (.tflite, .onnx, .xml); give another"),
    ],
)
def test_flags_that_do_not_go_together(run_script, flags, sentence):
    outcome = run_script("export.py", "runs/shapes", *flags)
    assert outcome.status == 2 and sentence in outcome.err


@pytest.mark.slow
def test_export_compares_on_calibration_images(finished_run, run_script, image_folder, tmp_path):
    flags = [tmp_path / "net.tflite", "--quantize", "int8", "--calibration", image_folder]
    outcome = run_script("export.py", finished_run[0], *flags)
    assert outcome.status == 0, outcome.err
    assert f"on half of 9 images of {image_folder}" in outcome.out and "accuracy" in outcome.out
    assert "operators: CONV_2D int8 57" in outcome.out
