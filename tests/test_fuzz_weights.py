"""Damaged files of every format: one kind of error, whatever is wrong with them."""

import collections
import functools
import random

import caffe_reference
import google_graph
import numpy as np
import pytest
import slim_checkpoint
import small_weights
import torchvision_peer

from keras_googlenet.errors import UserError
from keras_googlenet.googlenet import GoogLeNet
from keras_googlenet.weights import conversion, sandbox
from keras_googlenet.weights.conversion import convert_file

FULL_WIDTH = True
pytestmark = pytest.mark.usefixtures("read_in_this_process")
MUTATIONS = 2000  # of each format, through its reader
FEW_MUTATIONS = 100  # of each format, through all of `convert`
WHOLE_MUTATIONS = 25  # of each whole network


def marked(kinds):
    """The kinds as parameters; those that PyTorch writes need it."""
    peers = pytest.mark.peers("torch", "torchvision")
    return [
        pytest.param(kind, marks=peers) if kind.startswith(("torch", "safetensors")) else kind
        for kind in kinds
    ]


def outcome_of(path, convert_or_read):
    """What is said to a file; anything but success and `UserError` goes through to the test."""
    try:
        arrays = convert_or_read(path)
    except UserError as error:
        assert len(str(error)) < 1000
        return "refused"
    for array in arrays:
        assert array.dtype == "float32" and array.nbytes < 64 * 2**20
    return "taken"


def convert_whole(path):
    weights = convert_file(path).model.get_weights()
    assert all(np.isfinite(value).all() for value in weights)
    return weights


def read(path):
    with sandbox.opened(path) as file:
        small = [name for name, array in file.arrays.items() if np.prod(array.shape) < 10_000]
        return file.read(small).values()


@pytest.fixture
def small_network(monkeypatch):
    """All of `convert` on a network of two layers: building GoogLeNet takes seconds."""
    monkeypatch.setattr(conversion, "GoogLeNet", small_weights.network)


def check_the_seed(path):
    """The file that is to be damaged is whole, and every number of it arrives."""
    model = convert_file(path).model
    kernel = model.get_layer(small_weights.CONV).get_weights()[0]
    np.testing.assert_array_equal(kernel, small_weights.KERNEL)
    matrix, bias = model.get_layer(small_weights.MAIN).get_weights()
    np.testing.assert_array_equal(matrix, small_weights.MATRIX)
    np.testing.assert_array_equal(bias, small_weights.BIAS)


def count_outcomes(path, victim, mutations, convert_or_read, damaged):
    """How files at `path` are taken while `victim`, the file or one of its files, is damaged."""
    content, seen = victim.read_bytes(), collections.Counter()
    for seed in range(mutations):
        mutated = damaged(content, seed)
        if mutated == content:
            seen["left alone"] += 1
            continue
        victim.write_bytes(mutated)
        seen[outcome_of(path, convert_or_read)] += 1
    victim.write_bytes(content)
    print(path.name, dict(seen))
    assert seen["refused"] > mutations / 2
    # few may all meet a checksum; among many some only change a weight
    assert seen["taken"] > 0 or mutations == FEW_MUTATIONS


FEW = pytest.param(FEW_MUTATIONS, convert_whole, id="few")
MANY = pytest.param(MUTATIONS, read, id="many", marks=pytest.mark.slow)


@pytest.mark.parametrize(("mutations", "convert_or_read"), [FEW, MANY])
@pytest.mark.parametrize("kind", marked(small_weights.WRITERS))
def test_nothing_but_the_one_error_comes_out(
    kind, mutations, convert_or_read, small_network, tmp_path
):
    path = tmp_path / kind
    small_weights.WRITERS[kind](path)
    check_the_seed(path)

    def damaged(content, seed):
        inside = seed % 2 and content.startswith((b"PK", b"\x1f\x8b"))
        return (small_weights.mutate_inside if inside else small_weights.mutate)(content, seed)

    count_outcomes(path, path, mutations, convert_or_read, damaged)


@pytest.mark.parametrize(("mutations", "convert_or_read"), [FEW, MANY])
@pytest.mark.parametrize("victim", ["index", "data-00000-of-00001"])
def test_an_index_and_its_data(victim, mutations, convert_or_read, small_network, tmp_path):
    path = tmp_path / "a.ckpt"
    small_weights.slim(path, old_form=False)
    check_the_seed(path)
    victim = tmp_path / f"a.ckpt.{victim}"
    count_outcomes(path, victim, mutations, convert_or_read, small_weights.mutate)


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
def test_whole_networks(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(conversion, "GoogLeNet", functools.cache(GoogLeNet))  # filled each time
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
        seen[outcome_of(mutated, convert_whole)] += 1
    print(kind, dict(seen))
    assert seen["refused"] > 0


def _places(content, mark):
    at = content.find(mark)
    while at >= 0:
        yield at
        at = content.find(mark, at + 1)
