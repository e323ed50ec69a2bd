"""Images in folders: which are splits, which classes, and what is held out."""

import hashlib
import math
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from keras_googlenet.data.contents import MOST_NAMES, LeftOut, SplitContents, printable
from keras_googlenet.data.file_kinds import SUFFIXES, convert_command
from keras_googlenet.data.listing import Folder, made_by_tfds, scan
from keras_googlenet.data.split_folders import (
    check_readable,
    find_split_folders,
    listed,
    loose,
    names_images_or_masks,
    names_no_class,
    only_folders,
    without_classes,
)
from keras_googlenet.errors import UserError
from keras_googlenet.labels import one_line

Images = dict[str, list[str]]  # class name -> files


def split_by_hash(images: Images, share: float, seed: int) -> tuple[Images, Images]:
    """Holds out the images whose hash is low: about `share` of each class, one at least, not all.

    Args:
        images: Files of each class, two at least.
        share: In (0, 1).
        seed: Decides which, together with the class and the name of the file, without its folders.

    Returns:
        What is left, and what is held out, both by class.

    Raises:
        UserError: If a class has one image.
    """
    left, held_out = {}, {}
    for name, files in images.items():
        if len(files) < 2:
            raise UserError(f"the class {name} has one image; give it two or more to split.")
        places = [place(seed, name, file) for file in files]
        limit = min(max(share, math.nextafter(min(places), 1)), max(places))
        held_out[name] = [file for file, at in zip(files, places, strict=True) if at < limit]
        left[name] = [file for file, at in zip(files, places, strict=True) if at >= limit]
    return left, held_out


def place(seed: int, class_name: str, file: str) -> float:
    """Maps an image to a number in [0, 1), which depends on nothing but the arguments.

    Args:
        seed: Any integer.
        class_name: Its class.
        file: Its path, of which the name counts.
    """
    digest = hashlib.blake2b(f"{seed}/{class_name}/".encode() + file_name(file), digest_size=8)
    return (int.from_bytes(digest.digest(), "big") >> 11) / 2**53


def file_name(file: str) -> bytes:
    """Returns the name of a file, the same whichever form of Unicode its file system has."""
    name = os.path.basename(file)
    return os.fsencode(unicodedata.normalize("NFC", name))


COPIES = "class folder{s} that look like a copy (taken)"
_COPY = re.compile(r" - copy\b|^copy of |\(.*conflicted copy", re.IGNORECASE)


def check_class_folders(folder: Folder, left_out: LeftOut):
    """Looks at all class folders of one split.

    Args:
        folder: Holds them.
        left_out: Is told which look like copies.

    Raises:
        UserError: If images seem to lie there twice, or the folders inside seem to be the classes.
    """
    classes = folder.with_images()
    _refuse_doubles(classes)
    _refuse_same_folders(classes)
    for each in classes:
        if _COPY.search(each.name()):
            left_out.add(COPIES, each.path)


def _refuse_doubles(classes: list[Folder]):
    """Refuses `cat/ dog/ animals/cat/ animals/dog/`."""
    names = {loose(each.name()) for each in classes}
    for outer in classes:
        own = loose(outer.name())
        for around in outer.all_folders():
            inside = around.with_images()
            found = [each.name() for each in inside if loose(each.name()) in names - {own}]
            if around.images or len(inside) > 1:  # else `cat/cat/`, as archives unpack
                found += [each.name() for each in inside if loose(each.name()) == own]
            if found and len(classes) > 1:
                raise UserError(
                    f"{outer.path} holds folders named as those beside it ({listed(found)}), so "
                    "the images seem to lie there twice; remove one copy, or give --dataset "
                    f"{around.path}."
                )


