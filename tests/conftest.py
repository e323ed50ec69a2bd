"""What several test files share; everything is small, and made once a session."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if "PYTEST_XDIST_WORKER" in os.environ:  # one thread for each worker, not one for each core
    for pool in ("TF_NUM_INTRAOP", "TF_NUM_INTEROP", "OMP_NUM", "OPENBLAS_NUM"):
        os.environ.setdefault(f"{pool}_THREADS", "1")

import contextlib
import functools
import gc
import importlib.util
import io
import json
import random
import runpy
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
CLASSES = ("cross", "ring", "star")
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is read as on Linux")
SERVED_LABELS = ["n02123045 tabby", "ring", "star", "cross"]


# Files whose tests share a costly fixture: one process runs them, as it does those of any file.
GROUPS = {
    "finished_run": ("test_report.py", "test_scripts.py"),
    "serving_folder": ("test_loader.py", "test_serving_client.py", "test_serving_robustness.py"),
}
# The tests of these share nothing. They come last, one by one, so that both workers end together.
LOOSE = {"test_loop.py"}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Hands tests out by group, by file, or one by one; the largest lots first."""
    from xdist.scheduler import LoadScopeScheduling

    group_of = {name: group for group, names in GROUPS.items() for name in names}

    class ByLot(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            name = Path(nodeid.partition("::")[0]).name
            return nodeid if name in LOOSE else group_of.get(name, name)

    return ByLot(config, log)


def pytest_runtest_setup(item):
    """The same initial weights in every run; skips a test of a peer that is not installed."""
    random.seed(0)  # Keras draws its seeds here
    for mark in item.iter_markers("peers"):
        for package in mark.args:
            if importlib.util.find_spec(package) is None:
                pytest.skip(f"{package} is not installed: see requirements-bench.txt, -serving.txt")


@pytest.fixture(scope="module", autouse=True)
def filters(request):
    """Networks of few filters, unless a module says that it needs the whole ones."""
    import thin_network  # and with it TensorFlow: in the workers, not before they start

    if getattr(request.module, "FULL_WIDTH", False):
        yield
    else:
        with thin_network.installed():
            yield


class Outcome(NamedTuple):
    """What a script did: exit status, standard output, standard error."""

    status: int
    out: str
    err: str


@pytest.fixture
def read_in_this_process(monkeypatch):
    """The readers of weights in this process: the one of their own takes seconds for TensorFlow."""
    from keras_googlenet.weight_files.arrays import as_float32
    from keras_googlenet.weight_files.process import one_error, open_weights
    from keras_googlenet.weights import sandbox

    @contextlib.contextmanager
    def opened(path):
        with tempfile.TemporaryDirectory() as folder:
            name, contents = open_weights(path, Path(folder))

            def read(names):
                with one_error(name):
                    return {found: as_float32(contents.read(found)) for found in names}

            try:
                yield sandbox.WeightFile(name, contents.arrays, contents.facts, read)
            finally:
                contents = None
                gc.collect(1)  # HDF5 would answer for the next file of this name from this one

    monkeypatch.setattr(sandbox, "opened", opened)


@pytest.fixture(scope="module")
def untrained_network(tmp_path_factory):
    """An untrained network, read once: what is drawn does not depend on what it has learned."""
    import keras

    from keras_googlenet import labels, models
    from keras_googlenet.googlenet import GoogLeNet

    file = tmp_path_factory.mktemp("network") / "network.keras"
    keras.utils.set_random_seed(4)
    GoogLeNet(classes=3, input_shape=(65, 65, 3)).save(file)
    labels.write_labels(labels.labels_path(file), CLASSES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "load", functools.cache(models.load))
        yield file


@pytest.fixture(scope="session")
def run_script():
    """Runs a script of the project in this process, as its command line would."""

    def run(name, *arguments):
        out, err, argv = io.StringIO(), io.StringIO(), sys.argv
        sys.argv = [name, *map(str, arguments)]
        status = 0
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                runpy.run_path(str(ROOT / name), run_name="__main__")
        except SystemExit as stop:
            status = stop.code or 0
        finally:
            sys.argv = argv
        return Outcome(status, out.getvalue(), err.getvalue())

    return run


@pytest.fixture(scope="session")
def photographs():
    """Four pictures of 96 pixels with edges, colors and textures, float32 RGB in [0, 255]."""
    from keras_googlenet.data import shapes

    drawn = [shapes.draw(name, np.random.default_rng(7))[0] for name in shapes.CLASSES[:4]]
    return np.stack([np.asarray(image.resize((96, 96)), "float32") for image in drawn])


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory):
    """A data set in folders: three classes, 8 training and 3 validation images of each."""
    from keras_googlenet.data import shapes

    root = tmp_path_factory.mktemp("pictures")
    for split, count in (("train", 8), ("val", 3)):
        for name in CLASSES:
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                generator = np.random.default_rng([len(split), index])
                image, _ = shapes.draw(name, generator)
                image.save(root / split / name / f"{index}.jpg")
    return root


@pytest.fixture(scope="session")
def miniature_imagenet(tmp_path_factory):
    """A data folder in which imagenet2012 can be prepared from archives of a few images."""
    import imagenet_archives

    root = tmp_path_factory.mktemp("imagenet")
    imagenet_archives.write(root / "downloads" / "manual")
    return root


@pytest.fixture(scope="session")
def finished_run(run_script, image_folder, tmp_path_factory):
    """A run directory after two short epochs on `image_folder`, and what train.py printed."""
    import thin_network

    workdir = tmp_path_factory.mktemp("runs") / "pictures"
    with thin_network.installed():
        outcome = run_script("train.py", *small_run(image_folder, workdir))
    assert outcome.status == 0, outcome.err
    return workdir, outcome


@pytest.fixture(scope="session")
def serving_folder(tmp_path_factory):
    """What export.py leaves after two exports of different networks, and the two networks."""
    import keras
    import thin_network

    from keras_googlenet import exporting
    from keras_googlenet.exporting import serving_files
    from keras_googlenet.googlenet import GoogLeNet

    folder = tmp_path_factory.mktemp("serving") / "googlenet"
    networks = []
    for seed in (1, 2):
        keras.utils.set_random_seed(seed)
        with thin_network.installed():
            networks.append(GoogLeNet(classes=4, input_shape=(65, 65, 3), aux_heads=False))
            exporting.export_saved_model(networks[-1], folder, SERVED_LABELS)
    serving_files.write_serving_files(folder, batching=True)
    return folder, networks


@contextlib.contextmanager
def dtype_policy(name):
    """Keras' policy for the time of a block, after which the one before it is put back."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def small_run(dataset, workdir, epochs=2):
    """Flags of a run that takes seconds."""
    flags = ["--dataset", dataset, "--workdir", workdir, "--epochs", epochs, "--recipe", "small"]
    return [*flags, "--image-size", 65, "--batch-size", 8]


def read_json(path):
    return json.loads(Path(path).read_text())
