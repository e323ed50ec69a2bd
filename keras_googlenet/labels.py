"""Class names: the published lists, label files, and the search for a class."""

import codecs
import contextlib
import difflib
import functools
import os
import re
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from keras_googlenet.errors import UserError

TOP = 5  # the benchmark's second metric: the label is among the five best
BACKGROUND = "background"  # class 0 of the 1001


GOOGLE_OUTPUTS = 1008  # class 0 and the last seven of Google's network stand for nothing


class Prediction(NamedTuple):
    """A class with its score; `wnid` is empty outside ImageNet, `index` `None` if unknown."""

    index: int | None
    wnid: str
    name: str
    score: float


@functools.cache
def imagenet_labels() -> tuple[str, ...]:
    """Returns the 1000 classes of ILSVRC 2012 in the order of their wnids, each `wnid name`.

    Example:
    >>> imagenet_labels()[281]
    'n02123045 tabby'
    """
    return _lines("imagenet_classes.txt")


@functools.cache
def google_labels() -> tuple[str, ...]:
    """Returns the 1008 outputs of Google's network, whose order is ILSVRC 2012's own numbering.

    Source: imagenet_comp_graph_label_strings.txt of inception5h.zip, which numbers the classes as
    ILSVRC's development kit (ILSVRC2012_ID) does; output 0 is `dummy` there, and the last seven
    have no name.

    Example:
    >>> google_labels()[174]
    'n02123045 tabby'
    """
    named = {label.partition(" ")[0]: label for label in imagenet_labels()}
    ordered = [named[wnid] for wnid in _lines("imagenet_google_order.txt")]
    unused = [f"unused_{index}" for index in range(1 + len(ordered), GOOGLE_OUTPUTS)]
    return ("dummy", *ordered, *unused)


def imagenet_columns(classes: int) -> list[int]:
    """Finds the 1000 classes among the outputs of a published head.

    Args:
        classes: Outputs of the head: 1000, 1001 or 1008.

    Returns:
        Output of each class of `imagenet_labels`.

    Example:
    >>> imagenet_columns(1001)[281]
    282
    """
    column = {label: index for index, label in enumerate(default_labels(classes))}
    return [column[label] for label in imagenet_labels()]


def _lines(name: str) -> tuple[str, ...]:
    file = resources.files("keras_googlenet") / name
    return tuple(file.read_text(encoding="utf-8").splitlines())


def default_labels(classes: int) -> list[str]:
    """Returns what a head's outputs are called when nothing says so.

    Args:
        classes: Outputs of the head.

    Returns:
        ImageNet's classes for 1000, the same behind a background class for 1001, in Google's
        order for 1008, otherwise `class_0`, `class_1`, ….
    """
    if classes == 1000:
        return list(imagenet_labels())
    if classes == 1001:
        return [BACKGROUND, *imagenet_labels()]
    if classes == GOOGLE_OUTPUTS:
        return list(google_labels())
    return [f"class_{index}" for index in range(classes)]


def labels_path(file: Path) -> Path:
    """Returns where the labels of a file stand: `<name>.labels.txt` beside it."""
    return file.with_name(f"{file.stem}.labels.txt")


def write_labels(file: Path, labels: Iterable[str]):
    """Writes one label a line, each as `one_line` has it."""
    file.write_text("".join(f"{one_line(label)}\n" for label in labels), encoding="utf-8")


def read_labels(file: Path) -> list[str]:
    """Reads one label a line; blank lines count, except for those at the end."""
    labels = [one_line(line) for line in split_lines(read_text(file))]
    while labels and not labels[-1]:
        labels.pop()
    return labels


def one_line(label: str) -> str:
    r"""Returns a label as a file of labels has it: no line breaks, no tabs, no blanks around.

    Bytes of a folder's name that are no UTF-8, which Python keeps as surrogates, become letters.

    Example:
    >>> one_line(" tabby\n cat"), one_line("caf\udce9")
    ('tabby cat', 'café')
    """
    text = label if label.isprintable() else decode_text(os.fsencode(label))
    return re.sub(r" *[\t\r\n]+ *", " ", text).strip(" ")


