"""What explain.py writes, and what it says to mistakes."""

import re

import keras
import numpy as np
import pytest
from conftest import CLASSES
from PIL import Image

from keras_googlenet import models
from keras_googlenet.commands import explain
from keras_googlenet.data import image_files, preprocessing
from keras_googlenet.explaining import cam, explanation_report, figures
from keras_googlenet.googlenet import GoogLeNet

SEEN = "what the network saw"


@pytest.fixture(scope="module")
def photo(image_folder):
    return image_folder / "val" / "star" / "0.jpg"


@pytest.fixture
def drawn(monkeypatch):
    """What is drawn, in place of files, which take longer to write than to compute."""
    found = []
    monkeypatch.setattr(figures, "save", lambda figure, path: found.append((figure, path)))
    return found


def test_a_folder_becomes_pages_and_an_index(
    untrained_network, run_script, photo, tmp_path, monkeypatch
):
    folder, output = tmp_path / "pictures", tmp_path / "out"
    folder.mkdir()
    for name in ("index.jpg", "star.jpg", "star_2.jpg", "Star#1.jpg"):
        (folder / name).write_bytes(photo.read_bytes())
    Image.open(photo).save(folder / "star.png")
    Image.open(photo).resize((1, 40)).save(folder / "thin.png")
    (folder / "bad.png").write_text("no image")
    monkeypatch.setattr(explanation_report, "render", lambda loaded, image, index: image.file)
    outcome = run_script("explain.py", untrained_network, folder, "--report", output)
    assert outcome.status == 2 and "bad.png cannot be read" in outcome.err
    assert "Traceback" not in outcome.err
    pages = {path.name: path.read_text() for path in output.iterdir() if path.name != "index.html"}
    assert {name: text.rpartition("/")[-1] for name, text in pages.items()} == {
        "Star#1.html": "Star#1.jpg",
        "index_2.html": "index.jpg",
        "star.html": "star.jpg",
        "star_2.html": "star.png",
        "star_2_2.html": "star_2.jpg",
        "thin.html": "thin.png",
    }
    index = (output / "index.html").read_text()
    links = ["Star%231", "index_2", "star", "star_2", "star_2_2", "thin"]
    assert sorted(re.findall('href="(.*?).html"', index)) == links
    assert index.count('src="data:image/jpeg;base64,') == 6
    assert outcome.out.splitlines()[-1] == str(output / "index.html")


@pytest.mark.parametrize(
    ("flags", "titles", "unit", "file"),
    [
        (["--classes", "ring,2"], ["ring", "star"], "evidence, logit per cell", "a_cam.png"),
        (
            ["--heads", "--classes", "cross", "--method", "gradcam++"],
            ["main (4e): cross", "aux1 (4a): cross", "aux2 (4d): cross"],
            "weighted activation",
            "a_heads.png",
        ),
        (
            ["--method", "all", "--layer", "inception_4a_output"],
            [
                *("gradcam, inception_4a_output", "gradcam++, inception_4a_output"),
                *("layercam, inception_4a_output", "scorecam, inception_4a_output"),
                *("saliency, pixels", "smoothgrad, pixels"),
            ],
            "",
            "a_methods.png",
        ),
    ],
)
def test_figures_side_by_side(
    untrained_network, run_script, photo, drawn, flags, titles, unit, file, tmp_path, monkeypatch
):
    monkeypatch.setattr(cam, "SCORECAM_CHANNELS", 2)
    monkeypatch.setattr(cam, "SMOOTHGRAD_SAMPLES", 1)
    (tmp_path / "a.jpg").write_bytes(photo.read_bytes())
    outcome = run_script("explain.py", untrained_network, tmp_path / "a.jpg", *flags)
    assert outcome.status == 0, outcome.err
    [(figure, path)] = drawn
    assert path == tmp_path / file and outcome.out.strip().endswith(f"-> {path}")
    shown = [cell for cell in figure.axes if cell.get_title()]
    assert len(shown) == 1 + len(titles)
    for cell, title in zip(shown, [SEEN, *titles], strict=True):
        drawn_title = cell.get_title().replace("\n", " ")
        assert drawn_title.removeprefix("no evidence for ").startswith(title)
        assert cell.images
    bars = [cell.get_ylabel() for cell in figure.axes if cell.get_label() == "<colorbar>"]
    assert bars == [unit] * len(titles)


def test_a_figure_is_written(untrained_network, run_script, photo, tmp_path):
    output = tmp_path / "star.png"
    outcome = run_script(
        "explain.py", untrained_network, "--method", "saliency", photo, "--output", output
    )
    assert outcome.status == 0, outcome.err
    width, height = Image.open(output).size
    assert width > 1.5 * height > 300 and np.asarray(Image.open(output)).std() > 10


