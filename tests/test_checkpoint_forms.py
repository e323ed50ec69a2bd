"""TF-slim's checkpoints as a training leaves them: slots, folders, scopes, other class counts."""

import numpy as np
import pytest
import slim_checkpoint
import thin_network
from test_caffe import logits_of

from keras_googlenet.errors import UserError
from keras_googlenet.imagenet import preprocess_input
from keras_googlenet.weights.conversion import convert_file

TOLERANCE = 1e-3  # of logits whose standard deviation is over 0.1
IMAGES = np.random.default_rng(1).uniform(0, 255, (1, 224, 224, 3)).astype("float32")
SLOTS = ("RMSProp", "RMSProp_1", "Momentum", "ExponentialMovingAverage")
HEAD = "InceptionV1/Logits/Conv2d_0c_1x1"
slow = pytest.mark.slow  # imports TensorFlow in a process of its own
in_this_process = pytest.mark.usefixtures("read_in_this_process")


def variables(classes, share=thin_network.SHARE, slots=SLOTS):
    """What the network computes with, and all that its training saves."""
    values = slim_checkpoint.variables(share=share)
    for name in (f"{HEAD}/weights", f"{HEAD}/biases"):
        values[name] = values[name][..., :classes]
    trained = [name for name in values if name.endswith(("weights", "beta", "biases"))]
    beside = {f"{n}/{slot}": np.full_like(values[n], 0.5) for n in trained for slot in slots}
    return values, values | beside


def check(path, values):
    """Converts a checkpoint and compares its logits with TensorFlow's on the variables."""
    conversion = convert_file(path)
    assert conversion.model.output_names == ["main"] and conversion.absent == ["aux1", "aux2"]
    expected = slim_checkpoint.logits(values, preprocess_input(IMAGES, "slim"))
    assert np.std(expected) > 0.1
    np.testing.assert_allclose(logits_of(conversion.model, IMAGES)[0], expected, atol=TOLERANCE)


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    """A folder with checkpoints of steps 3 and 7 of five classes, and the variables of step 7."""
    folder = tmp_path_factory.mktemp("training")
    values, everything = variables(classes=5)
    earlier = {name: 0 * value for name, value in everything.items()}
    for step, saved in ((3, earlier), (7, everything)):
        slim_checkpoint.save(saved, folder / f"model.ckpt-{step}", old_form=False)
        (folder / f"model.ckpt-{step}.meta").write_bytes(b"the graph, which nobody reads")
    return folder, values


def copy(folder, target, pattern="*"):
    for file in folder.glob(pattern):
        (target / file.name).write_bytes(file.read_bytes())


PARTS = ("", ".index", ".meta", ".data-00000-of-00001")


@in_this_process
@pytest.mark.parametrize("part", PARTS)
def test_a_training_by_any_of_its_files(part, training):
    check(training[0] / f"model.ckpt-7{part}", training[1])


@slow
def test_the_folder_of_a_training(training):
    check(*training)


@in_this_process
def test_a_folder_from_another_machine(training, tmp_path):
    copy(training[0], tmp_path)
    text = (tmp_path / "checkpoint").read_text()
    assert str(training[0]) in text
    (tmp_path / "checkpoint").write_text(text.replace(str(training[0]), "/home/somebody/runs"))
    check(tmp_path, training[1])


@in_this_process
def test_a_folder_without_the_file_checkpoint(training, tmp_path):
    copy(training[0], tmp_path, "model.ckpt-7*")
    check(tmp_path, training[1])
    copy(training[0], tmp_path, "model.ckpt-3*")
    with pytest.raises(UserError, match=r"model\.ckpt-3.*model\.ckpt-7"):
        convert_file(tmp_path)


@in_this_process
@pytest.mark.parametrize("scope", ["clone_0/", "tower/net/"])
@pytest.mark.parametrize("old_form", [True, False], ids=["one file", "two files"])
def test_a_scope_in_front(scope, old_form, tmp_path):
    values, everything = variables(classes=1001)
    scoped = {n if n == "global_step" else scope + n: v for n, v in everything.items()}
    slim_checkpoint.save(scoped, tmp_path / "model.ckpt", old_form)
    check(tmp_path / "model.ckpt", values)


@slow
def test_a_checkpoint_of_more_than_64_mib(tmp_path):
    with thin_network.installed(thin_network.WHOLE):
        values, everything = variables(classes=1001, share=1, slots=SLOTS[:2])
        slim_checkpoint.save(everything, tmp_path / "model.ckpt", old_form=False)
        assert (tmp_path / "model.ckpt.data-00000-of-00001").stat().st_size > 64 * 2**20
        check(tmp_path / "model.ckpt", values)


@slow
def test_data_that_is_cut_off(training, tmp_path):
    copy(training[0], tmp_path, "model.ckpt-7*")
    data = tmp_path / "model.ckpt-7.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[: data.stat().st_size // 10])  # slots are at the end
    with pytest.raises(UserError, match="damaged|cut off"):
        convert_file(tmp_path)


def test_parts_that_are_not_enough(training, tmp_path):
    copy(training[0], tmp_path, "model.ckpt-7.data*")
    with pytest.raises(UserError, match=r"model.ckpt-7.index is not beside it"):
        convert_file(tmp_path / "model.ckpt-7.data-00000-of-00001")


def test_what_computes_and_has_no_place_is_refused(tmp_path, read_in_this_process):
    _, everything = variables(classes=5)
    more = everything | {"InceptionV1/Mixed_3b/SE/fc1/weights": np.ones((4, 4), "float32")}
    slim_checkpoint.save(more, tmp_path / "a.ckpt")
    with pytest.raises(UserError, match="TF-slim.* has no place for .*SE/fc1/weights"):
        convert_file(tmp_path / "a.ckpt")
