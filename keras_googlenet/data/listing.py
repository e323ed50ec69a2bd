"""What is in a folder: images, other folders, and files of other kinds."""

import errno
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from keras_googlenet.data.contents import Skipped, printable
from keras_googlenet.data.file_kinds import (
    CONVERTIBLE,
    DECODED,
    FIRST_BYTES,
    SUFFIXES,
    convert_command,
    kind_of,
)
from keras_googlenet.labels import composed
from keras_googlenet.run_files import CHECKPOINTS, RECIPE_FILE

_INFO_FILE = "dataset_info.json"
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_UNFINISHED = re.compile(r"incomplete\.\w+_\d+\.\d+\.\d+")  # of a preparation that was cut off

# What operating systems, editors and storage devices leave in folders, beside names with a dot.
_SYSTEM_NAMES = {
    *("__macosx", "__pycache__", "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini"),
    *("$recycle.bin", "system volume information", "lost+found", "icon\r"),
    *("@eadir", "@__thumb", "@recycle", "@tmp", "#recycle", "#snapshot", "picasa.ini"),
    *("_vti_cnf", "network trash folder", "temporary items", "folder.jpg.tmp"),
}
# Catalogs of photo software; macOS shows these folders as files.
_CATALOGS = (
    *(".photoslibrary", ".photolibrary", ".aplibrary", ".lrdata", ".lrcat", ".lrlibrary"),
    *(".cocatalog",),
)
_FILE_ENDINGS = ("~", ".tmp", ".temp", ".part", ".partial", ".crdownload", ".download", ".swp")
# Files that are not opened to find out that they are not images.
_NO_IMAGES = {
    *(".txt", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".md", ".html", ".htm"),
    *(".py", ".ipynb", ".sh", ".m", ".mat", ".npy", ".npz", ".pkl", ".h5", ".hdf5", ".pt", ".pth"),
    *(".keras", ".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".pdf", ".doc"),
    *(".docx", ".xls", ".xlsx", ".log", ".db", ".sqlite", ".ini", ".cfg", ".toml", ".parquet"),
    *(".tfrecord", ".mp4", ".mov", ".avi", ".mkv", ".webm", ".mp3", ".wav", ".aae", ".xmp"),
    *(".url", ".lnk", ".names", ".data", ".label", ".license", ".rtf", ".cache", ".lock"),
}
_OTHER_FILES = "file{s} of other kinds"
_HIDDEN = "hidden or system file{s} or folder{s}"
_SOFTWARE = "run director{ies} or software folder{s}"


class Folder(NamedTuple):
    """A folder and everything below it.

    Attributes:
        path: Where it is.
        images: Images right inside, in the order of their names.
        folders: Name -> folder inside, in the order of their names.
        others: Counts the other files right inside by format and suffix, for formats that must be
            converted; by two empty strings for the rest.
        error: Why it cannot be opened, if so.
    """

    path: str
    images: list[str]
    folders: dict[str, "Folder"]
    others: Counter
    error: str = ""

    def name(self) -> str:
        """Returns its name without those of the folders around it."""
        return os.path.basename(self.path)

    def all_folders(self) -> Iterator["Folder"]:
        """Yields the folder itself and all below it."""
        yield self
        for folder in self.folders.values():
            yield from folder.all_folders()

    def all_images(self) -> list[str]:
        """Lists the images right inside, then those of one folder after another."""
        return [file for folder in self.all_folders() for file in folder.images]

    def all_others(self) -> Counter:
        """Counts the other files at any depth, by format and suffix."""
        return sum((folder.others for folder in self.all_folders()), Counter())

    def to_convert(self) -> Counter:
        """Counts the images that must be converted first, by format and suffix."""
        return Counter({kind: count for kind, count in self.all_others().items() if any(kind)})

    def holds_images(self) -> bool:
        """Whether there is an image at any depth."""
        return any(folder.images for folder in self.all_folders())

    def with_images(self) -> list["Folder"]:
        """Lists the folders right inside that hold images at any depth."""
        return [inside for inside in self.folders.values() if inside.holds_images()]


def scan(path: str, skipped: Skipped, convertible: bool = False) -> Folder:
    """Lists a folder, following links.

    Files with a known suffix are not opened, so that a million of them take seconds; of others the
    first bytes decide. `convertible` adds images of formats that TensorFlow does not decode.
    """
    return _scan(path, skipped, DECODED + tuple(CONVERTIBLE.values()) * convertible, ())


def has_images(path: str) -> bool:
    """Returns whether images are right inside a folder, without a look at the folders below."""
    try:
        with os.scandir(path) as entries:
            files = (one for one in entries if not one.is_dir() and not _reason_to_skip(one, ()))
            return any(_kind(file) in DECODED for file in files)
    except OSError:
        return False


def _scan(path: str, skipped: Skipped, wanted: tuple[str, ...], parents: tuple) -> Folder:
    here = Folder(path, [], {}, Counter())
    try:
        parents = (*parents, _identity(path))
        entries = sorted(os.scandir(path), key=lambda entry: entry.name)
    except OSError as error:
        skipped.add(f"folder{{s}} that cannot be opened ({error.strerror})", path)
        return here._replace(error=error.strerror)
    if len(parents) > 1 and _is_software({entry.name for entry in entries}, path):
        skipped.add(_SOFTWARE, path)
        here.others["", ""] += 1
        return here
    for entry in entries:
        reason = _reason_to_skip(entry, parents)
        if reason:
            skipped.add(reason, path)
        elif entry.is_dir():
            here.folders[entry.name] = _scan(entry.path, skipped, wanted, parents)
        else:
            kind, suffix = _kind(entry), os.path.splitext(entry.name)[1].lower()
            if kind in wanted:
                here.images.append(entry.path)
                continue
            here.others[(kind, suffix) if kind else ("", "")] += 1
            convert = kind and f"{kind} image{{s}} (convert with `{convert_command(kind, suffix)}`)"
            skipped.add(convert or _OTHER_FILES, path)
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


def file_name(path: str) -> bytes:
    """Returns the name of a file without its folders, the same on every file system."""
    return os.fsencode(composed(os.path.basename(path)))


def is_prepared(folder: Path) -> bool:
    """Whether a folder is one prepared version of a TFDS data set, such as `mnist/3.0.1`."""
    return os.path.isfile(folder / _INFO_FILE)


def made_by_tfds(folder: Path) -> bool:
    """Whether a folder holds versions of a TFDS data set, or its configs with their versions.

    Such as `mnist`, with `3.0.1/dataset_info.json` inside, or `imagenette`, with
    `full-size/1.0.0/dataset_info.json`. What a preparation that was cut off left behind counts too.
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
    """Yields what is not hidden in a folder; nothing if the folder cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith("."):
                    yield Path(entry.path)
    except OSError:
        return


def _is_software(names: set[str], path: str) -> bool:
    """Whether a folder is a run directory of this project, or an environment with its icons."""
    if {RECIPE_FILE, CHECKPOINTS} <= names or os.path.basename(path) == "node_modules":
        return True
    return not names.isdisjoint({"pyvenv.cfg", "conda-meta"})


def _identity(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _kind(entry: os.DirEntry) -> str | None:
    """Returns the format of an image, by suffix where that is enough; `None` for other files."""
    suffix = os.path.splitext(entry.name)[1].lower()
    if suffix in SUFFIXES:
        return DECODED[0]  # any of them: the decoder looks at the bytes
    if suffix in CONVERTIBLE:
        return CONVERTIBLE[suffix]
    if suffix in _NO_IMAGES:
        return None
    try:
        with open(entry.path, "rb") as file:
            return kind_of(file.read(FIRST_BYTES))
    except OSError:
        return None


def _reason_to_skip(entry: os.DirEntry, parents: tuple) -> str | None:
    """Returns why an entry is not read; only links need the disk."""
    name = entry.name
    if name.startswith("."):
        return _HIDDEN
    try:
        if not entry.is_dir():
            if is_system(name):
                return _HIDDEN
            if entry.is_file():
                return None
            return "broken link{s}" if entry.is_symlink() else "device{s} or pipe{s}"
        if is_system(name, is_folder=True):
            return f"system folder{{s}} {printable(name)}/"
        is_circular = entry.is_symlink() and _identity(entry.path) in parents
        return "link{s} to a parent folder" if is_circular else None
    except OSError as error:
        if error.errno == errno.ELOOP:
            return "link{s} in a circle"
        return f"file{{s}} that cannot be opened ({error.strerror})"
