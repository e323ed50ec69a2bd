"""Images in folders: which are splits, which are classes, and what is held out."""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from keras_googlenet.data.contents import MOST_NAMES, Skipped, SplitContents, printable
from keras_googlenet.data.file_kinds import SUFFIXES, convert_command
from keras_googlenet.data.folder_splits import (
    OUTSIDE_CLASSES,
    check_readable,
    find_split_folders,
    loose_name,
    names_images_or_masks,
    names_no_class,
    shorten,
    unwrapped,
    without_classes,
)
from keras_googlenet.data.holdout import Images, split_by_hash
from keras_googlenet.data.listing import Folder, made_by_tfds, scan
from keras_googlenet.errors import UserError
from keras_googlenet.labels import composed, one_line

_COPIES = "class folder{s} that look like a copy (used)"
_COPY = re.compile(r" - copy\b|^copy of |\(.*conflicted copy", re.IGNORECASE)


class FolderSplits(NamedTuple):
    """The images of a data set in folders, where they were found, and what was skipped."""

    train: Images | None
    validation: Images
    contents: tuple[SplitContents | None, SplitContents]
    skipped: Skipped


def resolve_dataset(name: str) -> str:
    """Returns the absolute path of a folder, and the name of another data set as it is.

    A folder that TensorFlow Datasets made (`--data-dir .` makes `./shapes`) does not hide the data
    set of its name.
    """
    path = Path(name).expanduser()
    if not path.is_dir() or (re.fullmatch(r"\w+", name) and made_by_tfds(path)):
        return name
    return str(path.absolute())


def list_images(
    paths: Iterable[str],
    note: Callable[[str], None] = lambda text: None,
    convertible: bool = False,
    errors: list[UserError] | None = None,
) -> list[str]:
    """Replaces folders among paths by the images inside, in the order of their names.

    Args:
        paths: Files, which are kept as they are, and folders.
        note: Called with a line about each folder of which something is left out.
        convertible: Whether to include formats that TensorFlow does not decode.
        errors: Where given, errors of some paths are added here if others hold images.

    Raises:
        UserError: If a path does not exist or a folder holds no image.
    """
    files, bad = [], []
    for path in paths:
        try:
            files += _images_at(Path(path), note, convertible)
        except UserError as error:
            bad.append(error)
    if bad and (errors is None or not files):
        raise UserError("\n".join(map(str, bad)))
    if bad:
        errors += bad
    return files


def _images_at(path: Path, note: Callable[[str], None], convertible: bool) -> list[str]:
    if not path.exists():
        raise UserError(f"there is no image {path}.")
    if not path.is_dir():
        return [str(path)]
    skipped = Skipped(str(path))
    images = scan(str(path), skipped, convertible).all_images()
    if not images:
        raise UserError(
            f"{path} holds no image; give one with {', '.join(SUFFIXES)} files."
            + (f" It holds {skipped}." if skipped.counts else "")
        )
    if skipped.counts:
        note(f"{path}: {len(images)} images; skipped: {skipped}")
    return images


def find_splits(root: Path, validation_split: float, seed: int) -> FolderSplits:
    """Finds the training and validation images of a data set in folders, by class.

    The root holds a folder for each split, recognized by its name, with a folder for each class
    inside; or the class folders, with or without a folder for each split inside. A validation
    folder is preferred to a test folder. Where there is neither, `validation_split` of each class
    is held out by `seed`; with 0 everything is for validation.

    Raises:
        UserError: If a folder or class is empty, also after the split, or the validation set has
            classes that the training set lacks.
    """
    if not os.path.exists(root):
        raise UserError(f"there is no folder {root}.")
    if not os.path.isdir(root):
        raise UserError(f"{root} is a file, not a folder; give the folder of the images.")
    skipped = Skipped(str(root))
    tree = scan(str(root), skipped)
    check_readable(tree)
    tree, splits = find_split_folders(tree, skipped)
    train = _by_class(splits["train"], skipped) if "train" in splits else None
    if train is not None and not _are_classes(train):
        raise without_classes(tree, [splits["train"]])
    chosen, validation = _choose_validation(splits, train or {}, skipped)
    if chosen is not None:
        _check_different_folders(splits, chosen)
        contents = (
            _contents(splits.get("train"), train, root),
            _contents(splits[chosen], validation, root),
        )
        return FolderSplits(train, validation, contents, skipped)
    whole = splits.get("train", tree)
    images = train or _by_class(whole, skipped)
    if not images:
        raise UserError(
            f"{whole.path} holds no class folders; put the images of each class into a folder."
        )
    if not validation_split:
        return FolderSplits(None, images, (None, _contents(whole, images, root)), skipped)
    if not _are_classes(images):
        raise without_classes(tree, tree.with_images())
    train, validation = split_by_hash(images, validation_split, seed)
    contents = _contents(whole, train, root), _contents(whole, validation, root, "held out")
    return FolderSplits(train, validation, contents, skipped)


