"""What networks are to be measured on."""

from collections.abc import Sequence

from keras_googlenet.data import datasets
from keras_googlenet.errors import UserError


def dataset_for(
    recipe: dict | None, dataset: str | None, data_dir: str | None = None
) -> datasets.ImageDataset:
    """Opens what a network is to be measured on.

    Args:
        recipe: Content of its `recipe.json`, which names a data set, or `None`.
        dataset: Name or folder that is asked for instead.
        data_dir: Where TensorFlow Datasets keeps its files; the recipe's if not given.

    Returns:
        The data set; its validation split is the one of the training run, if it is the recipe's.

    Raises:
        UserError: If neither names a data set, or it cannot be used.
    """
    if dataset is None and recipe is None:
        raise UserError("a model file does not say what to measure it on; give --dataset.")
    if dataset is not None:
        return datasets.open_dataset(dataset, data_dir)
    return datasets.open_dataset(
        recipe["dataset"],
        data_dir or recipe["data_dir"],
        recipe["validation_split"],
        recipe["seed"],
    )


def dataset_for_all(
    recipes: Sequence[dict | None], dataset: str | None, data_dir: str | None = None
) -> datasets.ImageDataset:
    """Opens what several networks are to be measured on together.

    Args:
        recipes: Content of the `recipe.json` of each, or `None`.
        dataset: Name or folder that is asked for instead.
        data_dir: Where TensorFlow Datasets keeps its files.

    Returns:
        As `dataset_for` the first network that has a recipe.

    Raises:
        UserError: If two runs were validated on different images, so that one of them may have
            learnt from what it would be measured on.
    """
    known = [recipe for recipe in recipes if recipe is not None]
    if dataset is not None or not known:
        return dataset_for(None, dataset, data_dir)
    opened = dataset_for(known[0], None, data_dir)
    for recipe in known[1:]:
        if _images_of(dataset_for(recipe, None, data_dir), recipe) != _images_of(opened, known[0]):
            raise UserError(
                "the runs were validated on different images, so that one may have learnt from "
                "the other's; give --dataset with images that none of them has seen."
            )
    return opened


def _images_of(dataset: datasets.ImageDataset, recipe: dict):
    """Returns what tells validation splits apart."""
    split = dataset.validation
    return (recipe["dataset"], split.size) if split.files is None else split.files
