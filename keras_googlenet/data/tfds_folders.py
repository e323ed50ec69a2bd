"""How to tell the folders that TensorFlow Datasets wrote; needs nothing but the folders."""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

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
