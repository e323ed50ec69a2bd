"""Class names: ImageNet's lists, label files, and the search for a class."""

import codecs
import contextlib
import functools
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from keras_googlenet.atomic import replacing
from keras_googlenet.errors import UserError, nearest

MODEL_SUFFIXES = (".keras", ".tflite", ".onnx", ".xml")  # of files that share `<name>.labels.txt`
TOP = 5  # for the top-5 accuracy of the ILSVRC benchmark
GOOGLE_UNUSED_OUTPUTS = 7  # the last ones of Google's network


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
def background_labels() -> tuple[str, ...]:
    """Returns the outputs of TF-slim's network: a background class, then the 1000."""
    return ("background", *imagenet_labels())


@functools.cache
def google_labels() -> tuple[str, ...]:
    """Returns the outputs of Google's network, in the order of ILSVRC 2012's own numbering.

    Source: imagenet_comp_graph_label_strings.txt of inception5h.zip, which numbers the classes like
    ILSVRC's development kit (ILSVRC2012_ID); output 0 is `dummy` there, the last seven have no
    name.

    Example:
    >>> google_labels()[174]
    'n02123045 tabby'
    """
    by_wnid = {split_label(label)[0]: label for label in imagenet_labels()}
    labels = ["dummy", *(by_wnid[wnid] for wnid in _lines("imagenet_google_order.txt"))]
    unused = range(len(labels), len(labels) + GOOGLE_UNUSED_OUTPUTS)
    return (*labels, *(f"unused_{index}" for index in unused))


def _lines(name: str) -> tuple[str, ...]:
    file = resources.files("keras_googlenet") / name
    return tuple(file.read_text(encoding="utf-8").splitlines())


def default_labels(classes: int) -> list[str]:
    """Returns the labels of a head for which no label file exists.

    Args:
        classes: Number of outputs of the head.

    Returns:
        `imagenet_labels`, `background_labels` or `google_labels`, whichever has this length,
        otherwise `class_0`, `class_1`, ….
    """
    for labels in (imagenet_labels(), background_labels(), google_labels()):
        if len(labels) == classes:
            return list(labels)
    return [f"class_{index}" for index in range(classes)]


def imagenet_columns(classes: int) -> list[int]:
    """Returns the output of each of the 1000 classes in a published head of `classes` outputs.

    Example:
    >>> imagenet_columns(1001)[281]
    282
    """
    column = {label: index for index, label in enumerate(default_labels(classes))}
    return [column[label] for label in imagenet_labels()]


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
    """Finds a class by its name.

    Args:
        text: A name (in upper or lower case, with spaces or underscores), a wnid, a whole label, or
            a class index.
        labels: Names in the order of the outputs, each `name` or `wnid name`.

    Returns:
        Index of the first class that matches.

    Raises:
        UserError: If none does; it lists similar names.

    Example:
    >>> find_class("egyptian cat", imagenet_labels()), find_class("n02123045", imagenet_labels())
    (285, 281)
    """
    wanted = plain_label(text)
    names = [plain_label(split_label(label)[1]) for label in labels]
    wnids = [split_label(label)[0] for label in labels]
    for column in (names, wnids, [plain_label(label) for label in labels]):
        if wanted in column:
            return column.index(wanted)
    if wanted.isdecimal() and int(wanted) < len(labels):
        return int(wanted)
    similar = [name for name in names if wanted in name.split()] + nearest(wanted, names, 5)
    similar = [split_label(labels[names.index(name)])[1] for name in dict.fromkeys(similar)]
    hint = f"the nearest are {', '.join(similar[:5])}" if similar else f"the first is {labels[0]}"
    raise UserError(f"there is no class {text!r} among the {len(labels)}; {hint}.")


def plain_label(label: str) -> str:
    r"""Returns a label for comparison: case, underscores, spaces and Unicode forms are unified.

    Example:
    >>> plain_label("Cafe\u0301_au  lait") == plain_label("caf\u00e9 AU lait")
    True
    """
    return " ".join(composed_label(label).casefold().replace("_", " ").split())


