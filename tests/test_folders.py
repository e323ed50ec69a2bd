"""Folders as people and tools leave them: which are splits, which classes, what is left out."""

import json
import os
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from keras_googlenet.data import datasets, folders, listing
from keras_googlenet.data.contents import Contents, Skipped, SplitContents
from keras_googlenet.data.folder_splits import names_no_class, split_named
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
    """Files by class of both splits, as paths below the data set, and what is left out."""
    result = folders.find_splits(tree(root, names), share, 0)
    splits = [
        split and {name: [os.path.relpath(file, root) for file in split[name]] for name in split}
        for split in (result.train, result.validation)
    ]
    return *splits, {
        each["what"]: (each["count"], *each["folders"]) for each in result.skipped.as_json()
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
    ("訓練データ", "検証データ"),
    ("훈련_데이터", "시험"),
    ("Trainingsdaten", "Validierungsdaten"),
    ("Trainingsbilder", "Testdaten"),
    ("обучение", "валидация"),
    ("Обучающая-выборка", "Тестовая-выборка"),
    ("EĞİTİM", "doğrulama"),
    ("trening", "walidacja"),
    ("latih", "validasi"),
    ("data_latih", "data_uji"),
    ("Huấn_luyện", "Kiểm_tra"),
    ("train_seen", "test_unseen"),
    ("trainA", "test_B"),
)


@pytest.mark.parametrize(("train", "validation"), PAIRS)
def test_names_of_splits(train, validation, tmp_path):
    names = f"{train}/ant/1.jpg {train}/bee/2.jpg {validation}/ant/3.jpg"
    train_images, validation_images, skipped = found(tmp_path, names)
    assert train_images == {"ant": [f"{train}/ant/1.jpg"], "bee": [f"{train}/bee/2.jpg"]}
    assert validation_images == {"ant": [f"{validation}/ant/3.jpg"]} and not skipped


def test_validation_comes_before_test_and_what_is_beside_them_is_reported(tmp_path):
    names = "train/ant/1.jpg valid/ant/2.jpg test/ant/3.jpg test/ant/4.jpg sample/train/ant/1.jpg"
    _, validation_images, skipped = found(
        tmp_path, f"{names} cover.jpg models/net.h5 train/loose.jpg"
    )
    assert validation_images == {"ant": ["valid/ant/2.jpg"]}
    assert skipped == {
        "images (valid/ is the validation set)": (2, "test"),
        "images (in no split)": (1, "sample"),
        "images (outside of the splits)": (1, "."),
        "images (outside of the class folders)": (1, "train"),
        "files of other kinds": (1, "models"),
    }


@pytest.mark.parametrize("test", ["test/7.jpg", "test/unknown/7.jpg", "test1/test1/7.jpg"])
def test_a_test_split_without_classes_is_not_validated_on(test, tmp_path):
    names = " ".join(f"train/{name}/{number}.jpg" for name in ("ant", "bee") for number in range(9))
    train_images, validation_images, skipped = found(tmp_path, f"{names} {test}", 0.3)
    assert sum(map(len, [*train_images.values(), *validation_images.values()])) == 18
    assert [count for count, *_ in skipped.values()] == [1]


@pytest.mark.parametrize(
    "names",
    [
        "train/1.jpg car/2.jpg bus/3.jpg",
        "train/1.jpg car/front/2.jpg bus/side/3.jpg",
    ],
)
def test_a_class_that_is_called_train(names, tmp_path):
    train_images, classes, _ = found(tmp_path, names)
    assert train_images is None and len(classes) == 3 and "train" in classes


def test_splits_inside_of_the_classes(tmp_path):
    names = "cap/train/1.jpg cap/test/2.jpg nut/train/3.jpg nut/test/4.jpg"
    train_images, validation_images, _ = found(tmp_path, names)
    assert train_images == {"cap": ["cap/train/1.jpg"], "nut": ["nut/train/3.jpg"]}
    assert validation_images == {"cap": ["cap/test/2.jpg"], "nut": ["nut/test/4.jpg"]}


def test_splits_inside_of_some_classes(tmp_path):
    """A class without test images, a loose image and an image in neither of the splits."""
    names = "yes/train/1.jpg yes/test/2.jpg no/train/3.jpg no/4.jpg yes/extra/5.jpg"
    train_images, validation_images, skipped = found(tmp_path, names)
    assert train_images == {"no": ["no/train/3.jpg"], "yes": ["yes/train/1.jpg"]}
    assert validation_images == {"yes": ["yes/test/2.jpg"]}
    assert skipped == {
        "images (outside of the splits)": (1, "no"),
        "images (in no split)": (1, "yes/extra"),
    }


