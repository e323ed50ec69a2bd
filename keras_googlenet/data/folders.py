"""Images in folders: the splits of a data set, and the files that a command line names."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from keras_googlenet.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp")  # what TensorFlow decodes
TRAIN_NAMES = ("train", "training")
VALIDATION_NAMES = ("val", "validation", "test")

Images = dict[str, list[str]]  # class name -> files


def list_images(paths: Iterable[str]) -> list[str]:
    """Expands folders into the images inside, in the order of their names.

    Args:
        paths: Files, which are kept as they are, and folders.

    Raises:
        UserError: If a path does not exist or a folder holds no image.
    """
    found = []
    for path in map(Path, paths):
        if not path.exists():
            raise UserError(f"there is no image {path}.")
        images = _images_below(path) if path.is_dir() else [str(path)]
        if not images:
            raise UserError(f"{path} holds no image; give one with {', '.join(SUFFIXES)} files.")
        found += images
    return found


def find_splits(root: Path, validation_split: float, seed: int) -> tuple[Images | None, Images]:
    """Finds the images of a data set that is laid out in folders.

    Args:
        root: Holds `train/` and `val/`, `validation/` or `test/`, or the class folders themselves.
        validation_split: Share of each class to hold out where there is no validation folder;
            with 0 everything is for validation.
        seed: Decides which images are held out.

    Returns:
        Training and validation images by class; the former `None` where there are none.

    Raises:
        UserError: If a folder or class is empty, also after the split, or validation has classes
            that training lacks.
    """
    train_folder = _first_folder(root, TRAIN_NAMES)
    validation_folder = _first_folder(root, VALIDATION_NAMES)
    if validation_folder is None:
        images = _images_by_class(train_folder or root)
        if validation_split:
            train, validation = _split_stratified(images, validation_split, seed)
        else:
            train, validation = None, images
    else:
        train = _images_by_class(train_folder) if train_folder else None
        validation = _images_by_class(validation_folder)
        _check_same_classes(train_folder, train, validation_folder, validation)
    return train, validation


def _check_same_classes(train_folder, train, validation_folder, validation):
    unknown = sorted(set(validation) - set(train)) if train else []
    if unknown:
        raise UserError(
            f"{validation_folder} has classes that {train_folder} lacks: {', '.join(unknown)}; "
            "give both the same class folders."
        )


def _first_folder(root: Path, names: tuple[str, ...]) -> Path | None:
    return next((root / name for name in names if (root / name).is_dir()), None)


def _images_by_class(folder: Path) -> dict[str, list[str]]:
    """Lists the images below each class folder, in the order of their names."""
    classes = {}
    for path in sorted(path for path in folder.iterdir() if path.is_dir()):
        images = _images_below(path)
        if not images:
            raise UserError(
                f"the class folder {path} holds no image; put some into it ({', '.join(SUFFIXES)}) "
                "or remove it."
            )
        classes[path.name] = images
    if not classes:
        raise UserError(f"{folder} holds no class folders; give one folder of images a class.")
    return classes


def _images_below(folder: Path) -> list[str]:
    return [str(file) for file in sorted(folder.rglob("*")) if file.suffix.lower() in SUFFIXES]


def _split_stratified(images: dict[str, list[str]], share: float, seed: int):
    """Takes `share` of each class away for validation, one image at least."""
    generator = np.random.default_rng(seed)
    kept, held_out = {}, {}
    for name, files in images.items():
        if len(files) < 2:
            raise UserError(f"the class {name} has one image; give it two or more to split.")
        cut = max(1, round(share * len(files)))
        if cut == len(files):
            raise UserError(
                f"a validation split of {share} leaves none of the {cut} images of the class "
                f"{name} to train on; give a smaller one, or more images."
            )
        mixed = [files[i] for i in generator.permutation(len(files))]
        held_out[name], kept[name] = sorted(mixed[:cut]), sorted(mixed[cut:])
    return kept, held_out
