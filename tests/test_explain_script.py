"""What explain.py writes, and what it says to mistakes."""

import functools
import re

import keras
import numpy as np
import pytest
from conftest import CLASSES
from PIL import Image

from keras_googlenet import labels, models
from keras_googlenet.explaining import cam, figures, report
from keras_googlenet.googlenet import GoogLeNet

SEEN = "what the network saw"


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """An untrained network, read once: what is drawn does not depend on what it has learned."""
    file = tmp_path_factory.mktemp("network") / "network.keras"
    keras.utils.set_random_seed(4)
    GoogLeNet(classes=3, input_shape=(65, 65, 3)).save(file)
    labels.write_labels(labels.labels_path(file), CLASSES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "load", functools.cache(models.load))
        yield file


@pytest.fixture(scope="module")
def photo(image_folder):
    return image_folder / "val" / "star" / "0.jpg"


@pytest.fixture
def drawn(monkeypatch):
    """What is drawn, in place of pictures, which take longer to paint than to compute."""
    found = []
    monkeypatch.setattr(figures, "save", lambda figure, path: found.append((figure, path)))
    return found


def test_a_folder_becomes_pages_and_an_index(network, run_script, photo, tmp_path, monkeypatch):
    folder, output = tmp_path / "pictures", tmp_path / "out"
    folder.mkdir()
    for name in ("index.jpg", "star.jpg", "star_2.jpg", "Star#1.jpg"):
        (folder / name).write_bytes(photo.read_bytes())
    Image.open(photo).save(folder / "star.png")
    Image.open(photo).resize((1, 40)).save(folder / "thin.png")
    (folder / "bad.png").write_text("no image")
    monkeypatch.setattr(report, "render", lambda subject, photograph, index: photograph.file)
    outcome = run_script("explain.py", network, folder, "--report", output)
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
        (["--classes", "ring,2"], ["ring", "star"], "evidence, logit a cell", "a_cam.png"),
        (
            ["--heads", "--classes", "cross", "--method", "gradcam++"],
            ["main (after 5b): cross", "aux1 (after 4a): cross", "aux2 (after 4d): cross"],
            "activation, weighed",
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
    network, run_script, photo, drawn, flags, titles, unit, file, tmp_path, monkeypatch
):
    monkeypatch.setattr(cam, "SCORECAM_CHANNELS", 2)
    monkeypatch.setattr(cam, "SMOOTHGRAD_SAMPLES", 1)
    (tmp_path / "a.jpg").write_bytes(photo.read_bytes())
    outcome = run_script("explain.py", network, tmp_path / "a.jpg", *flags)
    assert outcome.status == 0, outcome.err
    [(figure, path)] = drawn
    assert path == tmp_path / file and outcome.out.strip().endswith(f"-> {path}")
    shown = [cell for cell in figure.axes if cell.get_title()]
    assert len(shown) == 1 + len(titles)
    for cell, title in zip(shown, [SEEN, *titles], strict=True):
        assert cell.get_title().replace("\n", " ").startswith(title)
        assert cell.images
    bars = [cell.get_ylabel() for cell in figure.axes if cell.get_label() == "<colorbar>"]
    assert bars == [unit] * len(titles)


def test_a_picture_is_written(network, run_script, photo, tmp_path):
    output = tmp_path / "star.png"
    outcome = run_script("explain.py", network, "--method", "saliency", photo, "--output", output)
    assert outcome.status == 0, outcome.err
    width, height = Image.open(output).size
    assert width > 1.5 * height > 300 and np.asarray(Image.open(output)).std() > 10


