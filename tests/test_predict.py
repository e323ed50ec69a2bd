"""What predict.py prints, and when: on a terminal, and into a pipe, which evaluate.py shares."""

import json
import os
import subprocess
import sys
import termios
import threading

import pytest
import serving_peers
from conftest import ROOT

from keras_googlenet.googlenet import GoogLeNet

ANSWER = {"predictions": [{"classes": ["n02123045 tabby"], "scores": [0.75]}]}
CLOSED_PIPE_STATUS = 141  # 128 + SIGPIPE, as shells report it
FULL_WIDTH = True  # another process loads the network


@pytest.fixture
def images(image_folder):
    return sorted(str(path) for path in (image_folder / "val" / "star").iterdir())


def command(address, *arguments):
    return [sys.executable, ROOT / "predict.py", "--server", address, *arguments]


def test_each_answer_is_printed_at_once_and_a_closed_pipe_is_no_error(images):
    """As `predict.py ... | head -2`; the second image is answered after the first was read."""
    first_was_read, requests = threading.Event(), []

    def answer(path, body):
        requests.append(path)
        assert len(requests) == 1 or first_was_read.wait(60)
        return 200, ANSWER

    with serving_peers.http_server(answer) as address:
        process = subprocess.Popen(
            command(address, *images), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        lines = [process.stdout.readline() for _ in range(2)]
        assert lines == [f"{images[0]}\n", "  75.00%  tabby\n"] and len(requests) < 3
        process.stdout.close()
        first_was_read.set()
        assert process.stderr.read() == ""
        assert process.wait() == CLOSED_PIPE_STATUS


def screen(written):
    """The lines of a terminal after `written`: a carriage return goes back to column 0."""
    lines = []
    for line in written.replace("\r\n", "\n").split("\n"):
        shown = []
        for part in line.split("\r"):
            shown[: len(part)] = part
        lines.append("".join(shown).rstrip())
    return lines


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_progress_on_a_terminal_does_not_mix_with_the_answers(images, flags):
    terminal, other_end = os.openpty()
    termios.tcsetwinsize(other_end, (24, 80))
    with serving_peers.http_server(lambda *_: (200, ANSWER)) as address:
        process = subprocess.Popen(
            command(address, *images, *flags), stdout=other_end, stderr=other_end
        )
        os.close(other_end)
        written = b""
        try:
            while read := os.read(terminal, 4096):
                written += read
        except OSError:  # the other end is closed
            pass
        assert process.wait() == 0
    os.close(terminal)
    written = written.decode()
    assert "0/3 [" in written, "there was a bar"
    lines = [line for line in screen(written) if line]
    if flags:
        (line,) = lines
        assert [row["file"] for row in json.loads(line)] == images
    else:
        assert lines == [line for image in images for line in (image, "  75.00%  tabby")]


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_a_folder_without_images_does_not_stop_the_others(images, flags, run_script, tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    with serving_peers.http_server(lambda *_: (200, ANSWER)) as address:
        paths = [images[0], tmp_path, tmp_path / "nothing.png", images[1]]
        outcome = run_script("predict.py", "--server", address, *paths, *flags)
        alone = run_script("predict.py", "--server", address, tmp_path, *flags)
    assert outcome.status == alone.status == 2
    if flags:
        assert [row["file"] for row in json.loads(outcome.out)] == images[:2]
    else:
        assert outcome.out.splitlines()[::2] == images[:2]
    empty, missing = outcome.err.splitlines()
    assert empty.startswith(f"predict.py: error: {tmp_path} holds no image; give one with ")
    assert missing == f"there is no image {tmp_path / 'nothing.png'}."
    assert alone.out == "" and alone.err == empty + "\n"


@pytest.mark.slow
def test_evaluate_does_not_mind_a_closed_pipe(image_folder, tmp_path):
    """As `evaluate.py ... | head -0`."""
    model = GoogLeNet(classes=3, input_shape=(65, 65, 3), aux_heads=False)
    model.save(tmp_path / "model.keras")
    command = [sys.executable, ROOT / "evaluate.py", tmp_path / "model.keras"]
    process = subprocess.Popen(
        [*command, "--dataset", image_folder], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    (line,) = process.stderr.read().decode().splitlines()
    assert process.wait() == CLOSED_PIPE_STATUS and "9 images of 3 classes" in line
