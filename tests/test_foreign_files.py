"""Files that hold no GoogLeNet: each is named as what it is, and the user told what to do."""

import functools
import gzip
import pathlib
import re
import shutil

import caffe_reference
import h5py
import numpy as np
import pytest
import tensorflow as tf
import thin_network
from PIL import Image

from keras_googlenet import GoogLeNet
from keras_googlenet.weights import sandbox

MOST = 400  # characters of a sentence, without the folder
PROTOTXT = b'name: "GoogleNet"\nlayer {\n  name: "data"\n  type: "Input"\n  top: "data"\n}\n'
PAGE = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body>Quota</body></html>\n"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 53533754\n"
# A ModelProto: version, producer, a graph of one node Relu from x to y, and the opset
ONNX = b"\x08\x08\x12\x07pytorch:\x11\n\x0c\n\x01x\x12\x01y\x22\x04Relu\x12\x01gB\x02\x10\x0d"
INDEX = b'{"weight_map": {"fc.weight": "model-00001-of-00002.safetensors"}}'


@functools.cache
def network():
    return GoogLeNet(classes=3, input_shape=(32, 32, 3), aux_heads=False)


def graph_of_another_network(path):
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, (None, 8), name="input")
        tf.matmul(x, tf.constant(np.ones((8, 3), "float32"), name="dense/kernel"), name="output")
    path.write_bytes(graph.as_graph_def().SerializeToString())


def saved_model(path):
    tf.saved_model.save(tf.train.Checkpoint(v=tf.Variable(1.0)), str(path))


def saved_model_pb(path):
    saved_model(path.with_name("exported"))
    (path.with_name("exported") / path.name).rename(path)


def keras_2(path):
    with h5py.File(path, "w") as file:
        file.attrs.update(keras_version="2.15.0", backend="tensorflow", model_config="{}")
        file["model_weights/dense/dense/kernel:0"] = np.ones((8, 3), "float32")


def safetensors(path):
    from safetensors.numpy import save_file

    arrays = {"layer1.0.conv1.weight": (64, 16, 3, 3), "head.weight": (10, 512)}
    save_file({name: np.ones(shape, "float32") for name, shape in arrays.items()}, path)


def alexnet(path):
    shapes = {"conv1": (96, 3, 11, 11), "fc8": (10, 4096)}
    caffe_reference.write_blobs(path, {n: [np.ones(s, "float32")] for n, s in shapes.items()})


def googlenet(path, new_name="inception_4c/3x3"):
    blobs = caffe_reference.random_blobs(classes=10, share=thin_network.SHARE)
    blobs[new_name] = blobs.pop("inception_4c/3x3")
    caffe_reference.write_blobs(path, blobs)


def archive(path, write=lambda path: path.write_text("nothing"), name="README.md"):
    folder = path.with_name("inside")
    folder.mkdir()
    write(folder / name)
    kind = "zip" if path.suffix == ".zip" else "gztar"
    shutil.make_archive(path.with_name(path.name.partition(".")[0]), kind, folder)


