"""What lies in a folder: images, other folders, and what is neither."""

import errno
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from keras_googlenet.data.contents import LeftOut, printable
from keras_googlenet.data.file_kinds import (
    CONVERTIBLE,
    DECODED,
    FIRST_BYTES,
    SUFFIXES,
    convert_command,
    kind_of,
)

_INFO_FILE = "dataset_info.json"
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_UNFINISHED = re.compile(r"incomplete\.\w+_\d+\.\d+\.\d+")  # of a preparation that was cut off


def is_prepared(folder: Path) -> bool:
    """Says whether a folder is one prepared version of a data set, such as `mnist/3.0.1`."""
    return os.path.isfile(folder / _INFO_FILE)


def made_by_tfds(folder: Path) -> bool:
    """Says whether a folder holds versions of a data set, or its configs with their versions.

    Args:
        folder: Such as `mnist`, with `3.0.1/dataset_info.json` inside, or `imagenette`, with
            `full-size/1.0.0/dataset_info.json`. What a preparation that was cut off left behind
            counts too.
    """
    if any(map(_is_version, _folders_in(folder))):
        return True
    return any(any(map(_is_version, _leading_versions(child))) for child in _folders_in(folder))


def prepared_versions(folder: Path) -> list[Path]:
    """Lists the newest prepared version in a folder, or that of each config where it has those."""
    newest = [_newest(_folders_in(folder))]
    if newest == [None]:
        newest = [_newest(_leading_versions(config)) for config in sorted(_folders_in(folder))]
    return [version for version in newest if version]


def _newest(folders: Iterable[Path]) -> Path | None:
    versions = [path for path in folders if _VERSION.fullmatch(path.name) and is_prepared(path)]
    return max(versions, key=lambda path: tuple(map(int, path.name.split("."))), default=None)


def _is_version(folder: Path) -> bool:
    finished = _VERSION.fullmatch(folder.name) and is_prepared(folder)
    return bool(finished or _UNFINISHED.fullmatch(folder.name))


def _leading_versions(folder: Path) -> Iterator[Path]:
    """Yields versions until something else comes, so that no folder of images is listed whole."""
    for path in _visible_paths(folder):
        if not (_VERSION.fullmatch(path.name) or _UNFINISHED.fullmatch(path.name)):
            return
        yield path


def _folders_in(folder: Path) -> Iterator[Path]:
    return (path for path in _visible_paths(folder) if os.path.isdir(path))


