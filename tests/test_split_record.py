"""Which images are held out, and what a run directory knows of them."""

import dataclasses
import os
import shutil
from pathlib import Path

import pytest
import test_tfds_records
from PIL import Image

from keras_googlenet.data import datasets, listing, split_record
from keras_googlenet.data.holdout import hash_fraction, split_by_hash
from keras_googlenet.errors import UserError
from keras_googlenet.evaluation import evaluation_set


def files(count):
    return [f"/anywhere/{number}.jpg" for number in range(count)]


def test_about_the_share_is_held_out_of_each_class():
    images = {"ant": files(4000), "bee": files(400)}
    left, held_out = split_by_hash(images, 0.1, seed=0)
    for name, found in images.items():
        assert sorted(left[name] + held_out[name]) == sorted(found)
        spread = 4 * (0.1 * 0.9 * len(found)) ** 0.5  # four standard deviations
        assert abs(len(held_out[name]) - 0.1 * len(found)) < spread
    other = split_by_hash(images, 0.1, seed=1)[1]
    assert len(set(other["ant"]) & set(held_out["ant"])) < 100  # 40 by chance


def test_a_new_file_moves_no_other():
    before = split_by_hash({"ant": files(100)}, 0.2, 0)[1]["ant"]
    for new in range(30):
        more = {"ant": [*files(100), f"/anywhere/new_{new}.jpg"], "bee": files(9)}
        after = split_by_hash(more, 0.2, 0)[1]["ant"]
        assert [file for file in after if "new" not in file] == before
    assert split_by_hash({"ant": files(100)[::-1]}, 0.2, 0)[1]["ant"][::-1] == before


def test_the_hash_depends_on_seed_class_and_name_alone():
    assert hash_fraction(0, "ant", "/a/1.jpg") == hash_fraction(0, "ant", "/elsewhere/b/1.jpg")
    decomposed, composed = "cafe\u0301.jpg", "caf\u00e9.jpg"
    assert hash_fraction(0, "ant", decomposed) == hash_fraction(0, "ant", composed)
    fractions = [
        hash_fraction(*key) for key in ((0, "a", "1"), (1, "a", "1"), (0, "b", "1"), (0, "a", "2"))
    ]
    assert len(set(fractions)) == 4 and 0 <= min(fractions) <= max(fractions) < 1
    assert hash_fraction(0, "ant", "/a/1.jpg") == 0.23720656178713773  # runs rely on it


def test_classes_too_small_to_split():
    with pytest.raises(UserError, match="the class ant has one image"):
        split_by_hash({"ant": files(1)}, 0.1, 0)
    left, held_out = split_by_hash({"ant": files(2)}, 0.01, 0)
    assert len(left["ant"]) == len(held_out["ant"]) == 1
    for share in (0.01, 0.2, 0.999):
        for name in map(str, range(50)):
            left, held_out = split_by_hash({name: files(2)}, share, 0)
            assert len(left[name]) == len(held_out[name]) == 1


@pytest.fixture
def flat(image_folder, tmp_path):
    """Class folders of eight images each, as a user's folder that changes."""
    root = tmp_path / "mine"
    shutil.copytree(image_folder / "train", root)
    return root


RECIPE = {"data_dir": None, "validation_split": 0.3, "seed": 1}


def run_on(folder, workdir, **recipe):
    """A run directory that was begun on a folder, as far as evaluation looks at it."""
    recipe = RECIPE | {"dataset": str(folder)} | recipe
    opened = datasets.open_dataset(str(folder), None, recipe["validation_split"], recipe["seed"])
    workdir.mkdir(parents=True, exist_ok=True)
    split_record.write(workdir, opened, split_record.record_of(opened))
    return evaluation_set.Run(recipe, workdir), opened


def evaluated(runs, dataset=None, make=None):
    notes = []
    if make:
        colors(Path(dataset).with_name(make[0]), make[1])
    opened = evaluation_set.dataset_for(runs, dataset, None, notes.append)
    return opened.validation.files, notes


def test_exactly_the_held_out_images_are_evaluated(flat, tmp_path):
    run, opened = run_on(flat, tmp_path / "run")
    held_out = opened.validation.files
    assert evaluated([run]) == (held_out, [])
    assert evaluated([run], str(flat)) == (held_out, [])  # by its path, too
    trained = Path(opened.train.files[0])
    new = trained.with_name("copy_of_it.jpg")
    for number in range(40):  # some of them are held out by their names
        shutil.copy(trained, new.with_name(f"new_{number}.jpg"))
    Path(held_out[0]).unlink()
    found, notes = evaluated([run])
    assert found == held_out[1:]
    assert "1 of the images that" in notes[0] and "that are new or were trained on" in notes[0]


