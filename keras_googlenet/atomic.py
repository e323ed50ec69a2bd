"""Writes files and folders atomically: complete, or not at all."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from keras_googlenet.errors import WriteError


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Replaces a file, or makes a folder, by one rename after the block has written it.

    It is written in a hidden temporary folder beside `path`, which is removed if the block fails.
    Bytes are synced to disk before the rename, and the rename after it, so that even a loss of
    power leaves the old or the new content.

    Args:
        path: File or folder to make. A file may be replaced, a folder must be new.

    Yields:
        A path of the same name to write to, which does not exist yet.

    Raises:
        WriteError: If the path cannot be written to, or the disk is full.
    """
    path = Path(path)
    new = [folder for folder in path.parents if not folder.exists()]  # deepest first
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
            f"{path} cannot be written ({reason}); free space or give another path."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            for folder in new:
                folder.rmdir()  # fails unless it is empty


def remove_leftovers(path: Path):
    """Removes temporary folders of killed processes; no other process may be writing `path`."""
    for folder in path.parent.glob(f"{_prefix(path)}*"):
        if folder.is_dir():
            shutil.rmtree(folder)


def _prefix(path: Path) -> str:
    return f".{path.name}."


def _sync(path: Path):
    """Writes the bytes of a file, or the names in a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
