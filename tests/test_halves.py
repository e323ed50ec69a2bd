"""Which images are held out, and what a run directory knows of them."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from keras_googlenet.data import datasets, halves
from keras_googlenet.data.held_out import place, split_by_hash
from keras_googlenet.errors import UserError
from keras_googlenet.evaluation import sets


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


def test_a_place_depends_on_seed_class_and_name_alone():
    assert place(0, "ant", "/a/1.jpg") == place(0, "ant", "/elsewhere/b/1.jpg")
    decomposed, composed = "cafe\u0301.jpg", "caf\u00e9.jpg"
    assert place(0, "ant", decomposed) == place(0, "ant", composed)
    places = [place(*key) for key in ((0, "a", "1"), (1, "a", "1"), (0, "b", "1"), (0, "a", "2"))]
    assert len(set(places)) == 4 and 0 <= min(places) <= max(places) < 1
    assert place(0, "ant", "/a/1.jpg") == 0.23720656178713773  # must never change: runs rely on it


def test_classes_too_small_to_split():
    with pytest.raises(UserError, match="the class ant has one image"):
        split_by_hash({"ant": files(1)}, 0.1, 0)
    left, held_out = split_by_hash({"ant": files(2)}, 0.01, 0)
    assert len(left["ant"]) == len(held_out["ant"]) == 1
    with pytest.raises(UserError, match="0.999 leaves none of the 2 images of the class ant"):
        split_by_hash({"ant": files(2)}, 0.999, 0)


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
    halves.write(workdir, opened, halves.halves_of(opened))
    return sets.Trained(recipe, workdir), opened


def measured(runs, dataset=None):
    notes = []
    opened = sets.dataset_for(runs, dataset, None, notes.append)
    return opened.validation.files, notes


def test_what_was_held_out_is_what_is_measured_on(flat, tmp_path):
    run, opened = run_on(flat, tmp_path / "run")
    held_out = opened.validation.files
    assert measured([run]) == (held_out, [])
    assert measured([run], str(flat)) == (held_out, [])  # the same set is taken for its half
    learnt = Path(opened.train.files[0])
    new = learnt.with_name("copy_of_it.jpg")
    for number in range(40):  # some of them are held out by their names
        shutil.copy(learnt, new.with_name(f"new_{number}.jpg"))
    Path(held_out[0]).unlink()
    found, notes = measured([run])
    assert found == held_out[1:]
    assert "1 of the images that" in notes[0] and "new or were learnt from" in notes[0]


def test_images_that_were_learnt_from_are_counted(image_folder, tmp_path):
    run, _ = run_on(image_folder, tmp_path / "run")
    found, notes = measured([run], str(image_folder / "train"))
    assert len(found) == 24
    assert "was trained on 24 of these 24 images" in notes[0]
    found, notes = measured([run], str(image_folder / "val"))
    assert len(found) == 9 and not notes


def test_a_set_that_was_moved_is_known(flat, tmp_path):
    run, opened = run_on(flat, tmp_path / "run")
    names = [Path(file).name for file in opened.validation.files]
    moved = shutil.copytree(flat, tmp_path / "elsewhere" / "other name")
    found, notes = measured([run], str(moved))
    assert [Path(file).name for file in found] == names and not notes
    both = tmp_path / "both"
    shutil.copytree(flat, both / "mine")
    shutil.copytree(run.workdir, both / "run")
    shutil.rmtree(flat)
    found, _ = measured([run._replace(workdir=both / "run")])
    assert [Path(file).name for file in found] == names


def test_runs_that_held_out_different_images_are_not_averaged(image_folder, tmp_path):
    def runs(folder, *seeds):
        return [run_on(folder, tmp_path / f"{folder.name}{s}", seed=s)[0] for s in seeds]

    with pytest.raises(UserError, match="validated on different images"):
        measured(runs(image_folder / "train", 1, 2))
    assert len(measured(runs(image_folder / "train", 1, 1))[0]) > 3
    assert len(measured(runs(image_folder, 1, 2))[0]) == 9  # each has the folder val/


def test_an_old_run_that_does_not_say_is_warned_of(flat, tmp_path):
    run, opened = run_on(flat, tmp_path / "run")
    (run.workdir / halves.HALVES_FILE).unlink()
    found, notes = measured([run])
    assert found == opened.validation.files and "does not say which images" in notes[0]


def test_of_a_prepared_set_the_splits_are_compared(tmp_path):
    split = datasets.Split(90, None, None, source="mnist/3.0.1 train[:90%]")
    contents = datasets.Contents("mnist/3.0.1", None, None, datasets.LeftOut("mnist"))
    begun = datasets.ImageDataset(["0"], split, split._replace(source="mnist/3.0.1 test"), contents)
    before = halves.halves_of(begun)
    assert before.same_as(halves.halves_of(begun))
    other = begun._replace(train=split._replace(source="mnist/3.0.1 train[:80%]", size=80))
    said = halves.changes(before, other, halves.halves_of(other))
    assert said == "its training half is mnist/3.0.1 train[:80%] of 80 images now"


def test_changes_are_said_by_name(flat):
    opened = datasets.open_dataset(str(flat), None, 0.3, 1)
    before = halves.halves_of(opened)
    shutil.copy(opened.train.files[0], Path(opened.train.files[0]).with_name("added.jpg"))
    Path(opened.train.files[1]).unlink()
    now = datasets.open_dataset(str(flat), None, 0.3, 1)
    said = halves.changes(before, now, halves.halves_of(now))
    assert "1 new in its" in said and "added.jpg" in said and "1 gone from its training" in said
    learnt = before._replace(train=before.validation, validation=before.train)
    said = halves.changes(learnt, now, before)
    assert f"{len(before.validation)} that it learnt from would be measured on (" in said
    assert not halves.changes(before, now, before)
    after = learnt.followed_by(before)
    np.testing.assert_array_equal(after.train, np.union1d(before.train, before.validation))
    assert not len(after.validation)  # all of it was learnt from
