"""One image file as a person means it, and the reasons of what is refused."""

import struct
import types

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from saved_images import (
    BIG,
    JPEG_TOLERANCE,
    PICTURE,
    PIXELS,
    SENT_TOLERANCE,
    by_pillow,
    content_of,
    patched,
    save,
)

from keras_googlenet.data import file_kinds, image_files, preprocessing
from keras_googlenet.errors import UserError

PNG, JPEG, TIFF = content_of("PNG"), content_of("JPEG"), content_of("TIFF")
UNREADABLE = {  # name -> content, reason
    "empty.jpg": (b"", "(the file is empty)"),
    "text.jpg": (b"no image", "(it is text, not an image)"),
    "page.jpg": (b"\n<!DOCTYPE html><html>", "(it is an HTML page, not an image)"),
    "error.png": (b'{"error": "not found"}', "(it is JSON text, not an image)"),
    "lfs.png": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        "(it is a Git LFS pointer; run git lfs pull)",
    ),
    "paper.png": (content_of("PDF"), "(it is a PDF file)"),
    "sound.webp": (b"RIFF\x24\0\0\0WAVEfmt ", "(it is a WAV file)"),
    "film.jpg": (struct.pack(">I", 16) + b"ftypisom\0\0\0\0", "(it is a video)"),
    "zeros.jpg": (bytes(999), "(it is zeros only, as an unfinished copy leaves them)"),
    "bytes.jpg": (b"\x07\xfe" * 99, "(it is not an image)"),
    "cut.jpg": (JPEG[:-100], "(it is cut off or damaged)"),
    "start.jpg": (JPEG[:20], "(it is cut off or damaged)"),
    "cut.png": (PNG[:-100], "(it is cut off or damaged)"),
    "cut.gif": (content_of("GIF")[:-50], "(it is cut off or damaged)"),
    "cut.bmp": (content_of("BMP")[:300], "(it is cut off or damaged)"),
    "cut.webp": (content_of("WEBP")[:-9], "(the WebP is cut off)"),
    "cut.tif": (TIFF[:-9], "(it is TIFF, cut off or damaged)"),
    "big.png": (patched(PNG, 16, ">II", *BIG), "(the image declares more than 64 megapixels)"),
    "long.png": (patched(PNG, 16, ">II", 1, 101), "more than 100 times as long as wide)"),
    "palette.bmp": (
        content_of("BMP", PICTURE.convert("P")),
        "(the BMP has a palette of colors; save it as RGB)",
    ),
    "real.tif": (content_of("TIFF", PICTURE.convert("F")), "its pixels are 32-bit numbers"),
    "raw.nef": (TIFF, "(it is camera raw); convert it with `magick mogrify"),
    "drawing.svg": (b'<svg xmlns="x"></svg>', "(it is SVG); convert it with `magick mogrify"),
    "codestream.jxl": (b"\xff\x0a" + bytes(50), "(it is JPEG XL); convert it with `magick"),
}


@pytest.mark.parametrize("name", UNREADABLE)
@pytest.mark.filterwarnings("error")
def test_a_file_is_refused_with_the_reason(name, tmp_path):
    content, reason = UNREADABLE[name]
    (tmp_path / name).write_bytes(content)
    for read in (image_files.read_image, lambda path: image_files.read_upright(path, {})):
        with pytest.raises(UserError) as caught:
            read(tmp_path / name)
        sentence = str(caught.value)
        assert sentence.startswith(f"{tmp_path / name} cannot be read (") and reason in sentence
        assert "\n" not in sentence and "{{" not in sentence and sentence.endswith(".")


def test_what_the_system_refuses(tmp_path):
    reasons = {"missing.jpg": "there is no such file", ".": "it is a folder"}
    for name, reason in reasons.items():
        with pytest.raises(UserError, match=f"cannot be read .{reason}.; give another file"):
            image_files.read_image(tmp_path / name)
    assert image_files.reason_of(PermissionError(13, "Permission denied")) == "permission denied"
    unknown = tf.errors.UnknownError(None, None, "{{function_node a}} disk\nfailed. [Op:ReadFile]")
    assert image_files.reason_of(unknown) == "disk failed"
    with pytest.raises(tf.errors.OpError) as caught:
        tf.io.read_file(str(tmp_path / "missing.jpg"))
    assert image_files.reason_of(caught.value) == "there is no such file"