def test_a_train_folder_with_classes_is_a_split_whatever_lies_beside_it(tmp_path):
    names = "train/ant/1.jpg train/bee/2.jpg extra/ant/3.jpg extra/bee/4.jpg more/x/5.jpg fig/6.jpg"
    train_images, validation_images, skipped = found(tmp_path, names)
    assert train_images is None and list(validation_images) == ["ant", "bee"]
    assert skipped == {"images (in no split)": (4, "extra", "fig", "more")}


def test_parts_of_a_split_are_put_together(tmp_path):
    names = "train.X1/ant/1.jpg train.X2/bee/2.jpg val.X/ant/3.jpg val.X/bee/4.jpg"
    train_images, validation_images, skipped = found(tmp_path, names)
    assert train_images == {"ant": ["train.X1/ant/1.jpg"], "bee": ["train.X2/bee/2.jpg"]}
    assert list(validation_images) == ["ant", "bee"] and not skipped


def test_of_two_folders_for_a_split_the_plainer_one_counts(tmp_path):
    names = "train/ant/1.jpg train_small/ant/1.jpg val/ant/2.jpg test/1.jpg val_images/3.jpg"
    train_images, validation_images, skipped = found(tmp_path, names)
    assert train_images == {"ant": ["train/ant/1.jpg"]} and validation_images == {
        "ant": ["val/ant/2.jpg"]
    }
    assert skipped == {
        "images (a second folder of this split)": (2, "train_small", "val_images"),
        "images (without class folders)": (1, "test"),
    }


def test_splits_with_the_same_other_words_go_together(tmp_path):
    names = "ros_train/x/1.jpg ros_test/x/2.jpg tul_train/x/3.jpg tul_val/x/4.jpg tul_test/x/5.jpg"
    train_images, validation_images, _ = found(tmp_path, names)
    assert train_images == {"x": ["ros_train/x/1.jpg"]} and validation_images == {
        "x": ["ros_test/x/2.jpg"]
    }


def test_long_names_are_told_in_time():
    for word in ("dataset", "imagesets", "datensatz", "sampled", "masklabels"):
        assert split_named(word * 30 + "q") is None and not names_no_class(word * 30 + "q")


def test_of_two_validation_folders_the_one_with_the_classes_counts(tmp_path):
    names = "train/ant/1.jpg train/bee/2.jpg validation/bee/3.jpg eval/plots/4.jpg"
    _, validation_images, skipped = found(tmp_path, names)
    assert validation_images == {"bee": ["validation/bee/3.jpg"]}
    assert skipped == {"images (a second folder of this split)": (1, "eval")}


