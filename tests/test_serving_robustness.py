"""What a server meets in the field: damaged pictures, and many clients for a long time."""

import io
import json
import os
import statistics
import subprocess
import sys
import threading
import time
import urllib.request

import pytest
from conftest import ROOT
from PIL import Image

from keras_googlenet import serving

DAMAGED = 2000
CLIENTS = 16
SECONDS = 60
WARM_UP = 15  # seconds in which memory may grow: pools of threads, arenas, caches
TOLERANCE = 1e-5  # of a probability, whoever else is asking
GROWTH = 16  # MiB a minute, where the pictures of a minute are some 60 MiB decoded

TESTS = ROOT / "tests"


@pytest.mark.slow
def test_damaged_pictures_get_an_answer_or_one_error(serving_folder):
    command = [sys.executable, TESTS / "mutated_images.py", serving_folder[0] / "1", str(DAMAGED)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]  # its last line names the picture
    counts = json.loads(done.stdout)
    print(json.dumps(counts, indent=1))
    assert counts["answered"] + counts["refused"] == DAMAGED
    assert counts["answered"] > DAMAGED / 20 and counts["refused"] > DAMAGED / 4
    assert counts["slowest"][0] < 60


@pytest.fixture
def peer_process(serving_folder):
    """The loopback peer in a process of its own, whose memory can be measured."""
    command = [sys.executable, TESTS / "serving_peer.py", serving_folder[0]]
    flags = ["--rest-port", "0", "--grpc-port", "0"]
    process = subprocess.Popen([*command, *flags], stdout=subprocess.PIPE, text=True)
    try:
        yield process.pid, json.loads(process.stdout.readline())
    finally:
        process.terminate()
        process.wait(30)


def memory_of(pid) -> float:
    """MiB that a process holds and no file can give back: libraries come and go."""
    with open(f"/proc/{pid}/status") as file:
        (line,) = (line for line in file if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1024


def jpeg(photograph) -> bytes:
    file = io.BytesIO()
    Image.fromarray(photograph.astype("uint8")).save(file, "JPEG")
    return file.getvalue()


@pytest.mark.slow
@pytest.mark.peers("grpc", "tensorflow_serving")
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="memory is read from /proc")
def test_many_clients_for_a_minute(peer_process, photographs):
    pid, addresses = peer_process
    pictures = [jpeg(photograph) for photograph in photographs]
    answers, errors, stop = [0] * CLIENTS, [], threading.Event()

    def client(index):
        address = addresses["rest" if index // 4 % 2 else "grpc"]
        classify = serving.connect(serving.ServedModel(address, "googlenet", None, 60))
        return lambda number: {found.name: found.score for found in classify(pictures[number])}

    alone = [client(0)(number) for number in range(len(pictures))]
    assert all(len(scores) == 4 for scores in alone)
    assert alone[0] != pytest.approx(alone[1], abs=10 * TOLERANCE), "a mix-up would not be seen"

    def ask(index):
        scores_of, number = client(index), index % len(pictures)
        while not stop.is_set() and not errors:
            try:
                assert scores_of(number) == pytest.approx(alone[number], abs=TOLERANCE)
                answers[index] += 1
            except Exception as error:
                errors.append(error)

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(CLIENTS)]
    for thread in threads:
        thread.start()
    time.sleep(WARM_UP)
    memory, start = [], time.monotonic()
    while time.monotonic() - start < SECONDS and not errors:
        time.sleep(0.5)
        memory.append((time.monotonic() - start, memory_of(pid)))
    stop.set()
    for thread in threads:
        thread.join()
    assert not errors
    slope = statistics.linear_regression(*zip(*memory, strict=True)).slope * 60
    print(
        f"{sum(answers)} answers, {min(answers)} of the slowest client; "
        f"{memory[0][1]:.0f} MiB at first, {memory[-1][1]:.0f} at last, {slope:+.1f} a minute"
    )
    with urllib.request.urlopen(f"{addresses['rest']}/v1/models/googlenet") as response:
        assert response.status == 200
    assert min(answers) > 0
    assert slope < GROWTH
