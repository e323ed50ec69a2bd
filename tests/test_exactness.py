"""`--deterministic`: the first steps of the whole network, in several processes on busy cores.

Separate processes have other memory addresses, and on busy cores operations run in another order:
both have changed sums of gradients before.
"""

import contextlib
import itertools
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import training_process
from processes import PATIENCE

from keras_googlenet.googlenet import GoogLeNet

pytestmark = pytest.mark.slow
FULL_WIDTH = True
FLAGS = ["--image-size", "65", "--epochs", "1", "--warmup-epochs", "0", "--seed", "7"]
FLAGS += ["--recipe", "small", "--deterministic", "--batch-size", "64"]  # of 192 images: 3 steps
LINKS = 8  # to each of the 24 images: in small batches the order of sums has never changed
BURNERS = 2


@pytest.fixture(scope="module")
def many_images(image_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    (folder / "val").symlink_to(image_folder / "val")
    for file in (image_folder / "train").glob("*/*"):
        link = folder / "train" / file.parent.name / file.name
        link.parent.mkdir(parents=True, exist_ok=True)
        for number in range(LINKS):
            link.with_stem(f"{file.stem}_{number}").symlink_to(file)
    return folder


@contextlib.contextmanager
def busy_cores():
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(BURNERS)]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


def train_at_once(count, devices, flags, folder):
    """Runs the same command in several processes; returns the arrays of each one's checkpoint."""
    environment = {key: text for key, text in os.environ.items() if not key.endswith("_THREADS")}
    processes = []
    for number in range(count):
        arguments = {
            "flags": [*map(str, flags), "--workdir", str(folder / f"run{number}")],
            "network": "whole",
            "devices": devices,
        }
        command = [sys.executable, training_process.__file__, json.dumps(arguments)]
        kept = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        processes.append(subprocess.Popen(command, env=environment, **kept))
    for process in processes:
        text, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, text
    files = [folder / f"run{number}" / "checkpoints/00001-00000000.npz" for number in range(count)]
    return [dict(np.load(file)) for file in files]


@pytest.mark.parametrize(
    ("variant", "precision", "devices", "count"),
    [
        ("paper", "float32", 1, 3),
        ("paper", "bfloat16", 1, 3),
        ("batchnorm", "float32", 1, 3),
        ("batchnorm", "bfloat16", 1, 3),
        ("paper", "bfloat16", 2, 2),
        ("batchnorm", "float32", 2, 2),
    ],
)
def test_processes_end_with_the_same_bits(
    variant, precision, devices, count, many_images, tmp_path
):
    flags = [*FLAGS, "--dataset", many_images, "--variant", variant, "--precision", precision]
    flags += ["--strategy", "mirrored" if devices > 1 else "none"]
    with busy_cores():
        found = train_at_once(count, devices, flags, tmp_path)
    weights = GoogLeNet(classes=3, input_shape=(65, 65, 3), variant=variant).weights
    for first, other in itertools.pairwise(found):
        assert first.keys() == other.keys() and len(first) > 2 * len(weights)
        different = [name for name in first if not np.array_equal(first[name], other[name])]
        assert not different, f"{len(different)} of {len(first)} differ: {different[:9]}"