@pytest.mark.slow
def test_branches_are_a_figure_of_nine_rows(network, run_script, photo, tmp_path):
    output = tmp_path / "branches.png"
    outcome = run_script(
        "explain.py", network, photo, "--branches", "--classes", "ring", "--output", output
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


@pytest.mark.slow
def test_features_beside_what_excites_them(network, run_script, image_folder, tmp_path):
    output = tmp_path / "atlas.png"
    outcome = run_script(
        *("explain.py", network, "--features", "inception_3a_output:2-3"),
        *("--size", 32, "--steps", 2, "--diversity", 2, "--dataset", image_folder),
        *("--output", output),
    )
    assert outcome.status == 0, outcome.err
    assert outcome.out.strip() == str(output)
    assert np.asarray(Image.open(output)).std() > 10


@pytest.mark.slow
def test_a_circuit_is_drawn(network, run_script, tmp_path):
    output = tmp_path / "circuit.png"
    outcome = run_script(
        *("explain.py", network, "--size", 32, "--steps", 1, "--output", output),
        *("--circuit", "inception_3a_output:1,2", "inception_3b_3x3:0"),
    )
    assert outcome.status == 0, outcome.err
    assert Image.open(output).size[0] > 300


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
        (["--data-dir", "data"], "a map of an IMAGE takes no --data-dir"),
        (["--method", "saliency", "--layer", "inception_4a_output"], "leave --layer out"),
        (["--features", "inception_3a_output:1"], "one of them only"),
        (["another.jpg"], "--output must be a folder here"),
    ],
)
def test_mistakes_are_one_sentence(network, run_script, photo, flags, sentence, tmp_path):
    output = tmp_path / "out.png"
    outcome = run_script("explain.py", network, photo, *flags, "--output", output)
    assert outcome.status == 2 and outcome.out == "", outcome
    assert sentence in outcome.err.splitlines()[-1] and "Traceback" not in outcome.err
    assert not output.exists()


@pytest.mark.parametrize("output", ["0.jpg", "0.xyz", "0"])
def test_what_is_no_place_for_a_picture(network, run_script, photo, output, tmp_path):
    (tmp_path / "0.jpg").write_bytes(photo.read_bytes())
    output = tmp_path / output
    outcome = run_script("explain.py", network, tmp_path / "0.jpg", "--output", output)
    assert outcome.status == 2 and outcome.out == "", outcome
    place = "is an image to be explained" if output.exists() else "--output must be a picture"
    assert place in outcome.err.splitlines()[-1] and "Traceback" not in outcome.err
    assert (tmp_path / "0.jpg").read_bytes() == photo.read_bytes()
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--features", "inception_3z_output:1"], "the nearest are inception_3"),
        (["--features", "inception_3a_output:32"], "has channels 0 to 31"),
        (["--features", "inception_3a_output:1", "--size", 16], "--size must be 32 or more"),
        (["--features", "main:1", "--output", "x.xyz"], "--output must be a picture (.png"),
        (["--features", "main:1", "--classes", "star"], "--features takes no --classes"),
        (["--circuit", "inception_3a_output:1", "inception_5b_3x3:1"], "does not feed"),
        (["--circuit", "a:1", "b:1", "--dataset", "shapes"], "--circuit takes no --dataset"),
        (["--circuit", "a:1", "b:1", "--diversity", 2], "--circuit takes no --diversity"),
        ([], "give an IMAGE"),
    ],
)
def test_mistakes_about_features_are_one_sentence(network, run_script, flags, sentence):
    outcome = run_script("explain.py", network, *flags)
    assert outcome.status == 2 and outcome.out == "", outcome
    assert sentence in outcome.err.splitlines()[-1] and "Traceback" not in outcome.err


@pytest.mark.parametrize("script", ["predict.py", "explain.py"])
def test_a_network_that_overflows_is_refused(script, run_script, photo, tmp_path):
    """Its weights are numbers, its answers none."""
    model = GoogLeNet(classes=3, input_shape=(65, 65, 3), aux_heads=False, variant="slim")
    layer = model.get_layer("main")
    layer.set_weights([np.full_like(value, 3e38) for value in layer.get_weights()])
    model.save(tmp_path / "network.keras")
    outcome = run_script(script, tmp_path / "network.keras", photo)
    assert outcome.status == 2 and outcome.out.strip() == ""
    assert re.search(r"error: \S+0.jpg: the network answers with NaN", outcome.err)


def test_a_network_with_its_preprocessing_inside(run_script, photo, tmp_path):
    trunk = GoogLeNet(include_top=False, input_shape=(65, 65, 3))
    steps = [keras.layers.Rescaling(1 / 127.5, offset=-1), trunk]
    steps += [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3, "softmax", name="top")]
    keras.Sequential([keras.Input((65, 65, 3)), *steps]).save(tmp_path / "network.keras")
    for arguments, written in (
        ([photo, "--branches"], "branches.png"),
        (["--features", "main:1", "--size", 32, "--steps", 1], "unit.png"),
    ):
        path = tmp_path / written
        outcome = run_script("explain.py", tmp_path / "network.keras", *arguments, "--output", path)
        assert outcome.status == 0, outcome.err
        assert path.exists()
