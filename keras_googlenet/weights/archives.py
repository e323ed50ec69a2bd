"""Members of zip and tar archives that may be bombs: never more in memory than is asked for."""

import gzip
import io
import shutil
import tarfile
import zipfile
import zlib
from pathlib import Path

from keras_googlenet.errors import UserError
from keras_googlenet.weights.sources import MOST_BYTES, short

MOST_MEMBERS = 10_000  # torchvision's file has under 1,000
DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    OSError,  # a seek to before the file; bad gzip
    zlib.error,
    EOFError,
    NotImplementedError,  # a compression that Python lacks
    RuntimeError,  # an encrypted member
    ValueError,
    OverflowError,
    UnicodeError,
    KeyError,  # a member that is not there
)


def is_zip(path: Path) -> bool:
    """Whether a file begins as a zip archive does."""
    with open(path, "rb") as file:
        return file.read(4) == b"PK\x03\x04"


def zip_names(path: Path) -> list[str]:
    """Lists the members of a zip archive.

    Args:
        path: A zip archive.

    Returns:
        Their names.

    Raises:
        UserError: If it is damaged or has more than `MOST_MEMBERS`.
    """
    with _opened(path) as archive:
        return archive.namelist()


def read_members(path: Path, names: list[str]) -> dict[str, bytes]:
    """Reads members of a zip archive, together no more than `MOST_BYTES`.

    Args:
        path: A zip archive.
        names: Members.

    Returns:
        Name -> content.

    Raises:
        UserError: If one is missing, damaged, or they are too large.
    """
    members = {}
    with _opened(path) as archive:
        try:
            # a member never gives more than it declares, so the sum of these is a bound
            size = sum(archive.getinfo(name).file_size for name in names)
            if size > MOST_BYTES:
                raise UserError(
                    f"{names[0]} unpacks to more than {MOST_BYTES // 2**20} MiB; is it a bomb?"
                )
            for name in names:
                members[name] = archive.read(name)
        except UserError:
            raise
        except DAMAGE as error:
            raise UserError(f"the archive is damaged: {short(error)}.") from error
    return members


def read_only_member(path: Path, suffix: str) -> bytes:
    """Reads the one member of a zip archive whose name ends in `suffix`."""
    names = [name for name in zip_names(path) if name.endswith(suffix)]
    if len(names) != 1:
        raise UserError(f"the archive holds {len(names)} files that end in {suffix}, not one.")
    return read_members(path, names)[names[0]]


def unpack_checkpoint(path: Path, folder: Path) -> Path:
    """Unpacks the checkpoint of a tar.gz archive; nothing else of it is written.

    Args:
        path: A tar.gz archive.
        folder: An empty folder; files go there by their last name only.

    Returns:
        The checkpoint: a file, or the prefix of several.

    Raises:
        UserError: If it is damaged, holds no checkpoint, or unpacks to more than `MOST_BYTES`.
    """
    files = []
    try:
        with gzip.open(path) as stream, tarfile.open(fileobj=_Capped(stream), mode="r|") as archive:
            for member in archive:
                name = Path(member.name).name
                if member.isfile() and ".ckpt" in name:
                    with open(folder / name, "wb") as file:
                        shutil.copyfileobj(archive.extractfile(member), file)
                    files.append(folder / name)
    except DAMAGE as error:
        raise UserError(f"the archive is damaged or cut off: {short(error)}.") from error
    if not files:
        raise UserError("the archive holds no file of a checkpoint (.ckpt).")
    indices = [file.with_suffix("") for file in files if file.suffix == ".index"]
    return (indices or files)[0]


class _Capped(io.RawIOBase):
    """A stream that refuses to give more than `MOST_BYTES`."""

    def __init__(self, stream):
        self._stream = stream
        self._left = MOST_BYTES

    def read(self, size: int = -1) -> bytes:
        content = self._stream.read(min(size, self._left + 1) if size >= 0 else self._left + 1)
        self._left -= len(content)
        if self._left < 0:
            raise UserError(
                f"the archive unpacks to more than {MOST_BYTES // 2**20} MiB; is it a bomb?"
            )
        return content


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        archive = zipfile.ZipFile(path)
    except DAMAGE as error:
        raise UserError(f"the archive is damaged or cut off: {short(error)}.") from error
    if len(archive.namelist()) > MOST_MEMBERS:
        archive.close()
        raise UserError(f"the archive holds more than {MOST_MEMBERS} files; is it weights?")
    return archive
