"""Folders as people and tools leave them: which are splits, which classes, what is left out."""

import json
import os
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from keras_googlenet.data import datasets, folders, listing
from keras_googlenet.data.contents import LeftOut
from keras_googlenet.errors import UserError

JPEG = b"\xff\xd8\xff\xe0"


def tree(root, names):
    """Makes files of the beginning of a JPEG, and folders of names that end in a slash."""
    for name in names.split():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if name.endswith("/") else path.write_bytes(JPEG)
    return root


def found(root, names="", share=0.0):
    """Files by class of both halves, as paths below the data set, and what is left out."""
    result = folders.find_splits(tree(root, names), share, 0)
    halves = [
        half and {name: [os.path.relpath(file, root) for file in half[name]] for name in half}
        for half in (result.train, result.validation)
    ]
    return *halves, {
        each["what"]: (each["count"], *each["folders"]) for each in result.left_out.as_json()
    }


PAIRS = (
    ("train", "val"),
    ("Training", "Testing"),
    ("TRAIN", "VALID"),
    ("train", "valid"),
    ("trn", "tst"),
    ("training_set", "test_set"),
    ("TrainingSet", "ValidationSet"),
    ("train-images", "val-images"),
    ("trainset", "testset"),
    ("imgs_train", "imgs_dev"),
    ("train2017", "val2017"),
    ("ILSVRC2012_img_train", "ILSVRC2012_img_val"),
    ("chest_xray_train", "chest_xray_eval"),
    ("seg_train/seg_train", "seg_test/seg_test"),
    ("images/train", "images/hold-out"),
    ("archive/flowers/train", "archive/flowers/validate"),
    ("entrenamiento", "validación"),
    ("训练集", "测试集"),
)


@pytest.mark.parametrize(("train", "validation"), PAIRS)
def test_names_of_splits(train, validation, tmp_path):
    names = f"{train}/ant/1.jpg {train}/bee/2.jpg {validation}/ant/3.jpg"
    learnt, measured, left_out = found(tmp_path, names)
    assert learnt == {"ant": [f"{train}/ant/1.jpg"], "bee": [f"{train}/bee/2.jpg"]}
    assert measured == {"ant": [f"{validation}/ant/3.jpg"]} and not left_out


def test_validation_comes_before_test_and_what_is_beside_them_is_said(tmp_path):
    names = "train/ant/1.jpg valid/ant/2.jpg test/ant/3.jpg test/ant/4.jpg sample/train/ant/1.jpg"
    _, measured, left_out = found(tmp_path, f"{names} cover.jpg models/net.h5 train/loose.jpg")
    assert measured == {"ant": ["valid/ant/2.jpg"]}
    assert left_out == {
        "images (valid/ is measured on)": (2, "test"),
        "images (in no split)": (1, "sample"),
        "images (outside of the splits)": (1, "."),
        "images (outside of the class folders)": (1, "train"),
        "files of other kinds": (1, "models"),
    }


@pytest.mark.parametrize("test", ["test/7.jpg", "test/unknown/7.jpg", "test1/test1/7.jpg"])
def test_a_test_split_without_classes_is_not_measured_on(test, tmp_path):
    names = " ".join(f"train/{name}/{number}.jpg" for name in ("ant", "bee") for number in range(9))
    learnt, measured, left_out = found(tmp_path, f"{names} {test}", 0.3)
    assert sum(map(len, [*learnt.values(), *measured.values()])) == 18
    assert [count for count, *_ in left_out.values()] == [1]


@pytest.mark.parametrize(
    "names",
    [
        "train/1.jpg car/2.jpg bus/3.jpg",
        "train/front/1.jpg car/front/2.jpg bus/side/3.jpg",
        "test/1.jpg train/1.jpg car/2.jpg",
    ],
)
def test_a_class_that_is_called_train(names, tmp_path):
    learnt, classes, _ = found(tmp_path, names)
    assert learnt is None and len(classes) == 3 and "train" in classes


def test_splits_inside_of_the_classes(tmp_path):
    names = "cap/train/1.jpg cap/test/2.jpg nut/train/3.jpg nut/test/4.jpg"
    learnt, measured, _ = found(tmp_path, names)
    assert learnt == {"cap": ["cap/train/1.jpg"], "nut": ["nut/train/3.jpg"]}
    assert measured == {"cap": ["cap/test/2.jpg"], "nut": ["nut/test/4.jpg"]}


