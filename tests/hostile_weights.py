"""Files that ask for far more memory, disk or time than they hold."""

import gzip
import io
import pickle
import struct
import tarfile
import zipfile
import zlib

import numpy as np
import slim_checkpoint

GIB = 2**30
BOMB = 1500  # MiB
SPARSE = 300  # MiB
FOUR_GIB = b"\xff\xff\xff\xff\x0f"  # as a varint
LAYER = b"\xa2\x06"  # field 100 of NetParameter


def write_all(folder):
    """Writes them; name -> what the sentence must say."""
    return _messages(folder) | _zips(folder) | _tars(folder) | _others(folder)


def _messages(folder):
    (folder / "prefix").write_bytes(b"\x0a\x04name" + LAYER + FOUR_GIB + b"rest")
    (folder / "layers").write_bytes(b"\x0a\x04name" + (LAYER + b"\x00") * 10_000_000)
    (folder / "nodes").write_bytes(b"\x0a\x00" * 30_000_000)  # of a graph, without anything
    shape = b"\x3a\x0c\x0a\x0a" + FOUR_GIB * 2
    blob = b"\x3a" + bytes([len(shape) + 6]) + shape + b"\x2a\x04" + bytes(4)
    (folder / "shape").write_bytes(LAYER + bytes([len(blob) + 3]) + b"\x0a\x01x" + blob)
    sides = (b"\x08" + FOUR_GIB) * 300_000  # not packed: a field each
    blob = b"\x3a" + _length(sides) + sides
    layer = b"\x0a\x01x" + b"\x3a" + _length(blob) + blob
    (folder / "rank").write_bytes(LAYER + _length(layer) + layer)
    return {
        "prefix": "starts like a Caffe model, but is damaged",
        "layers": "starts like a Caffe model, but is damaged",
        "nodes": "looks like a frozen TensorFlow graph, but",
        "shape": "its shape is (4294967295, 4294967295) and holds 4 bytes",
        "rank": "4294967295, …) and holds 0 bytes",
    }


def _zips(folder):
    for name, member in (("bomb.pth", "x/data.pkl"), ("bomb.pb", "graph.pb")):
        (folder / name).write_bytes(_zip_bomb(member))
    memo = b"\x80\x02}r\xff\xff\xff\x7f" + b"8" + b"X\xff\xff\xff\xffshort."
    for name, content in (("memo.pth", memo), ("rank.pth", _pickle_of_rank(12_000))):
        with zipfile.ZipFile(folder / name, "w") as archive:
            archive.writestr("x/data.pkl", content)
    with open(folder / "holes.zip", "wb") as file:
        file.write(b"PK\x03\x04")
        file.truncate(1800 * 2**20)
    entry = b"PK\x01\x02" + bytes(42)  # a member without a name
    count = 1_000_000
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 1, 1, count * len(entry), 4, 0)
    (folder / "members.zip").write_bytes(b"PK\x03\x04" + count * entry + end)
    return {
        "bomb.pth": "unpacks to more than 16 MiB",
        "bomb.pb": "unpacks to more than 512 MiB",
        "memo.pth": "looks like a PyTorch file, but is damaged",
        "rank.pth": "has 12000 dimensions",
        "holes.zip": "damaged or cut off",
        "members.zip": "damaged or cut off",
    }


def _tars(folder):
    for name, member in (("bomb.tar.gz", "x.ckpt"), ("other.tar.gz", "x.txt")):
        info = tarfile.TarInfo(member)
        info.size = BOMB * 2**20
        zeros = gzip.compress(bytes(2**20))
        (folder / name).write_bytes(gzip.compress(info.tobuf()) + BOMB * zeros)
    with open(folder / "holes.tar.gz", "wb") as file:
        file.write(b"\x1f\x8b")
        file.truncate(1800 * 2**20)
    (folder / "sparse.tar.gz").write_bytes(gzip.compress(_sparse_member("x.ckpt")))
    return {
        "bomb.tar.gz": "unpacks to more than 512 MiB",
        "other.tar.gz": "unpacks to more than 512 MiB",
        "holes.tar.gz": "damaged or cut off",
        "sparse.tar.gz": "has 300 MiB",
    }


def _others(folder):
    header = struct.pack("<Q", 2**32) + b'{"x": {"dtype": "F32"'
    (folder / "header").write_bytes(header + bytes(100))
    with open(folder / "huge", "wb") as file:
        file.truncate(5 * GIB)
    zeros = np.zeros(17 * 2**20, "float32")
    slim_checkpoint.save({"zeros": zeros}, folder / "large.ckpt", old_form=False)
    return {
        "header": "header too large",
        "huge": "has 5120 MiB",
        "large.ckpt": "zeros (17825792,)",
    }


def _length(content):
    number, coded = len(content), b""
    while number >= 0x80:
        coded, number = coded + bytes([number & 0x7F | 0x80]), number >> 7
    return coded + bytes([number])


def _zip_bomb(member):
    """A zip archive of a few megabytes whose member declares and unpacks to `BOMB` MiB of zeros."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(member, BOMB * block)
    content = bytearray(file.getvalue())
    central = content.rindex(b"PK\x01\x02")
    for method, size in ((8, 22), (central + 10, central + 24)):
        struct.pack_into("<H", content, method, zipfile.ZIP_DEFLATED)
        struct.pack_into("<I", content, size, BOMB * 2**20)
    return bytes(content)


def _sparse_member(name):
    """A GNU header that declares `SPARSE` MiB of hole, and no data; fields as in GNU's tar.h."""
    info = tarfile.TarInfo(name)
    info.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    size = b"%011o\0" % (SPARSE * 2**20)
    header[386:410] = size + b"%011o\0" % 0  # one piece at the very end, of no bytes
    header[483:495] = size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + bytes(1024)


def _pickle_of_rank(rank):
    """A tensor of so many dimensions, each of 2**31 - 1, by the instructions of pickle."""

    def text(words):
        return pickle.BINUNICODE + struct.pack("<I", len(words)) + words.encode()

    storage = pickle.MARK + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu")
    storage += b"K\x01" + pickle.TUPLE + pickle.BINPERSID
    sides = pickle.MARK + rank * b"J\xff\xff\xff\x7f" + pickle.TUPLE
    arguments = pickle.MARK + storage + b"K\x00" + sides + sides + pickle.TUPLE
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + pickle.REDUCE
    item = text("conv1.conv.weight") + tensor + pickle.SETITEM
    return pickle.PROTO + b"\x02" + pickle.EMPTY_DICT + item + pickle.STOP
