"""The result of every reader, and the limits of all of them."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from keras_googlenet.errors import UserError

MIB = 2**20
MOST_PARSED = 128 * MIB  # of a file that is parsed as a whole; GoogLeNet in float64: 107 MB
MOST_UNPACKED = 512 * MIB  # of an archive; a TF-slim checkpoint with two slots a variable: 80 MB
MOST_PICKLE = 16 * MIB  # of torch.save, without tensors; for a state dictionary: 0.1 MB
MOST_NAMES = 20_000  # arrays in a file; a training checkpoint has about 2,000
MOST_CPU_SECONDS = 60  # importing TensorFlow takes up to ten, reading any file less
LONGEST_NAME = 1000  # characters; torchvision's in several wrappers: about 100
MOST_DIMENSIONS = 8  # of an array; GoogLeNet's have up to four


class Array(NamedTuple):
    """NumPy's name of the type, and the shape, which are known before an array is read."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Contents:
    """An open file.

    Attributes:
        arrays: Name in the file -> array.
        read: Reads one of them, by name.
        facts: What else `weights` needs, as JSON can hold it: `objects`, the classes of pickled
            objects that are not arrays, by name; `roots`, the dictionaries that contain arrays;
            `typed`, blobs whose layers have a type; `lrn`, `windows` and `operations` of a graph;
            `keras`, whether Keras wrote the file.
    """

    arrays: Mapping[str, Array]
    read: Callable[[str], np.ndarray]
    facts: dict = field(default_factory=dict)


def check_names(names: Iterable[str]):
    """Refuses a file with more arrays, or longer names, than any training of GoogLeNet saves."""
    for index, name in enumerate(names):
        if index == MOST_NAMES:
            raise UserError(f"it holds over {MOST_NAMES} arrays, more than a GoogLeNet's training.")
        if len(name) > LONGEST_NAME:
            raise UserError(f"the name {name[:50]}… has {len(name)} characters; it is damaged.")


def check_shape(name: str, shape: Sequence[int], dtype: str, size: int):
    """Refuses an array whose shape is invalid or does not fit its `size` in bytes."""
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
    """Returns real numbers of any type as a contiguous float32 array."""
    with np.errstate(over="ignore"):  # to infinity, which is refused later
        return np.ascontiguousarray(array, "<f4")
