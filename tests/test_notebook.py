"""The Colab notebook: its code runs, and its stored outputs are those of its code."""

import ast
import base64
import importlib.util
import io
import json
import re

import nbformat
import numpy as np
import pytest
from conftest import ROOT
from nbformat.v4 import new_code_cell, new_notebook, new_output
from PIL import Image

import keras_googlenet
from keras_googlenet.data import shapes
from keras_googlenet.training.recipe import RECIPES
from notebooks import execute

NOTEBOOK = execute.read()
CODE = [cell for cell in NOTEBOOK.cells if cell.cell_type == "code"]
SMALL = {
    "NOTEBOOK_EPOCHS": "1",
    "NOTEBOOK_IMAGE_SIZE": "65",
    "NOTEBOOK_MAX_STEPS": "2",
    "NOTEBOOK_EVALUATED": "20",
}
LARGEST = 600_000  # bytes of the file: it is read in a browser
DIFFERENCE = 1e-4  # of a probability, between exported networks; README's exports keep to it
ABSOLUTE_PATH = re.compile(r"""(?:^|[\s"'(=:,])(/[\w.-]+/[\w.-]+|[A-Z]:\\\w)""")
URL = re.compile(r"\w+://\S+")
REPORT = """
import json

print(json.dumps({
    "names": names,
    "lite_labels": lite_labels,
    "classify": by_bytes["scores"].numpy()[0].tolist(),
    "probabilities": {way: answer[0].astype(float).tolist() for way, answer in ways.items()},
}))
"""


def texts_of(cell):
    """All text that a cell has printed or shown."""
    for output in cell.outputs:
        yield output.get("text", "")
        yield from (value for kind, value in output.get("data", {}).items() if "text" in kind)


def with_new_code(notebook):
    """A copy whose first cell has been edited."""
    copy = nbformat.from_dict(notebook)
    first = next(cell for cell in copy.cells if cell.cell_type == "code")
    first.source += "\n"
    return copy


@pytest.mark.slow
def test_all_cells_run(tmp_path):
    """In an empty folder, on a few steps; then all ways to ask give the same answers."""
    notebook = execute.read()
    notebook.cells.append(new_code_cell(REPORT))
    execute.execute(notebook, tmp_path, SMALL)
    printed = [one.text for one in notebook.cells[-1].outputs if one.get("name") == "stdout"]
    result = json.loads("".join(printed))
    probabilities = result["probabilities"]
    assert probabilities.keys() == {"Keras", "SavedModel", "LiteRT"}
    for answer in probabilities.values():
        assert sum(answer) == pytest.approx(1, abs=DIFFERENCE)
        assert answer == pytest.approx(probabilities["Keras"], abs=DIFFERENCE)
    assert result["lite_labels"] == list(shapes.CLASSES)
    best = sorted(zip(probabilities["LiteRT"], shapes.CLASSES, strict=True), reverse=True)[:5]
    assert result["classify"] == pytest.approx([score for score, _ in best], abs=DIFFERENCE)
    assert set(result["names"]) <= set(shapes.CLASSES) and result["names"][0] == best[0][1]
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]  # nothing outside of it


def test_outputs_are_those_of_the_code():
    """Else run `python -m notebooks.execute`, which stores what this compares."""
    assert NOTEBOOK.metadata[execute.EXECUTED] == execute.origin(NOTEBOOK)
    assert execute.origin(with_new_code(NOTEBOOK)) != execute.origin(NOTEBOOK)
    shown = "".join("".join(texts_of(cell)) for cell in CODE)
    assert f"keras_googlenet {keras_googlenet.__version__}\n" in shown
    assert f"epochs: {RECIPES['small'].epochs}," in shown  # not of small settings


def test_every_cell_was_executed_once_in_order():
    assert [cell.execution_count for cell in CODE] == list(range(1, len(CODE) + 1))
    for cell in CODE:
        assert cell.outputs, f"{cell.id} shows nothing"
        kinds = {output.output_type for output in cell.outputs}
        assert kinds <= {"stream", "display_data", "execute_result"}, cell.id


def test_outputs_are_small_and_name_no_machine():
    assert execute.NOTEBOOK.stat().st_size < LARGEST
    for cell in CODE:
        assert not [one for one in cell.outputs if one.get("name") == "stderr"], cell.id
        for text in (cell.source, *texts_of(cell)):
            assert not ABSOLUTE_PATH.search(URL.sub("", text)), cell.id
        assert "execution" not in cell.metadata, f"{cell.id} holds the times of its execution"


@pytest.mark.parametrize(
    "text", ["saved in /root/runs", "('/tmp/x1/y')", r"C:\Users", "folder=/home/x"]
)
def test_absolute_paths_are_found(text):
    assert ABSOLUTE_PATH.search(text)


def test_the_format_is_what_colab_reads():
    nbformat.validate(NOTEBOOK)
    assert (NOTEBOOK.nbformat, NOTEBOOK.nbformat_minor) >= (4, 5)
    assert NOTEBOOK.metadata.kernelspec.name == "python3"
    assert NOTEBOOK.metadata.language_info.name == "python"


def test_its_python_is_one_of_ours():
    assert re.fullmatch(r"3\.1[123]\.\d+", NOTEBOOK.metadata.language_info.version)


def test_pictures_are_reduced():
    """To 256 colors, without changing a picture that has no more."""
    pixels = np.repeat(np.arange(0, 256, 5, dtype="uint8")[:, None, None], 60, 1).repeat(3, 2)
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "png", compress_level=0)
    data = {"image/png": base64.b64encode(encoded.getvalue()).decode()}
    cell = new_code_cell(outputs=[new_output("display_data", data)])
    execute.reduce_pictures(new_notebook(cells=[cell]))
    reduced = base64.b64decode(cell.outputs[0].data["image/png"])
    assert len(reduced) < len(encoded.getvalue()) / 2
    with Image.open(io.BytesIO(reduced)) as picture:
        np.testing.assert_array_equal(picture.convert("RGB"), pixels)


def test_every_name_that_it_imports_exists():
    tree = ast.parse("\n".join(cell.source for cell in CODE))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    ours = [node for node in imports if node.module.partition(".")[0] == "keras_googlenet"]
    assert ours
    for node in ours:
        for alias in node.names:
            try:
                found = hasattr(importlib.import_module(node.module), alias.name)
            except ModuleNotFoundError:
                found = False
            submodule = f"{node.module}.{alias.name}"
            assert found or importlib.util.find_spec(submodule), submodule


def test_readme_opens_this_notebook():
    """From the repository that the notebook installs."""
    repository = re.search(r'"https://github\.com/([\w.-]+/[\w.-]+)"', CODE[0].source)[1]
    path = execute.NOTEBOOK.relative_to(ROOT).as_posix()
    address = f"https://colab.research.google.com/github/{repository}/blob/main/{path}"
    assert f"({address})" in (ROOT / "README.md").read_text(encoding="utf-8")
