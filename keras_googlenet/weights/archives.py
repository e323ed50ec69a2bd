"""Members of zip and tar archives that may be bombs: never more in memory than is asked for."""

import contextlib
import gzip
import io
import itertools
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from keras_googlenet.errors import UserError
from keras_googlenet.weights.sources import MOST_BYTES, check_size, short

MOST_DIRECTORY = 2**20  # bytes; of a zip archive: torchvision's network takes under 0.1 MB
PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the others' memory is the file's choice
PIECE = 2**20  # bytes that are unpacked at once
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
        UserError: If it is damaged or has more than weights need.
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
            found = [archive.getinfo(name) for name in names]
            if sum(member.file_size for member in found) > MOST_BYTES:
                raise _bomb(names[0])
            if not all(member.compress_type in PACKINGS for member in found):
                raise UserError("the archive is packed by a method that no weights are packed by.")
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

    Blocks are followed here and not by `tarfile`, which expands sparse members and gathers
    headers of any length in memory. Of the extensions of the format none is needed.

    Args:
        path: A tar.gz archive.
        folder: An empty folder; files go there by their last name only.

    Returns:
        The checkpoint: a file, or the prefix of several.

    Raises:
        UserError: If it is damaged, holds no checkpoint, or has or unpacks to more than
            `MOST_BYTES`.
    """
    check_size(path)
    files = []
    try:
        with gzip.open(path) as stream:
            for member, pieces in _members(_Capped(stream)):
                name = Path(member.name).name
                if member.isfile() and ".ckpt" in name:
                    with open(folder / name, "wb") as file:
                        file.writelines(pieces)
                    files.append(folder / name)
    except UserError:
        raise
    except DAMAGE as error:
        raise UserError(f"the archive is damaged or cut off: {short(error)}.") from error
    if not files:
        raise UserError("the archive holds no file of a checkpoint (.ckpt).")
    indices = [file.with_suffix("") for file in files if file.suffix == ".index"]
    return (indices or files)[0]


def _members(stream: "_Capped") -> Iterator[tuple[tarfile.TarInfo, Iterator[bytes]]]:
    """Walks through a tar archive; the pieces of a member end with it."""
    while (block := stream.read(tarfile.BLOCKSIZE)).strip(b"\0"):
        member = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        if member.type == tarfile.GNUTYPE_SPARSE:
            raise UserError("the archive holds a sparse file; is it a bomb?")
        bare = member.isdir() or member.islnk() or member.issym() or member.isdev()
        size = 0 if bare else member.size
        pieces = _pieces(stream, size)
        yield member, pieces
        for _ in itertools.chain(pieces, _pieces(stream, -size % tarfile.BLOCKSIZE)):
            pass


def _pieces(stream: "_Capped", size: int) -> Iterator[bytes]:
    while size > 0:
        piece = stream.read(min(size, PIECE))
        if not piece:
            raise EOFError("its end is missing")
        yield piece
        size -= len(piece)


class _Capped:
    """A stream that refuses to give more than `MOST_BYTES`."""

    def __init__(self, stream):
        self._stream = stream
        self._left = MOST_BYTES

    def read(self, size: int) -> bytes:
        content = self._stream.read(size)
        self._left -= len(content)
        if self._left < 0:
            raise _bomb("the archive")
        return content


class _Bounded(io.FileIO):
    """A file that refuses to give more than `most` bytes at once."""

    most = MOST_DIRECTORY

    def read(self, size: int = -1) -> bytes:
        if size > self.most:
            raise UserError("the archive's list of its files is too long; is it weights?")
        return super().read(size)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    check_size(path)
    with _Bounded(path) as file:
        try:
            archive = zipfile.ZipFile(file)  # reads the whole list of members at once
        except UserError:
            raise
        except DAMAGE as error:
            raise UserError(f"the archive is damaged or cut off: {short(error)}.") from error
        file.most = MOST_BYTES
        yield archive


def _bomb(name: str) -> UserError:
    return UserError(f"{name} unpacks to more than {MOST_BYTES // 2**20} MiB; is it a bomb?")