def test_images_that_were_trained_on_are_counted(image_folder, tmp_path):
    run, _ = run_on(image_folder, tmp_path / "run")
    found, notes = evaluated([run], str(image_folder / "train"))
    assert len(found) == 24
    assert "was trained on 24 of these 24 images" in notes[0]
    found, notes = evaluated([run], str(image_folder / "val"))
    assert len(found) == 9 and not notes


def test_a_set_that_was_moved_is_known(flat, tmp_path):
    run, opened = run_on(flat, tmp_path / "run")
    names = [Path(file).name for file in opened.validation.files]
    moved = shutil.copytree(flat, tmp_path / "elsewhere" / "other name")
    found, notes = evaluated([run], str(moved))
    assert [Path(file).name for file in found] == names and not notes
    both = tmp_path / "both"
    shutil.copytree(flat, both / "mine")
    shutil.copytree(run.workdir, both / "run")
    shutil.rmtree(flat)
    found, _ = evaluated([run._replace(workdir=both / "run")])
    assert [Path(file).name for file in found] == names


def test_runs_that_held_out_different_images_are_not_averaged(image_folder, tmp_path):
    def runs(folder, *seeds):
        return [run_on(folder, tmp_path / f"{folder.name}{s}", seed=s)[0] for s in seeds]

    with pytest.raises(UserError, match="held out different images"):
        evaluated(runs(image_folder / "train", 1, 2))
    assert len(evaluated(runs(image_folder / "train", 1, 1))[0]) > 3
    assert len(evaluated(runs(image_folder, 1, 2))[0]) == 9  # each has the folder val/


def test_a_run_that_does_not_say_is_warned_of(flat, tmp_path):
    run, _ = run_on(flat, tmp_path / "run")
    (run.workdir / split_record.SPLIT_FILE).unlink()
    _, notes = evaluated([run])
    assert "it may have been trained on some of these" in notes[0]
    found, notes = evaluated([run], str(flat.parent / "other_set"), make=("other_set", 3))
    assert len(found) == 6 and not notes  # nobody can tell


@pytest.mark.parametrize("kind", ["PNG", "BMP"])
def test_other_images_of_the_same_names_and_sizes_are_not_taken_for_those_of_the_run(
    kind, tmp_path
):
    """Numbered files of a fixed size agree by chance; the whole of a fresh set is evaluated."""
    for number, name in enumerate(("mine", "fresh")):
        colors(tmp_path / name, 30, shift=100 * number, kind=kind)
    run, opened = run_on(tmp_path / "mine", tmp_path / "run")
    assert evaluated([run], str(tmp_path / "fresh")) == (all_files(tmp_path / "fresh"), [])
    copy = shutil.copytree(tmp_path / "mine", tmp_path / "copy")
    found, _ = evaluated([run], str(copy))
    assert len(found) == opened.validation.size
    one = Path(opened.train.files[0])
    shutil.copy(one, tmp_path / "fresh" / one.parent.name / one.name)
    found, notes = evaluated([run], str(tmp_path / "fresh"))
    assert found == all_files(tmp_path / "fresh") and "trained on 1 of these 60" in notes[0]


def colors(root, count, shift=0, kind="PNG"):
    """Two classes of numbered images of one color each."""
    for name in ("ant", "bee"):
        (root / name).mkdir(parents=True)
        for number in range(count):
            color = ((number * 7 + shift) % 256, number, 255 if name == "ant" else 0)
            Image.new("RGB", (16, 16), color).save(root / name / f"{number}.{kind.lower()}")


def all_files(root):
    return [str(file) for name in ("ant", "bee") for file in sorted((root / name).iterdir())]


def test_images_in_both_splits_are_named(tmp_path):
    colors(tmp_path / "train", 9)
    shutil.copytree(tmp_path / "train", tmp_path / "val")
    opened = datasets.open_dataset(str(tmp_path))
    named = split_record.in_both_splits(opened, split_record.record_of(opened))
    assert named == " (val/ant/0.png, val/ant/1.png, val/ant/2.png, …)"
    shutil.rmtree(tmp_path / "val")
    colors(tmp_path / "val", 9, shift=50)
    opened = datasets.open_dataset(str(tmp_path))
    assert not split_record.in_both_splits(opened, split_record.record_of(opened))


def prepared_run(share, workdir, folder):
    """A run on a prepared set without a split for validation."""
    opened = datasets.open_dataset(str(folder), validation_split=share)
    workdir.mkdir()
    split_record.write(workdir, opened, split_record.record_of(opened))
    recipe = {"dataset": "grays", "data_dir": None, "validation_split": share, "seed": 0}
    return evaluation_set.Run(recipe, workdir)


