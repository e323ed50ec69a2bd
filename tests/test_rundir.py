import contextlib
import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from PIL import Image

from keras_googlenet.data import datasets, split_record
from keras_googlenet.data.contents import Contents, Skipped, SplitContents
from keras_googlenet.errors import UserError
from keras_googlenet.training import rundir
from keras_googlenet.training.recipe import Recipe

RECIPE = Recipe(epochs=3, warmup_epochs=0.0)


def data(*labels):
    """A data set with what a run directory records of it."""
    split = datasets.Split(1, None, None, "drawn")
    contents = Contents("drawn", None, SplitContents("all", 1, len(labels)), Skipped("drawn"))
    return datasets.ImageDataset(list(labels), split, split, contents)


def changed(**settings):
    return dataclasses.replace(RECIPE, **settings)


@pytest.fixture
def workdir(tmp_path):
    """A run directory in which an epoch was trained."""
    with rundir.opened(RECIPE, tmp_path, data("ant", "bee")):
        rundir.write_history([{"epoch": 0}], tmp_path)
    return tmp_path


def test_only_epochs_may_be_increased(workdir, capsys):
    assert rundir.agreed_recipe(RECIPE, workdir, None) == RECIPE
    assert capsys.readouterr().err == ""
    assert rundir.agreed_recipe(changed(epochs=5), workdir, None).epochs == 5
    assert "from 3 to 5 epochs, with the schedule of 5" in capsys.readouterr().err
    for other in (changed(epochs=2), changed(epochs=5, momentum=0.5), changed(seed=1)):
        with pytest.raises(UserError, match="was .*, now .* --recipe-of run|flags"):
            rundir.agreed_recipe(other, workdir, None)


def test_a_flag_says_which_recipe_wins(workdir):
    other = changed(momentum=0.5)
    assert rundir.agreed_recipe(other, workdir, "run") == RECIPE
    assert rundir.agreed_recipe(other, workdir, "flags") == other


def test_a_folder_of_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="is not a run directory"):
        rundir.agreed_recipe(RECIPE, tmp_path, None)


def test_other_classes_are_refused(workdir):
    with pytest.raises(UserError, match="was trained on other classes"):
        with rundir.opened(RECIPE, workdir, data("ant", "wasp")):
            pass
    assert (workdir / "labels.txt").read_text() == "ant\nbee\n"


def test_a_second_process_is_refused(tmp_path):
    code = (
        "import pathlib; from keras_googlenet.training import rundir\n"
        f"with rundir.locked(pathlib.Path({str(tmp_path)!r})): pass"
    )
    command = [sys.executable, "-c", code]
    with rundir.locked(tmp_path):
        second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert second.returncode and "another process trains in" in second.stderr
    assert subprocess.run(command, cwd=ROOT).returncode == 0


def test_history_has_one_header(tmp_path):
    rows = [{"epoch": 0, "loss": 1 / 3}, {"epoch": 1, "loss": 0.1}]
    for count in (1, 2):
        rundir.write_history(rows[:count], tmp_path)
    lines = (tmp_path / "history.csv").read_text().splitlines()
    assert lines == ["epoch,loss", "0,0.3333333333333333", "1,0.1"]


USERS_OWN = ["train.log", "slurm-17.out", "nohup.out", ".DS_Store", "lost+found/", "log.txt"]


@pytest.mark.parametrize("name", USERS_OWN)
def test_files_of_system_and_shell_are_accepted_and_kept(name, tmp_path):
    path = tmp_path / name
    path.mkdir() if name.endswith("/") else path.write_text("mine")
    assert rundir.agreed_recipe(RECIPE, tmp_path, None) == RECIPE
    with pytest.raises(KeyError), rundir.opened(RECIPE, tmp_path, data("ant")):
        raise KeyError
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


def test_a_failed_start_leaves_nothing_and_allows_any_recipe(tmp_path):
    workdir = tmp_path / "runs" / "mine"
    with pytest.raises(KeyError), rundir.opened(RECIPE, workdir, data("ant")):
        assert (workdir / "recipe.json").exists()
        (workdir / "logs" / "train").mkdir(parents=True)
        raise KeyError
    assert not list(tmp_path.iterdir())
    RECIPE.save(workdir)  # as left by a process that was killed before its first checkpoint
    assert rundir.agreed_recipe(changed(seed=1), workdir, None).seed == 1
    assert rundir.agreed_recipe(changed(seed=1), workdir, "run") == RECIPE


def test_a_failed_start_removes_nothing_that_was_there(tmp_path):
    """A model that somebody put beside its recipe, and logs of another program."""
    RECIPE.save(tmp_path)
    (tmp_path / "model.keras").write_bytes(b"precious")
    with pytest.raises(UserError, match="holds a run of another recipe"):
        rundir.agreed_recipe(changed(seed=1), tmp_path, None)
    (tmp_path / "other" / "logs").mkdir(parents=True)
    (tmp_path / "other" / "logs" / "mine").write_text("precious")
    for workdir in (tmp_path, tmp_path / "other"):
        with pytest.raises(KeyError), rundir.opened(RECIPE, workdir, data("ant")):
            raise KeyError
    assert (tmp_path / "model.keras").exists() and (tmp_path / "recipe.json").exists()
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["logs"]
    assert (tmp_path / "other" / "logs" / "mine").read_text() == "precious"


