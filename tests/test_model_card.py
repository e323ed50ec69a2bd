"""The model card of an export, compared with the files of the run directory that it is about."""

import re
from types import SimpleNamespace

import pytest
import yaml
from conftest import CLASSES, read_json

from keras_googlenet.exporting import model_card
from keras_googlenet.exporting.agreement import Agreement
from keras_googlenet.googlenet import VARIANTS

AGREEMENT = Agreement(0.01, 0.001, 1.0, "half of 9 images of /home/me/photos", (0.5, 0.25))
HOSTILE = "a|b`c``<script>*x*\n# y \u202e"
SECTIONS = ["Network", "Input and output", "Labels", "Training data", "Recipe", "Metrics"]
SECTIONS += ["Limits", "License"]


def sections(text):
    parts = re.split(r"^## (.*)\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], map(str.strip, parts[2::2]), strict=True))


@pytest.fixture
def card(tmp_path):
    """Returns the card of a network that is said to be exported."""

    def make(published=False, recipe=None, kind="litert", labels=CLASSES, **options):
        loaded = SimpleNamespace(
            variant="paper", labels=list(labels), image_size=224, recipe=recipe, workdir=None
        )
        path = tmp_path / "net.tflite"
        file = model_card.write_card(loaded, published, None, kind, path, options, AGREEMENT)
        return file.read_text(encoding="utf-8")

    return make


def test_card_of_a_run(finished_run, run_script, image_folder, tmp_path):
    workdir = finished_run[0]
    outcome = run_script("export.py", workdir, tmp_path / "net.tflite")
    file = tmp_path / "net.tflite.MODEL_CARD.md"
    assert outcome.status == 0, outcome.err
    assert outcome.out.splitlines()[-2:] == [f"model card: {file}", str(tmp_path / "net.tflite")]
    text = file.read_text(encoding="utf-8")
    metrics, found = read_json(workdir / "metrics.json"), sections(text)
    assert list(found) == SECTIONS
    for head in ("main", "aux1", "aux2"):
        row = re.search(rf"^\| {head} \| (.*)% \| (.*)% \| (.*) \|$", text, re.MULTILINE)
        expected = [metrics[f"val_{head}_{key}"] for key in ("accuracy", "top5", "loss")]
        accuracy, top5, loss = map(float, row.groups())
        assert [accuracy / 100, top5 / 100] == pytest.approx(expected[:2], abs=5e-5)
        assert loss == pytest.approx(expected[2], abs=5e-5)
    assert f"after epoch {metrics['kept_epoch']} of 2" in found["Metrics"]
    assert "Training images: 24 of 3 classes in `train/`" in found["Training data"]
    assert "Validation images: 9 of 3 classes in `val/`" in found["Training data"]
    assert "In `net.labels.txt`" in found["Labels"] and "`cross`, `ring`" in found["Labels"]
    assert "`image` float32 (n, 65, 65, 3)" in found["Input and output"]
    assert found["License"].startswith("Not stated.")
    assert str(image_folder.parent) not in text and str(workdir.parent) not in text
    assert yaml.safe_load(text.split("---\n")[1])["pipeline_tag"] == "image-classification"


def test_card_of_a_saved_model(finished_run, run_script, tmp_path):
    outcome = run_script("export.py", finished_run[0], tmp_path / "net")
    file = tmp_path / "net" / "1" / "MODEL_CARD.md"
    assert outcome.status == 0 and f"model card: {file}" in outcome.out
    found = sections(file.read_text(encoding="utf-8"))
    for signature in ("serving_default", "classify", "features"):
        assert f"| `{signature}` |" in found["Input and output"]
    assert (file.parent / "assets.extra" / "labels.txt").exists()


def test_card_of_published_weights(card):
    publisher, found = VARIANTS["paper"].publisher, sections(card(published=True))
    assert "top-1 68.7%, top-5 88.9%" in found["Metrics"]  # readme.md of BVLC's model
    assert publisher.url in found["License"] and "unrestricted use" in found["License"]
    assert "North America" in found["Limits"]


def test_card_of_a_file_says_what_is_not_known(card):
    found = sections(card())
    for section in ("Training data", "Recipe", "Metrics"):
        assert found[section].startswith("Not known: "), section
    assert "North America" not in found["Limits"]


def test_a_fine_tuned_network_names_both_licenses(card):
    recipe = {"dataset": "/home/me/flowers", "weights": "imagenet"}
    text = card(recipe=recipe)
    assert "# GoogLeNet trained on `flowers`" in text and "/home" not in text
    assert "started from published weights: BVLC" in sections(text)["License"]
    text = card(recipe=recipe | {"weights": "/home/me/googlenet.keras"})
    assert "started from `googlenet.keras`: its license" in sections(text)["License"]


def test_an_unfinished_run_of_another_version(card):
    found = sections(card(recipe={"dataset": "flowers"}))
    assert "another version" in found["Recipe"] and "no metrics.json" in found["Metrics"]
    assert found["Training data"] == "- Data set: `flowers`"


def test_quantization_is_a_limit(card):
    text = card(quantize="int8", io="uint8")
    assert "Format: LiteRT, quantize int8, io uint8" in text
    assert "`image` uint8 (n, 224, 224, 3)" in text and "multiples of 1/256" in text
    assert "multiples of 1/256" not in card(quantize="none")


def test_text_of_users_stays_text(card):
    text = card(labels=[HOSTILE, "b"], recipe={"dataset": HOSTILE})
    shown = "``` a|b`c``<script>*x* # y \ufffd ```"
    assert f"# GoogLeNet trained on {shown}" in text
    assert f": {shown}, `b`." in sections(text)["Labels"]
    assert list(sections(text)) == SECTIONS