def class_name(name: str) -> str:
    r"""Returns the class of a folder: one line of composed Unicode, whatever the file system has.

    Example:
    >>> class_name("cafe\u0301")
    'café'
    """
    return composed(one_line(name)) or "_"


def _by_class(folder: Folder, skipped: Skipped) -> Images:
    """Lists the images below each class folder, in the order of the folders' names."""
    folder = unwrapped(folder)
    _check_class_folders(folder, skipped)
    classes = {}
    for name, inside in folder.folders.items():
        images = inside.all_images()
        if images:
            label = class_name(name)
            classes[label] = classes.get(label, []) + images
        else:
            _skip_folder(inside, skipped)
    if folder.images and classes:
        skipped.add(OUTSIDE_CLASSES, folder.path, len(folder.images))
    return classes


def _check_class_folders(folder: Folder, skipped: Skipped):
    """Refuses images that seem to be there twice, and reports folders that look like copies."""
    classes = folder.with_images()
    _check_duplicates(classes)
    _check_same_folders(classes)
    for inside in classes:
        if _COPY.search(inside.name()):
            skipped.add(_COPIES, inside.path)


def _check_duplicates(classes: list[Folder]):
    """Refuses `cat/ dog/ animals/cat/ animals/dog/`."""
    names = {loose_name(each.name()) for each in classes}
    for outer in classes:
        own = loose_name(outer.name())
        for folder in outer.all_folders():
            inside = [(each.name(), loose_name(each.name())) for each in folder.with_images()]
            twice = [name for name, loose in inside if loose in names - {own}]
            if folder.images or len(inside) > 1:  # else `cat/cat/`, as in unpacked archives
                twice += [name for name, loose in inside if loose == own]
            if twice and len(classes) > 1:
                raise UserError(
                    f"{outer.path} holds folders named as those beside it ({shorten(twice)}), so "
                    "the images seem to be there twice; remove one copy, or give --dataset "
                    f"{folder.path}."
                )


def _check_same_folders(classes: list[Folder]):
    """Refuses `color/rose/ color/tulip/ gray/rose/ gray/tulip/`: which of both are the classes?"""
    holders = {}  # loose name of an inner folder -> the classes that hold one
    for index, folder in enumerate(map(unwrapped, classes)):
        inside = {loose_name(inner.name()): inner.name() for inner in folder.with_images()}
        if folder.images or len(inside) < 2:
            continue
        common = Counter(other for name in inside for other in holders.get(name, ()))
        for other, count in common.items():
            if count > 1:
                names = [inside[name] for name in inside if other in holders.get(name, ())]
                first, second = classes[other].name(), classes[index].name()
                raise UserError(
                    f"{first}/ and {second}/ in {os.path.dirname(classes[other].path)} hold the "
                    f"same folders ({shorten(names)}): if those are the classes, give one of the "
                    f"two as --dataset; if {first} and {second} are, move the images right into "
                    "them."
                )
        for name in inside:
            holders.setdefault(name, []).append(index)


