import errno

import keras
import numpy as np
import pytest

from keras_googlenet.errors import UserError, WriteError
from keras_googlenet.training import checkpoints
from keras_googlenet.training.checkpoints import Checkpoints


@pytest.fixture
def kept(tmp_path):
    variables = [keras.Variable(np.full(3, 1 / 3, "float32")), keras.Variable(7, dtype="int32")]
    return Checkpoints(tmp_path / "checkpoints", variables)


def save(kept, step, value=None):
    if value is not None:
        kept.variables[0].assign(np.full(3, value, "float32"))
    kept.save(kept.values(), {"epoch": 0, "step": step, "history": [{"loss": 0.1}]})


def files(kept):
    return sorted(path.name for path in kept.folder.iterdir())


def test_what_is_saved_comes_back_to_the_bit(kept):
    assert kept.restore() is None
    save(kept, 1)
    kept.variables[0].assign(np.zeros(3))
    kept.variables[1].assign(0)
    assert kept.restore() == {"epoch": 0, "step": 1, "history": [{"loss": 0.1}]}
    np.testing.assert_array_equal(kept.variables[0], np.full(3, 1 / 3, "float32"))
    assert int(kept.variables[1]) == 7


def test_the_two_newest_stay(kept):
    for step in (9, 10, 100):
        save(kept, step)
    assert files(kept) == ["00000-00000010.npz", "00000-00000100.npz"]


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"x" * 99])
def test_the_newest_good_one_is_found_beside_a_truncated_one(damage, kept, capsys):
    save(kept, 1, value=1)
    save(kept, 2, value=2)
    newest = kept.folder / "00000-00000002.npz"
    newest.write_bytes(damage(newest.read_bytes()))
    assert kept.restore()["step"] == 1
    assert "00000-00000002.npz is damaged" in capsys.readouterr().err
    np.testing.assert_array_equal(kept.variables[0], np.ones(3))
    kept.remove_leftovers()
    assert files(kept) == ["00000-00000001.npz"]


def test_a_flipped_bit_is_noticed(kept):
    save(kept, 1, value=1)
    save(kept, 2, value=2)
    newest = kept.folder / "00000-00000002.npz"
    content = bytearray(newest.read_bytes())
    place = content.index(np.full(3, 2, "float32").tobytes())
    content[place] ^= 1
    newest.write_bytes(content)
    assert kept.restore()["step"] == 1


def test_a_full_disk_costs_the_new_one_only(kept, monkeypatch):
    save(kept, 1, value=1)

    def full(file, **arrays):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints.np, "savez", full)
    with pytest.raises(WriteError, match="No space left on device"):
        save(kept, 2, value=2)
    assert files(kept) == ["00000-00000001.npz"]
    monkeypatch.undo()
    assert kept.restore()["step"] == 1
    save(kept, 3)
    assert files(kept) == ["00000-00000001.npz", "00000-00000003.npz"]


def test_half_written_files_of_a_killed_process_are_removed(kept):
    save(kept, 1)
    half = kept.folder / ".00000-00000002.npz.abc"
    half.mkdir()
    (half / "00000-00000002.npz").write_bytes(b"half")
    kept.remove_leftovers()
    assert files(kept) == ["00000-00000001.npz"]


def test_a_checkpoint_of_another_network_is_refused(kept):
    save(kept, 1)
    other = Checkpoints(kept.folder, [keras.Variable(np.zeros(4))])
    with pytest.raises(UserError, match="of another network or optimizer"):
        other.restore()