NO_DATA_SET = {
    # What people point at -> what they must be told.
    "train/1.jpg val/2.jpg unlabeled/3.jpg": "has val/, train/ with images but without class",
    "train_images/1.jpg test_images/1.jpg sample/1.jpg": "has test_images/, train_images/ with",
    "trainA/1.jpg trainB/2.jpg testA/3.jpg testB/4.jpg": "without class folders",
    "bounding_box_train/1.jpg bounding_box_test/2.jpg query/3.jpg": "without class folders",
    "train/images/1.jpg train/labels/1.txt valid/images/1.jpg": "has train/ with images but",
    "test/1.jpg train/1.jpg car/2.jpg": "without class folders",
    # several data sets
    "cap/train/good/1.jpg cap/test/broken/2.jpg nut/train/good/3.jpg nut/test/cut/4.jpg": (
        r"several data sets \(cap/, nut/\); give one of them as --dataset"
    ),
    "f1/train/cat/1.jpg f1/val/cat/1.jpg f2/train/cat/1.jpg f2/val/cat/1.jpg": "several data sets",
    "X/X/train/a/1.jpg X/X/valid/a/2.jpg x/x/train/a/1.jpg x/x/valid/a/2.jpg test/test/1.jpg": (
        r"several data sets \(X/, x/\)"
    ),
    "O_/train/a/1.jpg O_/val/a/2.jpg o/O_/train/a/1.jpg o/O_/val/a/2.jpg": "several data sets",
    "flowers/train/a/1.jpg flowers/val/a/2.jpg figures/3.jpg": "its own splits in flowers/",
    "cat/train/1.jpg cat/test/2.jpg dog/3.jpg": "its own splits in cat/ beside other images",
    "train/train/cat/1.jpg train/val/cat/2.jpg": "its own splits in train/",
    # images twice
    "data/natural_images/car/1.jpg natural_images/car/1.jpg": (
        r"data holds folders named as those beside it \(natural_images\), so the images seem to "
        "be there twice; remove one copy, or give --dataset .*data.$"
    ),
    "yes/1.jpg no/1.jpg all/yes/1.jpg all/no/1.jpg": r"beside it \(no, yes\).*dataset .*/all.$",
    "no/1.jpg yes/1.jpg all/brain/Yes/1.jpg all/brain/NO/1.jpg": "--dataset .*/all/brain.$",
    "P/Tom/1.jpg P/Pot/1.jpg P/P/Tom/1.jpg P/P/Pot/1.jpg": r"beside it \(Pot, Tom\)",
    "train/cat/1.jpg train/dog/1.jpg train/train/cat/1.jpg train/train/dog/1.jpg": "be there twice",
    "cat/1.jpg cat/Cat/1.jpg dog/1.jpg": r"cat holds folders named as those beside it \(Cat\)",
    # classes too deep
    "rps/pap/1.jpg rps/roc/1.jpg rps-t/pap/1.jpg rps-t/roc/1.jpg": (
        r"rps/ and rps-t/ in .* hold the same folders \(pap, roc\): if those are the classes, give "
        "one of the two as --dataset; if rps and rps-t are, move the images right into them"
    ),
    "rps/rps/pap/1.jpg rps/rps/roc/1.jpg t/t/pap/1.jpg t/t/roc/1.jpg": "rps/ and t/ in",
    "Covid/images/1.jpg Covid/masks/1.png Normal/images/1.jpg Normal/masks/1.png": "images, masks",
    "train/color/a/1.jpg train/color/b/1.jpg train/gray/A/1.jpg train/gray/B/1.jpg val/a/1.jpg": (
        "color/ and gray/ in .*train hold the same folders"
    ),
    # nothing that can be read
    "train/cat/a.heic": r"no image that can be read, but 1 HEIC image; convert .*\.heic`",
    "cat/a.tiff dog/b.tiff": r"but 2 TIFF images; convert with `magick .*\*\.tiff`",
    "train/cat/a.heic train/dog/a.heic val/cat/1.jpg val/dog/1.jpg": "train holds no image",
    "train/cat/a.jpg train/dog/a.heic val/cat/1.jpg": "folder .*dog holds no image but 1 in HEIC",
    "cat/front/1.jpg cat/back/2.jpg dog/b.tiff": "class folder .*dog holds no image but 1 in TIFF",
}


@pytest.mark.parametrize("names", NO_DATA_SET)
def test_what_is_no_data_set_is_refused_in_a_sentence(names, tmp_path):
    with pytest.raises(UserError, match=NO_DATA_SET[names]) as error:
        found(tmp_path, names)
    assert "\n" not in str(error.value)


def test_images_and_masks_are_not_classes(tmp_path):
    files = " ".join(f"{folder}/{n}.png" for folder in ("images", "masks") for n in range(3))
    with pytest.raises(
        UserError, match="has images/, masks/ with images but without class folders"
    ):
        found(tmp_path, files, 0.5)


def test_one_folder_inside_of_each_class_and_how_many_images_it_holds(tmp_path):
    tree(tmp_path, "train/ant/images/1.jpg train/ant/2.jpg train/bee/images/3.jpg val/ant/4.jpg")
    train_images, validation_images = folders.find_splits(tmp_path, 0, 0).contents
    text = "3 images of 2 classes (ant, bee) in train/ (2 in folders inside of the classes)"
    assert str(train_images) == text
    assert str(validation_images) == "1 image of 1 class (ant) in val/"


@pytest.mark.parametrize("name", ["images", "val", "unknown", "new_images"])
def test_a_validation_split_without_classes_is_not_validated_on(name, tmp_path):
    names = " ".join(f"train/{name}/{number}.jpg" for name in ("ant", "bee") for number in range(9))
    names += f" val/{name}/7.jpg val/val_annotations.txt"
    train_images, validation_images, skipped = found(tmp_path, names, 0.3)
    assert sum(map(len, [*train_images.values(), *validation_images.values()])) == 18
    assert skipped["images (without class folders)"] == (1, "val")


def test_validation_on_the_training_folder_is_refused(tmp_path):
    tree(tmp_path, "train/ant/1.jpg train/bee/2.jpg")
    (tmp_path / "val").symlink_to(tmp_path / "train")
    with pytest.raises(UserError, match="val is the same folder as .*train, so the"):
        found(tmp_path)
    (tmp_path / "val").unlink()
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "ant").symlink_to(tmp_path / "train" / "ant")
    with pytest.raises(UserError, match="val/ant is the same folder as .*train/ant"):
        found(tmp_path)


