"""Folders of images whose classes are in a file, such as ImageNet's validation images."""

import csv
import dataclasses
import io
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from keras_googlenet.data import datasets, folders
from keras_googlenet.data.contents import Contents, Skipped, SplitContents
from keras_googlenet.errors import UserError
from keras_googlenet.labels import (
    composed,
    decode_text,
    imagenet_labels,
    one_line,
    read_text,
    split_label,
    split_lines,
)

# Also formats that TensorFlow does not decode: the text may be older than the converted files.
_SUFFIX = r"\.(?:jpe?g|jpe|jfif|png|gif|bmp|webp|tiff?|hei[cf]|avif|p[bgnp]m)"
_ENDS_IN_SUFFIX = re.compile(_SUFFIX + "$", re.IGNORECASE)
_NAMES_IMAGE = re.compile(_SUFFIX + r"[\"']?(?=[\s,;|]|$)", re.IGNORECASE)
_IMAGENET_FILE = re.compile(r"ILSVRC2012_val_(\d{8})$")  # counts from 1
_NUMBER = re.compile(r"[+-]?\d{1,9}(?:\.0*)?")  # pandas writes 3.0 for 3 in a column with gaps
_DELIMITERS = ",;\t|"


def open_labeled(
    folder: str,
    labels_file: str,
    columns: Sequence[str] | None = None,
    model_labels: Sequence[str] | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> datasets.ImageDataset:
    """Opens a folder of images with the file of their labels.

    The file holds one of these:

    - CSV with a header: `columns` names the column of files and that of labels;
    - lines `file label`, as in Caffe's `val.txt`, with a tab, blanks, a comma or a semicolon
      between the two;
    - one label a line: line k is for `ILSVRC2012_val_<k>`, or, where files have other names, for
      the k-th file by name.

    A label is a wnid, whatever else follows it, a class name, or a class index. Where the model's
    labels are wnids of ILSVRC 2012, an index counts its classes in the order of the wnids, from 0;
    where they are others, it counts the model's own classes, unless it is the name of one. Files
    are named by the end of their path, with or without suffix.

    Returns a data set whose validation set is all images of the folder, at any depth, class after
    class. `note` is called with a line about what is skipped. Raises UserError if the file cannot
    be read so, or an image has no label.
    """
    if not Path(labels_file).exists():
        raise UserError(f"there is no file of labels {labels_file}.")
    text = read_text(labels_file)
    paths = _paths_below(folders.list_images([folder], note), folder)
    if columns:
        label_of = _by_name(paths, _csv_pairs(text, columns, labels_file), folder, labels_file)
    else:
        label_of = _from_lines(text, paths, folder, labels_file, model_labels)
    missing = [file for file in paths if label_of.get(file) is None]
    if missing:
        raise UserError(
            f"{labels_file} has no label for {len(missing)} of {len(paths)} images, such as "
            f"{missing[0]}; add them, or move the images out of {folder}."
        )
    class_of = _label_reader(model_labels, labels_file)
    split = _split_by_class({file: class_of(label_of[file]) for file in paths}, model_labels)
    labels = list(split.class_names)
    summary = SplitContents(Path(labels_file).name, split.size, len(labels))
    contents = Contents(folder, None, summary, Skipped(folder))
    return datasets.ImageDataset(labels, None, split, contents)


def _split_by_class(
    classes: dict[str, str | int], model_labels: Sequence[str] | None
) -> datasets.Split:
    """Makes a split of files and their classes, names or indices of `model_labels`.

    If there are indices, all classes whose label is not unique are among the split's.
    """
    names = sorted({label for label in classes.values() if isinstance(label, str)})
    indices = []
    if len(names) < len(set(classes.values())):
        counts = Counter(model_labels)
        indices = [index for index, label in enumerate(model_labels) if counts[label] > 1]
    images = {label: [] for label in (*names, *indices)}
    for file, label in classes.items():
        images[label].append(file)
    split = datasets.folder_split(images, list(images))
    labels = [*names, *(model_labels[index] for index in indices)]
    return dataclasses.replace(split, class_names=labels)


def _label_reader(
    model_labels: Sequence[str] | None, labels_file: str
) -> Callable[[str], str | int]:
    """Returns the function that maps a label of the file to the name of the class.

    Where the model has several classes of that name, it gives the class index.
    """
    classes, meaning = model_labels, "the model's classes"
    if _are_imagenet(model_labels or ()):
        classes, meaning = imagenet_labels(), "ILSVRC 2012's classes in the order of their wnids"
    counts = Counter(model_labels or ())
    numerals = {int(label): label for label in counts if label.isdecimal()}

    def class_of(label: str) -> str | int:
        if classes is None or counts[label] == 1 or not _NUMBER.fullmatch(label):
            return split_label(label)[0] or label
        index = int(label.partition(".")[0])
        if numerals and len(numerals) == len(counts):
            return numerals.get(index, label)
        if not 0 <= index < len(classes):
            raise UserError(
                f"{labels_file} has the number {label}, but numbers count {meaning}, from 0 to "
                f"{len(classes) - 1}; correct it, or write the names of the classes."
            )
        label = classes[index]
        return index if counts[label] > 1 else split_label(label)[0] or label

    return class_of


def _are_imagenet(labels: Sequence[str]) -> bool:
    """Whether labels are wnids of ILSVRC 2012, except for a background class or dummies."""
    wnids = {split_label(label)[0] for label in labels} - {""}
    known = {split_label(label)[0] for label in imagenet_labels()}
    return 2 * len(wnids) > len(labels) and wnids <= known


def _csv_pairs(text: str, columns: Sequence[str], labels_file: str) -> list[tuple[str, str]]:
    """Reads the two columns, with whichever delimiter has them."""
    text = "\n".join(split_lines(text))
    headers = []
    for delimiter in _DELIMITERS:
        rows = csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True)
        try:
            header = next((row for row in rows if _is_filled(row) and row[0][:4] != "sep="), [])
            headers.append([name.strip() for name in header])
            indices = [_column(name, headers[-1]) for name in columns]
            if None not in indices:
                return list(_pairs_of_rows(rows, indices, labels_file))
        except csv.Error as error:
            raise UserError(
                f"{labels_file} is not valid CSV: line {rows.line_num}: {error}; correct it."
            ) from error
    header = max(headers, key=len)
    missing = [name for name in columns if _column(name, header) is None] or columns
    raise UserError(
        f"{labels_file} has no column {', '.join(missing)}; it has "
        f"{', '.join(header) or 'none'}: give two of them to --label-columns."
    )