def composed_label(label: str) -> str:
    """Returns a label on one line, with accents composed (Unicode's NFC)."""
    return composed(one_line(label))


def composed(text: str) -> str:
    """Composes letters and accents (Unicode NFC), which macOS separates in file names."""
    return unicodedata.normalize("NFC", text)


def labels_path(file: Path) -> Path:
    """Returns the label file of a model file: `<name>.labels.txt` beside it."""
    return file.with_name(f"{file.stem}.labels.txt")


@contextlib.contextmanager
def replacing_with_labels(file: Path, labels: Sequence[str]) -> Iterator[Path]:
    """Does what `replacing` does for a model file, and writes `<name>.labels.txt` beside it.

    Raises:
        UserError: If other classes are there already, of another file of the same name.
    """
    path = labels_path(file)
    siblings = [file.with_suffix(suffix) for suffix in MODEL_SUFFIXES if suffix != file.suffix]
    others = [other.name for other in siblings if other.exists()]
    if others and path.exists() and read_labels(path) != [one_line(label) for label in labels]:
        raise UserError(
            f"{path} names the classes of {', '.join(others)}, and {file.name} has others; give "
            "another name."
        )
    with replacing(path) as labels_file, replacing(file) as model_file:
        write_labels(labels_file, labels)
        yield model_file


def write_labels(file: Path, labels: Iterable[str]):
    """Writes one label per line, each through `one_line`."""
    file.write_text("".join(f"{one_line(label)}\n" for label in labels), encoding="utf-8")


def read_labels(file: Path) -> list[str]:
    """Reads one label per line; blank lines count, except at the end."""
    labels = [one_line(line) for line in split_lines(read_text(file))]
    while labels and not labels[-1]:
        labels.pop()
    return labels


def one_line(label: str) -> str:
    r"""Returns a label as label files hold it: without line breaks, tabs and spaces around it.

    Bytes of a folder name that are not UTF-8, which Python keeps as surrogates, become letters.

    Example:
    >>> one_line(" tabby\n cat"), one_line("caf\udce9")
    ('tabby cat', 'café')
    """
    text = label if label.isprintable() else decode_text(os.fsencode(label))
    return re.sub(r" *[\t\r\n]+ *", " ", text).strip(" ")


def split_lines(text: str) -> list[str]:
    r"""Splits at the line ends of Unix, Windows and old Macs; `str.splitlines` has eight more.

    Example:
    >>> split_lines("caf\u00e9\u2028bar\r\ntabby\n")
    ['café\u2028bar', 'tabby', '']
    """
    return re.split(r"\r*\n|\r", text)


def read_text(file: Path | str) -> str:
    """Reads a user's text file in any encoding of `decode_text`, without byte order marks.

    Raises:
        UserError: If the file is missing or cannot be read.
    """
    try:
        data = Path(file).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {file} ({error.strerror}); give a text file.") from error
    return decode_text(data).replace("\ufeff", "")  # joined files have marks inside, too


def decode_text(data: bytes) -> str:
    """Decodes UTF-8, UTF-16 or UTF-32, with or without a byte order mark, otherwise Latin-1.

    Latin-1 is read as Windows-1252, which adds letters and quotation marks to it.
    """
    if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):  # starts like UTF-16's mark
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
    except UnicodeDecodeError:  # five bytes are undefined there
        return data.decode("latin-1")


def _decode_wide(data: bytes, width: int, encoding: str) -> str:
    """Tries both byte orders: more line ends win, then more zeros among the high bytes."""
    candidates = []
    for order, high_byte in (("le", width - 1), ("be", 0)):
        text = data.decode(f"{encoding}-{order}", "replace")
        candidates.append((text.count("\n"), data[high_byte::width].count(0), text))
    return max(candidates)[-1]