def test_a_prepared_set_by_any_name_is_evaluated_on_what_was_held_out(tmp_path):
    builder = test_tfds_records.prepare(tmp_path / "data")
    run = prepared_run(0.2, tmp_path / "run", builder.data_dir)
    copy = shutil.copytree(Path(builder.data_dir).parent, tmp_path / "copy" / "grays")
    for folder in (builder.data_dir, Path(builder.data_dir).parent, copy, copy / "1.0.0"):
        notes = []
        opened = evaluation_set.dataset_for([run], str(folder), None, notes.append)
        assert opened.validation.source == "grays/1.0.0 train[80%:]" and not notes
    whole = datasets.open_dataset(str(copy))
    count = evaluation_set.warn_of_training_images([run], whole, notes.append)
    assert count == whole.validation.size
    assert f"trained on {whole.validation.size} of these" in notes[0]
    other = prepared_run(0.4, tmp_path / "other", builder.data_dir)
    with pytest.raises(UserError, match="held out different images"):
        evaluation_set.dataset_for(
            [run._replace(recipe=run.recipe | {"dataset": str(copy)}), other], None
        )


def test_of_a_prepared_set_the_splits_are_compared():
    split = datasets.Split(90, None, None, source="mnist/3.0.1 train[:90%]")
    contents = datasets.Contents("mnist/3.0.1", None, None, datasets.Skipped("mnist"))
    begun = datasets.ImageDataset(
        ["0"], split, dataclasses.replace(split, source="mnist/3.0.1 test"), contents
    )
    before = split_record.record_of(begun)
    assert before.same_as(split_record.record_of(begun))
    other = begun._replace(
        train=dataclasses.replace(split, source="mnist/3.0.1 train[:80%]", size=80)
    )
    said = split_record.describe_changes(before, other, split_record.record_of(other))
    assert said == "its training set is now mnist/3.0.1 train[:80%] of 80 images"


def test_changes_are_said_by_name(flat):
    opened = datasets.open_dataset(str(flat), None, 0.3, 1)
    before = split_record.record_of(opened)
    shutil.copy(opened.train.files[0], Path(opened.train.files[0]).with_name("added.jpg"))
    Path(opened.train.files[1]).unlink()
    now = datasets.open_dataset(str(flat), None, 0.3, 1)
    said = split_record.describe_changes(before, now, split_record.record_of(now))
    assert "1 new in its" in said and "added.jpg" in said and "1 gone from its training" in said
    assert not split_record.describe_changes(before, now, before)


def test_a_run_hashes_each_file_once(flat, monkeypatch):
    before = split_record.record_of(datasets.open_dataset(str(flat), None, 0.3, 1))
    opened, again = (datasets.open_dataset(str(flat), None, 0.3, 1) for _ in range(2))
    hashed = []

    def file_name(file):
        hashed.append(file)
        return listing.file_name(file)

    monkeypatch.setattr(datasets, "file_name", file_name)
    resumed = split_record.without_trained(opened, before).validate_on([2, 0])
    split_record.describe_changes(before, resumed, split_record.record_of(resumed))
    assert sorted(hashed) == sorted(opened.train.files + opened.validation.files)
    fresh = again.validation.part([2, 0])
    assert fresh.files == [opened.validation.files[index] for index in (2, 0)]
    assert resumed.validation.hashes.tolist() == fresh.hashes.tolist()


def test_training_images_are_no_longer_validated_on(image_folder, tmp_path):
    """Images of `train/` that somebody moves to `val/` while the run waits."""
    root = shutil.copytree(image_folder, tmp_path / "mine")
    opened = datasets.open_dataset(str(root))
    before = split_record.record_of(opened)
    for number in (0, 1):
        moved = root / "train" / "ring" / f"{number}.jpg"
        moved.rename(root / "val" / "ring" / f"moved_{moved.name}")
        (root / "val" / "ring" / f"moved_{moved.name}").rename(root / "val" / "ring" / moved.name)
    shutil.copy(root / "val" / "star" / "0.jpg", root / "val" / "star" / "fresh.jpg")
    now = datasets.open_dataset(str(root))
    left = split_record.without_trained(now, before)
    names = [os.path.relpath(file, root / "val") for file in left.validation.files]
    assert "ring/0.jpg" not in names and "star/fresh.jpg" in names and left.validation.size == 8
    after = before.resumed_on(split_record.record_of(now))
    assert len(after.train_only) == 24 and len(after.validation) == 8
