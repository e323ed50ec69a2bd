"""Damaged files of every format: one kind of error, whatever is wrong with them."""

import collections
import random
import time

import caffe_reference
import google_graph
import pytest
import slim_checkpoint
import small_weights
import torchvision_peer

from keras_googlenet.errors import UserError
from keras_googlenet.weights import slim
from keras_googlenet.weights.checkpoint_process import read_variables
from keras_googlenet.weights.conversion import convert_file
from keras_googlenet.weights.sources import MOST_BYTES

MUTATIONS = 2000  # of each format
WHOLE_MUTATIONS = 25  # of each whole network


def marked(kinds):
    """The kinds as parameters; those that PyTorch writes need it."""
    peers = pytest.mark.peers("torch", "torchvision")
    return [
        pytest.param(kind, marks=peers) if kind.startswith(("torch", "safetensors")) else kind
        for kind in kinds
    ]


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """TensorFlow's checkpoint reader in this process: the other one takes seconds to start."""
    monkeypatch.setattr(slim, "read_in_a_process", lambda p: read_variables(p, MOST_BYTES))


def outcome_of(path):
    """What `convert_file` says; anything but success and `UserError` goes through to the test."""
    try:
        convert_file(path)
    except UserError as error:
        assert str(path) in str(error) and len(str(error)) < 2000
        return "refused"
    return "converted"


@pytest.mark.slow
@pytest.mark.parametrize("kind", marked(small_weights.WRITERS))
def test_nothing_but_the_one_error_comes_out(kind, tmp_path):
    original, mutated = tmp_path / "original", tmp_path / "mutated"
    small_weights.WRITERS[kind](original)
    content = original.read_bytes()
    with pytest.raises(UserError, match="is missing"):  # whole, it is read up to the classifier
        convert_file(original)
    began = time.time()
    for seed in range(MUTATIONS):
        if kind in ("torch, zip", "google, zip") and seed % 2:
            small_weights.mutate_members(mutated, content, seed)
        else:
            mutated.write_bytes(small_weights.mutate(content, seed))
        assert outcome_of(mutated) == "refused"
    print(kind, MUTATIONS, "mutations in", f"{time.time() - began:.1f} s")


@pytest.mark.slow
def test_an_index_and_its_data(tmp_path):
    small_weights.slim(tmp_path / "a.ckpt", old_form=False)
    files = [tmp_path / "a.ckpt.index", tmp_path / "a.ckpt.data-00000-of-00001"]
    contents = [file.read_bytes() for file in files]
    for seed in range(MUTATIONS):
        victim = seed % 2
        files[victim].write_bytes(small_weights.mutate(contents[victim], seed))
        assert outcome_of(tmp_path / "a.ckpt") == "refused"
        files[victim].write_bytes(contents[victim])


def whole_torchvision(path):
    import torch

    torch.save(torchvision_peer.random_network().state_dict(), path)


WHOLE = {
    "caffe": lambda path: caffe_reference.write_blobs(path, caffe_reference.random_blobs()),
    "torchvision": whole_torchvision,
    "slim": lambda path: slim_checkpoint.save(slim_checkpoint.variables(), path),
    "google": lambda path: path.write_bytes(google_graph.build().SerializeToString()),
}
LANDMARKS = (b"inception", b"Inception", b"mixed", b"loss", b"softmax")  # near names, not numbers


@pytest.mark.slow
@pytest.mark.parametrize("kind", marked(WHOLE))
def test_whole_networks(kind, tmp_path):
    original, mutated = tmp_path / "original", tmp_path / "mutated"
    WHOLE[kind](original)
    content = original.read_bytes()
    places = [at for mark in LANDMARKS for at in _places(content, mark)]
    seen = collections.Counter()
    for seed in range(WHOLE_MUTATIONS):
        at = random.Random(seed).choice(places)
        begin, end = max(0, at - 40), at + 60
        damaged = small_weights.mutate(content[begin:end], seed)
        mutated.write_bytes(content[:begin] + damaged + content[end:])
        seen[outcome_of(mutated)] += 1
    print(kind, dict(seen))
    assert seen["refused"] > 0


def _places(content, mark):
    at = content.find(mark)
    while at >= 0:
        yield at
        at = content.find(mark, at + 1)
