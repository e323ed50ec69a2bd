"""evaluate.py as a user types it: table, report, labels, and resuming after an interruption."""

import base64
import csv
import io
import json
import warnings
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from conftest import CLASSES, read_json
from PIL import Image

from keras_googlenet.data import datasets
from keras_googlenet.data.label_files import open_labeled
from keras_googlenet.evaluation import measure, metrics, report
from keras_googlenet.evaluation.class_matching import match_classes
from keras_googlenet.evaluation.ensemble import Ensemble
from keras_googlenet.evaluation.report import thumbnails

FILES = {"evaluation.html", "evaluation.json", "predictions.csv"}


@pytest.fixture(scope="module")
def reported(finished_run, run_script, tmp_path_factory):
    """A report of the run together with its model file, and what was printed."""
    folder = tmp_path_factory.mktemp("reports") / "report"
    workdir = finished_run[0]
    models = (workdir, workdir / "model.keras")
    (workdir / "model.labels.txt").write_text((workdir / "labels.txt").read_text())
    flags = ("--table", "--crops", 10, "--report", folder, "--json")
    outcome = run_script("evaluate.py", *models, *flags)
    (workdir / "model.labels.txt").unlink()
    assert outcome.status == 0, outcome.err
    return folder, outcome


def test_the_table_is_printed(finished_run, run_script):
    workdir = finished_run[0]
    outcome = run_script("evaluate.py", workdir, "--table", "--crops", 10)
    lines = outcome.out.splitlines()
    assert lines[0] == "9 examples" and lines[5] == ""
    assert [line.split()[:3] for line in lines[7:]] == [["1", "1", "1"], ["1", "10", "10"]]
    one_crop = json.loads(run_script("evaluate.py", workdir, "--json").out)
    assert lines[7].split()[3] == f"{1 - one_crop['main_accuracy']:.2%}"


def test_json_has_the_contract_and_the_table(reported):
    result = json.loads(reported[1].out)
    rows, found = result.pop("table"), result.pop("data")
    assert found["validation"] == {
        "source": "val/",
        "images": 9,
        "classes": 3,
        "names": list(CLASSES),
    }
    assert set(result) == {"examples"} | {
        f"{head}_{key}" for head in ("main", "aux1", "aux2") for key in ("accuracy", "top5", "loss")
    }
    assert [(row["models"], row["crops"]) for row in rows] == [(1, 1), (1, 10), (2, 1), (2, 10)]
    assert rows[0]["top1_error"] == rows[2]["top1_error"]  # the same network twice
    assert rows[3]["top1_error"] == pytest.approx(1 - result["main_accuracy"])


def test_the_report_agrees_with_itself(reported):
    folder, outcome = reported
    assert {path.name for path in folder.iterdir()} == FILES
    assert str(folder / "evaluation.html") in outcome.err
    result = read_json(folder / "evaluation.json")
    with open(folder / "predictions.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == result["examples"] == 9 and result["crops"] == 10
    assert all(f"/val/{row['label']}/" in row["file"] for row in rows)
    right = [row["label"] == row["class_1"] for row in rows]
    assert result["main_accuracy"] == pytest.approx(np.mean(right))
    for row in rows:
        scores = [float(row[f"score_{place}"]) for place in (1, 2, 3)]
        assert scores == sorted(scores, reverse=True) and sum(scores) == pytest.approx(1, abs=1e-4)
        assert {row[f"class_{place}"] for place in (1, 2, 3)} == set(CLASSES)
        assert row["class_4"] == row["score_5"] == ""
    for head in ("main", "aux1", "aux2"):
        classes = {row["label"]: row for row in result[f"{head}_classes"]}
        mean = np.mean([classes[name]["accuracy"] for name in CLASSES])  # 3 images of each
        assert result[f"{head}_accuracy"] == pytest.approx(mean)
        mistakes = sum(pair["count"] for pair in result[f"{head}_confusions"])
        assert mistakes == round(9 * (1 - result[f"{head}_accuracy"]))
        assert 0 <= result[f"{head}_calibration_error"] <= 1


class Page(HTMLParser):
    """Collects what a page shows."""

    def __init__(self, text):
        super().__init__()
        self.images, self.headings, self.links, self.open = [], 0, [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.headings += tag == "h2"
        self.images += [attributes["src"]] if tag == "img" else []
        self.links += [attributes[key] for key in ("href", "src") if key in attributes]


def test_the_page_needs_no_other_file(reported):
    text = (reported[0] / "evaluation.html").read_text()
    page = Page(text)
    assert page.headings == 7 and "http" not in text
    assert all(link.startswith("data:image/") for link in page.links)
    mistakes = round(9 * (1 - read_json(reported[0] / "evaluation.json")["main_accuracy"]))
    assert len(page.images) == 2 + mistakes  # two charts
    for address in page.images:
        image = Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))
        assert min(image.size) >= 160 and np.asarray(image).std() > 5


