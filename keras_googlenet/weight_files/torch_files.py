"""Files of PyTorch: `torch.save` of today and before PyTorch 1.6, and safetensors.

`torch.save` writes a pickle that describes tensors, and the storages of their numbers. The pickle
is read by Python's own unpickler, in pure Python, which finds a class of ours for every name of
code: a few rebuild tensors, all others are inert. So a checkpoint may hold any objects beside its
weights, and no code of the file runs.

Source: torch/serialization.py and torch/_utils.py of PyTorch.
"""

import collections
import functools
import io
import pickle
import re
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import ml_dtypes  # also makes bfloat16 known to NumPy
import numpy as np

from keras_googlenet.errors import UserError
from keras_googlenet.weight_files.arrays import (
    MIB,
    MOST_DIMENSIONS,
    MOST_NAMES,
    MOST_PICKLE,
    Array,
    Contents,
    check_names,
)

MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of the form before PyTorch 1.6
OLD_FORM = b"\x80\x02\x8a\x0a" + MAGIC.to_bytes(10, "little")
MOST_STORAGE = 128 * MIB  # of which a tensor may be a view
MOST_DEPTH = 20  # of nested dictionaries
WRAPPERS = re.compile(
    r"(?<![^.])(module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)
SAFETENSORS_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "bfloat16"}
STORAGES = {
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
    "HalfStorage": "f2",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
    "UntypedStorage": "u1",
}
RUNS_COMMANDS = {"os", "posix", "nt", "subprocess", "pty", "runpy", "importlib", "shutil", "socket"}
BUILTINS_THAT_RUN = {"eval", "exec", "compile", "open", "__import__", "execfile"}


class Storage(NamedTuple):
    """A sequence of numbers elsewhere in the file."""

    dtype: str
    key: str
    count: int


class Tensor(NamedTuple):
    """A view of a storage; offset and strides count numbers."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Inert(dict):
    """Stands for any class or function that a pickle names: holds items, does nothing."""

    name = ""

    def __new__(cls, *arguments, **keywords):  # noqa: D102
        return dict.__new__(cls)

    def __init__(self, *arguments, **keywords):
        pass

    def __setstate__(self, state):
        pass

    __hash__ = object.__hash__  # it may be a key

    def append(self, item):  # noqa: D102
        pass


def open_safetensors(path: Path) -> Contents:
    """Lists the tensors of a safetensors file."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:  # checks the header against the size
        names = list(file.keys())
        check_names(names)
        arrays = {}
        for name in names:
            view = file.get_slice(name)
            dtype = SAFETENSORS_TYPES.get(view.get_dtype(), view.get_dtype())
            arrays[name] = Array(dtype, tuple(view.get_shape()))

    def read(name: str) -> np.ndarray:
        with safe_open(path, framework="numpy") as file:
            return file.get_tensor(name)

    return Contents(arrays, read)


def open_zip(archive: zipfile.ZipFile) -> Contents:
    """Lists the tensors of a file of `torch.save` since PyTorch 1.6."""
    names = [name for name in archive.namelist() if name.split("/")[-1] == "data.pkl"]
    if len(names) != 1:
        raise UserError(f"the archive holds {len(names)} files data.pkl, not one.")
    folder = names[0].removesuffix("data.pkl")

    def member(name: str, most: int) -> bytes:  # never unpacks to more than it declares
        if archive.getinfo(name).file_size > most:
            raise UserError(f"{name} in it unpacks to more than {most // MIB} MiB; is it a bomb?")
        return archive.read(name)

    unpickler = _Unpickler(io.BytesIO(member(names[0], MOST_PICKLE)))
    order = "<"
    if f"{folder}byteorder" in archive.namelist() and member(f"{folder}byteorder", 10) == b"big":
        order = ">"

    def read_storage(storage: Storage) -> bytes:
        return member(f"{folder}data/{storage.key}", MOST_STORAGE)

    return _contents(unpickler.load(), read_storage, order)