@pytest.mark.slow
def test_branches_are_a_figure_of_nine_rows(untrained_network, run_script, photo, tmp_path):
    output = tmp_path / "branches.png"
    outcome = run_script(
        "explain.py",
        untrained_network,
        photo,
        "--branches",
        "--classes",
        "ring",
        "--output",
        output,
    )
    assert outcome.status == 0, outcome.err
    width, height = Image.open(output).size
    assert width > 1000 and height > 1700


@pytest.mark.slow
def test_a_report_needs_no_other_file(finished_run, run_script, photo, tmp_path):
    outcome = run_script("explain.py", finished_run[0], photo, "--report", tmp_path / "report")
    assert outcome.status == 0, outcome.err
    page = (tmp_path / "report" / "0.html").read_text()
    assert [path.name for path in (tmp_path / "report").iterdir()] == ["0.html"]
    assert page.count('src="data:image/jpeg;base64,') == page.count("<img ") == 5
    assert not re.search('(src|href)="(?!data:)', page) and "<script" not in page
    assert "http" not in re.sub('src="data:.*?"', "", page)
    for word in ("Where the evidence lies", "Branch by branch", "Head by head", "Method by method"):
        assert word in page
    for name in ("cross", "ring", "star"):
        assert f"<td>{name}</td>" in page


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--classes", "stra"], "no class 'stra' among the 3; the nearest are star"),
        (["--layer", "inception_5c_output"], "such as inception_5b_output"),
        (["--head", "aux1", "--layer", "inception_5b_output"], "the head aux1 sees"),
        (["--branches", "--classes", "star,ring"], "take one class"),
        (["--branches", "--method", "all"], "--branches takes no --method; leave it out"),
        (["--branches", "--layer", "inception_4a_output"], "--branches takes no --layer"),
        (["--heads", "--method", "all"], "--method all is a figure of its own"),
        (["--heads", "--head", "aux1"], "--heads takes no --head"),
        (["--report", "report", "--classes", "star"], "--report takes no --output"),
        (["--method", "saliency", "--layer", "inception_4a_output"], "takes no --layer"),
        (["--classes", "star,ring", "--method", "all"], "take one class"),
        (["another.jpg"], "--output must be a folder here"),
    ],
)
def test_mistakes_are_one_sentence(untrained_network, run_script, photo, flags, sentence, tmp_path):
    output = tmp_path / "out.png"
    outcome = run_script("explain.py", untrained_network, photo, *flags, "--output", output)
    assert outcome.status == 2 and outcome.out == "", outcome
    assert sentence in outcome.err.splitlines()[-1] and "Traceback" not in outcome.err
    assert not output.exists()


@pytest.mark.parametrize("output", ["0.jpg", "0.xyz", "0"])
def test_outputs_that_are_no_figure(untrained_network, run_script, photo, output, tmp_path):
    (tmp_path / "0.jpg").write_bytes(photo.read_bytes())
    output = tmp_path / output
    outcome = run_script("explain.py", untrained_network, tmp_path / "0.jpg", "--output", output)
    assert outcome.status == 2 and outcome.out == "", outcome
    place = "is an image to be explained" if output.exists() else "--output must be a figure"
    assert place in outcome.err.splitlines()[-1] and "Traceback" not in outcome.err
    assert (tmp_path / "0.jpg").read_bytes() == photo.read_bytes()
    assert len(list(tmp_path.iterdir())) == 1


def test_the_line_names_the_classes_and_the_best_one(untrained_network, run_script, photo, drawn):
    scores = models.load(str(untrained_network)).predict(crops_of(photo))[0]
    names = [f"{name} {score:.1%}" for name, score in zip(CLASSES, scores, strict=True)]
    best, last = scores.argmax(), scores.argmin()
    for flags, line in (
        ([], names[best]),
        (["--classes", CLASSES[best]], names[best]),
        (["--classes", CLASSES[last]], f"{names[last]} (best: {names[best]})"),
        (["--classes", f"{last},{best}"], f"{names[last]}, {names[best]}"),
    ):
        outcome = run_script("explain.py", untrained_network, photo, *flags)
        assert outcome.out.partition(" -> ")[0] == line, outcome


def crops_of(photo):
    return preprocessing.evaluation_crop(image_files.read_image(photo), 65).numpy()[None]


