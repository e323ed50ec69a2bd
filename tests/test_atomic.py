import os
from pathlib import Path

import pytest

from keras_googlenet.atomic import remove_leftovers, replacing
from keras_googlenet.errors import UserError


def test_a_file_is_replaced_at_once(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    for content in ("old", "new"):
        with replacing(path) as file:
            file.write_text(content)
            assert not path.exists() or path.read_text() == "old"
        assert path.read_text() == content
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_appears_whole(tmp_path):
    with replacing(tmp_path / "versions" / "1") as folder:
        folder.mkdir()
        (folder / "a").write_text("")
        assert not (tmp_path / "versions" / "1").exists()
    assert (tmp_path / "versions" / "1" / "a").exists()


def test_a_failure_leaves_everything_as_it_was(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(KeyError), replacing(path) as file:
        file.write_text("half")
        raise KeyError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(KeyError), replacing(tmp_path / "new" / "deep" / "file.txt"):
        raise KeyError
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_the_users_to_mend(tmp_path):
    with (
        pytest.raises(UserError, match=r"file.txt cannot be written \(No space left on device\)"),
        replacing(tmp_path / "file.txt"),
        open("/dev/full", "w") as full,
    ):
        full.write("x")


def test_a_file_where_a_folder_is_needed(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match="cannot be written"),
        replacing(tmp_path / "file" / "x"),
    ):
        pass


def test_the_bytes_are_on_the_disk_before_the_name_and_the_name_after(tmp_path, monkeypatch):
    done = []

    def sync(descriptor):
        done.append(Path(f"/proc/self/fd/{descriptor}").resolve())

    def replace(source, target):
        done.append("renamed")
        os.rename(source, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", replace)
    with replacing(tmp_path / "file") as file:
        file.write_text("new")
    with replacing(tmp_path / "folder") as folder:
        folder.mkdir()
        (folder / "part").write_text("new")
    names = [each if each == "renamed" else each.name for each in done]
    parent = tmp_path.name
    assert names == ["file", "renamed", parent, "folder", "part", "renamed", parent]


def test_leftovers_of_a_killed_process_are_removed(tmp_path):
    for name in (".a.txt.x1", ".b.txt.x1", "a.txt.d"):
        (tmp_path / name).mkdir()
    (tmp_path / ".a.txt.x1" / "a.txt").write_text("half")
    remove_leftovers(tmp_path / "a.txt")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".b.txt.x1", "a.txt.d"]