def test_folders_of_programs_are_passed_over(tmp_path):
    names = "runs/one/recipe.json runs/one/checkpoints/ runs/one/curves.png ant/1.jpg bee/2.jpg"
    names += " venv/pyvenv.cfg venv/lib/icon.png js/node_modules/a/logo.png"
    _, classes, skipped = found(tmp_path, names)
    assert list(classes) == ["ant", "bee"]
    assert skipped["run directories or software folders"] == (
        *(3, "js/node_modules", "runs/one", "venv"),
    )
    assert skipped["folders without images"] == (3, ".")


def test_names_of_systems_that_may_be_classes(tmp_path):
    """`cvs` (choking game), an ending that only files have, and a library of photographs."""
    names = "cvs/1.jpg recycler/1.jpg notes~/1.jpg old.tmp/1.jpg 2020.download/1.jpg"
    _, classes, skipped = found(tmp_path, f"{names} My.photoslibrary/x/1.jpg")
    assert sorted(classes) == ["2020.download", "cvs", "notes~", "old.tmp", "recycler"]
    assert skipped == {"system folders My.photoslibrary/": (1, ".")}


def test_copies_of_classes_are_said(tmp_path):
    names = [
        "ant",
        "ant - Copy",
        "Copy of ant",
        "ant (Ann's conflicted copy 2024-01-02)",
        "copycat",
    ]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").write_bytes(JPEG)
    _, classes, skipped = found(tmp_path)
    assert sorted(classes) == sorted(names)
    count, *_ = skipped["class folders that look like a copy (used)"]
    assert count == 3


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
    _, classes, skipped = found(tmp_path, "ant/1.jpg bee/1.jpg " + " ".join(SYSTEM))
    assert classes == {"ant": ["ant/1.jpg"], "bee": ["bee/1.jpg"]}
    assert skipped == {
        "hidden or system files or folders": (len(SYSTEM) - 4, ".", "ant"),
        "system folders #recycle/": (1, "ant"),
        "system folders $RECYCLE.BIN/": (1, "."),
        "system folders @eaDir/": (1, "."),
        "system folders __MACOSX/": (1, "."),
    }


def test_first_bytes_tell_what_suffixes_do_not(tmp_path):
    tree(tmp_path, "ant/a.JPG ant/b.jfif ant/c ant/d.webp ant/e.jpeg_large ant/photos.jpg/f.jpg")
    (tmp_path / "ant" / "notes").write_bytes(b"no image")
    (tmp_path / "ant" / "g.heic").write_bytes(b"")
    Image.new("RGB", (4, 4)).save(tmp_path / "ant" / "scan", "TIFF")
    _, classes, skipped = found(tmp_path)
    names = [Path(file).name for file in classes["ant"]]
    assert names == ["a.JPG", "b.jfif", "c", "d.webp", "e.jpeg_large", "f.jpg"]
    assert {what.split()[0]: counts for what, counts in skipped.items()} == {
        "HEIC": (1, "ant"),
        "TIFF": (1, "ant"),
        "files": (1, "ant"),
    }
    assert any("magick mogrify" in what and "*.heic" in what for what in skipped)


