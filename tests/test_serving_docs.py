"""The requests of docs/serving.md, typed as they stand there, answered by the C++ loader."""

import re
import shutil
import subprocess
import sys

import pytest
import serving_peers
from conftest import ROOT
from PIL import Image
from saved_model_loader import SavedModel

PAGE = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(bash|python)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = re.findall(r"^    python (predict\.py --server .*)$", PAGE, re.MULTILINE)
ASKED_FOR = {"/v1/models/googlenet": "AVAILABLE", "/v1/models/googlenet/metadata": "signature_def"}

pytestmark = [pytest.mark.slow, pytest.mark.peers("grpc", "tensorflow_serving")]


@pytest.fixture(scope="module")
def at(serving_folder):
    """Puts the addresses of two servers into a text of the page."""
    model = SavedModel(serving_folder[0] / "1")
    predict = serving_peers.rest_of(model)

    def answer(path, body):
        return predict(path, body) if body else (200, {"answer": ASKED_FOR[path]})

    with (
        serving_peers.http_server(answer) as rest,
        serving_peers.grpc_server(serving_peers.grpc_of(model)) as grpc,
    ):
        yield lambda text: text.replace("http://localhost:8501", rest).replace(
            "localhost:8500", grpc.removeprefix("grpc://")
        )


@pytest.fixture(scope="module")
def desk(photographs, tmp_path_factory):
    """A folder with a photo.jpg and a folder of photographs, where a reader would type."""
    desk = tmp_path_factory.mktemp("desk")
    (desk / "folder").mkdir()
    for path in (desk / "photo.jpg", desk / "folder" / "photo.jpg"):
        Image.fromarray(photographs[0].astype("uint8")).save(path)
    return desk


@pytest.mark.parametrize(("language", "block"), BLOCKS)
def test_a_block_of_the_page(at, desk, language, block):
    if language == "bash" and shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    program = ["bash", "-c"] if language == "bash" else [sys.executable, "-c"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [*program, at(block)], cwd=desk, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    answers = [done.stdout.count(word) for word in ("tabby", *ASKED_FOR.values())]
    assert sum(answers) == max(block.count("curl"), 1), done.stdout
    assert '"error"' not in done.stdout


def test_the_page_has_requests_of_both_kinds():
    languages = [language for language, _ in BLOCKS]
    assert languages.count("bash") >= 2 and languages.count("python") >= 3
    assert PAGE.count("curl -s ") >= 5


@pytest.mark.parametrize("command", COMMANDS)
def test_predict_as_the_page_types_it(at, desk, run_script, monkeypatch, command):
    monkeypatch.chdir(desk)
    script, *flags = at(command).split()
    outcome = run_script(script, *flags)
    assert outcome.status == 0, outcome.err
    assert "tabby" in outcome.out