def _visible_paths(folder: Path) -> Iterator[Path]:
    """Yields what is in a folder and not hidden; nothing of a folder that cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith("."):
                    yield Path(entry.path)
    except OSError:
        return


# What operating systems, editors and storage devices leave in folders, beside names with a dot.
_SYSTEM_NAMES = {
    *("__macosx", "__pycache__", "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini"),
    *("$recycle.bin", "system volume information", "lost+found", "icon\r"),
    *("@eadir", "@__thumb", "@recycle", "@tmp", "#recycle", "#snapshot", "picasa.ini"),
    *("_vti_cnf", "network trash folder", "temporary items", "folder.jpg.tmp"),
}
# Catalogs of photo programs; macOS shows their folders as files.
_CATALOGS = (
    *(".photoslibrary", ".photolibrary", ".aplibrary", ".lrdata", ".lrcat", ".lrlibrary"),
    *(".cocatalog",),
)
_FILE_ENDINGS = ("~", ".tmp", ".temp", ".part", ".partial", ".crdownload", ".download", ".swp")
# Files that nobody needs to open to know that they are no image.
_NO_IMAGES = {
    *(".txt", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".md", ".html", ".htm"),
    *(".py", ".ipynb", ".sh", ".m", ".mat", ".npy", ".npz", ".pkl", ".h5", ".hdf5", ".pt", ".pth"),
    *(".keras", ".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".pdf", ".doc"),
    *(".docx", ".xls", ".xlsx", ".log", ".db", ".sqlite", ".ini", ".cfg", ".toml", ".parquet"),
    *(".tfrecord", ".mp4", ".mov", ".avi", ".mkv", ".webm", ".mp3", ".wav", ".aae", ".xmp"),
    *(".url", ".lnk", ".names", ".data", ".label", ".license", ".rtf", ".cache", ".lock"),
}
OTHER_FILES = "file{s} of other kinds"
HIDDEN = "hidden or system file{s} or folder{s}"
PROGRAMS = "run director{ies} or program folder{s}"


class Folder(NamedTuple):
    """A folder and all below it.

    Attributes:
        path: Where it is.
        images: Images right inside, in the order of their names.
        folders: Name -> folder inside, in the order of their names.
        others: Counts what else is right inside by kind and suffix, for formats that must be
            converted; by two empty strings for the rest.
        error: Why it cannot be opened, if so.
    """

    path: str
    images: list[str]
    folders: dict[str, "Folder"]
    others: Counter
    error: str = ""

    def all_images(self) -> list[str]:
        """Lists the images right inside, then those of one folder after another."""
        return [file for folder in self.all_folders() for file in folder.images]

    def all_others(self) -> Counter:
        """Counts all that is no image, by kind and suffix."""
        return sum((folder.others for folder in self.all_folders()), Counter())

    def to_convert(self) -> Counter:
        """Counts the images that must be converted first, by kind and suffix."""
        return Counter({kind: count for kind, count in self.all_others().items() if any(kind)})

    def with_images(self) -> list["Folder"]:
        """Lists the folders right inside that hold images, at whatever depth."""
        return [inside for inside in self.folders.values() if inside.holds_images()]

    def name(self) -> str:
        """Returns its name without those of the folders around."""
        return os.path.basename(self.path)

    def holds_images(self) -> bool:
        """Says whether there is an image right inside or below."""
        return any(folder.images for folder in self.all_folders())

    def all_folders(self) -> Iterator["Folder"]:
        """Yields the folder itself and all below it."""
        yield self
        for folder in self.folders.values():
            yield from folder.all_folders()


def scan(path: str, left_out: LeftOut, convertible: bool = False) -> Folder:
    """Lists a folder, following links.

    Files whose suffix says what they are stay closed, so that a million of them take seconds; of
    others the first bytes decide.

    Args:
        path: The folder.
        left_out: Is told what is passed over, and why.
        convertible: Whether to take images of formats that TensorFlow does not decode, too.
    """
    return _scan(path, left_out, DECODED + tuple(CONVERTIBLE.values()) * convertible, ())


def has_images(path: str) -> bool:
    """Returns whether there are images right inside a folder, without a look at those below."""
    try:
        with os.scandir(path) as entries:
            files = (entry for entry in entries if not entry.is_dir() and not _problem(entry, ()))
            return any(_kind(entry) in DECODED for entry in files)
    except OSError:
        return False


def _scan(path: str, left_out: LeftOut, wanted: tuple[str, ...], around: tuple) -> Folder:
    here = Folder(path, [], {}, Counter())
    try:
        around = (*around, _identity(path))
        entries = sorted(os.scandir(path), key=lambda entry: entry.name)
    except OSError as error:
        left_out.add(f"folder{{s}} that cannot be opened ({error.strerror})", path)
        return here._replace(error=error.strerror)
    if len(around) > 1 and _is_program({entry.name for entry in entries}, path):
        left_out.add(PROGRAMS, path)
        here.others["", ""] += 1
        return here
    for entry in entries:
        problem = _problem(entry, around)
        if problem:
            left_out.add(problem, path)
        elif entry.is_dir():
            here.folders[entry.name] = _scan(entry.path, left_out, wanted, around)
        else:
            kind = _kind(entry)
            if kind in wanted:
                here.images.append(entry.path)
            else:
                suffix = os.path.splitext(entry.name)[1].lower()
                here.others[(kind, suffix) if kind else ("", "")] += 1
                left_out.add(_reason(kind, suffix), path)
    return here


def is_system(name: str, is_folder: bool = False) -> bool:
    """Whether a file or folder is hidden, or one that an operating system or editor made.

    Example:
    >>> [name for name in (".DS_Store", "Thumbs.db", "cat.jpg", "@eaDir") if not is_system(name)]
    ['cat.jpg']
    """
    lower = name.lower()
    endings = _CATALOGS if is_folder else _CATALOGS + _FILE_ENDINGS
    return name.startswith((".", "~$")) or lower in _SYSTEM_NAMES or lower.endswith(endings)


def _is_program(names: set[str], path: str) -> bool:
    """Whether a folder is a run directory of this project, or one of programs and their icons."""
    if {"recipe.json", "checkpoints"} <= names or os.path.basename(path) == "node_modules":
        return True
    return not names.isdisjoint({"pyvenv.cfg", "conda-meta"})


def _identity(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _kind(entry: os.DirEntry) -> str | None:
    """Returns the format of an image, by suffix where that is enough; `None`: no image."""
    suffix = os.path.splitext(entry.name)[1].lower()
    if suffix in SUFFIXES:
        return DECODED[0]  # any of them: the decoder goes by the bytes
    if suffix in CONVERTIBLE:
        return CONVERTIBLE[suffix]
    if suffix in _NO_IMAGES:
        return None
    try:
        with open(entry.path, "rb") as file:
            return kind_of(file.read(FIRST_BYTES))
    except OSError:
        return None


def _reason(kind: str | None, suffix: str) -> str:
    if not kind:
        return OTHER_FILES
    return f"{kind} image{{s}} (convert with `{convert_command(kind, suffix)}`)"


def _problem(entry: os.DirEntry, around: tuple) -> str | None:
    """Says why something can neither be read nor gone into; asks the disk about links only."""
    name = entry.name
    if name.startswith("."):
        return HIDDEN
    try:
        if not entry.is_dir():
            if is_system(name):
                return HIDDEN
            if entry.is_file():
                return None
            return "broken link{s}" if entry.is_symlink() else "device{s} or pipe{s}"
        if is_system(name, is_folder=True):
            return f"system folder{{s}} {printable(name)}/"
        around_itself = entry.is_symlink() and _identity(entry.path) in around
        return "link{s} to a folder around" if around_itself else None
    except OSError as error:
        if error.errno == errno.ELOOP:
            return "link{s} in a circle"
        return f"file{{s}} that cannot be opened ({error.strerror})"
