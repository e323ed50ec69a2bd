import errno

import keras
import numpy as np
import pytest

from keras_googlenet.errors import UserError, WriteError
from keras_googlenet.training import checkpoints
from keras_googlenet.training.checkpoints import Checkpoints, assign, values, variables_by_name

ROLES = ("momentum", "velocity", "average")  # of Adam, with an average


@pytest.fixture
def store(tmp_path):
    return Checkpoints(tmp_path / "checkpoints")


def save(store, step, value=1 / 3):
    arrays = {"conv/kernel": np.full(3, value, "float32"), "seed": np.int32(7)}
    store.save(arrays, {"epoch": 0, "step": step, "history": [{"loss": 0.1}]})


def newest_step(store):
    return store.newest()[1]["step"]


def files(store):
    return sorted(path.name for path in store.folder.iterdir())


def test_what_is_saved_comes_back_to_the_bit(store):
    assert store.newest() is None
    save(store, 1)
    arrays, record = store.newest()
    assert record == {"epoch": 0, "step": 1, "history": [{"loss": 0.1}]}
    assert arrays.keys() == {"conv/kernel", "seed"} and arrays["seed"] == 7
    np.testing.assert_array_equal(arrays["conv/kernel"], np.full(3, 1 / 3, "float32"))


def test_the_two_newest_stay(store):
    for step in (9, 10, 100):
        save(store, step)
    assert files(store) == ["00000-00000010.npz", "00000-00000100.npz"]


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"x" * 99])
def test_a_damaged_checkpoint_is_skipped_and_removed(damage, store, capsys):
    save(store, 1, value=1)
    save(store, 2, value=2)
    newest = store.folder / "00000-00000002.npz"
    newest.write_bytes(damage(newest.read_bytes()))
    arrays, record = store.newest()
    assert record["step"] == 1
    assert "00000-00000002.npz is damaged" in capsys.readouterr().err
    np.testing.assert_array_equal(arrays["conv/kernel"], np.ones(3))
    store.remove_leftovers()
    assert files(store) == ["00000-00000001.npz"]


def test_a_flipped_bit_is_noticed(store):
    save(store, 1, value=1)
    save(store, 2, value=2)
    newest = store.folder / "00000-00000002.npz"
    content = bytearray(newest.read_bytes())
    place = content.index(np.full(3, 2, "float32").tobytes())
    content[place] ^= 1
    newest.write_bytes(content)
    assert newest_step(store) == 1


def test_a_full_disk_keeps_the_old_checkpoint(store, monkeypatch):
    save(store, 1, value=1)

    def full(file, **arrays):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints.np, "savez", full)
    with pytest.raises(WriteError, match="No space left on device"):
        save(store, 2, value=2)
    assert files(store) == ["00000-00000001.npz"]
    monkeypatch.undo()
    assert newest_step(store) == 1
    save(store, 3)
    assert files(store) == ["00000-00000001.npz", "00000-00000003.npz"]


def test_half_written_files_of_a_killed_process_are_removed(store):
    save(store, 1)
    half = store.folder / ".00000-00000002.npz.abc"
    half.mkdir()
    (half / "00000-00000002.npz").write_bytes(b"half")
    store.remove_leftovers()
    assert files(store) == ["00000-00000001.npz"]


def test_a_checkpoint_of_an_earlier_version_is_refused(store):
    """It stored arrays by position, so that two of one shape could be swapped."""
    store.folder.mkdir()
    np.savez(store.folder / "00000-00000001.npz", **{"record": "{}", "00000": np.ones(3)})
    with pytest.raises(UserError, match="written by an earlier version.* another --workdir"):
        store.newest()


def network_and_optimizer(optimizer=keras.optimizers.Adam):
    image = keras.Input((2,))
    x = keras.layers.Dropout(0.5, name="dropout")(image)
    model = keras.Model(image, keras.layers.Dense(2, name="main")(x))
    optimizer = optimizer(name="optimizer", use_ema=True)
    optimizer.build(model.trainable_variables)
    return model, optimizer


def test_names_of_variables_do_not_depend_on_what_was_built_before():
    """Keras numbers the random states of dropout within the process."""
    names = [variables_by_name(*network_and_optimizer()).keys() for _ in range(2)]
    assert names[0] == names[1]
    assert names[0] == {
        "dropout/seed_generator_state",
        "main/kernel",
        "main/bias",
        "optimizer/iteration",
        "optimizer/learning_rate",
        *(f"optimizer/main_{weight}_{role}" for weight in ("kernel", "bias") for role in ROLES),
    }


def test_moments_of_one_shape_are_not_swapped():
    variables = variables_by_name(*network_and_optimizer())
    arrays = values(variables)
    for number, role in enumerate(ROLES):
        arrays[f"optimizer/main_kernel_{role}"] = np.full((2, 2), number, "float32")
    assign(variables, dict(reversed(arrays.items())))
    for number, role in enumerate(ROLES):
        assert np.all(variables[f"optimizer/main_kernel_{role}"].numpy() == number)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda arrays: arrays.pop("main/bias"), "main/bias"),
        (lambda arrays: arrays.update({"main/bias": np.zeros(3, "float32")}), "main/bias"),
        (lambda arrays: arrays.update({"main/bias": np.zeros(2, "float64")}), "main/bias"),
        (lambda arrays: arrays.update(more=np.zeros(2)), "more"),
    ],
)
def test_a_checkpoint_of_another_network_is_refused_and_nothing_changed(change, name):
    variables = variables_by_name(*network_and_optimizer())
    before = values(variables)
    arrays = {key: value + 1 for key, value in before.items()}
    change(arrays)
    with pytest.raises(UserError, match=f"another network or optimizer .*differ in {name}"):
        assign(variables, arrays)
    for key, value in values(variables).items():
        np.testing.assert_array_equal(value, before[key])
