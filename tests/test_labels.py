import codecs
import hashlib
from pathlib import Path

import pytest
import tensorflow_datasets as tfds

from keras_googlenet.errors import UserError
from keras_googlenet.exporting.formats import FORMATS
from keras_googlenet.labels import (
    MODEL_SUFFIXES,
    default_labels,
    find_class,
    google_labels,
    imagenet_columns,
    imagenet_labels,
    read_labels,
    read_text,
    replacing_with_labels,
    split_label,
    write_labels,
)


def test_classes_are_in_the_order_of_tensorflow_datasets():
    folder = Path(tfds.__file__).parent / "datasets" / "imagenet2012"
    wnids = (folder / "labels.txt").read_text().split()
    assert [split_label(label)[0] for label in imagenet_labels()] == wnids
    assert wnids == sorted(wnids)
    names = [split_label(label)[1] for label in imagenet_labels()]
    assert len(set(names)) == 1000
    # spot checks against ILSVRC 2012's own numbering
    known = {0: "tench", 1: "goldfish", 281: "tabby", 309: "bee", 310: "ant", 999: "toilet tissue"}
    assert {index: names[index] for index in known} == known


@pytest.mark.parametrize(
    ("classes", "index", "label"),
    [
        (1000, 281, "n02123045 tabby"),
        (1001, 282, "n02123045 tabby"),
        (1008, 174, "n02123045 tabby"),
        (7, 6, "class_6"),
    ],
)
def test_default_labels(classes, index, label):
    labels = default_labels(classes)
    assert len(labels) == classes
    assert labels[index] == label


def test_googles_order_is_googles_file():
    # Its own file gives names only, two of them twice; four are longer or shorter than ours.
    names = [split_label(label)[1] for label in google_labels()[:1001]]
    theirs = {
        "crane bird": "crane",
        "cannon": "cannon [ground]",
        "teddy": "teddy bear",
        "maillot tank suit": "maillot",
    }
    text = "\n".join(theirs.get(name, name) for name in names)
    digest = "da2a31ecfe9f212ae8dd07379b11a74cb2d7a110eba12c5fc8c862a65b8e6606"  # of the published
    assert hashlib.sha256(text.encode()).hexdigest() == digest
    # ILSVRC's numbering (map_clsloc.txt of its kit) tells the two that share a name apart
    numbers = {"n02012849": 429, "n03126707": 545, "n03710637": 782, "n03710721": 977}
    for wnid, number in numbers.items():
        assert google_labels()[number].startswith(wnid)


@pytest.mark.parametrize("classes", [1000, 1001, 1008])
def test_columns_of_the_classes(classes):
    labels, columns = default_labels(classes), imagenet_columns(classes)
    assert [labels[column] for column in columns] == list(imagenet_labels())


def test_classes_are_found_by_what_people_call_them():
    labels = ["n01440764 tench", "n02124075 Egyptian cat", "n02123394 Persian cat", "7"]
    for text in ("Egyptian cat", "egyptian_cat", " EGYPTIAN  cat", "n02124075", "1"):
        assert find_class(text, labels) == 1
    assert find_class("n02124075 Egyptian cat", labels) == 1
    assert find_class("7", labels) == 3  # a name wins over an index
    for text in ("caf\u00e9", "CAFE\u0301"):  # accents composed and not
        assert find_class(text, ["tea", "Cafe\u0301", "Caf\u00e9 au lait"]) == 1
    assert find_class("crane", ["crab", "crane", "ox", "crane"]) == 1  # the first of two
    with pytest.raises(UserError, match="'cat' among the 4; the nearest are Egyptian cat, Persian"):
        find_class("cat", labels)
    with pytest.raises(UserError, match="the first is n01440764 tench"):
        find_class("99", labels)


WORDS = "n02123045 tabby\ncafé — “noir”\n一二三\n"


