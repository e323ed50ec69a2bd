"""Files that ask for more than they hold: a sentence, and memory, disk and time within bounds."""

import io
import json
import os
import struct
import subprocess
import sys
import tarfile

import caffe_reference
import hostile_weights
import numpy as np
import pytest
import slim_checkpoint
import tensorflow as tf
from conftest import ROOT, needs_linux

from keras_googlenet.errors import UserError
from keras_googlenet.weights import archives, convert, torchvision
from keras_googlenet.weights.checkpoint_process import read_variables
from keras_googlenet.weights.sources import MOST_BYTES, as_array

FULL_WIDTH = True
GIB = 2**30

MEASURE = """
import re, resource, sys
from pathlib import Path
from keras_googlenet.errors import UserError
from keras_googlenet.weights import convert
for path in sys.argv[1:]:
    try:
        convert(path)
    except UserError as error:
        print(str(error).replace(chr(10), " "))
own = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(own * 1024, children * 1024)
"""


def measure(files):
    """What `convert` says of each file, and the most memory of it and of its children, in bytes."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *map(str, files)], cwd=ROOT, capture_output=True, text=True
    )
    *sentences, memory = done.stdout.splitlines()
    own, children = map(int, memory.split())
    print("greatest memory", own / 2**20, "MiB, and of a child", children / 2**20, "MiB")
    return sentences, own, children


@needs_linux
@pytest.mark.slow
def test_hostile_files_stay_below_one_gib(tmp_path):
    wanted = hostile_weights.write_all(tmp_path)
    files = [tmp_path / name for name in wanted]
    sentences, own, children = measure(files)
    for sentence, file, part in zip(sentences, files, wanted.values(), strict=True):
        assert str(file) in sentence and part in sentence
    assert own < GIB and 0 < children < GIB


@needs_linux
@pytest.mark.slow
def test_the_largest_file_that_is_taken_stays_below_one_gib(tmp_path):
    caffe_reference.write_blobs(tmp_path / "w", caffe_reference.random_blobs(classes=2000))
    sentences, own, _ = measure([tmp_path / "w"])
    assert sentences == [] and own < GIB


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_of_a_tar_archive_come_out_as_they_went_in(format, tmp_path):
    content = np.random.default_rng(0).bytes(1500)
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz", format=format) as archive:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name in ("folder/readme", "folder/a.ckpt", "folder/last"):
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), 1.5  # a broken second becomes a header of PAX
            archive.addfile(info, io.BytesIO(content))
    (tmp_path / "out").mkdir()
    made = archives.unpack_checkpoint(tmp_path / "a.tar.gz", tmp_path / "out")
    assert made == tmp_path / "out" / "a.ckpt" and made.read_bytes() == content
    assert list((tmp_path / "out").iterdir()) == [made]


class Unmultiplied(int):
    """A side that must not be multiplied: with thousands of them it takes minutes."""

    def __mul__(self, other):
        raise AssertionError("multiplied before the rank was looked at")

    __rmul__ = __mul__


def test_dimensions_are_counted_before_they_are_multiplied():
    with pytest.raises(UserError, match=r"x says that its shape is \(1, .*, …\)"):
        as_array(b"", "<f4", (Unmultiplied(1),) * 9, "x")


@pytest.mark.parametrize(
    "entry",
    [
        '{"dtype": "F32", "shape": [1e999], "data_offsets": [0, 4]}',
        '{"dtype": "F32", "shape": [1], "data_offsets": [0, 1e999]}',
        '{"dtype": "F32", "shape": [1], "data_offsets": ["0", 4]}',
        '{"dtype": [], "shape": [1], "data_offsets": [0, 4]}',
        "[]",
    ],
)
def test_a_header_of_nonsense(entry, tmp_path):
    header = b'{"x": ' + entry.encode() + b"}"
    (tmp_path / "w").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with pytest.raises(UserError, match="the entry x in its header is damaged"):
        torchvision.read(tmp_path / "w")


def test_variables_that_are_no_numbers_are_left_alone(tmp_path):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        made = [
            tf.compat.v1.get_variable(name, initializer=value, use_resource=False)
            for name, value in (("texts", np.array(["a", "b"])), ("b", np.float32([1, 2])))
        ]
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.train.Saver(made).save(session, str(tmp_path / "a"), write_meta_graph=False)
    variables = read_variables(tmp_path / "a", MOST_BYTES)
    assert list(variables) == ["b"] and variables["b"].tolist() == [1, 2]


def test_variables_that_take_too_much_are_refused_before_they_are_read(tmp_path):
    slim_checkpoint.save({"w": np.zeros(2**19, "float32")}, tmp_path / "a", old_form=False)
    assert read_variables(tmp_path / "a", 2 * 2**20)["w"].shape == (2**19,)
    with pytest.raises(UserError, match="its variables take more than 1 MiB"):
        read_variables(tmp_path / "a", 2**20)


TAKE = """
import json
from checkpoint_process import _limit_memory  # as the script alone, without Keras
_limit_memory(128 * 2**20)
def takes(size):
    try:
        return len(bytearray(size)) == size
    except MemoryError:
        return False
print(json.dumps([takes(64 * 2**20), takes(256 * 2**20)]))
"""


@needs_linux
def test_memory_has_a_bound():
    paths = os.pathsep.join((str(ROOT), str(ROOT / "keras_googlenet" / "weights")))
    environment = os.environ | {"PYTHONPATH": paths}
    command = [sys.executable, "-P", "-c", TAKE]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert json.loads(done.stdout) == [True, False], done.stderr


def test_input_sizes_before_the_layers_are_legal(tmp_path):
    # As caffe.proto orders the fields of a deployed network: name, input, input_dim, …, layer
    caffe_reference.write_blobs(tmp_path / "w", {"x": [np.ones(2, "float32")]})
    content = (tmp_path / "w").read_bytes()
    name, layers = content[:11], content[11:]
    assert name == b"\x0a\x09GoogleNet" and layers[:2] == hostile_weights.LAYER
    sizes = b"\x1a\x04data" + b"\x20\x01\x20\x03\x20\xe0\x01\x20\xe0\x01" + b"\x28\x01"
    for start in (name, b""):
        (tmp_path / "w").write_bytes(start + sizes + layers)
        with pytest.raises(UserError, match="taken for a Caffe model: .* the classifier"):
            convert(tmp_path / "w")
