"""Folders of images whose classes stand in a file: ImageNet's validation images, for one."""

import csv
import io
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from keras_googlenet.data import datasets, folders
from keras_googlenet.data.contents import Contents, LeftOut, SplitContents
from keras_googlenet.errors import UserError
from keras_googlenet.labels import (
    decode_text,
    imagenet_labels,
    one_line,
    read_text,
    split_label,
    split_lines,
)

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


_NUMBERED = re.compile(r"ILSVRC2012_val_(\d{8})$")  # counts from 1
_NUMBER = re.compile(r"[+-]?\d{1,9}(?:\.0*)?")  # a column with gaps makes 3.0 out of 3 in pandas
_NAMES_IMAGE = re.compile(SUFFIX + r"[\"']?(?=[\s,;|]|$)", re.IGNORECASE)
_DELIMITERS = ",;\t|"

Classes = dict[str, str | int | None]  # file -> label, or number of the model's class


def open_labeled(
    folder: str,
    labels_file: str,
    columns: Sequence[str] | None = None,
    model_labels: Sequence[str] | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> datasets.ImageDataset:
    """Opens a folder of images with the file that names their classes.

    The file holds one of these:

    - CSV with a header: `columns` names the column of files and that of labels;
    - lines `file label`, as in Caffe's `val.txt`, with a tab, blanks, a comma or a semicolon
      between the two;
    - one label a line: line k is of `ILSVRC2012_val_<k>`, or, where files have other names, of
      the k-th file by name.

    A label is a wnid, whatever else follows it, a class name, or a whole number. Where the model's
    labels are wnids of ILSVRC 2012, a number counts its classes in the order of the wnids, from 0;
    where they are others, it counts the model's own classes, unless it is the name of one. Files
    are named by the end of their path, with or without suffix.

    Args:
        folder: Where the images are, at any depth.
        labels_file: Text or CSV.
        columns: Names of the two columns of a CSV file.
        model_labels: What the outputs of the model are called, in their order. Without them a
            number is the name of a class.
        note: Is given a line about what of the folder is left out.

    Returns:
        A data set whose validation split is all images of the folder, class after class.

    Raises:
        UserError: If the file cannot be read so, or an image has no label.
    """
    if not Path(labels_file).exists():
        raise UserError(f"there is no file of labels {labels_file}.")
    text = read_text(labels_file)
    paths = paths_below(folders.list_images([folder], note), folder)
    if columns:
        found = _by_name(paths, _csv_pairs(text, columns, labels_file), folder, labels_file)
    else:
        found = _from_lines(text, paths, folder, labels_file, model_labels)
    missing = [file for file in paths if found.get(file) is None]
    if missing:
        raise UserError(
            f"{labels_file} has no label for {len(missing)} of {len(paths)} images, such as "
            f"{missing[0]}; add them, or take the images out of {folder}."
        )
    class_of = _reader_of_labels(model_labels, labels_file)
    labels, split = _classes({file: class_of(found[file]) for file in paths}, model_labels)
    half = SplitContents(Path(labels_file).name, split.size, len(labels))
    return datasets.ImageDataset(labels, None, split, Contents(folder, None, half, LeftOut(folder)))


def _classes(
    classes: Classes, model_labels: Sequence[str] | None
) -> tuple[list[str], datasets.Split]:
    """Puts all classes of an equal label into the list if numbers tell them apart."""
    names = sorted({label for label in classes.values() if isinstance(label, str)})
    numbers = []
    if len(names) < len(set(classes.values())):
        times = Counter(model_labels)
        numbers = [number for number, label in enumerate(model_labels) if times[label] > 1]
    images = {label: [] for label in (*names, *numbers)}
    for file, label in classes.items():
        images[label].append(file)
    by_place = {str(place): files for place, files in enumerate(images.values())}
    split = datasets.folder_split(by_place, list(by_place))
    return [*names, *(model_labels[number] for number in numbers)], split


def _reader_of_labels(
    model_labels: Sequence[str] | None, labels_file: str
) -> Callable[[str], str | int]:
    """Makes the function that reads a label of the file.

    It gives the name of the class, or its number where the model has several of that name.
    """
    classes, kind = model_labels, "the model's classes"
    if _are_imagenet(model_labels or ()):
        classes, kind = imagenet_labels(), "ILSVRC 2012's classes in the order of their wnids"
    times = Counter(model_labels or ())
    numerals = {int(label): label for label in times if label.isdecimal()}

    def class_of(label: str) -> str | int:
        if classes is None or times[label] == 1 or not _NUMBER.fullmatch(label):
            return split_label(label)[0] or label
        number = int(label.partition(".")[0])
        if numerals and len(numerals) == len(times):
            return numerals.get(number, label)
        if not 0 <= number < len(classes):
            raise UserError(
                f"{labels_file} has the number {label}, but numbers count {kind}, from 0 to "
                f"{len(classes) - 1}; correct it, or write the names of the classes."
            )
        label = classes[number]
        return number if times[label] > 1 else split_label(label)[0] or label

    return class_of


def _are_imagenet(labels: Sequence[str]) -> bool:
    """Whether labels are wnids of ILSVRC 2012, but for a background or dummies."""
    wnids = {split_label(label)[0] for label in labels} - {""}
    known = {split_label(label)[0] for label in imagenet_labels()}
    return 2 * len(wnids) > len(labels) and wnids <= known


def _csv_pairs(text: str, columns: Sequence[str], labels_file: str) -> list[tuple[str, str]]:
    text = "\n".join(split_lines(text))
    headers = []
    for delimiter in _DELIMITERS:
        rows = csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True)
        try:
            header = next((row for row in rows if _is_filled(row) and row[0][:4] != "sep="), [])
            headers.append([name.strip() for name in header])
            places = [_place(name, headers[-1]) for name in columns]
            if None not in places:
                return list(_pairs_of_rows(rows, places, labels_file))
        except csv.Error as error:
            raise UserError(f"{labels_file} is no CSV: line {rows.line_num}: {error}.") from error
    header = max(headers, key=len)
    lacking = [name for name in columns if _place(name, header) is None] or columns
    raise UserError(
        f"{labels_file} has no column {', '.join(lacking)}; it has "
        f"{', '.join(header) or 'none'}: give two of them to --label-columns."
    )