def open_old_form(path: Path) -> Contents:
    """Reads five pickles (magic, version, system, object, keys), then the list of the storages."""
    with open(path, "rb") as file:
        stream = io.BytesIO(file.read(MOST_PICKLE))
        unpicklers = [_Unpickler(stream) for _ in range(5)]
        magic, _, system, value, keys = (unpickler.load() for unpickler in unpicklers)
        if magic != MAGIC or not isinstance(keys, list) or not isinstance(system, dict):
            raise UserError("it is not a file of torch.save, or is damaged.")
        order = "<" if system.get("little_endian", True) else ">"
        file.seek(stream.tell())
        ranges = _storage_ranges(file, keys, unpicklers[3].storages, path.stat().st_size)

    def read_storage(storage: Storage) -> bytes:
        stored = ranges.get(storage.key, range(0))
        if len(stored) > MOST_STORAGE:
            raise UserError(f"a storage in it takes more than {MOST_STORAGE // MIB} MiB.")
        with open(path, "rb") as file:
            file.seek(stored.start)
            return file.read(len(stored))

    return _contents(value, read_storage, order)


def _storage_ranges(file, keys: list, storages: dict[str, Storage], end: int) -> dict[str, range]:
    """Returns the bytes of each storage in the file; each starts with the count of its numbers."""
    ranges = {}
    for key in keys:
        header, start = file.read(8), file.tell()
        if len(header) < 8 or key not in storages:
            raise UserError("its list of storages does not fit its tensors; it is damaged.")
        size = struct.unpack("<q", header)[0] * _dtype(storages[key].dtype).itemsize
        if not 0 <= size <= end - start:
            raise UserError(
                f"byte {start} announces {size} bytes where {end - start} are left; the file is "
                "damaged or cut off."
            )
        ranges[key] = range(start, start + size)
        file.seek(start + size)
    return ranges


def _dtype(name: str) -> np.dtype:
    if name == "bfloat16":
        return np.dtype(ml_dtypes.bfloat16)
    if name not in STORAGES.values():
        raise UserError(f"its numbers are of the type {name[:60]}, which no GoogLeNet's are.")
    return np.dtype(name)


class _Unpickler(pickle._Unpickler):  # in pure Python: a sparse memo takes no memory
    def __init__(self, stream):
        super().__init__(stream)
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str):
        root = module.partition(".")[0]
        builtin = root in ("builtins", "__builtin__") and name in BUILTINS_THAT_RUN
        if root in RUNS_COMMANDS or builtin:
            raise UserError(
                f"its pickle names {module}.{name}, which runs commands and which no weights "
                "need; nothing of it was run. Do not trust the file."
            )
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("_codecs", "encode"):  # bytes in old pickles
            return lambda text, encoding="latin1": text.encode("latin1")
        known = {"torch": REBUILD, "numpy": NUMPY}.get(root, {})
        return known[name] if name in known else _inert(f"{module}.{name}"[:100])

    def persistent_load(self, identity):
        """Reads `("storage", type, key, device, count, …)`, or the old `("module", class, …)`."""
        if identity[0] == "module":
            return identity[1]
        kind, storage_class, key, _, count = identity[:5]
        dtype = STORAGES.get(storage_class.name.rpartition(".")[2], storage_class.name)
        if kind != "storage" or not isinstance(key, str) or not _is_size(count):
            raise UserError("its pickle refers to something that is not a storage; it is damaged.")
        self.storages[key] = Storage(dtype, key, count)
        return self.storages[key]


@functools.cache
def _inert(name: str) -> type:
    return type("Inert", (Inert,), {"name": name})


def _is_size(value) -> bool:
    return type(value) is int and 0 <= value < 2**40


