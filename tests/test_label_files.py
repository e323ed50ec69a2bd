import time

import numpy as np
import pytest
from PIL import Image

from keras_googlenet.data import folders
from keras_googlenet.data.label_files import open_labeled
from keras_googlenet.errors import UserError
from keras_googlenet.evaluation.class_matching import match_classes
from keras_googlenet.labels import default_labels

ANT, BEE = "n02219486", "n02206856"  # 310 and 309 of ILSVRC 2012


def folder_of(root, names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(root / name)
    return str(root)


@pytest.fixture
def validation(tmp_path):
    """Three of ImageNet's validation images; the second is missing."""
    names = [f"ILSVRC2012_val_{number:08}.JPEG" for number in (1, 3, 4)]
    return folder_of(tmp_path / "images", names)


def found(dataset):
    """File name -> label."""
    split, pairs = dataset.validation, {}
    for file, number in zip(split.files, split.labels, strict=True):
        pairs[file.rpartition("/")[2]] = dataset.labels[number]
    assert len(pairs) == split.size
    return {name.removeprefix("ILSVRC2012_val_0000000"): label for name, label in pairs.items()}


def write(tmp_path, text, name="labels.txt", encoding="utf-8"):
    (tmp_path / name).write_bytes(text.encode(encoding))
    return str(tmp_path / name)


EXPECTED = {"1.JPEG": ANT, "3.JPEG": BEE, "4.JPEG": ANT}


def test_a_wnid_a_line_counts_by_the_number_in_the_name(validation, tmp_path):
    lines = [ANT, BEE, f"{BEE} bee", ANT, BEE]  # of images 1 to 5
    assert found(open_labeled(validation, write(tmp_path, "\n".join(lines)))) == EXPECTED


def test_caffe_lines_count_classes_in_the_order_of_wnids(validation, tmp_path):
    text = "".join(
        f"ILSVRC2012_val_{number:08}.JPEG {label}\n"
        for number, label in ((4, 310), (2, 0), (3, 309), (1, 310))
    )
    dataset = open_labeled(validation, write(tmp_path, text), model_labels=default_labels(1000))
    assert found(dataset) == EXPECTED


def test_csv_columns_by_name(validation, tmp_path):
    text = (
        "ImageId,PredictionString\n"
        f"ILSVRC2012_val_00000003,{BEE} 85 1 499 272\n"
        f"ILSVRC2012_val_00000001,{ANT} 131 0 499 254 {ANT} 10 20 30 40\n"
        f"ILSVRC2012_val_00000004,{ANT} 0 0 9 9\n"
    )
    file = write(tmp_path, text, "solution.csv")
    assert found(open_labeled(validation, file, ("ImageId", "PredictionString"))) == EXPECTED
    with pytest.raises(UserError, match="no column wnid; it has ImageId, PredictionString"):
        open_labeled(validation, file, ("ImageId", "wnid"))


def test_plain_names_go_by_the_order_of_the_files(tmp_path):
    folder = folder_of(tmp_path / "images", ["b.png", "a.png"])
    names = open_labeled(folder, write(tmp_path, "red fox\ngray wolf\n"))
    assert found(names) == {"a.png": "red fox", "b.png": "gray wolf"}
    with pytest.raises(UserError, match="3 labels for 2 images"):
        open_labeled(folder, write(tmp_path, "one\ntwo\nthree\n"))


def test_lines_may_name_files_without_suffix(tmp_path):
    folder = folder_of(tmp_path / "images", ["b.png", "a.png"])
    lines = open_labeled(folder, write(tmp_path, "b red fox\na gray wolf\n"))
    assert found(lines) == {"a.png": "gray wolf", "b.png": "red fox"}


def test_numbers_in_csv_count_as_in_lines(validation, tmp_path):
    rows = "".join(
        f"ILSVRC2012_val_0000000{n}.JPEG,{label}\n" for n, label in ((1, 310), (3, 309), (4, 310))
    )
    file = write(tmp_path, f"file,class\n{rows}", "labels.csv")
    opened = open_labeled(validation, file, ("file", "class"), default_labels(1001))
    assert found(opened) == EXPECTED


def test_broken_files_are_one_sentence(validation, tmp_path):
    with pytest.raises(UserError, match="line 3 of .* lacks a file or its label"):
        ragged = write(tmp_path, "file,class\na,b\nc\n", "ragged.csv")
        open_labeled(validation, ragged, ("file", "class"))
    with pytest.raises(UserError, match="cannot read .*/folder .*; give a text file"):
        (tmp_path / "folder").mkdir()
        open_labeled(validation, str(tmp_path / "folder"))


def test_equal_names_need_their_folder(tmp_path):
    folder = folder_of(tmp_path / "images", ["x/0.png", "y/0.png"])
    told = open_labeled(folder, write(tmp_path, "x/0.png cat\ny/0.png dog\n"))
    assert told.labels == ["cat", "dog"]
    assert str(told.contents) == "data: images: 2 images of 2 classes in labels.txt for evaluation"
    assert [told.labels[n] for n in told.validation.labels] == ["cat", "dog"]
    assert [file[-7:] for file in told.validation.files] == ["x/0.png", "y/0.png"]
    with pytest.raises(UserError, match="write the folder too"):
        open_labeled(folder, write(tmp_path, "0.png cat\n"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (f"{ANT}\n{ANT}\n{BEE}\n", "no label for 1 of 3 images, such as .*00000004.JPEG"),
        ("310\n1\n309\n310\n", "numbers without files"),
        ("ILSVRC2012_val_00000001.JPEG 1\n" * 2, "names a file twice"),
    ],
)
def test_doubtful_labels_are_refused(validation, tmp_path, text, sentence):
    with pytest.raises(UserError, match=sentence):
        open_labeled(validation, write(tmp_path, text))


def test_a_missing_file_is_refused(validation):
    with pytest.raises(UserError, match="there is no file of labels"):
        open_labeled(validation, "nowhere.txt")


def test_our_order_of_wnids_is_that_of_imagenet():
    wnids = [label.split()[0] for label in default_labels(1000)]
    assert wnids == sorted(wnids) and np.unique(wnids).size == 1000
    assert wnids.index(ANT) == 310 and wnids.index(BEE) == 309


def opened_lines(tmp_path, lines, files, model_labels=None, columns=None, encoding="utf-8"):
    """Labels by file name of a folder, given the content of the labels file."""
    folder = folder_of(tmp_path / "images", files)
    file = write(tmp_path, lines, encoding=encoding)
    return found(open_labeled(folder, file, columns, model_labels))


@pytest.mark.parametrize(
    ("model_labels", "text", "expected"),
    [
        (["cat", "dog", "emu"], "a.png 2\nb.png 0\n", ["emu", "cat"]),
        (["cat", "dog", "emu"], "a.png 2.0\nb.png 00\n", ["emu", "cat"]),
        (["class_0", "class_1", "class_2"], "a.png 2\nb.png 1\n", ["class_2", "class_1"]),
        (["1", "2", "3"], "a.png 2\nb.png 1\n", ["2", "1"]),  # named by numerals, not counted
        (["01", "02", "10"], "a.png 2\nb.png 10\n", ["02", "10"]),
        (["7", "dog", "emu"], "a.png 7\nb.png 1\n", ["7", "dog"]),  # a name goes before a number
        (default_labels(1001), "a.png 310\nb.png 309\n", [ANT, BEE]),
        (default_labels(1008), "a.png 310\nb.png 309\n", [ANT, BEE]),
        ([f"{BEE} bee", ANT], "a.png 310\nb.png 309\n", [ANT, BEE]),
        (["n00007846 person", "n00015388 animal"], "a.png 1\nb.png 0\n", 0),  # of ImageNet-21k
        (None, "a.png 310\nb.png 1\n", ["310", "1"]),
        (["cat", "dog"], "1\n0\n", ["dog", "cat"]),  # a number a line
    ],
)
def test_what_numbers_count(tmp_path, model_labels, text, expected):
    labels = opened_lines(tmp_path, text, ["a.png", "b.png"], model_labels)
    expected = expected or ["n00015388", "n00007846"]
    assert labels == dict(zip(("a.png", "b.png"), expected, strict=True))


@pytest.mark.parametrize("labels", [["cat", "dog"], default_labels(1000)])
@pytest.mark.parametrize("beyond", [-1, "last + 1"])
def test_numbers_beyond_the_classes(tmp_path, labels, beyond):
    number = len(labels) if beyond != -1 else beyond
    with pytest.raises(UserError, match=rf"the number {number}, .* from 0 to {len(labels) - 1};"):
        opened_lines(tmp_path, f"a.png {number}\n", ["a.png"], labels)


def test_numbers_tell_classes_of_one_name_apart(tmp_path):
    """Lists of ImageNet's names without wnids have two cranes: the bird and the machine."""
    model_labels = ["crane", "dog", "emu", "crane"]
    folder = folder_of(tmp_path / "images", ["a.png", "b.png"])
    opened = open_labeled(folder, write(tmp_path, "a.png 3\nb.png 1\n"), model_labels=model_labels)
    targets = match_classes([model_labels], opened.labels).targets
    split = opened.validation
    of_file = dict(zip((file[-5:] for file in split.files), split.labels, strict=True))
    assert targets[of_file["a.png"]] == 3 and targets[of_file["b.png"]] == 1


@pytest.mark.parametrize(
    ("line", "file", "label"),
    [
        ("my photo 1.jpg 3", "my photo 1.jpg", "3"),
        ("a.jpg tabby cat", "a.jpg", "tabby cat"),
        ("a b.jpg tabby cat", "a b.jpg", "tabby cat"),
        ("my photo tabby cat", "my photo.jpg", "tabby cat"),
        ("my photo.jpg\ttabby cat", "my photo.jpg", "tabby cat"),
        ("a.jpg\tn02123045\ttabby", "a.jpg", "n02123045"),
        ("a.jpg  n02123045 tabby", "a.jpg", "n02123045"),
        ('"my photo.jpg" "tabby cat"', "my photo.jpg", "tabby cat"),
        ("'my photo.jpg' 3", "my photo.jpg", "3"),
        ("a.jpg,3", "a.jpg", "3"),
        ("a.jpg, tabby cat", "a.jpg", "tabby cat"),
        ('a.jpg,"tabby, tiger cat"', "a.jpg", "tabby, tiger cat"),
        ("a,b.jpg;tabby cat", "a,b.jpg", "tabby cat"),
        ("a.jpg|3", "a.jpg", "3"),
        ("a.jpg ; tabby cat", "a.jpg", "tabby cat"),
        ("./a.jpg 3", "a.jpg", "3"),
        ("a.JPG 3", "a.jpg", "3"),
        ("a.jpeg 3", "a.JPG", "3"),
        ("A.jpg 3", "a.JPG", "3"),
        ("a.tif 3", "a.png", "3"),
        ("v1.2 3", "v1.2.jpg", "3"),
        ("x\\a.jpg 3", "x/a.jpg", "3"),
        ("C:\\My Data\\x\\a.jpg 3", "x/a.jpg", "3"),
        ("/data/other/x/a.jpg 3", "x/a.jpg", "3"),
        ("../images/a.jpg 3", "x/a.jpg", None),  # not what stands there
        ("images/x/a.jpg 3", "x/a.jpg", "3"),
        ("a.jpg 3", "deep/down/a.jpg", "3"),
        ("cafe\u0301.jpg cafe\u0301", "caf\u00e9.jpg", "cafe\u0301"),
        ("caf\u00e9.jpg 3", "cafe\u0301.jpg", "3"),
        ("caf\u00e9.jpg 3", b"caf\xe9.jpg".decode("utf-8", "surrogateescape"), "3"),
    ],
)
def test_lines_of_file_and_label(tmp_path, line, file, label):
    """Each beside two lines of files that are not there."""
    lines = f"zz 1.jpg 1\n{line}\nnowhere/zz.jpg 2\n"
    if label is None:
        with pytest.raises(UserError, match="no label for 1 of 1 images"):
            opened_lines(tmp_path, lines, [file])
    else:
        assert opened_lines(tmp_path, lines, [file]) == {file.rpartition("/")[2]: label}


def test_the_longest_end_of_a_path_counts(tmp_path):
    lines = "/data/train/a.png 1\n/data/images/a.png 2\nx/a.png 3\ny/x/a.png 4\n"
    folder = folder_of(tmp_path / "images", ["a.png", "z/x/a.png", "y/x/a.png"])
    opened = open_labeled(folder, write(tmp_path, lines))
    split = opened.validation
    files = [file.removeprefix(folder + "/") for file in split.files]
    labels = [opened.labels[number] for number in split.labels]
    assert dict(zip(files, labels, strict=True)) == {
        "a.png": "2",
        "z/x/a.png": "3",
        "y/x/a.png": "4",
    }


def test_the_folder_itself_is_part_of_the_path(tmp_path):
    lines = "a.png cat\nimages/a.png dog\n"
    assert opened_lines(tmp_path, lines, ["a.png"]) == {"a.png": "dog"}


@pytest.mark.parametrize(
    ("line", "label"),
    [("my photo cat", "cat"), ("my photo\tcat 3", "cat 3"), ("my photo.jpg;cat 3", "cat 3")],
)
def test_the_file_takes_what_it_can_of_a_line(tmp_path, line, label):
    labels = opened_lines(tmp_path, f"my dog\n{line}\n", ["my.jpg", "my photo.jpg"])
    assert labels == {"my.jpg": "dog", "my photo.jpg": label}


def test_a_name_with_suffix_is_not_cut_short(tmp_path):
    """`my photo.jpg` is not there; `photo.jpg dog` is no label of `my.jpg`."""
    with pytest.raises(UserError, match="no label for 1 of 1 images"):
        opened_lines(tmp_path, "my photo.jpg dog\n", ["my.jpg"])


def test_a_file_with_two_labels_is_refused(tmp_path):
    with pytest.raises(UserError, match="train/a.png and test/a.png, which both may be"):
        opened_lines(tmp_path, "train/a.png cat\ntest/a.png dog\n", ["a.png"])


def test_same_stems_are_told_by_their_suffixes(tmp_path):
    lines = "a.JPG cat\na.PNG dog\n"
    labels = {"a.jpg": "cat", "a.png": "dog"}
    assert opened_lines(tmp_path, lines, ["a.jpg", "a.png"]) == labels


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\r\r\n"])
@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be", "latin-1"],
)
def test_labels_in_all_encodings(tmp_path, encoding, end):
    text = end.join(("a.png caf\xe9\x85", "b.png th\xe9", "", ""))
    labels = opened_lines(tmp_path, text, ["a.png", "b.png"], encoding=encoding)
    # Latin-1 is read as Windows does, in which 0x85 are three dots
    last = "\u2026" if encoding == "latin-1" else ""
    assert labels == {"a.png": f"caf\xe9{last}", "b.png": "th\xe9"}