def test_a_later_failure_keeps_what_was_trained(tmp_path):
    with pytest.raises(KeyError), rundir.opened(RECIPE, tmp_path, data("ant")):
        (tmp_path / "checkpoints" / "00000-00000001.npz").write_bytes(b"")
        raise KeyError
    assert (tmp_path / "recipe.json").exists() and list(tmp_path.glob("checkpoints/*.npz"))


def test_a_kill_at_the_start_leaves_a_directory_that_can_be_used(tmp_path, monkeypatch):
    """The process is killed at each rename in turn; what it wrote before stays."""

    class Killed(BaseException):
        pass

    for renames in range(5):
        workdir, left = tmp_path / str(renames), iter([os.replace] * renames)

        def replace(source, target, left=left):
            step = next(left, None)
            if step is None:
                shutil.copytree(Path(source).parent, f"{Path(source).parent}_killed")
                raise Killed
            step(source, target)

        with rundir.locked(workdir), monkeypatch.context() as patch:
            patch.setattr(os, "replace", replace)
            with contextlib.suppress(Killed):
                rundir._describe(RECIPE, workdir, data("ant", "bee"))
        assert rundir.agreed_recipe(RECIPE, workdir, None) == RECIPE
        with rundir.opened(RECIPE, workdir, data("ant", "bee")):
            pass
        names = sorted(path.name for path in workdir.iterdir())
        assert names == ["checkpoints", "data.json", "data.npz", "labels.txt", "recipe.json"]


def test_labels_without_a_recipe_are_accepted_only_beside_checkpoints(tmp_path):
    (tmp_path / "labels.txt").write_text("mine")
    with pytest.raises(UserError, match="is not a run directory"):
        rundir.agreed_recipe(RECIPE, tmp_path, None)
    with rundir.locked(tmp_path):
        assert rundir.agreed_recipe(RECIPE, tmp_path, None) == RECIPE


@pytest.mark.parametrize("content", [b"", b"{", bytes(3), b"\xff"])
def test_damaged_metrics_do_not_mark_a_run_as_finished(content, workdir):
    (workdir / "metrics.json").write_bytes(content)
    assert rundir.finished_metrics(RECIPE, workdir) is None
    rundir.write_metrics({"epochs": 3}, workdir)
    assert rundir.finished_metrics(RECIPE, workdir) == {"epochs": 3}


def write_images(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9), (len(str(path.name)), 0, 99)).save(path)
    return root


def test_a_resumed_run_says_how_its_data_changed(tmp_path, capsys):
    root = write_images(
        tmp_path / "mine", *(f"{c}/{n}.png" for c in ("ant", "bee") for n in range(12))
    )
    recipe = changed(dataset=str(root))
    workdir = tmp_path / "run"
    begun = datasets.open_dataset(str(root), validation_split=0.2)
    with rundir.opened(recipe, workdir, begun):
        rundir.write_history([{"epoch": 0}], workdir)
    assert "warning" not in capsys.readouterr().err
    write_images(root, "ant/added.png")
    now = datasets.open_dataset(str(root), validation_split=0.2)
    with rundir.opened(recipe, workdir, now):
        pass
    said = capsys.readouterr().err
    assert "has changed: 1 new in its" in said and "set (ant/added.png)" in said
    known = split_record.read(workdir)
    assert len(known.train) + len(known.validation) == 25
    (workdir / "data.npz").unlink()  # as in runs of versions before that file
    with rundir.opened(recipe, workdir, now):
        pass
    assert "does not say which images it was trained on" in capsys.readouterr().err
    assert split_record.read(workdir) is None and (workdir / "data.json").exists()


def test_a_start_that_trained_nothing_has_learned_from_nothing(tmp_path):
    """Killed before its first checkpoint: another seed may hold out other images."""
    names = (f"{c}/{n}.png" for c in ("ant", "bee") for n in range(12))
    root = write_images(tmp_path / "mine", *names)
    begun = datasets.open_dataset(str(root), validation_split=0.2)
    workdir = tmp_path / "run"
    with rundir.locked(workdir):
        rundir._describe(changed(dataset=str(root)), workdir, begun)
    assert split_record.read(workdir) is not None and rundir.previous_splits(workdir) is None
    rundir.write_history([{"epoch": 0}], workdir)
    known = rundir.previous_splits(workdir)
    assert known.same_as(split_record.record_of(begun))
    other = datasets.open_dataset(str(root), validation_split=0.4, seed=1)
    left = split_record.without_trained(other, known)
    assert left.validation.size < other.validation.size
    assert left.contents.validation.images == left.validation.size


def test_a_data_set_that_was_moved_needs_no_flag(tmp_path, capsys):
    names = [f"{c}/{n}.png" for c in ("ant", "bee") for n in range(12)]
    root = write_images(tmp_path / "mine", *names)
    recipe = changed(dataset=str(root))
    workdir = tmp_path / "run"
    with rundir.opened(recipe, workdir, datasets.open_dataset(str(root), None, 0.1, 0)):
        rundir.write_history([{"epoch": 0}], workdir)
    moved = root.rename(tmp_path / "elsewhere")
    there = changed(dataset=str(moved))
    assert rundir.agreed_recipe(there, workdir, None) == there
    assert f"has moved to {moved}" in capsys.readouterr().err
    assert Recipe.load(workdir) == there
    write_images(tmp_path / "other", *names[:-1])
    with pytest.raises(UserError, match="holds a run of another recipe .dataset was"):
        rundir.agreed_recipe(changed(dataset=str(tmp_path / "other")), workdir, None)