def _skip_folder(folder: Folder, skipped: Skipped):
    """Skips a folder without images that holds other files; refuses an empty class."""
    others = folder.all_others()
    if any(inside.error for inside in folder.all_folders()):
        check_readable(folder)
    convertible = folder.to_convert()
    if others and not convertible:
        skipped.add("folder{s} without images", os.path.dirname(folder.path))
        return
    but = ""
    for kind, suffix in list(convertible)[:1]:
        command = convert_command(kind, suffix)
        but = f" but {others[kind, suffix]} in {kind}, to be converted with `{command}`"
    raise UserError(
        f"the class folder {folder.path} holds no image{but}; put some into it "
        f"({', '.join(SUFFIXES)}) or remove it."
    )


def _are_classes(images: Images) -> bool:
    """Whether folders have names of classes; `images/` and `masks/` do not."""
    if len(images) == 1:
        return not any(map(names_no_class, images))
    return not all(map(names_images_or_masks, images))


def _choose_validation(splits, train: Images, skipped: Skipped) -> tuple[str | None, Images]:
    """Chooses the split for validation, and counts what is skipped for it."""
    chosen, validation = None, {}
    for name in ("validation", "test"):
        if name not in splits:
            continue
        folder = splits[name].path
        if chosen is not None and splits[name].with_images():
            reason = f"image{{s}} ({Path(splits[chosen].path).name}/ is the validation set)"
            skipped.add(reason, folder, len(splits[name].all_images()))
            continue
        images = _by_class(splits[name], skipped)
        count = sum(map(len, images.values())) or len(splits[name].images)
        images = _rename_as(train, images)
        unknown = train and not set(images) & set(train)
        if not images or unknown and len(images) == 1 and names_no_class(*images):
            skipped.add("image{s} (without class folders)", folder, count)
        elif unknown and name == "test":
            skipped.add("image{s} (of none of the training classes)", folder, count)
        else:
            lacking = sorted(set(images) - set(train)) if train else []
            if lacking:
                raise UserError(
                    f"{folder} has classes that {splits['train'].path} lacks: "
                    f"{', '.join(lacking)}; give both the same class folders."
                )
            chosen, validation = name, images
    return chosen, validation


def _rename_as(train: Images, images: Images) -> Images:
    """Gives classes that differ from one training class by case alone the name of that one."""
    folded = {}
    for name in train:
        folded.setdefault(name.casefold(), []).append(name)
    renamed = {}
    for name, files in images.items():
        same = folded.get(name.casefold(), [])
        label = same[0] if name not in train and len(same) == 1 else name
        renamed[label] = renamed.get(label, []) + files
    return renamed


def _check_different_folders(splits: dict[str, Folder], chosen: str):
    """Refuses to validate on the folders of the training set, which links can hide."""
    if "train" not in splits:
        return
    train, other = (unwrapped(splits[name]) for name in ("train", chosen))
    pairs = [(splits["train"].path, splits[chosen].path), (train.path, other.path)]
    shared = train.folders.keys() & other.folders.keys()
    pairs += [(train.folders[name].path, other.folders[name].path) for name in sorted(shared)]
    for one, two in pairs:
        if os.path.exists(one) and os.path.exists(two) and os.path.samefile(one, two):
            raise UserError(
                f"{two} is the same folder as {one}, so the network would be validated on its "
                "training images; give other images for one of them, or remove it."
            )


def _contents(
    folder: Folder | None, images: Images | None, root: Path, note: str = ""
) -> SplitContents | None:
    if images is None:
        return None
    name = os.path.relpath(folder.path, root)
    source = "its class folders" if name == "." else f"{printable(name)}/"
    deep = _count_deep(folder, images)
    notes = [note, f"{deep:,} in folders inside of the classes" if deep else ""]
    source += f" ({', '.join(filter(None, notes))})" if any(notes) else ""
    names = sorted(images) if len(images) <= MOST_NAMES else []
    return SplitContents(source, sum(map(len, images.values())), len(images), names)


def _count_deep(folder: Folder, images: Images) -> int:
    """Counts the images that are not right inside of a class folder."""
    classes = unwrapped(folder).folders.values()
    deep = {file for each in classes for file in each.all_images()[len(each.images) :]}
    return sum(file in deep for files in images.values() for file in files) if deep else 0
