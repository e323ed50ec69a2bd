"""Files and folders that are there whole or not at all."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from keras_googlenet.errors import WriteError


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Gives a path to write to; what stands there in the end takes the name `path` at once.

    The temporary file or folder lies in a hidden folder beside `path`, so that the last step is
    one rename; if the block fails, nothing is left of it and `path` is as it was.

    Args:
        path: File or folder to make. A file may be replaced, a folder must be new.

    Yields:
        A path of the same name that does not exist yet.

    Raises:
        WriteError: If the place cannot be written to, or is full.
    """
    path = Path(path)
    parent_is_new = not path.parent.exists()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            written = Path(folder) / path.name
            yield written
            os.replace(written, path)
    except OSError as error:
        reason = error.strerror or error
        raise WriteError(
            f"{path} cannot be written ({reason}); make room or give another place."
        ) from error
    finally:
        if parent_is_new:
            with contextlib.suppress(OSError):
                path.parent.rmdir()  # stays unless it is empty
