"""Images in folders: which are splits, which classes, and what is held out."""

import os
import re
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from keras_googlenet.data.contents import Half, LeftOut
from keras_googlenet.data.held_out import split_by_hash
from keras_googlenet.data.kinds import SUFFIXES
from keras_googlenet.data.listing import Folder, scan
from keras_googlenet.data.split_names import split_named, splits_by_common_words
from keras_googlenet.data.tfds_folders import made_by_tfds
from keras_googlenet.errors import UserError
from keras_googlenet.imagenet import one_line

Images = dict[str, list[str]]  # class name -> files


class Found(NamedTuple):
    """The images of a data set in folders.

    Attributes:
        train: By class; `None` where there are none.
        validation: By class.
        halves: How each of them was found.
        left_out: What is not used, and why.
    """

    train: Images | None
    validation: Images
    halves: tuple[Half | None, Half]
    left_out: LeftOut


def resolved(name: str) -> str:
    """Returns a data set's name so that it means the same from any folder.

    Args:
        name: A folder, or a name that TensorFlow Datasets knows.

    Returns:
        The absolute path of a folder; other names as they are. A folder that TensorFlow Datasets
        made (`--data-dir .` makes `./shapes`) does not hide the data set of its name.
    """
    path = Path(name).expanduser()
    if not path.is_dir() or (re.fullmatch(r"\w+", name) and made_by_tfds(path)):
        return name
    return str(path.absolute())


def list_images(
    paths: Iterable[str], note: Callable[[str], None] = lambda text: None, convertible: bool = False
) -> list[str]:
    """Expands folders into the images inside, in the order of their names.

    Args:
        paths: Files, which are kept as they are, and folders.
        note: Is given a line about each folder of which something is left out.
        convertible: Whether to take formats that TensorFlow does not decode, too.

    Raises:
        UserError: If a path does not exist or a folder holds no image.
    """
    found = []
    for path in map(Path, paths):
        if not path.exists():
            raise UserError(f"there is no image {path}.")
        if not path.is_dir():
            found.append(str(path))
            continue
        left_out = LeftOut(str(path))
        images = scan(str(path), left_out, convertible).all_images()
        if not images:
            raise UserError(
                f"{path} holds no image; give one with {', '.join(SUFFIXES)} files."
                + (f" It holds {left_out}." if left_out.found else "")
            )
        if left_out.found:
            note(f"{path}: {len(images)} images; left out: {left_out}")
        found += images
    return found


def find_splits(root: Path, validation_split: float, seed: int) -> Found:
    """Finds the images of a data set that is laid out in folders.

    Args:
        root: Holds a folder for each split, told by name, with a folder for each class inside; or
            the class folders themselves, with or without a folder for each split inside.
        validation_split: Share of each class to hold out where there is no validation folder;
            with 0 everything is for validation.
        seed: Decides which images are held out.

    Returns:
        Training and validation images by class. Validation comes before test.

    Raises:
        UserError: If a folder or class is empty, also after the split, or validation has classes
            that training lacks.
    """
    left_out = LeftOut(str(root))
    tree, splits = _unwrapped(scan(str(root), left_out))
    by_split = {name: _by_class(folder, left_out) for name, folder in splits.items()}
    if splits:
        _leave_out_others(tree, splits, left_out)
    if by_split.get("train") == {}:
        raise _without_classes(tree, splits["train"])
    measured = _choose_validation(splits, by_split, left_out)
    if measured is not None:
        train = by_split.get("train")
        halves = (
            _half(splits.get("train"), train, root),
            _half(splits[measured], by_split[measured], root),
        )
        return Found(train, by_split[measured], halves, left_out)
    whole = splits.get("train", tree)
    images = by_split.get("train") or _by_class(whole, left_out)
    if not images:
        raise UserError(f"{whole.path} holds no class folders; give one folder of images a class.")
    half = _half(whole, images, root)
    if not validation_split:
        return Found(None, images, (None, half), left_out)
    train, validation = split_by_hash(images, validation_split, seed)
    learnt, measured = (_half(whole, images, root) for images in (train, validation))
    measured = measured._replace(source=f"{measured.source} (held out)")
    return Found(train, validation, (learnt, measured), left_out)


def _half(folder: Folder | None, images: Images | None, root: Path) -> Half | None:
    if images is None:
        return None
    place = os.path.relpath(folder.path, root)
    source = "its class folders" if place == "." else f"{place}/"
    return Half(source, sum(map(len, images.values())), len(images))


def _unwrapped(tree: Folder) -> tuple[Folder, dict[str, Folder]]:
    """Goes through folders that hold one folder and nothing else, as archives unpack to."""
    while True:
        splits = _splits_inside(tree)
        inside = _with_images(tree)
        if splits or tree.images or len(inside) != 1 or not _holds_only_classes(inside[0]):
            return tree, splits
        (tree,) = inside


def _splits_inside(tree: Folder) -> dict[str, Folder]:
    """Finds "train", "validation" and "test" among the folders inside; none in a flat data set."""
    candidates = _named_splits(tree)
    inside = _with_images(tree)
    structured = {name: found for name, found in candidates.items() if _holds_classes(found)}
    others = [folder for folder in inside if folder not in candidates.values()]
    if candidates and not structured and not others:
        raise _without_classes(tree, *candidates.values())
    if len(structured) == len(candidates) == 1 < len(others) and all(map(_holds_classes, others)):
        return {}  # a class that is called `train`, with folders inside as the others have
    return candidates if structured else _splits_of_classes(tree)