def _pairs_of_rows(rows, places: list[int], labels_file: str) -> Iterable[tuple[str, str]]:
    for row in filter(_is_filled, rows):
        name, label = (row[place].strip() if place < len(row) else "" for place in places)
        if not name or not label:
            raise UserError(f"line {rows.line_num} of {labels_file} lacks a file or its label.")
        yield name, label


def _is_filled(row: list[str]) -> bool:
    return any(map(str.strip, row))


def _place(name: str, header: list[str]) -> int | None:
    """Finds a column by its name, otherwise by its name in another case."""
    for key in (composed, lambda text: composed(text).strip().casefold()):
        names = [key(column) for column in header]
        if key(name) in names:
            return names.index(key(name))
    return None


def _from_lines(
    text: str, paths: dict[str, str], folder: str, labels_file: str, model_labels
) -> dict[str, str | None]:
    lines = [line.strip() for line in split_lines(text)]
    while lines and not lines[-1]:
        lines.pop()
    known = {_last_part(path) for path in paths.values()}
    pairs = [pair for pair in (_split_line(line, known) for line in lines) if pair]
    with_image = sum(bool(_NAMES_IMAGE.search(line)) for line in lines)
    if 2 * with_image >= len(lines) > 0 or 2 * len(pairs) >= min(len(lines), len(paths)) > 0:
        return _by_name(paths, pairs, folder, labels_file)
    return _by_position(labels_file, lines, list(paths), model_labels)


def _split_line(line: str, known: set[str]) -> tuple[str, str] | None:
    """Splits `file label` where the first part names a file of the folder, otherwise nowhere.

    Both parts may hold blanks: a tab goes before the last blank, and that before those in front
    of it. Where an image suffix stands in the line, the file ends in one.
    """
    with_image = _NAMES_IMAGE.search(line)
    tabs = [place for place, letter in enumerate(line) if letter == "\t"]
    blanks = [place for place, letter in enumerate(line) if letter == " "]
    marks = [place for place, letter in enumerate(line) if letter in ",;|"]
    for place in (*tabs, *reversed(blanks), *reversed(marks)):
        name = _unquoted(line[:place])
        label = _unquoted(line[place + 1 :].lstrip(" \t,;|"))  # `a.jpg ; ant`
        if with_image and name == without_suffix(name):
            continue
        if label and _last_part(normal_path(name)) in known:
            return name, label
    return None


def _last_part(path: str) -> str:
    return loose_form(path.rpartition("/")[2])


def _unquoted(text: str) -> str:
    text = text.strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text


def _by_position(
    labels_file: str, lines: list[str], files: list[str], model_labels: Sequence[str] | None
) -> dict[str, str | None]:
    numbers = [_NUMBERED.match(Path(file).stem) for file in files]
    of_imagenet = model_labels is None or _are_imagenet(model_labels) or all(numbers)
    if of_imagenet and any(lines) and all(map(_NUMBER.fullmatch, filter(None, lines))):
        raise UserError(
            f"{labels_file} holds numbers without files, which in ImageNet's development kit are "
            "not in the order of the wnids; give one wnid a line, or lines `file label`."
        )
    labels = [one_line(_unquoted(line)) or None for line in lines]
    if all(numbers):
        of_line = dict(enumerate(labels, start=1))
        return {file: of_line.get(int(m[1])) for file, m in zip(files, numbers, strict=True)}
    if len(labels) != len(files):
        raise UserError(
            f"{labels_file} has {len(labels)} labels for {len(files)} images; name the file on "
            "each line, or give --label-columns for CSV."
        )
    return dict(zip(files, labels, strict=True))


def _by_name(
    paths: dict[str, str], pairs: list[tuple[str, str]], folder: str, labels_file: str
) -> dict[str, str]:
    labels = {normal_path(name): one_line(label) for name, label in pairs}
    if len(labels) != len(pairs):
        times = Counter(normal_path(name) for name, _ in pairs)
        raise UserError(
            f"{labels_file} names a file twice, {times.most_common(1)[0][0]}; keep one line for "
            "each."
        )
    return match_files(paths, labels, folder, labels_file)