def test_a_blank_line_does_not_shift_the_others(tmp_path):
    with pytest.raises(UserError, match="no label for 1 of 3 images, such as .*b.png"):
        opened_lines(tmp_path, "cat\n\ndog\n\n", ["a.png", "b.png", "c.png"])


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_csv_of_all_kinds(tmp_path, delimiter, end):
    rows = [["ID", "  Image File", "Class", ""], ["1", "a b.png", '"cat, small; gray"', ""]]
    rows += [["2", " b.png ", "dog", "x"], ["", "", "", ""]]
    text = "\ufeff" + end.join(map(delimiter.join, rows)) + end + end
    columns = ("image file", "class")
    labels = opened_lines(tmp_path, text, ["a b.png", "b.png"], columns=columns)
    assert labels == {"a b.png": "cat, small; gray", "b.png": "dog"}


def test_csv_of_excel_says_its_delimiter_first(tmp_path):
    text = "sep=;\r\nfile;label\r\na.png;cat\r\n"
    labels = opened_lines(tmp_path, text, ["a.png"], None, ("file", "label"), "utf-16")
    assert labels == {"a.png": "cat"}


def test_csv_with_blanks_before_quotes(tmp_path):
    text = 'file, label\n"a.png", "cat, small"\n'
    labels = opened_lines(tmp_path, text, ["a.png"], None, ("file", "label"))
    assert labels == {"a.png": "cat, small"}


