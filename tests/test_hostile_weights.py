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
from keras_googlenet.weight_files.arrays import check_shape
from keras_googlenet.weight_files.process import open_weights
from keras_googlenet.weights import convert, sandbox

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
    caffe_reference.write_blobs(tmp_path / "w", caffe_reference.random_blobs(classes=4000))
    sentences, own, _ = measure([tmp_path / "w"])
    assert sentences == [] and own < GIB


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_checkpoint_comes_out_of_a_tar_archive(format, tmp_path):
    slim_checkpoint.save({"InceptionV1/w": np.float32([1, 2])}, tmp_path / "a.ckpt")
    content = (tmp_path / "a.ckpt").read_bytes()
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz", format=format) as archive:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name in ("folder/readme", "folder/a.ckpt", "folder/last"):
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), 1.5  # a broken second becomes a header of PAX
            archive.addfile(info, io.BytesIO(content))
    (tmp_path / "out").mkdir()
    name, contents = open_weights(tmp_path / "a.tar.gz", tmp_path / "out")
    assert name == "TensorFlow checkpoint" and list(contents.arrays) == ["InceptionV1/w"]
    assert contents.read("InceptionV1/w").tolist() == [1, 2]


class Unmultiplied(int):
    """A side that must not be multiplied: with thousands of them it takes minutes."""

    def __mul__(self, other):
        raise AssertionError("multiplied before the rank was looked at")

    __rmul__ = __mul__


def test_dimensions_are_counted_before_they_are_multiplied():
    with pytest.raises(UserError, match=r"x says that its shape is \(1, .*, …\)"):
        check_shape("x", (Unmultiplied(1),) * 9, "<f4", 0)


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
    with pytest.raises(UserError, match="looks like a safetensors file, but is damaged or cut off"):
        open_weights(tmp_path / "w", tmp_path)


def test_variables_that_are_no_numbers_are_left_alone(tmp_path):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        made = [
            tf.compat.v1.get_variable(name, initializer=value, use_resource=False)
            for name, value in (("texts", np.array(["a", "b"])), ("b", np.float32([1, 2])))
        ]
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.train.Saver(made).save(session, str(tmp_path / "a"), write_meta_graph=False)
    _, contents = open_weights(tmp_path / "a", tmp_path)
    assert list(contents.arrays) == ["b"] and contents.read("b").tolist() == [1, 2]


TAKE = """
import json
from keras_googlenet.weight_files.process import bound_memory
def takes(size):
    try:
        return len(bytearray(size)) == size
    except MemoryError:
        return False
answers = []
for most in (128 * 2**20, None):
    bound_memory(most)
    answers += [takes(64 * 2**20), takes(256 * 2**20)]
print(json.dumps(answers))
"""


@needs_linux
def test_memory_has_a_bound():
    command = [sys.executable, "-P", "-c", TAKE]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert json.loads(done.stdout) == [True, False, True, True], done.stderr


def test_time_has_a_bound(tmp_path, monkeypatch):
    caffe_reference.write_blobs(tmp_path / "w", {"x": [np.ones(2, "float32")]})
    monkeypatch.setattr(sandbox, "MOST_SECONDS", 0.01)  # a process takes longer to start
    with pytest.raises(UserError, match="reading it took over 0.01 s"):
        convert(tmp_path / "w")


def test_input_sizes_before_the_layers_are_legal(tmp_path):
    # As caffe.proto orders the fields of a deployed network: name, input, input_dim, …, layer
    caffe_reference.write_blobs(tmp_path / "w", {"x": [np.ones(2, "float32")]})
    content = (tmp_path / "w").read_bytes()
    name, layers = content[:11], content[11:]
    assert name == b"\x0a\x09GoogleNet" and layers[:2] == hostile_weights.LAYER
    sizes = b"\x1a\x04data" + b"\x20\x01\x20\x03\x20\xe0\x01\x20\xe0\x01" + b"\x28\x01"
    for start in (name, b""):
        (tmp_path / "w").write_bytes(start + sizes + layers)
        with pytest.raises(UserError, match=r"x\[0\] .* and none by a name of Caffe's GoogLeNet"):
            convert(tmp_path / "w")