NAMES = ["$a$ $b$", "x^2_1 $5", r"\frac\\$", "\u732b\u72ac", "\u0643\u0644\u0628", "\U00010600"]


def test_charts_show_class_names_as_they_are(monkeypatch):
    """The texts of an SVG of the figure, where a formula would have lost its `$`."""
    import matplotlib
    from matplotlib.figure import Figure

    charts, save = [], Figure.savefig

    def save_both(figure, file, **kwargs):
        with matplotlib.rc_context({"svg.fonttype": "none"}):
            save(figure, text := io.StringIO(), format="svg")
        charts.append(ElementTree.fromstring(text.getvalue()))
        save(figure, file, **kwargs)

    monkeypatch.setattr(Figure, "savefig", save_both)
    records = metrics.make_records(np.arange(6), np.eye(6)[None, None, None])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        page = report._confusion_matrix(records, NAMES)
    texts = [
        "".join(text.itertext()).strip("\u200e")  # marks that put right-to-left names in order
        for text in charts[0].iter("{http://www.w3.org/2000/svg}text")
    ]
    for index, name in enumerate(NAMES):
        number = f"class {index}"  # of a name that no installed font has
        assert texts.count(name) == 2 or (
            texts.count(number) == 2 and f"{number} is {name}" in page
        )
    assert all(texts.count(name) == 2 for name in NAMES[:3])
    assert texts.count("class 5") == 2, "no font here has Linear A"


def test_names_cannot_break_the_page(image_folder, finished_run, run_script, tmp_path):
    renamed = tmp_path / "<b>&images"
    (renamed / "star").mkdir(parents=True)
    for name in ("ring", "cross"):
        (renamed / name).symlink_to(image_folder / "val" / name)
    (renamed / "star" / '"x".jpg').symlink_to(image_folder / "val" / "star" / "0.jpg")
    flags = ("--dataset", renamed, "--report", tmp_path / "report")
    outcome = run_script("evaluate.py", finished_run[0] / "model.keras", *flags)
    assert outcome.status == 0, outcome.err
    text = (tmp_path / "report" / "evaluation.html").read_text()
    assert "<b>&images" not in text and "&lt;b&gt;&amp;images" in text


@pytest.mark.slow
def test_an_interrupted_evaluation_resumes(finished_run, run_script, tmp_path, monkeypatch):
    workdir, before = finished_run[0], sorted(path.name for path in finished_run[0].iterdir())
    flags = (workdir, "--crops", 10, "--batch-size", 20)  # two images a batch
    whole = run_script("evaluate.py", *flags, "--json")
    report = tmp_path / "report"
    flags = (*flags, "--report", report, "--json")
    original, seen = measure.make_records, []

    def interrupt(labels, scores):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(len(labels))
        return original(labels, scores)

    monkeypatch.setattr(measure, "make_records", interrupt)
    assert run_script("evaluate.py", *flags).status == 130
    assert [path.name for path in report.iterdir()] == ["evaluation.partial"]
    other = run_script("evaluate.py", *flags[:1], *flags[3:], "--resume")
    assert other.status == 2 and "started with another set of crops" in other.err

    later = []
    monkeypatch.setattr(
        measure,
        "make_records",
        lambda labels, scores: later.append(len(labels)) or original(labels, scores),
    )
    resumed = run_script("evaluate.py", *flags, "--resume")
    assert resumed.status == 0, resumed.err
    assert sum(seen) == 4 and sum(later) == 5
    results = [json.loads(outcome.out) for outcome in (resumed, whole)]
    assert results[0].pop("data") == results[1].pop("data")
    assert results[0] == pytest.approx(results[1], abs=1e-6)
    assert {path.name for path in report.iterdir()} == FILES
    assert sorted(path.name for path in workdir.iterdir()) == before


def test_thumbnails_are_of_the_examples_asked_for(image_folder):
    split = datasets.open_dataset(str(image_folder)).validation
    for number, address in zip((7, 0, 4), thumbnails(split, (7, 0, 4)), strict=True):
        content = base64.b64decode(address.removeprefix("data:image/jpeg;base64,"))
        small = Image.open(io.BytesIO(content)).resize((32, 32))
        original = Image.open(split.files[number]).resize((32, 32))
        assert np.abs(np.asarray(small, int) - np.asarray(original, int)).mean() < 8


def test_resuming_needs_the_same_classes(tmp_path):
    """The same files and names of classes, but another file belongs to the second class."""
    for name in "abc":
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    settings = []
    for classes in ("cat cat dog", "cat dog dog"):
        lines = [f"{file}.png {name}" for file, name in zip("abc", classes.split(), strict=True)]
        (tmp_path / "labels.txt").write_text("\n".join(lines))
        opened = open_labeled(str(tmp_path), str(tmp_path / "labels.txt"))
        matched = match_classes([["cat", "dog"]], opened.labels)
        ensemble = Ensemble([], (65,), matched)
        settings.append(ensemble.settings(opened.validation, "images"))
    assert settings[0].pop("data set") != settings[1].pop("data set")
    assert settings[0] == settings[1]


