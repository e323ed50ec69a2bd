"""Files and folders that are there whole or not at all."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from keras_googlenet.errors import WriteError


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Gives a path to write to; what stands there in the end takes the name `path` at once.

    The temporary file or folder lies in a hidden folder beside `path`, so that the last step is
    one rename; if the block fails, nothing is left of it and `path` is as it was. The bytes are on
    the disk before the rename, and the rename after it: a loss of power leaves the old or the new.

    Args:
        path: File or folder to make. A file may be replaced, a folder must be new.

    Yields:
        A path of the same name that does not exist yet.

    Raises:
        WriteError: If the place cannot be written to, or is full.
    """
    path = Path(path)
    new = [folder for folder in path.parents if not folder.exists()]  # the deepest first
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=_prefix(path)) as folder:
            written = Path(folder) / path.name
            yield written
            for part in (written, *written.rglob("*")):
                _sync(part)
            os.replace(written, path)
            _sync(path.parent)
    except OSError as error:
        reason = error.strerror or error
        raise WriteError(
            f"{path} cannot be written ({reason}); make room or give another place."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            for folder in new:
                folder.rmdir()  # stays unless it is empty


def leftovers(path: Path) -> list[Path]:
    """Lists the hidden folders in which a process was killed while it wrote `path`."""
    return [found for found in path.parent.glob(f"{_prefix(path)}*") if found.is_dir()]


def remove_leftovers(path: Path):
    """Removes them; nobody else may be writing `path`."""
    for folder in leftovers(path):
        shutil.rmtree(folder)


def _prefix(path: Path) -> str:
    return f".{path.name}."


def _sync(path: Path):
    """Puts the bytes of a file, or the names in a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