def _pairs_of_rows(rows, indices: list[int], labels_file: str) -> Iterable[tuple[str, str]]:
    for row in filter(_is_filled, rows):
        name, label = (row[index].strip() if index < len(row) else "" for index in indices)
        if not name or not label:
            raise UserError(
                f"line {rows.line_num} of {labels_file} lacks a file or its label; add it."
            )
        yield name, label


def _is_filled(row: list[str]) -> bool:
    return any(map(str.strip, row))


def _column(name: str, header: list[str]) -> int | None:
    """Finds a column by its name, otherwise by its name in another case."""
    for key in (_decoded, lambda text: _decoded(text).strip().casefold()):
        names = [key(column) for column in header]
        if key(name) in names:
            return names.index(key(name))
    return None


def _from_lines(
    text: str, paths: dict[str, str], folder: str, labels_file: str, model_labels
) -> dict[str, str | None]:
    """Reads lines `file label` if half of them are such, otherwise one label a line."""
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
    """Splits `file label` where the first part names a file of the folder; `None` if nowhere.

    Both parts may hold blanks: a tab is tried before the last blank, and that before those in
    front of it. Where an image suffix is in the line, the file ends in one.
    """
    with_image = _NAMES_IMAGE.search(line)
    tabs = [index for index, letter in enumerate(line) if letter == "\t"]
    blanks = [index for index, letter in enumerate(line) if letter == " "]
    marks = [index for index, letter in enumerate(line) if letter in ",;|"]
    for index in (*tabs, *reversed(blanks), *reversed(marks)):
        name = _unquoted(line[:index])
        label = _unquoted(line[index + 1 :].lstrip(" \t,;|"))  # `a.jpg ; ant`
        if with_image and name == _without_suffix(name):
            continue
        if label and _last_part(_normal_path(name)) in known:
            return name, label
    return None


def _last_part(path: str) -> str:
    return _loose_form(path.rpartition("/")[2])


def _unquoted(text: str) -> str:
    text = text.strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text