def test_labels_from_a_file(image_folder, finished_run, run_script, tmp_path):
    flat, lines = tmp_path / "flat", ["image,kind"]
    flat.mkdir()
    for name in CLASSES:
        for number in range(3):
            (flat / f"{name[0]}{number}.jpg").symlink_to(
                image_folder / "val" / name / f"{number}.jpg"
            )
            lines.append(f"{name[0]}{number}.jpg,{name}")
    (tmp_path / "kinds.csv").write_text("\n".join(lines))
    flags = ("--labels", tmp_path / "kinds.csv", "--label-columns", "image", "kind", "--json")
    outcome = run_script("evaluate.py", finished_run[0], "--dataset", flat, *flags)
    assert outcome.status == 0, outcome.err
    folders = run_script("evaluate.py", finished_run[0], "--dataset", image_folder, "--json")
    results = [json.loads(each.out) for each in (outcome, folders)]
    assert [result.pop("data")["validation"]["images"] for result in results] == [9, 9]
    assert results[0] == pytest.approx(results[1], abs=1e-6)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--resume"], "--resume needs --report"),
        (["--label-columns", "a", "b"], "--label-columns needs --labels"),
        (["--sizes", 200, 256], "--sizes must be different and 224 or more"),
        (["--labels", "nowhere.txt", "--dataset", "."], "there is no file of labels nowhere.txt"),
    ],
)
def test_mistakes_are_one_sentence(finished_run, run_script, flags, sentence):
    outcome = run_script("evaluate.py", finished_run[0], *flags)
    assert outcome.status == 2 and sentence in outcome.err and "Traceback" not in outcome.err


def test_bad_images_are_named_all_in_one_run(image_folder, finished_run, run_script, tmp_path):
    for name in CLASSES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jpg").symlink_to(image_folder / "val" / name / "0.jpg")
    for number in range(4):
        (tmp_path / "ring" / f"b{number}.jpg").write_text("no image")
    outcome = run_script("evaluate.py", finished_run[0], "--dataset", tmp_path)
    assert outcome.status == 2 and outcome.out == "" and "Traceback" not in outcome.err
    said = outcome.err.splitlines()[-1]
    assert "4 of 7 images cannot be read, more than 1%" in said
    assert all(f"ring/b{number}.jpg (it is text, not an image)" in said for number in range(4))


def test_one_percent_of_bad_images_is_named_and_not_counted(run_script, finished_run, tmp_path):
    """As in training: 200 images, of which the last of a batch, one in the middle are bad."""
    good, _ = saved_colors(tmp_path / "good", 200)
    root, bad = saved_colors(tmp_path / "bad", 200)
    for file in bad:
        file.write_bytes(b"")
    results, rows = [], []
    for folder in (good, root):
        flags = ["--dataset", folder, "--json", "--batch-size", 16, "--report", folder / "report"]
        outcome = run_script("evaluate.py", finished_run[0], *flags)
        assert outcome.status == 0, outcome.err
        results.append(json.loads(outcome.out)["examples"])
        with open(folder / "report" / "predictions.csv") as file:
            rows.append([(Path(row["file"]).name, row["score_1"]) for row in csv.DictReader(file)])
    for file in bad:
        assert outcome.err.count(f"corrupt image: {file} (the file is empty)") == 1
    assert results == [200, 198]
    kept = [row for row in rows[0] if row[0] not in {path.name for path in bad}]
    (names, scores), (expected_names, expected) = (
        zip(*part, strict=True) for part in (rows[1], kept)
    )
    assert names == expected_names
    # other batches, and threads that share a sum otherwise: the last digit that is written
    np.testing.assert_allclose(np.float64(scores), np.float64(expected), atol=2e-6)


def saved_colors(root, count):
    """Images of one color each in a folder of the class `ring`, and two of them to break."""
    (root / "ring").mkdir(parents=True)
    files = [root / "ring" / f"{number:03}.png" for number in range(count)]
    for number, file in enumerate(files):
        Image.new("RGB", (9, 9), (number, 255 - number, 99)).save(file)
    return root, [files[17], files[199]]


@pytest.mark.slow
def test_variant_is_for_published_weights(finished_run, run_script, monkeypatch):
    """Beside other models it is theirs alone; of one file it is the one it must have."""
    from keras_googlenet import models

    load, asked = models.load, []

    def note(name, variant=None):
        asked.append((str(name), variant))
        return load(finished_run[0])

    monkeypatch.setattr(models, "load", note)
    assert run_script("evaluate.py", "imagenet", "runs/a", "--variant", "slim").status == 0
    assert run_script("evaluate.py", "runs/a", "--variant", "slim").status == 0
    assert asked == [("imagenet", "slim"), ("runs/a", None), ("runs/a", "slim")]