def test_splits_without_class_folders_are_refused(tmp_path):
    with pytest.raises(UserError, match="has test/, train/ with images but without class folders"):
        found(tmp_path, "train/cat.0.jpg test/1.jpg")
    with pytest.raises(UserError, match="has train/ with images but without class folders"):
        found(tmp_path, "test/ant/1.jpg")


SYSTEM = (
    *(".ipynb_checkpoints/1.jpg", "__MACOSX/ant/._1.jpg", "@eaDir/1.jpg", "ant/.DS_Store"),
    *("ant/Thumbs.db", "ant/._1.jpg", "ant/desktop.ini", ".git/x.jpg", "$RECYCLE.BIN/1.jpg"),
    *("ant/#recycle/1.jpg", "ant/~$1.jpg", "ant/2.jpg.part", ".Trash-1000/1.jpg", "ant/1.jpg~"),
)


def test_what_systems_and_editors_leave_is_no_class_and_no_image(tmp_path):
    _, classes, left_out = found(tmp_path, "ant/1.jpg bee/1.jpg " + " ".join(SYSTEM))
    assert classes == {"ant": ["ant/1.jpg"], "bee": ["bee/1.jpg"]}
    assert left_out == {
        "hidden or system files or folders": (len(SYSTEM), ".", "ant"),
    }


def test_first_bytes_tell_what_suffixes_do_not(tmp_path):
    tree(tmp_path, "ant/a.JPG ant/b.jfif ant/c ant/d.webp ant/e.jpeg_large ant/photos.jpg/f.jpg")
    (tmp_path / "ant" / "notes").write_bytes(b"no image")
    (tmp_path / "ant" / "g.heic").write_bytes(b"")
    Image.new("RGB", (4, 4)).save(tmp_path / "ant" / "scan", "TIFF")
    _, classes, left_out = found(tmp_path)
    names = [Path(file).name for file in classes["ant"]]
    assert names == ["a.JPG", "b.jfif", "c", "d.webp", "e.jpeg_large", "f.jpg"]
    assert {what.split()[0]: counts for what, counts in left_out.items()} == {
        "HEIC": (1, "ant"),
        "TIFF": (1, "ant"),
        "files": (1, "ant"),
    }
    assert any("magick mogrify" in what and "*.heic" in what for what in left_out)


def test_known_suffixes_are_not_opened(tmp_path, monkeypatch):
    tree(tmp_path, "ant/a.jpg ant/b.png ant/c.gif ant/d.bmp ant/e.webp ant/labels.txt ant/f.tiff")

    def refuse(*_, **__):
        raise AssertionError("opened")

    monkeypatch.setattr("builtins.open", refuse)
    left_out = LeftOut(str(tmp_path))
    assert len(listing.scan(str(tmp_path), left_out).all_images()) == 5
    assert [each["count"] for each in left_out.as_json()] == [1, 1]


def test_links_are_followed_and_those_that_lead_nowhere_are_counted(tmp_path):
    elsewhere = tree(tmp_path / "elsewhere", "1.jpg deep/2.jpg")
    root = tree(tmp_path / "data", "bee/1.jpg ant/0.jpg")
    (root / "cat").symlink_to(elsewhere)
    (root / "ant" / "more").symlink_to(elsewhere / "deep")
    (root / "ant" / "9.jpg").symlink_to(elsewhere / "1.jpg")
    (root / "ant" / "gone.jpg").symlink_to(elsewhere / "nothing.jpg")
    (root / "ant" / "self.jpg").symlink_to(root / "ant" / "self.jpg")
    (root / "ant" / "around").symlink_to(root)
    os.mkfifo(root / "ant" / "pipe.jpg")
    _, classes, left_out = found(root)
    assert classes["ant"] == ["ant/0.jpg", "ant/9.jpg", "ant/more/2.jpg"]
    assert classes["cat"] == ["cat/1.jpg", "cat/deep/2.jpg"]
    assert left_out == {
        "links to a folder around": (1, "ant"),
        "broken links": (1, "ant"),
        "links in a circle": (1, "ant"),
        "devices or pipes": (1, "ant"),
    }


def test_a_folder_that_may_not_be_opened_is_said(tmp_path, monkeypatch):
    tree(tmp_path, "ant/1.jpg ant/locked/2.jpg")
    scandir = os.scandir

    def denied(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)  # whoever runs the tests may be allowed everything
    *_, left_out = found(tmp_path)
    assert left_out == {"folders that cannot be opened (Permission denied)": (1, "ant/locked")}


