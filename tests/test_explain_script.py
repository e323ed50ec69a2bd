"""What explain.py writes, and what it says to mistakes."""

import re

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="module")
def photo(image_folder):
    return image_folder / "val" / "star" / "0.jpg"


def test_a_folder_becomes_pictures_and_an_index(finished_run, run_script, photo, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "star.jpg").write_bytes(photo.read_bytes())
    Image.open(photo).save(folder / "star.png")
    (folder / "bad.png").write_text("no image")
    output = tmp_path / "out"
    outcome = run_script("explain.py", finished_run[0], folder, "--output", output)
    assert outcome.status == 2 and "bad.png cannot be read" in outcome.err
    names = ["index.html", "star_2_cam.png", "star_cam.png"]
    assert sorted(path.name for path in output.iterdir()) == names
    index = (output / "index.html").read_text()
    assert re.findall('href="(.*?)"', index) == ["star_cam.png", "star_2_cam.png"]
    assert outcome.out.splitlines()[-1] == str(output / "index.html")


@pytest.mark.slow
def test_branches_are_a_figure_of_nine_rows(finished_run, run_script, photo, tmp_path):
    output = tmp_path / "branches.png"
    outcome = run_script(
        "explain.py", finished_run[0], photo, "--branches", "--classes", "ring", "--output", output
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
def test_features_beside_what_excites_them(finished_run, run_script, image_folder, tmp_path):
    output = tmp_path / "atlas.png"
    outcome = run_script(
        *("explain.py", finished_run[0], "--features", "inception_3a_output:2-3"),
        *("--size", 32, "--steps", 2, "--diversity", 2, "--dataset", image_folder),
        *("--output", output),
    )
    assert outcome.status == 0, outcome.err
    assert outcome.out.strip() == str(output)
    assert np.asarray(Image.open(output)).std() > 10


@pytest.mark.slow
def test_a_circuit_is_drawn(finished_run, run_script, tmp_path):
    output = tmp_path / "circuit.png"
    outcome = run_script(
        *("explain.py", finished_run[0], "--size", 32, "--steps", 1, "--output", output),
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
        (["--branches", "--method", "all"], "--method all is a figure of its own"),
        (["--features", "inception_3a_output:1"], "one of them only"),
    ],
)
def test_mistakes_are_one_sentence(finished_run, run_script, photo, flags, sentence, tmp_path):
    output = tmp_path / "out.png"
    outcome = run_script("explain.py", finished_run[0], photo, "--output", output, *flags)
    assert outcome.status == 2 and outcome.out == "", outcome
    assert sentence in outcome.err.splitlines()[-1] and "Traceback" not in outcome.err
    assert not output.exists()


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--features", "inception_3z_output:1"], "the nearest are inception_3"),
        (["--features", "inception_3a_output:256"], "has channels 0 to 255"),
        (["--features", "inception_3a_output:1", "--size", 16], "--size must be 32 or more"),
        (["--circuit", "inception_3a_output:1", "inception_5b_3x3:1"], "does not feed"),
        ([], "give an IMAGE"),
    ],
)
def test_mistakes_about_features_are_one_sentence(finished_run, run_script, flags, sentence):
    outcome = run_script("explain.py", finished_run[0], *flags)
    assert outcome.status == 2 and outcome.out == "", outcome
    assert sentence in outcome.err.splitlines()[-1] and "Traceback" not in outcome.err