@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "utf-8-sig", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"],
)
@pytest.mark.parametrize("marked", [True, False])
@pytest.mark.parametrize(
    "text", [WORDS, "0\n1\n2\n", "一\n", "一一一\n", "é\n" * 9, "中文字词语句\n" * 3, "7", ""]
)
def test_text_of_a_user_in_unicode(tmp_path, encoding, marked, text):
    file = tmp_path / "text"
    file.write_bytes(("\ufeff" * marked + text).encode(encoding))
    assert read_text(file) == text


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"caf\xe9\r\n", "café\r\n"),
        (b"\x93caf\xe9\x94 \x80", "“café” €"),  # Windows-1252
        (b"\x81\xe9", "\x81é"),  # what it leaves free is Latin-1
        (bytes(range(1, 256)), bytes(range(1, 256)).decode("latin-1")),
        (codecs.BOM_UTF8 + b"a\n" + codecs.BOM_UTF8 + b"b\n", "a\nb\n"),  # two files joined
        (codecs.BOM_UTF16_LE + b"a\0\n", "a\ufffd"),  # cut off
        (b"tabby cat\0\n", "tabby cat\0\n"),  # one NUL makes no UTF-16
    ],
)
def test_text_of_a_user_in_bytes(tmp_path, content, text):
    (tmp_path / "text").write_bytes(content)
    assert read_text(tmp_path / "text") == text


def test_text_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .* \(Is a directory\); give"):
        read_text(tmp_path)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\r\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
def test_labels_keep_their_numbers(tmp_path, end, encoding):
    lines = ["n02219486\tant ", "", "  two words", "a\u2028b\x0bc\x0cd\x1ce\x85f", "", " ", ""]
    (tmp_path / "labels.txt").write_bytes(end.join(lines).encode(encoding))
    expected = ["n02219486 ant", "", "two words", "a\u2028b\x0bc\x0cd\x1ce\x85f"]
    assert read_labels(tmp_path / "labels.txt") == expected


def test_labels_of_a_line_each_are_written_and_read(tmp_path):
    file = tmp_path / "labels.txt"
    labels = ["n02219486 ant", "", "a\u2028b\x85c", "caf\u00e9", "cafe\u0301"]
    write_labels(file, labels)
    assert file.read_bytes() == "".join(f"{label}\n" for label in labels).encode()
    assert read_labels(file) == labels


def test_labels_that_break_lines_stay_one_line_each(tmp_path):
    """Names of folders may hold all of that on Linux."""
    file = tmp_path / "labels.txt"
    latin = b"caf\xe9".decode("utf-8", "surrogateescape")  # as os.listdir gives it
    write_labels(file, ["red\nfox", "red\r\n wolf", " lynx\t", latin, "bear"])
    expected = ["red fox", "red wolf", "lynx", "café", "bear"]
    assert file.read_text(encoding="utf-8").splitlines() == expected
    assert read_labels(file) == expected


def test_every_file_beside_labels_is_known():
    written = {export.suffix for export in FORMATS.values() if export.suffix}
    assert set(MODEL_SUFFIXES) == {".keras"} | written


def test_files_of_one_name_have_the_same_labels(tmp_path):
    """`net.keras` and `net.onnx` share `net.labels.txt`, which must not come to name others."""

    def write(name, labels):
        with replacing_with_labels(tmp_path / name, labels) as file:
            file.write_text("weights")

    write("net.keras", ["ant", "bee"])
    write("net.keras", ["ant", " wasp"])  # alone, so that its labels may change
    write("net.onnx", ["ant", "wasp\n"])
    with pytest.raises(
        UserError, match=r"classes of net\.keras, net\.onnx, and net\.tflite has others"
    ):
        write("net.tflite", ["star", "cross"])
    assert {file.name for file in tmp_path.iterdir()} == {"net.keras", "net.onnx", "net.labels.txt"}
    assert read_labels(tmp_path / "net.labels.txt") == ["ant", "wasp"]
    write("other.tflite", ["star", "cross"])
    (tmp_path / "net.keras").unlink()
    write("net.onnx", ["star", "cross"])
