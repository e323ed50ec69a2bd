"""Files of `torch.save`: a pickle that describes tensors, and the storages of their numbers.

The pickle is read by Python's own unpickler, in pure Python, to which every name of code in the
file means a class of ours: a few rebuild tensors, and all others hold what they are given and do
nothing. So a checkpoint may hold anything beside its weights, and none of it is run.

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

import ml_dtypes
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

TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "bfloat16"}  # others: as they are called


def open_file(path: Path) -> Contents:
    """Lists the tensors of a file."""
    import ml_dtypes  # noqa: F401 - teaches NumPy bfloat16
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:  # checks the header against the size
        names = list(file.keys())
        check_names(names)
        views = {name: file.get_slice(name) for name in names}
        arrays = {
            name: Array(TYPES.get(view.get_dtype(), view.get_dtype()), tuple(view.get_shape()))
            for name, view in views.items()
        }

    def read(name: str) -> np.ndarray:
        with safe_open(path, framework="numpy") as file:
            return file.get_tensor(name)

    return Contents(arrays, read)


MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of the form before PyTorch 1.6
OLD_FORM = b"\x80\x02\x8a\x0a" + MAGIC.to_bytes(10, "little")
MOST_STORAGE = 128 * MIB  # that a tensor may be a view of
MOST_DEPTH = 20  # of dictionaries in one another
WRAPPERS = re.compile(
    r"(?<![^.])(module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)
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
    """A run of numbers that stands elsewhere in the file."""

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


class _Unpickler(pickle._Unpickler):  # in pure Python: a sparse memo takes no memory
    def __init__(self, stream):
        super().__init__(stream)
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str):
        root = module.partition(".")[0]
        runs = root in RUNS_COMMANDS or (
            root in ("builtins", "__builtin__") and name in BUILTINS_THAT_RUN
        )
        if runs:
            raise UserError(
                f"its pickle names {module}.{name}, which runs commands and which no weights "
                "need; nothing of it was run. Do not trust the file."
            )
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("_codecs", "encode"):  # how pickles of old hold bytes
            return lambda text, encoding="latin1": text.encode("latin1")
        if root == "torch" and name in REBUILD:
            return REBUILD[name]
        if root == "torch" and name == "Size":
            return tuple
        if root == "numpy" and name in NUMPY:
            return NUMPY[name]
        return _inert(f"{module}.{name}"[:100])

    def persistent_load(self, identity):
        """Reads `("storage", type, key, device, count, …)`, or `("module", class, …)` of old."""
        if identity[0] == "module":
            return identity[1]
        kind, storage_class, key, _, count = identity[:5]
        dtype = STORAGES.get(storage_class.name.rpartition(".")[2], storage_class.name)
        if kind != "storage" or not isinstance(key, str) or not _is_size(count):
            raise UserError("its pickle refers to something that is no storage; it is damaged.")
        self.storages[key] = Storage(dtype, key, count)
        return self.storages[key]


@functools.cache
def _inert(name: str) -> type:
    return type("Inert", (Inert,), {"name": name})


def _rebuild_tensor(storage, offset, shape, strides, _=None, hooks=None, metadata=None) -> Tensor:
    if metadata and metadata.get("neg"):
        raise UserError("a tensor in it is a negated view; save it with .resolve_neg().")
    shape, strides = tuple(shape), tuple(strides)
    fits = len(shape) == len(strides) <= MOST_DIMENSIONS
    if not isinstance(storage, Storage) or not fits:
        raise UserError(f"a tensor in it has {len(shape)} dimensions; the file is damaged.")
    if not all(map(_is_size, (offset, *shape, *strides))):
        raise UserError("the shape of a tensor in it is no sizes; the file is damaged.")
    last = sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True))
    if 0 not in shape and offset + last >= storage.count:
        raise UserError("a tensor in it is larger than its storage; the file is damaged.")
    return Tensor(storage, offset, shape, strides)


def _rebuild_from_type(function, kind, arguments, state):
    """A tensor of a subclass, or with attributes."""
    return function(*arguments)


NUMPY = {
    "ndarray": np.ndarray,
    "dtype": np.dtype,
    "_reconstruct": lambda *_: np.ndarray(0),  # which its state then fills
}
REBUILD = {
    "_rebuild_tensor": _rebuild_tensor,
    "_rebuild_tensor_v2": _rebuild_tensor,
    "_rebuild_parameter": lambda tensor, *_: tensor,
    "_rebuild_parameter_with_state": lambda tensor, *_: tensor,
    "_rebuild_from_type_v2": _rebuild_from_type,
}


def _is_size(value) -> bool:
    return type(value) is int and 0 <= value < 2**40


def open_zip(archive: zipfile.ZipFile) -> Contents:
    """Lists the tensors of a file that `torch.save` writes since PyTorch 1.6."""
    names = [name for name in archive.namelist() if name.split("/")[-1] == "data.pkl"]
    if len(names) != 1:
        raise UserError(f"the archive holds {len(names)} files data.pkl, not one.")
    folder = names[0].removesuffix("data.pkl")
    unpickler = _Unpickler(io.BytesIO(_member(archive, names[0], MOST_PICKLE)))
    order = "<"
    if f"{folder}byteorder" in archive.namelist():
        order = ">" if _member(archive, f"{folder}byteorder", 10) == b"big" else "<"

    def content(storage: Storage) -> bytes:
        return _member(archive, f"{folder}data/{storage.key}", MOST_STORAGE)

    return _contents(unpickler.load(), content, order)


def _member(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    """Reads a member; it never unpacks to more than it declares."""
    size = archive.getinfo(name).file_size
    if size > most:
        raise UserError(f"{name} in it unpacks to more than {most // MIB} MiB; is it a bomb?")
    return archive.read(name)


def open_old_form(path: Path) -> Contents:
    """Reads five pickles (magic, version, system, object, keys), then where the storages stand."""
    with open(path, "rb") as file:
        stream = io.BytesIO(file.read(MOST_PICKLE))
        unpicklers = [_Unpickler(stream) for _ in range(5)]
        magic, _, system, value, keys = (unpickler.load() for unpickler in unpicklers)
        if magic != MAGIC or not isinstance(keys, list) or not isinstance(system, dict):
            raise UserError("it is no file of torch.save; it is damaged.")
        order = "<" if system.get("little_endian", True) else ">"
        file.seek(stream.tell())
        places = _places(file, keys, unpicklers[3].storages, path.stat().st_size)

    def content(storage: Storage) -> bytes:
        place = places.get(storage.key, range(0))
        if len(place) > MOST_STORAGE:
            raise UserError(f"a storage in it takes more than {MOST_STORAGE // MIB} MiB.")
        with open(path, "rb") as file:
            file.seek(place.start)
            return file.read(len(place))

    return _contents(value, content, order)


def _places(file, keys: list, storages: dict[str, Storage], end: int) -> dict[str, range]:
    """Where the bytes of each storage stand: each begins with the count of its numbers."""
    places = {}
    for key in keys:
        header, at = file.read(8), file.tell()
        if len(header) < 8 or key not in storages:
            raise UserError("its list of storages does not fit its tensors; it is damaged.")
        size = struct.unpack("<q", header)[0] * _type(storages[key].dtype).itemsize
        if not 0 <= size <= end - at:
            raise UserError(
                f"byte {at} announces {size} bytes where {end - at} are left; the file is damaged "
                "or cut off."
            )
        places[key] = range(at, at + size)
        file.seek(at + size)
    return places


def _type(name: str) -> np.dtype:
    if name == "bfloat16":
        return np.dtype(ml_dtypes.bfloat16)
    if name not in STORAGES.values():
        raise UserError(f"its numbers are of the type {name[:60]}, which no GoogLeNet's are.")
    return np.dtype(name)


def _contents(value, content: Callable[[Storage], bytes], order: str) -> Contents:
    tensors, objects, roots = {}, {}, set()
    for root, name, item in _flatten(value):
        if isinstance(item, (Tensor, np.ndarray)):
            tensors[name] = item
            roots.add(root)
        elif isinstance(item, Inert):
            objects[name] = item.name
    last = {}  # the storage that was read last: tensors may share one

    def read(name: str) -> np.ndarray:
        if isinstance(tensors[name], np.ndarray):
            return tensors[name]
        storage, offset, shape, strides = tensors[name]
        dtype = _type(storage.dtype)
        if storage not in last:
            last.clear()
            last[storage] = content(storage)
        if len(last[storage]) != storage.count * dtype.itemsize:
            raise UserError(f"the numbers of {name[:100]} are cut off; the file is damaged.")
        numbers = np.frombuffer(last[storage], dtype.newbyteorder(order))[offset:]
        steps = [stride * dtype.itemsize for stride in strides]
        return np.lib.stride_tricks.as_strided(numbers, shape, steps, writeable=False)

    unwrapped = {WRAPPERS.sub("", name): tensor for name, tensor in tensors.items()}
    if len(unwrapped) == len(tensors):  # else it holds the same with and without
        tensors, roots = unwrapped, {WRAPPERS.sub("", root) for root in roots}

    check_names(tensors)
    arrays = {
        name: Array(str(t.dtype) if isinstance(t, np.ndarray) else t.storage.dtype, t.shape)
        for name, t in tensors.items()
    }
    return Contents(arrays, read, {"objects": objects, "roots": sorted(roots)})


def _flatten(value) -> Iterator[tuple[str, str, object]]:
    """Walks through dictionaries and lists in one another.

    Yields:
        The names of the containers, joined by dots and with one at the end; the same with the
        item's own name; and the item.
    """
    waiting, seen = [("", "", value, 0)], 0
    while waiting:
        root, name, item, depth = waiting.pop()
        seen += 1
        check_names([name])
        if seen > 10 * MOST_NAMES:
            raise UserError("its dictionaries hold more than any training of GoogLeNet saves.")
        pairs = _pairs(item)
        if not pairs:
            yield root, name, item
        elif depth < MOST_DEPTH:
            inside = f"{name}." if name else ""
            waiting += [(inside, f"{inside}{key}", v, depth + 1) for key, v in reversed(pairs)]


def _pairs(item) -> list[tuple[str, object]]:
    """Returns what a container holds, by name; a list of pairs is taken for a dictionary."""
    if isinstance(item, dict):
        found = list(item.items())
    elif type(item) in (list, tuple):
        named = all(type(x) is tuple and len(x) == 2 and isinstance(x[0], str) for x in item)
        found = list(item) if named else list(enumerate(item))
    else:
        return []
    return [(k.decode(errors="replace") if isinstance(k, bytes) else str(k), v) for k, v in found]