def split_lines(text: str) -> list[str]:
    r"""Splits at the line ends of Unix, Windows and old Macs; `str.splitlines` knows eight more.

    Example:
    >>> split_lines("caf\u00e9\u2028bar\r\ntabby\n")
    ['café\u2028bar', 'tabby', '']
    """
    return re.split(r"\r*\n|\r", text)


def read_text(file: Path | str) -> str:
    """Reads a text file of a user, whatever program saved it.

    Args:
        file: Text as `decode_text` takes it.

    Returns:
        The text without byte order marks, also those that joined files have inside.

    Raises:
        UserError: If there is no such file, or it cannot be read.
    """
    try:
        data = Path(file).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {file} ({error.strerror}); give a text file.") from error
    return decode_text(data).replace("\ufeff", "")


def decode_text(data: bytes) -> str:
    """Decodes UTF-8, UTF-16 or UTF-32, with or without a byte order mark, otherwise Latin-1.

    Latin-1 is read as Windows-1252, which adds letters and quotation marks to it.
    """
    if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):  # begins as UTF-16's does
        return data.decode("utf-32", "replace")
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", "replace")
    zeros = data.count(0)
    with contextlib.suppress(UnicodeDecodeError):
        text = data.decode("utf-8")
        if 4 * zeros <= len(data):  # UTF-16 of English is half zeros, and valid UTF-8
            return text
    if zeros:
        return _decode_wide(data, *((4, "utf-32") if 2 * zeros > len(data) else (2, "utf-16")))
    try:
        return data.decode("cp1252")
    except UnicodeDecodeError:  # which leaves five bytes free
        return data.decode("latin-1")


def _decode_wide(data: bytes, width: int, encoding: str) -> str:
    """Takes the byte order that gives more line ends, then the one with more high bytes of 0."""
    candidates = []
    for order, high_byte in (("le", width - 1), ("be", 0)):
        text = data.decode(f"{encoding}-{order}", "replace")
        candidates.append((text.count("\n"), data[high_byte::width].count(0), text))
    return max(candidates)[-1]


def split_label(label: str) -> tuple[str, str]:
    """Splits `wnid name` into its parts; without a wnid the first part is empty.

    Example:
    >>> split_label("n02123045 tabby")
    ('n02123045', 'tabby')
    """
    wnid, _, name = label.partition(" ")
    is_wnid = len(wnid) == 9 and wnid[0] == "n" and wnid[1:].isdecimal()
    return (wnid, name or wnid) if is_wnid else ("", label)


def find_class(text: str, labels: Sequence[str]) -> int:
    """Finds a class by what a person would call it.

    Args:
        text: A name (any case, blanks or underscores), a wnid, a whole label, or a number.
        labels: Names in the order of the outputs, each `name` or `wnid name`.

    Returns:
        Number of the first class that fits.

    Raises:
        UserError: If none does; it names those that come nearest.

    Example:
    >>> find_class("egyptian cat", imagenet_labels()), find_class("n02123045", imagenet_labels())
    (285, 281)
    """
    wanted = _plain(text)
    names = [_plain(split_label(label)[1]) for label in labels]
    for column in (names, [split_label(label)[0] for label in labels], list(map(_plain, labels))):
        if wanted in column:
            return column.index(wanted)
    if wanted.isdecimal() and int(wanted) < len(labels):
        return int(wanted)
    near = [name for name in names if wanted in name.split()]
    near += difflib.get_close_matches(wanted, names, 5)
    shown = [split_label(labels[names.index(name)])[1] for name in dict.fromkeys(near)]
    hint = f"the nearest are {', '.join(shown[:5])}" if shown else f"the first is {labels[0]}"
    raise UserError(f"there is no class {text!r} among the {len(labels)}; {hint}.")


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").lower().split())