def test_known_suffixes_are_not_opened(tmp_path, monkeypatch):
    tree(tmp_path, "ant/a.jpg ant/b.png ant/c.gif ant/d.bmp ant/e.webp ant/labels.txt ant/f.tiff")

    def refuse(*_, **__):
        raise AssertionError("opened")

    monkeypatch.setattr("builtins.open", refuse)
    skipped = Skipped(str(tmp_path))
    assert len(listing.scan(str(tmp_path), skipped).all_images()) == 5
    assert [each["count"] for each in skipped.as_json()] == [1, 1]


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
    _, classes, skipped = found(root)
    assert classes["ant"] == ["ant/0.jpg", "ant/9.jpg", "ant/more/2.jpg"]
    assert classes["cat"] == ["cat/1.jpg", "cat/deep/2.jpg"]
    assert skipped == {
        "links to a parent folder": (1, "ant"),
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
    *_, skipped = found(tmp_path)
    assert skipped == {"folders that cannot be opened (Permission denied)": (1, "ant/locked")}


@pytest.mark.parametrize("locked", ["", "train", "val", "test", "train/bee", "val/ant"])
def test_a_root_split_or_class_that_may_not_be_opened_is_refused(locked, tmp_path, monkeypatch):
    names = (
        "train/ant/1.jpg",
        "train/bee/2.jpg",
        "val/ant/3.jpg",
        "val/bee/4.jpg",
        "test/ant/5.jpg",
    )
    tree(tmp_path, " ".join(names))
    scandir = os.scandir

    def denied(path):
        if os.path.relpath(path, tmp_path) == (locked or "."):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    text = rf"{locked} cannot be opened \(Permission denied\); check its read permission"
    with pytest.raises(UserError, match=text):
        folders.find_splits(tmp_path, 0, 0)


def test_names_of_classes_are_composed_unicode_on_one_line(tmp_path):
    decomposed = unicodedata.normalize("NFD", "café")
    names = f"train/{decomposed}/1.jpg train/bee/1.jpg val/café/2.jpg val/BEE/2.jpg"
    train_images, validation_images, _ = found(tmp_path, names)
    assert set(train_images) == {"café", "bee"} == set(validation_images)
    assert validation_images["bee"] == ["val/BEE/2.jpg"]


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


def test_classes_that_only_one_split_has(tmp_path):
    with pytest.raises(UserError, match="lacks: wasp"):
        found(tmp_path, "train/ant/a.jpg val/wasp/a.jpg val/ant/b.jpg")


def test_empty_folders(tmp_path):
    with pytest.raises(UserError, match="there is no folder .*gone"):
        folders.find_splits(tmp_path / "gone", 0, 0)
    with pytest.raises(UserError, match="holds no class folders"):
        found(tmp_path)
    with pytest.raises(UserError, match="holds no class folders"):
        found(tmp_path, "1.jpg")
    with pytest.raises(UserError, match="1.jpg is a file, not a folder"):
        folders.find_splits(tmp_path / "1.jpg", 0, 0)
    tree(tmp_path, "ant/1.jpg annotations/1.xml")
    _, classes, skipped = found(tmp_path)
    assert list(classes) == ["ant"] and skipped["folders without images"] == (1, ".")
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
        f"data: {tmp_path.name}: 6 images of 2 classes (ant, bee) in train/ for training, "
        "1 image of 1 class (ant) in valid/ for validation; skipped: "
        "1 file of other kinds in the data set's folder; 1 image (without class folders) in test/; "
        "3 of 7 sampled images have an EXIF orientation"
    )
    assert "\n" not in line
    assert json.loads(json.dumps(contents.as_json())) == {
        "dataset": str(tmp_path),
        "train": {"source": "train/", "images": 6, "classes": 2, "names": ["ant", "bee"]},
        "validation": {"source": "valid/", "images": 1, "classes": 1, "names": ["ant"]},
        "left_out": [
            {"what": "files of other kinds", "count": 1, "folders": ["."]},
            {"what": "images (without class folders)", "count": 1, "folders": ["test"]},
        ],
        "exif_turned": {"images": 3, "of_sampled": 7},
    }


def test_the_line_names_a_prepared_set_whole_and_few_classes_only(tmp_path):
    line = str(Contents("grays/1.0.0", None, SplitContents("test", 2, 1), Skipped("grays")))
    assert line == "data: grays/1.0.0: 2 images of 1 class in test for evaluation"
    tree(tmp_path, " ".join(f"{number}/1.jpg" for number in range(9)))
    _, split = folders.find_splits(tmp_path, 0, 0).contents
    assert split.as_json()["names"] == [] and "9 classes in its" in str(split)


def test_an_only_folder_is_gone_into_also_beside_a_cover(tmp_path):
    _, classes, skipped = found(tmp_path, "cover.jpg archive/pets/cat/1.jpg archive/pets/dog/2.jpg")
    assert list(classes) == ["cat", "dog"]
    assert skipped == {"images (outside of the class folders)": (1, ".")}


def test_list_images(tmp_path):
    tree(tmp_path, "b.png a.jpg notes.txt c.tif")
    a, b, c = (str(tmp_path / name) for name in ("a.jpg", "b.png", "c.tif"))
    notes = []
    assert folders.list_images([str(tmp_path)], notes.append) == [a, b]
    assert notes[0].startswith(f"{tmp_path}: 2 images; skipped: ") and "1 TIFF image (" in notes[0]
    assert folders.list_images([str(tmp_path)], convertible=True) == [a, b, c]
    with pytest.raises(UserError, match="there is no image .*d.png"):
        folders.list_images([str(tmp_path / "d.png")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty holds no image"):
        folders.list_images([str(tmp_path / "empty")])
    errors = []
    paths = [str(tmp_path / name) for name in ("empty", "a.jpg", "d.png")]
    assert folders.list_images(paths, errors=errors) == [a]
    assert [str(error).partition(";")[0] for error in errors] == [
        f"{tmp_path / 'empty'} holds no image",
        f"there is no image {tmp_path / 'd.png'}.",
    ]
    with pytest.raises(UserError, match="(?s)holds no image.*there is no image"):
        folders.list_images([paths[0], paths[2]], errors=errors)
    assert len(errors) == 2
