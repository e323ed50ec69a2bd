"""Finds the files of a folder by the names that they have in a text of another program."""

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from keras_googlenet.errors import UserError
from keras_googlenet.imagenet import decode_text

# Also kinds that TensorFlow does not decode: the text may be older than the converted files.
SUFFIX = r"\.(?:jpe?g|jpe|jfif|png|gif|bmp|webp|tiff?|hei[cf]|avif|p[bgnp]m)"
_ENDS_IN_SUFFIX = re.compile(SUFFIX + "$", re.IGNORECASE)


def paths_below(files: Iterable[str], folder: str) -> dict[str, str]:
    """Returns for each file of a folder its `normal_path` from there."""
    depth = len(Path(folder).parts)
    return {
        file: normal_path("/".join(file.replace(os.sep, "/").split("/")[depth:])) for file in files
    }


def normal_path(path: str) -> str:
    r"""Returns a path with composed letters and `/`, without `.`, `..` and the leading `/`.

    Example:
    >>> normal_path(".\\val\\cafe\u0301.jpg")
    'val/café.jpg'
    """
    parts = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    return "/".join(part if part.isascii() else composed(part) for part in parts)


def composed(text: str) -> str:
    """Composes letters and accents (Unicode NFC; macOS takes them apart in file names)."""
    return unicodedata.normalize("NFC", decode_text(os.fsencode(text)))


def without_suffix(path: str) -> str:
    """Cuts the suffix of an image off."""
    return _ENDS_IN_SUFFIX.sub("", path)


def loose_form(path: str) -> str:
    """Returns what paths have in common that differ in their suffix or in case."""
    return without_suffix(path).casefold()


def _with_lower_suffix(path: str) -> str:
    return _ENDS_IN_SUFFIX.sub(lambda match: match[0].lower(), path)


_FORMS = (str, _with_lower_suffix, without_suffix, loose_form)  # the strictest first


def match_files(
    paths: Mapping[str, str], labels: Mapping[str, str], folder: str, source: str
) -> dict[str, str]:
    """Finds the label of each file by the longest end of its path that is named.

    A name fits a file if it is the end of the file's path, or has an end that is the whole path
    below the folder, as names from another machine have. Of several the one that has more of the
    path is taken; the same name before one with another suffix or case.

    Args:
        paths: The files with their paths below the folder, as `paths_below` gives them.
        labels: Label of each name, which is as `normal_path` gives it.
        folder: Where the files are.
        source: What the names come from, for errors.

    Returns:
        File -> label, of those that are named.

    Raises:
        UserError: If a name may be of two files, or two names with different labels of one.
    """
    above = normal_path(os.path.abspath(folder)).casefold().split("/")
    found = {}
    for form in _FORMS:
        rest = {file: form(path) for file, path in paths.items() if file not in found}
        if not rest:
            break
        used = set(found.values())
        names = [name for name in labels if name not in used]
        found |= _match_form(rest, _Names(names, form, rest.values(), above), labels, source)
    return {file: labels[name] for file, name in found.items()}


class _Names:
    """Names by the paths that they fit: as a whole, and by the ends that are as long as paths."""

    def __init__(self, names: list[str], form: Callable, paths: Iterable[str], above: list[str]):
        depths = {path.count("/") + 1 for path in paths}
        self._whole, self._ends = defaultdict(list), defaultdict(list)
        for name in names:
            path = form(name)
            self._whole[path].append(name)
            parts = path.split("/")
            for depth in depths:
                if len(parts) > depth:
                    common = _common_end(parts[:-depth], above)
                    self._ends["/".join(parts[-depth:])].append((common, name))

    def fitting(self, path: str) -> list[str]:
        """Returns the names that have the most of a path, more than one if they have equally."""
        longer = self._ends.get(path, ())
        most = max((common for common, _ in longer), default=0)
        if most or (longer and path not in self._whole):
            return [name for common, name in longer if common == most]
        while path not in self._whole and "/" in path:
            path = path.partition("/")[2]
        return self._whole.get(path, [])


def _common_end(parts: list[str], above: list[str]) -> int:
    common = 0
    for part, other in zip(reversed(parts), reversed(above), strict=False):
        if part.casefold() != other:
            break
        common += 1
    return common


def _match_form(
    paths: Mapping[str, str], names: _Names, labels: Mapping[str, str], source: str
) -> dict[str, str]:
    found, file_of = {}, {}
    for file, path in paths.items():
        fitting = names.fitting(path)
        if not fitting:
            continue
        name = fitting[0]
        other = next((other for other in fitting if labels[other] != labels[name]), None)
        if other is not None:
            raise UserError(
                f"{source} says {name} and {other}, which both may be {file}; keep one of them, "
                "or write the folders as they are."
            )
        if name in file_of:
            raise UserError(
                f"{source} says {name}, which may be {file_of[name]} or {file}; write the "
                "folder too."
            )
        found[file], file_of[name] = name, file
    return found
