"""convert.py as a user types it, on good files and on bad ones."""

import io
import os
import tarfile

import caffe_reference
import numpy as np
import pytest
import small_weights
import thin_network

from keras_googlenet.errors import UserError
from keras_googlenet.weights import convert


@pytest.fixture(scope="module")
def blobs():
    return caffe_reference.random_blobs(heads=3, share=thin_network.SHARE)


@pytest.fixture(scope="module")
def caffe_file(blobs, tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "weights.caffemodel"
    caffe_reference.write_blobs(path, blobs)
    return path


def test_the_account_of_a_conversion(blobs, caffe_file, run_script, image_folder, tmp_path):
    photo = image_folder / "val" / "star" / "0.jpg"
    output = tmp_path / "made" / "googlenet.keras"
    outcome = run_script("convert.py", caffe_file, output, "--verify", photo)
    assert outcome.status == 0, outcome.err
    lines = outcome.out.splitlines()
    parameters = sum(array.size for arrays in blobs.values() for array in arrays)
    assert lines[0] == (
        f"Caffe model of Caffe's GoogLeNet: variant paper, 1000 classes, {parameters:,} parameters"
    )
    assert sum("loss1/fc[0]" in line and "256x128" in line for line in lines) == 1
    kernel = caffe_reference.read_blobs(caffe_file)["conv1/7x7_s2"][0]
    row = next(line for line in lines if "conv1/7x7_s2[0]" in line)
    assert float(row.split()[-1]) == pytest.approx(np.sqrt((kernel**2).sum()), abs=1e-3)
    assert "absent: nothing" in lines and "unused: nothing" in lines
    assert any("no published file" in line for line in lines) and "BVLC" not in outcome.out
    assert max(map(len, lines)) <= 100
    assert sum(line.endswith("%") or "%  " in line for line in lines) == 5
    assert lines[-1] == str(output)
    labels = (tmp_path / "made" / "googlenet.labels.txt").read_text().splitlines()
    assert len(labels) == 1000 and labels[281] == "n02123045 tabby"
    again = run_script("predict.py", output, photo, "--top", 5)
    assert again.status == 0
    assert [line for line in lines if "%  " in line] == again.out.splitlines()[1:]


def test_extra_layers_are_named_and_left(blobs, tmp_path):
    from keras_googlenet.weights.conversion import convert_file

    more = blobs | {"extra/layer": [np.ones((2, 2), "float32")]}
    caffe_reference.write_blobs(tmp_path / "more", more)
    assert convert_file(tmp_path / "more").unused == ["extra/layer[0]"]


def changed(blobs, tmp_path, **changes):
    path = tmp_path / "changed.caffemodel"
    kept = {name: arrays for name, arrays in blobs.items() if changes.get(name, 1) is not None}
    caffe_reference.write_blobs(path, kept | {n: a for n, a in changes.items() if a is not None})
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"inception_4c/3x3": None},
            r"inception_4c/3x3\[0\] \(32, 16, 3, 3\) is missing, which layer inception_4c",
        ),
        ({"loss3/classifier": None}, "no classifier: no matrix of 128 inputs, as loss3"),
        (
            {"conv2/3x3": [np.zeros((24, 8, 5, 5), "f"), np.zeros(24, "f")]},
            r"conv2/3x3\[0\] has the shape \(24, 8, 5, 5\); layer conv2_3x3 needs \(24, 8, 3",
        ),
        (
            {"conv2/3x3": [np.full((24, 8, 3, 3), np.nan, "f"), np.zeros(24, "f")]},
            r"conv2/3x3\[0\] holds NaN or infinity",
        ),
        ({"loss3/classifier": [np.zeros((0, 128), "f")]}, "has 0 outputs"),
    ],
)
def test_what_does_not_fit_is_named(changes, message, blobs, tmp_path):
    with pytest.raises(UserError, match=message):
        convert(changed(blobs, tmp_path, **changes))


def test_another_variant_than_expected(caffe_file):
    with pytest.raises(UserError, match="holds the variant paper, not google"):
        convert(caffe_file, "google")


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.3, 0.999])
def test_cut_off_files(share, caffe_file, run_script, tmp_path):
    content = caffe_file.read_bytes()
    (tmp_path / "cut").write_bytes(content[: int(share * len(content))])
    outcome = run_script("convert.py", tmp_path / "cut", tmp_path / "out.keras")
    assert outcome.status == 2 and outcome.out == ""
    assert len(outcome.err.strip().splitlines()) == 1 and "Traceback" not in outcome.err
    assert "cut off" in outcome.err or "empty" in outcome.err
    assert [path.name for path in tmp_path.iterdir()] == ["cut"], "no output, no temporary file"


@pytest.mark.parametrize(
    "content",
    [b"\x00" * 100, b"hello\n" * 50, b"PK\x05\x06" + bytes(18)],
    ids=["zeros", "text", "empty zip"],
)
def test_files_of_something_else(content, run_script, tmp_path):
    (tmp_path / "weights.caffemodel").write_bytes(content)
    outcome = run_script("convert.py", tmp_path / "weights.caffemodel", tmp_path / "out.keras")
    assert outcome.status == 2 and "holds no weights that are known here" in outcome.err


def test_mistakes_in_the_command(run_script, caffe_file, tmp_path):
    for arguments, sentence in (
        ([tmp_path / "nowhere", "out.keras"], "there is no such file"),
        ([tmp_path, "out.keras"], "holds no files of weights"),
        ([caffe_file, "out.h5"], "OUTPUT must end in .keras"),
        ([caffe_file, "out.keras", "--verify", "nowhere.jpg"], "nowhere.jpg"),
        ([caffe_file, "out.keras", "--variant", "slim"], "not slim"),
        ([caffe_file, "out.keras", "--labels", "nowhere.txt"], "cannot read nowhere.txt"),
        ([caffe_file, "out.keras", "--classifier", "fc8"], "no classifier is called fc8"),
    ):
        outcome = run_script("convert.py", *arguments)
        assert outcome.status == 2 and sentence in outcome.err and outcome.out == ""


def test_a_full_disk_leaves_nothing_behind(caffe_file, run_script, tmp_path, monkeypatch):
    import keras

    def full(self, path, *arguments, **keywords):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(keras.Model, "save", full)
    outcome = run_script("convert.py", caffe_file, tmp_path / "out.keras")
    assert outcome.status == 2 and "No space left on device" in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_that_ends_tensorflow_is_one_sentence(run_script, tmp_path):
    # With right checksums TensorFlow's reader trusts the index, and aborts on what it holds.
    small_weights.slim(tmp_path / "a.ckpt", old_form=False)
    index = tmp_path / "a.ckpt.index"
    index.write_bytes(small_weights.broken_but_sealed(index.read_bytes()))
    outcome = run_script("convert.py", tmp_path / "a.ckpt", tmp_path / "out.keras")
    assert outcome.status == 2 and "Check failed: entry.ParseFromString" in outcome.err
    assert not (tmp_path / "out.keras").exists()


def test_tar_members_are_written_inside_only(tmp_path, read_in_this_process):
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name in ("../../escaped.ckpt", "/tmp/escaped.ckpt"):
            info = tarfile.TarInfo(name)
            info.size = 4
            tar.addfile(info, io.BytesIO(b"data"))
    (tmp_path / "in").mkdir()
    source = tmp_path / "in" / "download"
    source.write_bytes(archive.getvalue())
    before = os.listdir(tmp_path)
    with pytest.raises(UserError, match="damaged"):
        convert(source)
    assert os.listdir(tmp_path) == before and not os.path.exists("/tmp/escaped.ckpt")
