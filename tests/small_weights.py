"""Files of every format with the weights of a very small network, and ways to damage them."""

import functools
import gzip
import io
import random
import struct
import tarfile
import zipfile

import caffe_reference
import google_graph
import h5py
import keras
import numpy as np
import slim_checkpoint
import tensorflow as tf

from keras_googlenet.layers import LocalResponseNormalization

CONV, MAIN = "conv1_7x7_s2", "main"
NORMALIZATIONS = ("pool1_norm1", "conv2_norm2")
CLASSES = 3


@functools.cache
def network(variant, classes, aux_heads, classifier_activation):
    """Stands in for `GoogLeNet`: one convolution and a classifier, named as in it."""
    normalized = variant in ("torchvision", "slim")
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(2, 2, use_bias=not normalized, name=CONV)(image)
    if normalized:
        scale = variant == "torchvision"
        x = keras.layers.BatchNormalization(scale=scale, name=f"{CONV}_bn")(x)
    for name in NORMALIZATIONS if variant == "google" else ():
        x = LocalResponseNormalization(name=name)(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, keras.layers.Dense(classes, name=MAIN)(x))


def array(*shape):
    """Positive numbers, the same for the same shape."""
    return np.random.default_rng(len(shape)).uniform(0.5, 1.5, shape).astype("float32")


KERNEL, MATRIX = array(2, 2, 3, 2), array(2, CLASSES)  # (y, x, red green blue, out), (in, out)
BIAS, OFFSETS = array(CLASSES), array(2)


def caffe(path, old_form):
    kernel = KERNEL[:, :, ::-1].transpose(3, 2, 0, 1)
    blobs = {"conv1/7x7_s2": [kernel, OFFSETS], "loss3/classifier": [MATRIX.T, BIAS]}
    caffe_reference.write_blobs(path, blobs, old_form)


def state_dictionary():
    import torch

    norm = {f"conv1.bn.{part}": OFFSETS for part in ("weight", "bias", "running_mean")}
    state = {
        "conv1.conv.weight": np.ascontiguousarray(KERNEL.transpose(3, 2, 0, 1)),
        **norm,
        "conv1.bn.running_var": OFFSETS,
        "fc.weight": np.ascontiguousarray(MATRIX.T),
        "fc.bias": BIAS,
    }
    tensors = {name: torch.tensor(value) for name, value in state.items()}
    return tensors | {"conv1.bn.num_batches_tracked": torch.tensor(3)}


def torch_new(path):
    import torch

    torch.save(state_dictionary(), path)


def torch_old(path):
    import torch

    torch.save(state_dictionary(), path, _use_new_zipfile_serialization=False)


def safetensors(path):
    from safetensors.torch import save_file

    save_file(state_dictionary(), path)


def caffe_hdf5(path):
    kernel = KERNEL[:, :, ::-1].transpose(3, 2, 0, 1)
    blobs = {"conv1/7x7_s2": [kernel, OFFSETS], "loss3/classifier": [MATRIX.T, BIAS]}
    with h5py.File(path, "w") as file:
        for layer, arrays in blobs.items():
            for index, array in enumerate(arrays):
                file[f"data/{layer}/{index}"] = array


def slim(path, old_form=True):
    conv, main = "InceptionV1/Conv2d_1a_7x7", "InceptionV1/Logits/Conv2d_0c_1x1"
    parts = ("beta", "moving_mean", "moving_variance")
    values = {
        f"{conv}/weights": KERNEL,
        **{f"{conv}/BatchNorm/{part}": OFFSETS for part in parts},
        f"{main}/weights": MATRIX[None, None],
        f"{main}/biases": BIAS,
        "global_step": np.int64(7),
    }
    slim_checkpoint.save(values, path, old_form)


def slim_archive(path):
    inside = path.with_name("inside.ckpt")
    slim(inside)
    with tarfile.open(path, "w:gz") as archive:
        archive.add(inside, "./inception_v1.ckpt")
    inside.unlink()


def graph():
    """The operations of Google's graph that the reader looks at."""
    with tf.Graph().as_default() as made:
        x = tf.compat.v1.placeholder(tf.float32, (None, 8, 8, 3), name="input")
        w, b = tf.constant(KERNEL, name="conv2d0_w"), tf.constant(OFFSETS, name="conv2d0_b")
        x = tf.nn.conv2d(x, w, 2, "SAME", name="conv2d0_pre_relu/conv") + b
        for index in range(2):
            x = tf.compat.v1.nn.lrn(x, **google_graph.LRN, name=f"localresponsenorm{index}")
        tf.constant(MATRIX, name="softmax2_w"), tf.constant(BIAS, name="softmax2_b")
    return made.as_graph_def().SerializeToString()


def google(path):
    path.write_bytes(graph())


def google_zip(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("graph.pb", graph())


WRITERS = {
    "caffe, layer": lambda path: caffe(path, old_form=False),
    "caffe, layers": lambda path: caffe(path, old_form=True),
    "caffe, hdf5": caffe_hdf5,
    "torch, zip": torch_new,
    "torch, before 1.6": torch_old,
    "safetensors": safetensors,
    "slim, one file": slim,
    "slim, tar.gz": slim_archive,
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


def mutate_inside(content: bytes, seed: int) -> bytes:
    """Damages what an archive holds, and seals it again with right checksums."""
    if content.startswith(b"\x1f\x8b"):
        return gzip.compress(mutate(gzip.decompress(content), seed), 1, mtime=0)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    victim = random.Random(seed).choice(sorted(members, key=lambda name: len(members[name])))
    members[victim] = mutate(members[victim], seed)
    sealed = io.BytesIO()
    with zipfile.ZipFile(sealed, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return sealed.getvalue()


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