def test_csv_headers_of_equal_letters(tmp_path):
    """The name as it stands goes before the one in another case."""
    text = "File,label,Label\na.png,cat,dog\n"
    assert opened_lines(tmp_path, text, ["a.png"], None, ("file", "Label")) == {"a.png": "dog"}


def test_lines_with_a_header_need_no_columns(tmp_path):
    labels = opened_lines(tmp_path, "file,label\na.png,cat\nb.png,dog\n", ["a.png", "b.png"])
    assert labels == {"a.png": "cat", "b.png": "dog"}


@pytest.mark.parametrize("text", ["a.png\nb.png\n", "a.png,\nb.png,\n", "\n\n", ""])
def test_files_without_labels_are_refused(tmp_path, text):
    with pytest.raises(UserError, match="no label for 2 of 2|0 labels for 2 images"):
        opened_lines(tmp_path, text, ["a.png", "b.png"])


def test_many_classes_take_linear_time(tmp_path, monkeypatch):
    """A pass over all files for each of 20,000 classes would take minutes."""
    files = [f"/data/{number % 100}/{number}.png" for number in range(60_000)]
    monkeypatch.setattr(folders, "list_images", lambda paths, note: files)
    lines = "".join(f"{file[6:]} class {int(file[6:-4].split('/')[1]) // 3}\n" for file in files)
    began = time.process_time()
    opened = open_labeled("/data", write(tmp_path, lines))
    assert time.process_time() - began < 15
    assert len(opened.labels) == 20_000 and opened.validation.size == 60_000
    place = opened.validation.files.index("/data/17/59917.png")
    assert opened.labels[opened.validation.labels[place]] == "class 19972"
