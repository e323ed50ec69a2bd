"""Folders of images whose classes stand in a file: ImageNet's validation images, for one."""

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

from keras_googlenet.data import datasets, folders
from keras_googlenet.errors import UserError
from keras_googlenet.imagenet import imagenet_labels, split_label

_NUMBERED = re.compile(r"ILSVRC2012_val_(\d{8})$")  # counts from 1


def open_labelled(
    folder: str, labels_file: str, columns: tuple[str, str] | None = None
) -> datasets.ImageDataset:
    """Opens a folder of images with the file that names their classes.

    The file holds one of these:

    - CSV with a header: `columns` names the column of files and that of labels;
    - lines `file label`, as in Caffe's `val.txt`;
    - one label a line: line k is of `ILSVRC2012_val_<k>`, or, where files have other names, of
      the k-th file by name.

    A label is a wnid, whatever else follows it, or a class name; beside a file, a whole number
    counts ILSVRC 2012's classes in the order of their wnids, from 0. Files are named by their path
    below the folder or by their name, with or without suffix.

    Args:
        folder: Where the images are, at any depth.
        labels_file: Text or CSV.
        columns: Names of the two columns of a CSV file.

    Returns:
        A data set whose validation split is all images of the folder, class after class.

    Raises:
        UserError: If the file cannot be read so, or an image has no label.
    """
    if not Path(labels_file).is_file():
        raise UserError(f"there is no file of labels {labels_file}.")
    try:
        text = Path(labels_file).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{labels_file} is no UTF-8 text; save it as such.") from error
    files = folders.list_images([folder])
    if columns:
        found = _by_name(files, _csv_pairs(text, columns, labels_file), labels_file)
    else:
        found = _from_lines(text, files, labels_file)
    missing = [file for file, label in found.items() if label is None]
    if missing:
        raise UserError(
            f"{labels_file} has no label for {len(missing)} of {len(files)} images, such as "
            f"{missing[0]}; add them, or take the images out of {folder}."
        )
    labels = sorted(set(found.values()))
    by_class = {name: [f for f in files if found[f] == name] for name in labels}
    return datasets.ImageDataset(labels, None, datasets.folder_split(by_class, labels))


def _csv_pairs(text: str, columns: tuple[str, str], labels_file: str) -> list[tuple[str, str]]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    lacking = [name for name in columns if name not in (reader.fieldnames or [])]
    if lacking:
        raise UserError(
            f"{labels_file} has no column {', '.join(lacking)}; it has "
            f"{', '.join(reader.fieldnames or ['none'])}."
        )
    pairs = []
    for row in reader:
        name, label = (row[column] for column in columns)
        if not name or not label:
            raise UserError(f"line {reader.line_num} of {labels_file} lacks a file or its label.")
        pairs.append((name, _numbered_class(label)))
    return pairs


def _from_lines(text: str, files: list[str], labels_file: str) -> dict[str, str | None]:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    pairs = [line.replace("\t", " ").partition(" ")[::2] for line in lines]
    if pairs and _names_a_file(*pairs[0], files):
        numbered = [(name, _numbered_class(label)) for name, label in pairs]
        return _by_name(files, numbered, labels_file)
    return _by_position(labels_file, lines, files)


def _names_a_file(word: str, label: str, files: list[str]) -> bool:
    """Whether a line `word label` is one of a file and its label."""
    if Path(word).suffix.lower() in folders.SUFFIXES:
        return True
    return bool(label) and any(word in _names(file) for file in files)


def _numbered_class(label: str) -> str:
    """Turns the number of an ImageNet class into its wnid; other labels stay."""
    label = label.strip()
    classes = imagenet_labels()
    is_number = label.isdecimal() and int(label) < len(classes)
    return classes[int(label)] if is_number else label


def _by_position(labels_file: str, lines: list[str], files: list[str]) -> dict[str, str | None]:
    if all(line.isdecimal() for line in lines):
        raise UserError(
            f"{labels_file} holds numbers without files, which in ImageNet's development kit are "
            "not in the order of the wnids; give one wnid a line, or lines `file label`."
        )
    labels = [_class_name(line) for line in lines]
    numbers = [_NUMBERED.match(Path(file).stem) for file in files]
    if all(numbers):
        of_line = dict(enumerate(labels, start=1))
        return {file: of_line.get(int(m[1])) for file, m in zip(files, numbers, strict=True)}
    if len(labels) != len(files):
        raise UserError(
            f"{labels_file} has {len(labels)} labels for {len(files)} images; name the file on "
            "each line."
        )
    return dict(zip(files, labels, strict=True))


def _by_name(files: list[str], pairs: list[tuple[str, str]], labels_file: str):
    """Finds each image by the longest way in which the file of labels may name it."""
    labels = {name.strip(): _class_name(label) for name, label in pairs}
    if len(labels) != len(pairs):
        raise UserError(f"{labels_file} names a file twice; keep one line for each.")
    found, used = {}, {}
    for file in files:
        name = next((name for name in _names(file) if name in labels), None)
        if name in used:
            raise UserError(
                f"{labels_file} says {name}, which may be {used[name]} or {file}; write the "
                "folder too."
            )
        if name is not None:
            used[name] = file
        found[file] = labels.get(name)
    return found


def _names(file: str) -> Iterator[str]:
    """Yields `a/b/c.jpg`, `a/b/c`, `b/c.jpg`, `b/c`, `c.jpg` and `c`."""
    parts = Path(file).parts
    for start in range(len(parts)):
        path = Path(*parts[start:])
        yield path.as_posix()
        yield path.with_suffix("").as_posix()


def _class_name(label: str) -> str:
    """Returns the wnid that a label begins with, otherwise all of it."""
    return split_label(label.strip())[0] or label.strip()