def test_names_of_classes_are_composed_unicode_on_one_line(tmp_path):
    decomposed = unicodedata.normalize("NFD", "café")
    names = f"train/{decomposed}/1.jpg train/bee/1.jpg val/café/2.jpg val/BEE/2.jpg"
    learnt, measured, _ = found(tmp_path, names)
    assert set(learnt) == {"café", "bee"} == set(measured)
    assert measured["bee"] == ["val/BEE/2.jpg"]


def test_names_that_are_no_utf8(tmp_path):
    """A folder that was made on a system in Latin-1."""
    for number in range(4):
        for name in (b"caf\xe9", b"bee"):
            folder = os.path.join(os.fsencode(tmp_path), name)
            os.makedirs(folder, exist_ok=True)
            with open(os.path.join(folder, b"%d\xe9.jpg" % number), "wb") as file:
                Image.new("RGB", (9, 9)).save(file, "JPEG")
    opened = datasets.open_dataset(str(tmp_path), validation_split=0.3)
    assert opened.labels == ["bee", "café"]
    assert opened.train.size + opened.validation.size == 8
    encoded, label = opened.validation.read(opened.validation.size - 1)
    assert encoded.numpy().startswith(JPEG[:3]) and int(label) == 1
    str(opened.contents).encode("utf-8")


def test_classes_that_only_one_half_has(tmp_path):
    with pytest.raises(UserError, match="lacks: wasp"):
        found(tmp_path, "train/ant/a.jpg val/wasp/a.jpg val/ant/b.jpg")


def test_empty_folders(tmp_path):
    with pytest.raises(UserError, match="holds no class folders"):
        found(tmp_path)
    with pytest.raises(UserError, match="holds no class folders"):
        found(tmp_path, "1.jpg")
    tree(tmp_path, "ant/1.jpg annotations/1.xml")
    _, classes, left_out = found(tmp_path)
    assert list(classes) == ["ant"] and left_out["folders without images"] == (1, ".")
    (tmp_path / "bee").mkdir()
    with pytest.raises(UserError, match="class folder .*bee holds no image; put some into it"):
        found(tmp_path)
    (tmp_path / "bee" / "1.heic").write_bytes(b"")
    with pytest.raises(UserError, match="bee holds no image but 1 in HEIC, to be converted"):
        found(tmp_path)


def test_the_line_and_its_json(tmp_path):
    tree(tmp_path, "train/ant/1.jpg train/ant/2.jpg train/bee/1.jpg valid/ant/1.jpg test/x.jpg")
    tree(tmp_path, "README.txt")
    for number in range(3, 6):
        exif = Image.Exif()
        exif[0x0112] = 6
        image = Image.new("RGB", (8, 8))
        image.save(tmp_path / "train" / "ant" / f"{number}.jpg", exif=exif)
    contents = datasets.open_dataset(str(tmp_path)).contents
    line = str(contents)
    assert line.startswith(
        f"data: {tmp_path.name}: 6 images of 2 classes in train/ to learn from, 1 image of 1 class "
        "in valid/ to measure on; left out: 1 file of other kinds in the data set's folder; "
        "1 image (without class folders) in test/; 3 of 7 sampled images ask to be turned"
    )
    assert "\n" not in line
    assert json.loads(json.dumps(contents.as_json())) == {
        "dataset": str(tmp_path),
        "train": {"source": "train/", "images": 6, "classes": 2},
        "validation": {"source": "valid/", "images": 1, "classes": 1},
        "left_out": [
            {"what": "files of other kinds", "count": 1, "folders": ["."]},
            {"what": "images (without class folders)", "count": 1, "folders": ["test"]},
        ],
        "exif_turned": {"images": 3, "of_sampled": 7},
    }


def test_list_images(tmp_path):
    tree(tmp_path, "b.png a.jpg notes.txt c.tif")
    a, b, c = (str(tmp_path / name) for name in ("a.jpg", "b.png", "c.tif"))
    notes = []
    assert folders.list_images([str(tmp_path)], notes.append) == [a, b]
    assert notes[0].startswith(f"{tmp_path}: 2 images; left out: ") and "1 TIFF image (" in notes[0]
    assert folders.list_images([str(tmp_path)], convertible=True) == [a, b, c]
    with pytest.raises(UserError, match="there is no image .*d.png"):
        folders.list_images([str(tmp_path / "d.png")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty holds no image"):
        folders.list_images([str(tmp_path / "empty")])
