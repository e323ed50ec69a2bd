"""Errors that users can fix, and what their messages share."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """One sentence: what was wrong and what to do. Scripts print it and exit with status 2."""


class WriteError(UserError):
    """A file or folder cannot be written: disk full, permission denied, or no such folder."""


class LostWorkerError(RuntimeError):
    """Another worker of the run is gone: nobody's mistake, and the same command may be retried."""


def first_line(error: BaseException) -> str:
    """Returns what an error of a library says, as a part of a sentence of at most 200 letters."""
    line = str(error).strip().partition("\n")[0][:200].rstrip(".:; ")
    return line if " " in line else repr(error)[:200]


def nearest(name: str, names: Iterable[str], count: int = 3, cutoff: float = 0.6) -> list[str]:
    """Returns the names that are most like `name`, the most similar first, for a hint.

    Args:
        name: What the user wrote.
        names: What there is.
        count: How many at most.
        cutoff: How alike they must be, in [0, 1]; 0 admits any.

    Example:
    >>> nearest("inception_4c_outptu", ["inception_4c_output", "main"])
    ['inception_4c_output']
    """
    return difflib.get_close_matches(name, list(names), count, cutoff)