def _without_classes(tree: Folder, *splits: Folder) -> UserError:
    names = ", ".join(f"{Path(folder.path).name}/" for folder in splits)
    return UserError(
        f"{tree.path} has {names} with images but without class folders; put the images of each "
        "class into a folder of its name there."
    )


def _leave_out_others(tree: Folder, splits: dict[str, Folder], left_out: LeftOut):
    """Counts the images that lie beside the folders of the splits."""
    if tree.images:
        left_out.add("image{s} (outside of the splits)", tree.path, len(tree.images))
    inside = [folder for split in splits.values() for folder in split.all_folders()]
    for folder in _with_images(tree):
        if not any(folder is one or one in folder.folders.values() for one in inside):
            left_out.add("image{s} (in no split)", folder.path, len(folder.all_images()))


def _named_splits(tree: Folder) -> dict[str, Folder]:
    """Finds the folders with names of splits; of two for one split, the plainer name."""
    found = {}
    names = sorted((name for name in tree.folders if tree.folders[name].holds_images()), key=len)
    kinds = {name: split_named(name) for name in names}
    by_common_words = splits_by_common_words(names)
    kinds = {name: kind or by_common_words.get(name) for name, kind in kinds.items()}
    for name in names:
        if kinds[name] and kinds[name] not in found:
            found[kinds[name]] = tree.folders[name]
    return found


def _splits_of_classes(tree: Folder) -> dict[str, Folder]:
    """Turns class folders with the splits inside into splits with the class folders inside."""
    classes = _with_images(tree)
    splits = {}
    for folder in classes:
        named = _named_splits(folder)
        if folder.images or len(named) != len(_with_images(folder)) or len(named) < 2:
            return {}
        for split, inside in named.items():
            place = os.path.join(tree.path, "*", os.path.basename(inside.path))
            around = splits.setdefault(split, Folder(place, [], {}, tree.others))
            around.folders[os.path.basename(folder.path)] = inside
    return splits if "train" in splits and len(classes) > 1 else {}


def _with_images(folder: Folder) -> list[Folder]:
    return [inside for inside in folder.folders.values() if inside.holds_images()]


def _holds_classes(folder: Folder) -> bool:
    return bool(_with_images(folder))


def _holds_only_classes(folder: Folder) -> bool:
    return not folder.images and _holds_classes(folder)


def _choose_validation(splits, by_split, left_out: LeftOut) -> str | None:
    """Says which split is measured on, and counts what is left out for it."""
    known = by_split.get("train", {})
    chosen = None
    for name in ("validation", "test"):
        images = by_split.get(name)
        if images is None:
            continue
        folder, count = splits[name].path, sum(map(len, images.values()))
        if known:
            images = by_split[name] = _named_alike(images, known)
        if not images:
            left_out.add("image{s} (without class folders)", folder, len(splits[name].images))
        elif chosen is not None:
            reason = f"image{{s}} ({Path(splits[chosen].path).name}/ is measured on)"
            left_out.add(reason, folder, count)
        elif known and name == "test" and not set(images) & set(known):
            left_out.add("image{s} (of none of the classes to learn)", folder, count)
        else:
            _check_same_classes(splits, known, folder, images)
            chosen = name
    return chosen


def _check_same_classes(splits, known: Images, folder: str, images: Images):
    unknown = sorted(set(images) - set(known)) if known else []
    if unknown:
        raise UserError(
            f"{folder} has classes that {splits['train'].path} lacks: {', '.join(unknown)}; "
            "give both the same class folders."
        )


def _named_alike(images: Images, known: Images) -> Images:
    """Gives classes that differ from one known class by case alone the name of that one."""
    folded = {}
    for name in known:
        folded.setdefault(name.casefold(), []).append(name)
    renamed = {}
    for name, files in images.items():
        alike = folded.get(name.casefold(), [])
        same = alike[0] if name not in known and len(alike) == 1 else name
        renamed[same] = renamed.get(same, []) + files
    return renamed


def _by_class(folder: Folder, left_out: LeftOut) -> Images:
    """Lists the images below each class folder, in the order of the folders' names."""
    while not folder.images and len(inside := _with_images(folder)) == 1 == len(folder.folders):
        if not _holds_only_classes(inside[0]):
            break
        (folder,) = inside  # train/train/, as archives unpack to
    classes = {}
    for name, inside in folder.folders.items():
        images = inside.all_images()
        if images:
            label = class_name(name)
            classes[label] = classes.get(label, []) + images
        else:
            _leave_out_folder(inside, left_out)
    if folder.images and classes:
        left_out.add("image{s} (outside of the class folders)", folder.path, len(folder.images))
    return classes


def _leave_out_folder(folder: Folder, left_out: LeftOut):
    """Passes over a folder of something else; an empty one is taken for a class."""
    others = folder.all_others()
    kinds = [kind for kind in others if kind]
    if others and not kinds:
        left_out.add("folder{s} without images", os.path.dirname(folder.path))
        return
    but = f" but {others[kinds[0]]} in {kinds[0]}, to be converted" if kinds else ""
    raise UserError(
        f"the class folder {folder.path} holds no image{but}; put some into it "
        f"({', '.join(SUFFIXES)}) or remove it."
    )


def class_name(name: str) -> str:
    r"""Returns the class of a folder: one line of composed Unicode, whatever the file system has.

    Example:
    >>> class_name("cafe\u0301")
    'café'
    """
    return unicodedata.normalize("NFC", one_line(name)) or "_"
