"""Files of every format with a few small arrays, and ways to damage them."""

import random
import struct
import zipfile

import caffe_reference
import google_graph
import numpy as np
import slim_checkpoint
import tensorflow as tf


def arrays(names):
    generator = np.random.default_rng(0)
    return {name: generator.standard_normal((2, 3, 2, 2)).astype("float32") for name in names}


def caffe(path, old_form):
    blobs = {name: [array, array[0, 0, 0]] for name, array in arrays(("conv1/7x7_s2", "b")).items()}
    caffe_reference.write_blobs(path, blobs, old_form)


def state_dictionary():
    import torch

    state = {name: torch.from_numpy(a) for name, a in arrays(("conv1.conv.weight", "b")).items()}
    return state | {"bn.num_batches_tracked": torch.tensor(3)}


def torch_new(path):
    import torch

    torch.save(state_dictionary(), path)


def torch_old(path):
    import torch

    torch.save(state_dictionary(), path, _use_new_zipfile_serialization=False)


def safetensors(path):
    from test_torchvision import save_safetensors

    save_safetensors(state_dictionary(), path)


def slim(path, old_form=True):
    values = arrays(("InceptionV1/Conv2d_1a_7x7/weights", "b"))
    slim_checkpoint.save(values | {"global_step": np.int64(7)}, path, old_form)


def graph():
    """The first two operations of Google's graph."""
    with tf.Graph().as_default() as made:
        x = tf.compat.v1.placeholder(tf.float32, (None, 8, 8, 3), name="input")
        w = tf.constant(arrays(("w",))["w"].reshape(2, 2, 3, 2), name="conv2d0_w")
        x = tf.nn.conv2d(x, w, 2, "SAME", name="conv2d0_pre_relu/conv")
        for index in range(2):
            x = tf.compat.v1.nn.lrn(x, **google_graph.LRN, name=f"localresponsenorm{index}")
    return made.as_graph_def().SerializeToString()


def google(path):
    path.write_bytes(graph())


def google_zip(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("graph.pb", graph())


WRITERS = {
    "caffe, layer": lambda path: caffe(path, old_form=False),
    "caffe, layers": lambda path: caffe(path, old_form=True),
    "torch, zip": torch_new,
    "torch, before 1.6": torch_old,
    "safetensors": safetensors,
    "slim, one file": slim,
    "google": google,
    "google, zip": google_zip,
}


def mutate(content: bytes, seed: int) -> bytes:
    """Damages one to four places: bits, bytes, lengths, pieces lost, doubled or moved."""
    generator = random.Random(seed)
    data = bytearray(content)
    for _ in range(generator.randint(1, 4)):
        at = generator.randrange(len(data) + 1)
        size = generator.choice((1, 1, 2, 8, 64))
        piece = bytes(data[at : at + size])
        change = generator.choice(("bit", "byte", "big", "cut", "lose", "double", "move", "noise"))
        if change == "bit" and at < len(data):
            data[at] ^= 1 << generator.randrange(8)
        elif change == "byte" and at < len(data):
            data[at] = generator.choice((0, 1, 0x7F, 0x80, 0xFF, generator.randrange(256)))
        elif change == "big":
            data[at : at + 5] = b"\xff\xff\xff\xff\x0f"  # 4 GiB as a length prefix
        elif change == "cut" and at > 0:
            del data[at:]
        elif change == "lose":
            del data[at : at + size]
        elif change == "double":
            data[at:at] = piece
        elif change == "move":
            del data[at : at + size]
            where = generator.randrange(len(data) + 1)
            data[where:where] = piece
        elif change == "noise":
            data[at : at + size] = generator.randbytes(size)
    return bytes(data)


def mutate_members(path, content: bytes, seed: int):
    """Writes a zip archive whose members are damaged and whose checksums are right."""
    with open(path, "wb") as file:
        file.write(content)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    victim = random.Random(seed).choice(sorted(members, key=lambda name: len(members[name])))
    members[victim] = mutate(members[victim], seed)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def broken_but_sealed(index: bytes) -> bytes:
    """An index of a checkpoint whose first entry is no message, with every checksum right.

    Source: LevelDB's table format: the last 48 bytes point to a block that points to the blocks;
    behind each block stand its compression and the masked CRC-32C of both.
    """
    data = bytearray(index)
    _, at = _varint(data, len(data) - 48)
    _, at = _varint(data, at)
    begin, at = _varint(data, at)
    size, _ = _varint(data, at)
    _, at = _varint(data, begin)  # key's shared bytes, its own bytes, the value's bytes
    own, at = _varint(data, at)
    _, at = _varint(data, at)
    first, after = _varint(data, at + own)  # the value: where the first block is, and its size
    length, _ = _varint(data, after)
    value = first + 3  # the header's entry: no key, then a BundleHeaderProto
    own = data[first + 1]
    second = value + own + data[first + 2]  # the entry of the first variable
    message = second + 3 + data[second + 1]
    data[message] = 0xFF
    block = bytes(data[first : first + length + 1])
    data[first + length + 1 : first + length + 5] = struct.pack("<I", _masked(_crc32c(block)))
    return bytes(data)


def _varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 0x80:
            return value, at


def _crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def _masked(crc):
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