@pytest.mark.parametrize(
    ("flags", "indices"),
    [
        (["red, round"], [0]),
        (["RED, Round", "star"], [0, 2]),
        (['"red, round",star'], [0, 2]),
        (["star, 1"], [2, 1]),
        (["star,"], [2]),
        (["a,b", "2,1"], [1, 2, 1]),
    ],
)
def test_names_of_classes_may_have_commas(flags, indices):
    labels = ["red, round", "a,b", "star"]
    assert [index for text in flags for index in explain.find_classes(text, labels)] == indices


def test_a_second_run_leaves_out_the_figures_of_the_first(
    untrained_network, run_script, photo, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jpg").write_bytes(photo.read_bytes())
    for _ in range(2):
        outcome = run_script("explain.py", untrained_network, ".")
        assert outcome.status == 0, outcome.err
        assert len(outcome.out.splitlines()) == 2
        written = sorted(path.name for path in (tmp_path / "explanations").iterdir())
        assert written == ["a_cam.png", "index.html"]
    figure = (tmp_path / "explanations" / "a_cam.png").read_bytes()
    outcome = run_script("explain.py", untrained_network, "explanations")
    assert outcome.status == 0 and "a_cam_cam.png" in outcome.out
    assert (tmp_path / "explanations" / "a_cam.png").read_bytes() == figure


def test_a_folder_without_images_does_not_stop_the_others(
    untrained_network, run_script, photo, drawn, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    outcome = run_script("explain.py", untrained_network, "empty", photo, "nowhere.jpg")
    assert outcome.status == 2 and "Traceback" not in outcome.err
    assert [str(path) for _, path in drawn] == ["explanations/0_cam.png"]
    assert outcome.out.splitlines()[0].endswith("-> explanations/0_cam.png")
    assert "empty holds no image" in outcome.err and "no image nowhere.jpg" in outcome.err
    assert run_script("explain.py", untrained_network, "empty").status == 2


def test_maps_of_zeros_say_so(untrained_network, run_script, photo, drawn, monkeypatch):
    monkeypatch.setattr(figures, "gradcam", lambda *_, **__: np.zeros((1, 65, 65), "float32"))
    for flags in ([], ["--heads"], ["--method", "all"]):
        outcome = run_script("explain.py", untrained_network, photo, "--classes", "ring", *flags)
        assert outcome.status == 0, outcome.err
    for figure, _ in drawn:
        titles = [cell.get_title().replace("\n", " ") for cell in figure.axes if cell.get_title()]
        assert titles[0] == SEEN and len(titles) > 1
        assert all("no evidence for ring" in title for title in titles[1:])


@pytest.mark.parametrize("flags", [[], ["--branches"]])
def test_dollars_in_a_class_name(
    untrained_network, run_script, photo, tmp_path, monkeypatch, flags
):
    loaded = models.load(str(untrained_network), None)
    names = ["$5 to $6", r"$\frac{", "\u661f"]
    monkeypatch.setattr(models, "load", lambda *_: loaded._replace(labels=names))
    classes = [f"--classes={name}" for name in (names[:1] if flags else names)]
    output = tmp_path / "out.png"
    outcome = run_script(
        "explain.py", untrained_network, photo, *classes, *flags, "--output", output
    )
    assert outcome.status == 0 and outcome.err == "", outcome
    assert output.exists() and "$5 to $6" in outcome.out


@pytest.mark.parametrize("script", ["predict.py", "explain.py"])
def test_a_network_that_overflows_is_refused(script, run_script, photo, tmp_path):
    """Its weights are numbers, its answers none."""
    model = GoogLeNet(classes=3, input_shape=(65, 65, 3), aux_heads=False, variant="slim")
    layer = model.get_layer("main")
    layer.set_weights([np.full_like(value, 3e38) for value in layer.get_weights()])
    model.save(tmp_path / "network.keras")
    outcome = run_script(script, tmp_path / "network.keras", photo)
    assert outcome.status == 2 and outcome.out.strip() == ""
    assert re.search(r"error: \S+0.jpg: the network outputs NaN", outcome.err)


def test_a_network_with_its_preprocessing_inside(run_script, photo, tmp_path):
    trunk = GoogLeNet(include_top=False, input_shape=(65, 65, 3))
    steps = [keras.layers.Rescaling(1 / 127.5, offset=-1), trunk]
    steps += [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3, "softmax", name="top")]
    keras.Sequential([keras.Input((65, 65, 3)), *steps]).save(tmp_path / "network.keras")
    for script, arguments in (
        ("explain.py", [photo, "--branches"]),
        ("visualize.py", ["main:1", "--size", 32, "--steps", 1]),
    ):
        path = tmp_path / f"{script}.png"
        outcome = run_script(script, tmp_path / "network.keras", *arguments, "--output", path)
        assert outcome.status == 0, outcome.err
        assert path.exists()