def _by_position(
    labels_file: str, lines: list[str], files: list[str], model_labels: Sequence[str] | None
) -> dict[str, str | None]:
    numbers = [_IMAGENET_FILE.match(Path(file).stem) for file in files]
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
    labels = {_normal_path(name): one_line(label) for name, label in pairs}
    if len(labels) != len(pairs):
        counts = Counter(_normal_path(name) for name, _ in pairs)
        raise UserError(
            f"{labels_file} names a file twice, {counts.most_common(1)[0][0]}; keep one line for "
            "each."
        )
    return _match_files(paths, labels, folder, labels_file)


def _match_files(
    paths: Mapping[str, str], labels: Mapping[str, str], folder: str, labels_file: str
) -> dict[str, str]:
    """Finds the label of each file by the name that matches the longest end of its path.

    A name matches a file if it is the end of the file's path, or ends in the whole path below the
    folder, as names from another machine do. The same name is preferred to one with another suffix
    or case. Raises UserError if a name matches two files, or two names with different labels one.
    """
    parents = _normal_path(os.path.abspath(folder)).casefold().split("/")
    name_of = {}
    for form in (str, _with_lower_suffix, _without_suffix, _loose_form):  # the strictest first
        rest = {file: form(path) for file, path in paths.items() if file not in name_of}
        if not rest:
            break
        used = set(name_of.values())
        names = [name for name in labels if name not in used]
        name_of |= _match_form(
            rest, _Names(names, form, rest.values(), parents), labels, labels_file
        )
    return {file: labels[name] for file, name in name_of.items()}


class _Names:
    """Names in the file of labels, whole and by the ends that are as long as paths."""

    def __init__(self, names: list[str], form: Callable, paths: Iterable[str], parents: list[str]):
        depths = {path.count("/") + 1 for path in paths}
        self._whole, self._ends = defaultdict(list), defaultdict(list)
        for name in names:
            path = form(name)
            self._whole[path].append(name)
            parts = path.split("/")
            for depth in depths:
                if len(parts) > depth:
                    common = _common_end(parts[:-depth], parents)
                    self._ends["/".join(parts[-depth:])].append((common, name))

    def matching(self, path: str) -> list[str]:
        """Returns the names that match most of a path; several if they match equally much."""
        longer = self._ends.get(path, ())
        most = max((common for common, _ in longer), default=0)
        if most or (longer and path not in self._whole):
            return [name for common, name in longer if common == most]
        while path not in self._whole and "/" in path:
            path = path.partition("/")[2]
        return self._whole.get(path, [])


def _common_end(parts: list[str], parents: list[str]) -> int:
    """Counts the last parts that are the same, apart from case."""
    common = 0
    for part, parent in zip(reversed(parts), reversed(parents), strict=False):
        if part.casefold() != parent:
            break
        common += 1
    return common


def _match_form(
    paths: Mapping[str, str], names: _Names, labels: Mapping[str, str], labels_file: str
) -> dict[str, str]:
    name_of, file_of = {}, {}
    for file, path in paths.items():
        matching = names.matching(path)
        if not matching:
            continue
        name = matching[0]
        other = next((other for other in matching if labels[other] != labels[name]), None)
        if other is not None:
            raise UserError(
                f"{labels_file} names {name} and {other}, which both may be {file}; keep one of "
                "them, or write the folders as they are."
            )
        if name in file_of:
            raise UserError(
                f"{labels_file} names {name}, which may be {file_of[name]} or {file}; write the "
                "folder too."
            )
        name_of[file], file_of[name] = name, file
    return name_of


def _paths_below(files: Iterable[str], folder: str) -> dict[str, str]:
    """Maps each file of a folder to its `_normal_path` from there."""
    depth = len(Path(folder).parts)
    return {
        file: _normal_path("/".join(file.replace(os.sep, "/").split("/")[depth:])) for file in files
    }


def _normal_path(path: str) -> str:
    """Returns a path with composed letters and `/`, without `.`, `..` and the leading `/`."""
    parts = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    return "/".join(part if part.isascii() else _decoded(part) for part in parts)


def _decoded(text: str) -> str:
    """Composes letters, also of bytes in the text that are not UTF-8."""
    return composed(decode_text(os.fsencode(text)))


def _without_suffix(path: str) -> str:
    return _ENDS_IN_SUFFIX.sub("", path)


def _with_lower_suffix(path: str) -> str:
    return _ENDS_IN_SUFFIX.sub(lambda match: match[0].lower(), path)


def _loose_form(path: str) -> str:
    return _without_suffix(path).casefold()