def _rebuild_tensor(storage, offset, shape, strides, _=None, hooks=None, metadata=None) -> Tensor:
    if metadata and metadata.get("neg"):
        raise UserError("a tensor in it is a negated view; save it with .resolve_neg().")
    shape, strides = tuple(shape), tuple(strides)
    if not isinstance(storage, Storage) or not len(shape) == len(strides) <= MOST_DIMENSIONS:
        raise UserError(f"a tensor in it has {len(shape)} dimensions; the file is damaged.")
    if not all(map(_is_size, (offset, *shape, *strides))):
        raise UserError("a tensor in it has an invalid shape; the file is damaged.")
    last = sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True))
    if 0 not in shape and offset + last >= storage.count:
        raise UserError("a tensor in it is larger than its storage; the file is damaged.")
    return Tensor(storage, offset, shape, strides)


REBUILD = {
    "Size": tuple,
    "_rebuild_tensor": _rebuild_tensor,
    "_rebuild_tensor_v2": _rebuild_tensor,
    "_rebuild_parameter": lambda tensor, *_: tensor,
    "_rebuild_parameter_with_state": lambda tensor, *_: tensor,
    "_rebuild_from_type_v2": lambda function, kind, arguments, state: function(*arguments),
}
NUMPY = {
    "ndarray": np.ndarray,
    "dtype": np.dtype,
    "_reconstruct": lambda *_: np.ndarray(0),  # its state then fills it
}


def _contents(value, read_storage: Callable[[Storage], bytes], order: str) -> Contents:
    tensors, objects, roots = {}, {}, set()
    for root, name, item in _flatten(value):
        if isinstance(item, (Tensor, np.ndarray)):
            tensors[name] = item
            roots.add(root)
        elif isinstance(item, Inert):
            objects[name] = item.name
    unwrapped = {WRAPPERS.sub("", name): tensor for name, tensor in tensors.items()}
    if len(unwrapped) == len(tensors):  # else some names differ by a wrapper only
        tensors, roots = unwrapped, {WRAPPERS.sub("", root) for root in roots}
    check_names(tensors)
    last = {}  # the last storage that was read, because tensors may share one

    def read(name: str) -> np.ndarray:
        if isinstance(tensors[name], np.ndarray):
            return tensors[name]
        storage, offset, shape, strides = tensors[name]
        dtype = _dtype(storage.dtype)
        if storage not in last:
            last.clear()
            last[storage] = read_storage(storage)
        if len(last[storage]) != storage.count * dtype.itemsize:
            raise UserError(f"the numbers of {name[:100]} are cut off; the file is damaged.")
        numbers = np.frombuffer(last[storage], dtype.newbyteorder(order))[offset:]
        steps = [stride * dtype.itemsize for stride in strides]
        return np.lib.stride_tricks.as_strided(numbers, shape, steps, writeable=False)

    arrays = {
        name: Array(str(t.dtype) if isinstance(t, np.ndarray) else t.storage.dtype, t.shape)
        for name, t in tensors.items()
    }
    return Contents(arrays, read, {"objects": objects, "roots": sorted(roots)})


def _flatten(value) -> Iterator[tuple[str, str, object]]:
    """Yields (names of the containers joined by dots, the same with the item's name, the item)."""
    waiting, count = [("", "", value, 0)], 0
    while waiting:
        root, name, item, depth = waiting.pop()
        count += 1
        check_names([name])
        if count > 10 * MOST_NAMES:
            raise UserError("its dictionaries hold more than any training of GoogLeNet saves.")
        pairs = _pairs(item)
        if not pairs:
            yield root, name, item
        elif depth < MOST_DEPTH:
            inside = f"{name}." if name else ""
            waiting += [(inside, f"{inside}{key}", v, depth + 1) for key, v in reversed(pairs)]


def _pairs(item) -> list[tuple[str, object]]:
    """Returns what a container holds, by name; a list of pairs is read like a dictionary."""
    if isinstance(item, dict):
        pairs = list(item.items())
    elif type(item) in (list, tuple):
        named = all(type(x) is tuple and len(x) == 2 and isinstance(x[0], str) for x in item)
        pairs = list(item) if named else list(enumerate(item))
    else:
        return []
    return [(k.decode(errors="replace") if isinstance(k, bytes) else str(k), v) for k, v in pairs]