@pytest.mark.parametrize("name", ["empty.jpg", "page.jpg", "cut.jpg", "cut.webp", "big.png"])
def test_a_pipeline_gives_the_same_reasons(name):
    """Its errors carry the names of nodes, and it may know the first bytes alone."""
    content, reason = UNREADABLE[name]
    images = tf.data.Dataset.from_tensors(content).map(preprocessing.decode)
    with pytest.raises(tf.errors.OpError) as caught:
        next(iter(images))
    found = image_files.reason_of(caught.value, content[: file_kinds.FIRST_BYTES])
    assert found == reason.strip("()")
    if name == "page.jpg":
        unknown = "it is not a JPEG, PNG, GIF, BMP or WebP"
        assert image_files.reason_of(caught.value) == unknown


def test_what_stands_in_a_file_of_another_name(tmp_path):
    (tmp_path / "a.jpg").write_bytes(TIFF)
    np.testing.assert_array_equal(image_files.read_image(tmp_path / "a.jpg"), np.asarray(PICTURE))
    text = "assertion failed: [the image is not a JPEG]"
    error = tf.errors.InvalidArgumentError(None, None, text)
    assert image_files.reason_of(error, TIFF[:256]) == "it is TIFF"


def test_view_batches_go_on_after_a_bad_file(tmp_path):
    good = [save(tmp_path / "a.webp", lossless=True), save(tmp_path / "b.png", orientation=6)]
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no image")
    for turned in (None, {}):
        errors, files = [], [good[0], str(bad), good[1]]
        batches = list(image_files.image_batches(files, 32, errors, batch_size=2, turned=turned))
        assert [batch.files for batch in batches] == [[good[0]], [good[1]]]
        assert len(errors) == 1 and f"{bad} cannot be read (it is text" in str(errors[0])
        for file, batch in zip(good, batches, strict=True):
            crop = preprocessing.evaluation_crop(by_pillow(file, upright=turned is not None), 32)
            np.testing.assert_array_equal(batch.images, crop[None])
    assert turned == {good[1]: 6}


@pytest.fixture
def network(monkeypatch):
    """Stands for a network, local or served, and keeps what it is shown."""
    from keras_googlenet import labels, models, serving_client
    from keras_googlenet.explaining import figures

    shown = []

    def classify_image(loaded, file, image):
        shown.append(image.numpy())
        raise UserError("seen.")

    def predict(images):
        shown.extend(images)
        return np.tile([0.75, 0.25], (len(images), 1))

    def classify(content):
        shown.append(preprocessing.decode(tf.constant(content)).numpy())
        return [labels.Prediction(None, "", "a", 1.0)]

    loaded = types.SimpleNamespace(
        image_size=32, labels=["a", "b"], predict=predict, model=None, close=None
    )
    monkeypatch.setattr(models, "load", lambda *_: loaded)
    monkeypatch.setattr(serving_client, "connect", lambda model: classify)
    monkeypatch.setattr(figures, "classify", classify_image)
    return shown


@pytest.mark.parametrize("suffix", ["jpg", "webp", "tif"])
def test_the_scripts_turn_a_photograph_upright_and_say_so(suffix, network, run_script, tmp_path):
    smooth = Image.fromarray(PIXELS).resize((80, 60), Image.BICUBIC)
    path = save(tmp_path / f"a.{suffix}", smooth, orientation=6)
    expected = by_pillow(path).astype(int)
    line = f"{path} is turned upright, by its EXIF orientation 6"
    outcome = run_script("predict.py", "model.keras", path)
    assert outcome.status == 0 and outcome.err.splitlines() == [line]
    crop = preprocessing.evaluation_crop(expected, 32)
    np.testing.assert_allclose(network.pop(), crop, atol=JPEG_TOLERANCE)
    assert line in run_script("explain.py", "model.keras", path).err.splitlines()
    np.testing.assert_allclose(network.pop().astype(int), expected, atol=JPEG_TOLERANCE)
    outcome = run_script("predict.py", "--server", "http://localhost:1", path)
    assert outcome.status == 0 and outcome.err.splitlines() == [line]
    assert np.abs(network.pop().astype(int) - expected).mean() < SENT_TOLERANCE
