"""The commands of docs/serving.md against the loopback peer, as they stand there."""

import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT
from PIL import Image

PAGE = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(bash|python)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
ANSWERS = ("AVAILABLE", "tabby", "signature_def")  # one of them is in every right answer

pytestmark = [pytest.mark.slow, pytest.mark.peers("grpc", "tensorflow_serving")]


@pytest.fixture(scope="module")
def peer(serving_folder):
    import serving_peer

    core = serving_peer.core_of(serving_folder[0])
    model = core.config.model_config_list.config[0]
    model.model_version_policy.specific.versions.extend([1, 2])
    model.version_labels.update({"stable": 1, "canary": 2})
    core.apply(core.config)
    with serving_peer.Peer(core) as peer:
        yield peer


@pytest.fixture(scope="module")
def desk(photographs, tmp_path_factory):
    """A folder with a photo.jpg, where a reader would type."""
    folder = tmp_path_factory.mktemp("desk")
    Image.fromarray(photographs[0].astype("uint8")).save(folder / "photo.jpg")
    return folder


def at(peer, text):
    text = text.replace("http://localhost:8501", peer.rest)
    return text.replace("localhost:8500", peer.grpc.removeprefix("grpc://"))


@pytest.mark.parametrize(("language", "block"), BLOCKS)
def test_a_block_of_the_page(peer, desk, language, block):
    if language == "bash" and shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    program = ["bash", "-c"] if language == "bash" else [sys.executable, "-c"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [*program, at(peer, block)], cwd=desk, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert any(answer in done.stdout for answer in ANSWERS), done.stdout
    assert '"error"' not in done.stdout


def test_the_page_has_blocks_of_both_kinds():
    languages = [language for language, _ in BLOCKS]
    assert languages.count("bash") >= 5 and languages.count("python") >= 3


COMMANDS = re.findall(r"^    python (predict\.py --server .*)$", PAGE, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_predict_as_the_page_types_it(peer, desk, run_script, monkeypatch, command):
    monkeypatch.chdir(desk)
    (desk / "folder").mkdir(exist_ok=True)
    shutil.copy(desk / "photo.jpg", desk / "folder")
    script, *flags = at(peer, command).split()
    outcome = run_script(script, *flags)
    assert outcome.status == 0, outcome.err
    assert "tabby" in outcome.out
