import numpy as np
import pytest
from PIL import Image

from keras_googlenet.data.labelled import open_labelled
from keras_googlenet.errors import UserError

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
    """File name -> label, through the examples themselves."""
    pairs = {}
    for source, label in dataset.validation.examples:
        pairs[source.numpy().decode().rpartition("/")[2]] = dataset.labels[int(label)]
    assert len(pairs) == dataset.validation.size
    return {name.removeprefix("ILSVRC2012_val_0000000"): label for name, label in pairs.items()}


def write(tmp_path, text, name="labels.txt"):
    (tmp_path / name).write_text(text)
    return str(tmp_path / name)


EXPECTED = {"1.JPEG": ANT, "3.JPEG": BEE, "4.JPEG": ANT}


def test_a_wnid_a_line_counts_by_the_number_in_the_name(validation, tmp_path):
    lines = [ANT, BEE, f"{BEE} bee", ANT, BEE]  # of images 1 to 5
    assert found(open_labelled(validation, write(tmp_path, "\n".join(lines)))) == EXPECTED


def test_caffe_lines_count_classes_in_the_order_of_wnids(validation, tmp_path):
    text = "".join(
        f"ILSVRC2012_val_{number:08}.JPEG {label}\n"
        for number, label in ((4, 310), (2, 0), (3, 309), (1, 310))
    )
    dataset = open_labelled(validation, write(tmp_path, text))
    assert found(dataset) == EXPECTED


def test_csv_columns_by_name(validation, tmp_path):
    text = (
        "ImageId,PredictionString\n"
        f"ILSVRC2012_val_00000003,{BEE} 85 1 499 272\n"
        f"ILSVRC2012_val_00000001,{ANT} 131 0 499 254 {ANT} 10 20 30 40\n"
        f"ILSVRC2012_val_00000004,{ANT} 0 0 9 9\n"
    )
    file = write(tmp_path, text, "solution.csv")
    assert found(open_labelled(validation, file, ("ImageId", "PredictionString"))) == EXPECTED
    with pytest.raises(UserError, match="no column wnid; it has ImageId, PredictionString"):
        open_labelled(validation, file, ("ImageId", "wnid"))


def test_plain_names_go_by_the_order_of_the_files(tmp_path):
    folder = folder_of(tmp_path / "images", ["b.png", "a.png"])
    names = open_labelled(folder, write(tmp_path, "red fox\ngrey wolf\n"))
    assert found(names) == {"a.png": "red fox", "b.png": "grey wolf"}
    with pytest.raises(UserError, match="3 labels for 2 images"):
        open_labelled(folder, write(tmp_path, "one\ntwo\nthree\n"))


def test_lines_may_name_files_without_suffix(tmp_path):
    folder = folder_of(tmp_path / "images", ["b.png", "a.png"])
    lines = open_labelled(folder, write(tmp_path, "b red fox\na grey wolf\n"))
    assert found(lines) == {"a.png": "grey wolf", "b.png": "red fox"}


def test_numbers_in_csv_count_as_in_lines(validation, tmp_path):
    rows = "".join(
        f"ILSVRC2012_val_0000000{n}.JPEG,{label}\n" for n, label in ((1, 310), (3, 309), (4, 310))
    )
    file = write(tmp_path, f"file,class\n{rows}", "labels.csv")
    assert found(open_labelled(validation, file, ("file", "class"))) == EXPECTED


def test_broken_files_are_one_sentence(validation, tmp_path):
    with pytest.raises(UserError, match="line 3 of .* lacks a file or its label"):
        ragged = write(tmp_path, "file,class\na,b\nc\n", "ragged.csv")
        open_labelled(validation, ragged, ("file", "class"))
    (tmp_path / "latin.txt").write_bytes("val.JPEG caf\xe9\n".encode("latin-1"))
    with pytest.raises(UserError, match="no UTF-8 text"):
        open_labelled(validation, str(tmp_path / "latin.txt"))


def test_equal_names_need_their_folder(tmp_path):
    folder = folder_of(tmp_path / "images", ["x/0.png", "y/0.png"])
    told = open_labelled(folder, write(tmp_path, "x/0.png cat\ny/0.png dog\n"))
    assert told.labels == ["cat", "dog"]
    assert [int(label) for _, label in told.validation.examples] == [0, 1]
    with pytest.raises(UserError, match="write the folder too"):
        open_labelled(folder, write(tmp_path, "0.png cat\n"))


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
        open_labelled(validation, write(tmp_path, text))


def test_a_missing_file_is_refused(validation):
    with pytest.raises(UserError, match="there is no file of labels"):
        open_labelled(validation, "nowhere.txt")


def test_our_order_of_wnids_is_that_of_imagenet():
    from keras_googlenet.imagenet import imagenet_labels

    wnids = [label.split()[0] for label in imagenet_labels()]
    assert wnids == sorted(wnids) and np.unique(wnids).size == 1000
    assert wnids.index(ANT) == 310 and wnids.index(BEE) == 309
