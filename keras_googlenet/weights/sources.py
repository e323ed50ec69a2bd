"""What a reader hands over, and what a porting table says."""

import contextlib
import math
import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from keras_googlenet.errors import UserError
from keras_googlenet.googlenet import TABLE_1

MOST_BYTES = 64 * 2**20  # of a file, and of what an archive unpacks to; the published: up to 54 MB
MOST_DIMENSIONS = 8  # of an array; the published ones have up to four
BRANCHES = ("1x1", "3x3_reduce", "3x3", "5x5_reduce", "5x5", "pool_proj")


@dataclass(frozen=True)
class Source:
    """How a publisher's file names and lays out what our layers hold.

    Attributes:
        format: What the file is called in a sentence.
        variant: The network that it belongs to.
        layers: Our layer -> the name in the file that its arrays begin with.
        parts: Class of our layer -> our weight -> how the array's name goes on.
        channels_first: Whether kernels are (out, in, y, x) and matrices (out, in).
        bgr: Whether the first convolution expects blue, green, red.
        heads: Heads that the published file was trained with.
    """

    format: str
    variant: str
    layers: Mapping[str, str]
    parts: Mapping[str, Mapping[str, str]]
    channels_first: bool
    bgr: bool = False
    heads: tuple[str, ...] = ("main",)


@dataclass(frozen=True)
class Contents:
    """What stands in a file.

    Attributes:
        arrays: Name in the file -> array, often a view of the file itself.
        lrn: Our layer -> arguments of its local response normalisation, where the file has them.
    """

    arrays: Mapping[str, np.ndarray]
    lrn: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


def module_layers(pattern: str, branches: Mapping[str, str], modules=None) -> dict[str, str]:
    """Lists the convolutions of the nine inception modules.

    Args:
        pattern: A name in the file, with `{module}` and `{branch}` in it.
        branches: Our branch, one of `BRANCHES` -> theirs.
        modules: Our module -> theirs, where they differ.

    Returns:
        Our layer -> the name in the file.
    """
    return {
        f"inception_{module}_{branch}": pattern.format(
            module=modules[module] if modules else module, branch=branches[branch]
        )
        for module in TABLE_1
        for branch in BRANCHES
    }


@contextlib.contextmanager
def mapped(path: Path) -> Iterator[memoryview]:
    """Gives the bytes of a file without reading them into memory.

    Args:
        path: A file.

    Yields:
        Its content; arrays made of it stay valid after the block.

    Raises:
        UserError: If it is empty or larger than any published weights.
    """
    check_size(path)
    with open(path, "rb") as file:
        yield memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def check_size(path: Path):
    """Refuses a file that is empty or larger than any published weights, before it is read."""
    size = path.stat().st_size
    if size == 0:
        raise UserError("the file is empty; download it again.")
    if size > MOST_BYTES:
        raise UserError(
            f"the file has {size / 2**20:.0f} MiB, and weights of GoogLeNet have at most "
            f"{MOST_BYTES // 2**20}; is it another network?"
        )


def is_size(value) -> bool:
    """Whether something that a file gives for a size or a place can be one."""
    return isinstance(value, int) and 0 <= value < 2**40


def as_array(content, dtype: str, shape: tuple[int, ...], name: str) -> np.ndarray:
    """Views bytes as an array, after checking that there are as many as the shape needs.

    Args:
        content: Bytes.
        dtype: NumPy's name of the type, with its byte order.
        shape: What the file says.
        name: Of the array, for the error.

    Returns:
        A read-only view of `content`.

    Raises:
        UserError: If shape and bytes disagree.
    """
    # the rank first: a product of thousands of numbers takes minutes
    fits = len(shape) <= MOST_DIMENSIONS and all(map(is_size, shape))
    if not fits or math.prod(shape) * np.dtype(dtype).itemsize != len(content):
        raise UserError(
            f"{name} says that its shape is {_short(shape)} and holds {len(content)} bytes, which "
            "do not fit; the file is damaged."
        )
    return np.frombuffer(content, dtype).reshape(shape)


def _short(shape) -> str:
    sides = ", ".join(str(side) for side in shape[:MOST_DIMENSIONS])
    return f"({sides}{', …' if len(shape) > MOST_DIMENSIONS else ''})"


def short(error: Exception) -> str:
    """Returns what an error of a library says, as a part of a sentence."""
    return str(error).strip().partition("\n")[0][:200].rstrip(".") or type(error).__name__
