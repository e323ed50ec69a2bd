"""torchvision's files against torchvision's own network."""

import numpy as np
import pytest
import torchvision_peer
from test_caffe import logits_of

from keras_googlenet.imagenet import preprocess_input
from keras_googlenet.weights import convert
from keras_googlenet.weights.conversion import convert_file

FULL_WIDTH = True
TOLERANCE = 1e-4  # of logits
pytestmark = pytest.mark.peers("torch", "torchvision")


def save_new(state, path):
    import torch

    torch.save(state, path)


def save_old(state, path):
    import torch

    torch.save(state, path, _use_new_zipfile_serialization=False)


def save_safetensors(state, path):
    from safetensors.torch import save_file

    save_file(state, path)


@pytest.fixture(scope="module")
def network():
    return torchvision_peer.random_network()


@pytest.mark.parametrize("save", [save_new, save_old, save_safetensors])
def test_three_heads_agree_in_every_form(save, network, tmp_path):
    save(network.state_dict(), tmp_path / "weights")
    conversion = convert_file(tmp_path / "weights")
    model = conversion.model
    assert model.output_names == ["main", "aux1", "aux2"] and model.count_params() == 13_004_888 + (
        sum(v.numel() for n, v in network.state_dict().items() if "running" in n)
    )
    assert all(name.endswith("num_batches_tracked") for name in conversion.unused)
    images = np.random.default_rng(1).uniform(0, 255, (1, 224, 224, 3)).astype("float32")
    expected = torchvision_peer.logits(network, preprocess_input(images, "torchvision"))
    for actual, wanted in zip(logits_of(model, images), expected, strict=True):
        assert np.std(wanted) > 0.01
        print(save.__name__, "greatest logit difference", np.abs(actual - wanted).max())
        np.testing.assert_allclose(actual, wanted, atol=TOLERANCE)


def test_without_the_auxiliary_heads(network, tmp_path):
    state = {name: v for name, v in network.state_dict().items() if not name.startswith("aux")}
    save_new(state, tmp_path / "weights.pth")
    assert convert(tmp_path / "weights.pth").output_names == ["main"]


class Malicious:
    def __reduce__(self):
        import os

        return os.system, ("touch pwned",)


@pytest.mark.parametrize("save", [save_new, save_old])
def test_code_in_a_pickle_is_not_run(save, tmp_path, monkeypatch):
    from keras_googlenet.errors import UserError

    monkeypatch.chdir(tmp_path)
    save({"conv1.conv.weight": Malicious()}, tmp_path / "weights.pth")
    with pytest.raises(
        UserError, match=r"names (posix|os|nt)\.system, which runs.*nothing of it was run"
    ):
        convert(tmp_path / "weights.pth")
    assert not (tmp_path / "pwned").exists()
