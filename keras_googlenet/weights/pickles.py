"""The pickles inside a PyTorch file, followed step by step and never executed.

`pickletools` splits a pickle into its instructions without running any; this carries out the two
dozen that a dictionary of tensors needs, on plain data, and refuses everything else. A name of
code in the file (`GLOBAL`) is only ever compared with the five that `torch.save` writes.

Source: Lib/pickletools.py of CPython; torch/serialization.py of PyTorch.
"""

import pickletools
from typing import IO, NamedTuple

from keras_googlenet.errors import UserError
from keras_googlenet.weights.sources import MOST_DIMENSIONS, is_size, short

MARK = object()
TYPES = {
    "torch FloatStorage": "<f4",
    "torch DoubleStorage": "<f8",
    "torch HalfStorage": "<f2",
    "torch LongStorage": "<i8",
}
DICTIONARY = "collections OrderedDict"
TENSOR = "torch._utils _rebuild_tensor_v2"
PARAMETER = "torch._utils _rebuild_parameter"
KNOWN = {*TYPES, DICTIONARY, TENSOR, PARAMETER}


class Name(NamedTuple):
    """A name of code; it is never imported."""

    name: str


class Storage(NamedTuple):
    """A run of numbers that stands elsewhere in the file."""

    dtype: str
    key: str
    count: int


class Tensor(NamedTuple):
    """A view of a storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]


def load(stream: IO[bytes]):
    """Follows one pickle.

    Args:
        stream: Stands at its first byte, and after its last in the end.

    Returns:
        Dictionaries, lists, tuples, texts, numbers and `Tensor`s.

    Raises:
        UserError: If it is damaged or does anything but describe tensors.
    """
    machine = _Machine()
    try:
        for instruction, argument, position in pickletools.genops(stream):
            if instruction.name == "STOP":
                return machine.pop()
            machine.step(instruction.name, argument, position)
    except UserError:
        raise
    except (ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
        raise UserError(f"the pickle in it is damaged: {short(error)}.") from error
    raise UserError("the pickle in it has no end; the file is damaged.")


class _Machine:
    """The stack and the memory of a pickle."""

    def __init__(self):
        self.stack = []
        self.memory = {}

    def pop(self):
        return self.stack.pop()

    def pop_mark(self) -> list:
        items = []
        while (item := self.stack.pop()) is not MARK:
            items.append(item)
        return items[::-1]

    def step(self, name: str, argument, position: int):
        """Carries out one instruction."""
        if name in ("PROTO", "FRAME"):
            return
        if name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self.memory[len(self.memory) if argument is None else argument] = self.stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            self.stack.append(self.memory[argument])
        elif name in ("SETITEM", "SETITEMS", "APPEND", "APPENDS", "BUILD"):
            self._fill(name)
        else:
            self.stack.append(self._value(name, argument, position))

    def _value(self, name: str, argument, position: int):
        """What an instruction puts onto the stack."""
        if name in ("BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE", "SHORT_BINUNICODE"):
            return argument
        if name == "GLOBAL":
            return _known(argument, position)
        if name == "STACK_GLOBAL":
            second, first = self.pop(), self.pop()
            return _known(f"{first} {second}" if _are_texts(first, second) else "?", position)
        if name == "REDUCE":
            arguments, function = self.pop(), self.pop()
            return _call(function, arguments, position)
        if name == "BINPERSID":
            return _storage(self.pop(), position)
        if name == "TUPLE":
            return tuple(self.pop_mark())
        if name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            items = [self.pop() for _ in range(int(name[-1]))]
            return tuple(items[::-1])
        constants = {"MARK": MARK, "NONE": None, "NEWTRUE": True, "NEWFALSE": False}
        if name in constants:
            return constants[name]
        containers = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
        if name in containers:
            return containers[name]()
        raise UserError(f"its pickle does {name} at byte {position}, which weights do not need.")

    def _fill(self, name: str):
        """Puts what lies on top of the stack into the container below."""
        if name == "BUILD":  # attributes of a dictionary: PyTorch's notes of versions
            self.pop()
            return
        counts = {"APPEND": 1, "SETITEM": 2}
        items = (
            [self.pop() for _ in range(counts[name])] if name in counts else self.pop_mark()[::-1]
        )
        items.reverse()
        container = self.stack[-1]
        if isinstance(container, list) and name.startswith("APPEND"):
            container.extend(items)
        elif isinstance(container, dict) and name.startswith("SETITEM") and _are_texts(*items[::2]):
            container.update(zip(items[::2], items[1::2], strict=True))
        else:
            raise UserError("its pickle is no dictionary of named weights.")


def _are_texts(*values) -> bool:
    return all(isinstance(value, str) for value in values)


def _known(name: str, position: int) -> Name:
    if name not in KNOWN:
        raise UserError(
            f"its pickle names code at byte {position} that weights do not need "
            f"({name[:60].replace(' ', '.')}); nothing of it was run. Do not trust the file."
        )
    return Name(name)


def _storage(identity, position: int) -> Storage:
    """Reads `("storage", type, key, device, count, …)`."""
    if isinstance(identity, tuple) and len(identity) >= 5 and identity[0] == "storage":
        _, kind, key, _, count = identity[:5]
        if isinstance(kind, Name) and kind.name in TYPES and is_size(count) and _are_texts(key):
            return Storage(TYPES[kind.name], key, count)
    raise UserError(f"its pickle refers to something that is no storage at byte {position}.")


def _call(function, arguments, position: int):
    """Does what the known functions do."""
    if isinstance(function, Name) and isinstance(arguments, tuple):
        if function.name == DICTIONARY and not arguments:
            return {}
        if function.name == PARAMETER and arguments and isinstance(arguments[0], Tensor):
            return arguments[0]
        if function.name == TENSOR and len(arguments) >= 4:
            return _tensor(*arguments[:4])
    raise UserError(f"its pickle calls something at byte {position} that weights do not need.")


def _tensor(storage, offset, shape, strides) -> Tensor:
    sizes = isinstance(shape, tuple) and all(map(is_size, shape))
    if not (isinstance(storage, Storage) and is_size(offset) and sizes):
        raise UserError("a tensor in it has no shape; the file is damaged.")
    if len(shape) > MOST_DIMENSIONS:
        raise UserError(f"a tensor in it has {len(shape)} dimensions; the file is damaged.")
    expected, step = [], 1
    for side in reversed(shape):
        expected.insert(0, step)
        step *= side
    if not isinstance(strides, tuple) or len(strides) != len(shape):
        raise UserError("a tensor in it has no strides; the file is damaged.")
    for side, stride, contiguous in zip(shape, strides, expected, strict=True):
        if side > 1 and stride != contiguous:
            raise UserError("a tensor in it is not stored row by row; save it with .contiguous().")
    if offset + step > storage.count:
        raise UserError("a tensor in it is larger than its storage; the file is damaged.")
    return Tensor(storage, offset, shape)