slow = pytest.mark.slow  # imports TensorFlow in a process of its own
FILES = [  # name, what it holds or what writes it, what the sentence says
    ("deploy.prototxt", PROTOTXT, r"prototxt.*\.caffemodel"),
    ("w.caffemodel", PAGE, "web page.*download"),
    ("w.pth", POINTER, "Git LFS.*git lfs pull"),
    ("w.onnx", ONNX, "ONNX"),
    pytest.param("g.pb", graph_of_another_network, r"dense/kernel.*8, 3\b", marks=slow),
    ("saved_model.pb", saved_model_pb, "SavedModel"),
    ("folder", saved_model, "SavedModel"),
    ("w.keras", lambda path: network().save(path), r"\.keras"),
    ("w.weights.h5", lambda path: network().save_weights(path), "weights="),
    ("w.h5", keras_2, "Keras"),
    ("w.tflite", b"\x1c\0\0\0TFL3" + bytes(200), "LiteRT|TensorFlow Lite"),
    ("w.pth", lambda path: Image.new("RGB", (8, 8)).save(path, "JPEG"), "JPEG|image"),
    ("w.index.json", INDEX, "JSON"),
    ("w.pth", b"", "is empty; download it again"),
    ("folder", lambda path: path.mkdir(), "holds no"),
    ("w.zip", archive, "holds no"),
    ("w.tar.gz", archive, "holds no"),
    ("w.safetensors", safetensors, r"layer1\.0\.conv1\.weight.*64, 16, 3, 3"),
    ("w.caffemodel", alexnet, r"conv1\S* .*96, 3, 11, 11"),
    ("w.caffemodel", lambda path: googlenet(path, "4c/3x3"), r"32, 16, 3, 3.*\b4c/3x3\b"),
    ("w.bin", bytes(100), "give a"),
]


def refusal(run_script, source):
    """What convert.py says of a file that it refuses, in one sentence."""
    output = source.with_name("made.keras")
    outcome = run_script("convert.py", source, output)
    assert outcome.status == 2 and outcome.out == "" and not output.exists()
    sentence = outcome.err.strip().replace(str(source.parent), "")
    assert len(sentence.splitlines()) == 1 and "Traceback" not in sentence
    assert len(sentence) < MOST, sentence
    return sentence


@pytest.mark.parametrize(("name", "content", "said"), FILES)
def test_a_file_of_something_else(name, content, said, run_script, tmp_path):
    path = tmp_path / name
    path.write_bytes(content) if isinstance(content, bytes) else content(path)
    sentence = refusal(run_script, path)
    assert name in sentence and re.search(said, sentence), sentence
    assert "damaged" not in sentence and "cut off" not in sentence


@pytest.mark.parametrize("share", [0.3, 0.99])
@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("w.caffemodel", googlenet),
        ("w.safetensors", safetensors),
        ("w.keras", lambda path: network().save(path)),
        ("w.h5", keras_2),
        ("w.tar.gz", lambda path: archive(path, googlenet, "w.caffemodel")),
    ],
)
def test_what_is_cut_off_is_called_so(name, write, share, run_script, tmp_path):
    write(tmp_path / name)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(share * len(content))])
    sentence = refusal(run_script, tmp_path / name)
    assert "damaged" in sentence or "cut off" in sentence, sentence


def packed(kind, weights, folder):
    """The same weights as people pass them on."""
    content = weights.read_bytes()
    if kind == "gzip of one file":
        (folder / "w.caffemodel.gz").write_bytes(gzip.compress(content))
        return folder / "w.caffemodel.gz"
    names = {
        "a Mac's zip": ("net/w.caffemodel", "__MACOSX/net/._w.caffemodel", ".DS_Store"),
        "DIGITS": ("snapshot.caffemodel", "deploy.prototxt", "labels.txt", "mean.binaryproto"),
        "upper case": ("W.CAFFEMODEL", "README.TXT"),
        "no suffix": ("deep/er/weights", "notes.md"),
    }[kind]
    for name in names:
        (folder / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "in" / name).write_bytes(content if name == names[0] else b"something else")
    return pathlib.Path(shutil.make_archive(folder / "packed", "zip", folder / "in"))


@pytest.mark.parametrize(
    "kind", ["gzip of one file", "a Mac's zip", "DIGITS", "upper case", "no suffix"]
)
def test_packed_weights(kind, tmp_path):
    blobs = caffe_reference.random_blobs(heads=1, share=thin_network.SHARE)
    caffe_reference.write_blobs(tmp_path / "w", blobs)
    path = packed(kind, tmp_path / "w", tmp_path)
    with sandbox.opened(path) as file:
        read = file.read(["loss3/classifier[0]"])["loss3/classifier[0]"]
    np.testing.assert_array_equal(read, blobs["loss3/classifier"][0])
