"""What every reader returns, and the limits that all of them keep."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from keras_googlenet.errors import UserError

MIB = 2**20
MOST_PARSED = 128 * MIB  # of a file that its library reads at once; GoogLeNet in float64: 107 MB
MOST_UNPACKED = 512 * MIB  # of an archive; a TF-slim checkpoint with two slots a variable: 80 MB
MOST_PICKLE = 16 * MIB  # of torch.save, without its tensors; a state dictionary's takes 0.1 MB
MOST_NAMES = 20_000  # arrays of a file; a training checkpoint has about 2,000
MOST_CPU_SECONDS = 60  # importing TensorFlow takes up to ten, and reading any file fewer
LONGEST_NAME = 1000  # characters; of torchvision in several wrappers: about 100
MOST_DIMENSIONS = 8  # of an array; GoogLeNet's have up to four


class Array(NamedTuple):
    """What is known of an array before it is read: NumPy's name of its type, and its shape."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Contents:
    """An open file.

    Attributes:
        arrays: Name in the file -> array.
        read: Reads one of them, by name.
        facts: What else a table of `weights` needs to know, as JSON can hold it: `objects`, the
            classes of pickled objects that are no arrays, by name; `roots`, the dictionaries that
            arrays stand in; `typed`, blobs whose layers say what they compute; `lrn` and `windows`,
            arguments of a graph's operations.
    """

    arrays: Mapping[str, Array]
    read: Callable[[str], np.ndarray]
    facts: dict = field(default_factory=dict)


def check_names(names: Iterable[str]):
    """Refuses a file with more arrays, or longer names, than any training of GoogLeNet leaves."""
    for index, name in enumerate(names):
        if index == MOST_NAMES:
            raise UserError(f"it holds over {MOST_NAMES} arrays, more than a GoogLeNet's training.")
        if len(name) > LONGEST_NAME:
            raise UserError(f"the name {name[:50]}… has {len(name)} characters; it is damaged.")


def check_shape(name: str, shape: Sequence[int], dtype: str, size: int):
    """Refuses an array whose shape and number of bytes disagree.

    Args:
        name: Of the array.
        shape: What the file says.
        dtype: NumPy's name of its type.
        size: Bytes that the file holds for it.

    Raises:
        UserError: If they disagree, or the shape is none.
    """
    # the rank first: a product of thousands of numbers takes minutes
    fits = len(shape) <= MOST_DIMENSIONS and all(0 <= side < 2**40 for side in shape)
    if not fits or math.prod(shape) * np.dtype(dtype).itemsize != size:
        sides = ", ".join(str(side) for side in shape[:MOST_DIMENSIONS])
        raise UserError(
            f"{name[:100]} says that its shape is ({sides}"
            f"{', …' if len(shape) > MOST_DIMENSIONS else ''}) and holds {size} bytes, which do "
            "not fit; the file is damaged."
        )


def as_float32(array: np.ndarray) -> np.ndarray:
    """Returns real numbers of any type as float32, row by row."""
    with np.errstate(over="ignore"):  # becomes infinite, which is refused later
        return np.ascontiguousarray(array, "<f4")


def first_line(error: BaseException) -> str:
    """Returns what an error of a library says, as a part of a sentence."""
    line = str(error).strip().partition("\n")[0][:200].rstrip(".:")
    return line if " " in line else repr(error)[:200]