def _refuse_same_folders(classes: list[Folder]):
    """Refuses `color/rose/ color/tulip/ gray/rose/ gray/tulip/`: which of both are the classes?"""
    holders = {}  # loose name of an inner folder -> the folders that hold one
    for number, each in enumerate(classes):
        each = only_folders(each)
        inside = {loose(inner.name()): inner.name() for inner in each.with_images()}
        if each.images or len(inside) < 2:
            continue
        common = Counter(other for name in inside for other in holders.get(name, ()))
        for other, count in common.items():
            if count > 1:
                names = [inside[name] for name in inside if other in holders.get(name, ())]
                one, two = classes[other], classes[number]
                raise UserError(
                    f"{one.name()}/ and {two.name()}/ in {os.path.dirname(one.path)} hold the same "
                    f"folders ({listed(names)}): if those are the classes, give one of the two as "
                    f"--dataset; if {one.name()} and {two.name()} are, move the images right into "
                    "them."
                )
        for name in inside:
            holders.setdefault(name, []).append(number)


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
    halves: tuple[SplitContents | None, SplitContents]
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
    paths: Iterable[str],
    note: Callable[[str], None] = lambda text: None,
    convertible: bool = False,
    errors: list[UserError] | None = None,
) -> list[str]:
    """Expands folders into the images inside, in the order of their names.

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
    left_out = LeftOut(str(path))
    images = scan(str(path), left_out, convertible).all_images()
    if not images:
        raise UserError(
            f"{path} holds no image; give one with {', '.join(SUFFIXES)} files."
            + (f" It holds {left_out}." if left_out.found else "")
        )
    if left_out.found:
        note(f"{path}: {len(images)} images; left out: {left_out}")
    return images


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
    if not os.path.exists(root):
        raise UserError(f"there is no folder {root}.")
    if not os.path.isdir(root):
        raise UserError(f"{root} is a file, no folder; give the folder of the images.")
    left_out = LeftOut(str(root))
    tree = scan(str(root), left_out)
    check_readable(tree)
    tree, splits = find_split_folders(tree, left_out)
    known = _by_class(splits["train"], left_out) if "train" in splits else None
    if known is not None and not _tells_classes(known):
        raise without_classes(tree, [splits["train"]])
    measured, images = _choose_validation(splits, known or {}, left_out)
    if measured is not None:
        _refuse_same_images(splits, measured)
        halves = (_half(splits.get("train"), known, root), _half(splits[measured], images, root))
        return Found(known, images, halves, left_out)
    whole = splits.get("train", tree)
    images = known or _by_class(whole, left_out)
    if not images:
        raise UserError(f"{whole.path} holds no class folders; give one folder of images a class.")
    if not validation_split:
        return Found(None, images, (None, _half(whole, images, root)), left_out)
    if not _tells_classes(images):
        raise without_classes(tree, tree.with_images())
    train, validation = split_by_hash(images, validation_split, seed)
    halves = (_half(whole, train, root), _half(whole, validation, root, "held out"))
    return Found(train, validation, halves, left_out)


def _tells_classes(images: Images) -> bool:
    """Whether folders are named as classes are; `images/` and `masks/` are not."""
    if len(images) == 1:
        return not any(map(names_no_class, images))
    return not all(map(names_images_or_masks, images))


def _half(
    folder: Folder | None, images: Images | None, root: Path, note: str = ""
) -> SplitContents | None:
    if images is None:
        return None
    place = os.path.relpath(folder.path, root)
    source = "its class folders" if place == "." else f"{printable(place)}/"
    count = _count_deep(folder, images)
    notes = [note, f"{count:,} in folders inside of the classes" if count else ""]
    source += f" ({', '.join(filter(None, notes))})" if any(notes) else ""
    names = sorted(images) if len(images) <= MOST_NAMES else []
    return SplitContents(source, sum(map(len, images.values())), len(images), names)


def _count_deep(folder: Folder, images: Images) -> int:
    """Counts the images that do not lie right inside of a class folder."""
    classes = only_folders(folder).folders.values()
    deep = {file for each in classes for file in each.all_images()[len(each.images) :]}
    return sum(file in deep for files in images.values() for file in files) if deep else 0


def _choose_validation(splits, known: Images, left_out: LeftOut) -> tuple[str | None, Images]:
    """Says which split is measured on, and counts what is left out for it."""
    chosen, measured = None, {}
    for name in ("validation", "test"):
        if name not in splits:
            continue
        folder = splits[name].path
        if chosen is not None and splits[name].with_images():
            reason = f"image{{s}} ({Path(splits[chosen].path).name}/ is measured on)"
            left_out.add(reason, folder, len(splits[name].all_images()))
            continue
        images = _by_class(splits[name], left_out)
        count = sum(map(len, images.values())) or len(splits[name].images)
        images = _named_alike(images, known) if known else images
        strange = known and not set(images) & set(known)
        if not images or strange and len(images) == 1 and names_no_class(*images):
            left_out.add("image{s} (without class folders)", folder, count)
        elif strange and name == "test":
            left_out.add("image{s} (of none of the classes to learn)", folder, count)
        else:
            _check_same_classes(splits, known, folder, images)
            chosen, measured = name, images
    return chosen, measured


def _refuse_same_images(splits: dict[str, Folder], measured: str):
    """Refuses to measure on the folders that are learned from, which links can hide."""
    if "train" not in splits:
        return
    train, other = (only_folders(splits[name]) for name in ("train", measured))
    pairs = [(splits["train"].path, splits[measured].path), (train.path, other.path)]
    shared = train.folders.keys() & other.folders.keys()
    pairs += [(train.folders[name].path, other.folders[name].path) for name in sorted(shared)]
    for one, two in pairs:
        if os.path.exists(one) and os.path.exists(two) and os.path.samefile(one, two):
            raise UserError(
                f"{two} is the same folder as {one}, so that the network would be measured on what "
                "it learned; give other images for one of them, or take it away."
            )


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
    folder = only_folders(folder)
    check_class_folders(folder, left_out)
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
    locked = next((inside for inside in folder.all_folders() if inside.error), None)
    if locked:
        check_readable(locked)
    kinds = [kind for kind in others if any(kind)]
    if others and not kinds:
        left_out.add("folder{s} without images", os.path.dirname(folder.path))
        return
    but = ""
    if kinds:
        count, (kind, _) = others[kinds[0]], kinds[0]
        but = f" but {count} in {kind}, to be converted with `{convert_command(*kinds[0])}`"
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
