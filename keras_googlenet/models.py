"""What every script starts from: a network by name, and all that is needed to use it."""

import json
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from keras_googlenet.errors import UserError
from keras_googlenet.googlenet import PROBABILITIES, GoogLeNet, variant_of
from keras_googlenet.imagenet import (
    default_labels,
    labels_path,
    preprocess_input,
    read_labels,
)
from keras_googlenet.weights import publishes_aux_heads

MODEL_FILE = "model.keras"
PUBLISHED = "imagenet"
PUBLISHED_VARIANT = "paper"  # whose published weights, if nobody says


class LoadedModel(NamedTuple):
    """A network and what its numbers mean.

    Attributes:
        model: With three outputs or one, not compiled.
        variant: Key of `VARIANTS`; decides the preprocessing.
        labels: Class names in the order of the outputs.
        image_size: Side of the pictures that it was trained on.
        recipe: Content of `recipe.json`; `None` outside a run directory.
        workdir: The run directory, if it is one.
    """

    model: keras.Model
    variant: str
    labels: list[str]
    image_size: int
    recipe: dict | None
    workdir: Path | None = None

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Maps images, `(n, size, size, 3)` RGB in [0, 255], to probabilities `(n, classes)`."""
        outputs = self.model.predict_on_batch(preprocess_input(images, self.variant))
        return outputs[0] if len(self.model.outputs) > 1 else outputs


def load(name: str | Path, variant: str | None = None, need_classifier: bool = True) -> LoadedModel:
    """Loads a network.

    Args:
        name: A run directory of train.py, a `.keras` file, or "imagenet" for published weights.
        variant: Whose published weights, "paper" if not given; of a file, the one it must have.
        need_classifier: Whether to refuse a network that gives no probabilities.

    Returns:
        The network with its variant, labels, image size and recipe.

    Raises:
        UserError: If there is no such model, it is no GoogLeNet for square colour pictures of one
            size, or its labels do not fit.
    """
    if name == PUBLISHED:
        return _load_published(variant or PUBLISHED_VARIANT)
    path = Path(name).expanduser()
    if path.is_dir():
        file, labels_file = path / MODEL_FILE, path / "labels.txt"
        recipe = _read_recipe(path / "recipe.json")
    else:
        file, labels_file, recipe = path, labels_path(path), None
    model = _load_file(file, name)
    found = _variant(model, file, variant)
    _check_pictures(model, file)
    if need_classifier:
        _check_classifier(model, file)
    classes = model.outputs[0].shape[-1]
    return LoadedModel(
        model=model,
        variant=found,
        labels=_read_labels(labels_file, classes),
        image_size=model.inputs[0].shape[1],
        recipe=recipe,
        workdir=path if path.is_dir() else None,
    )


def _load_published(variant: str) -> LoadedModel:
    """The 1000 classes in the usual order, whatever order the publisher's head has."""
    model = GoogLeNet(weights=PUBLISHED, variant=variant, aux_heads=publishes_aux_heads(variant))
    labels = default_labels(model.outputs[0].shape[-1])
    return LoadedModel(model, variant, labels, model.inputs[0].shape[1], recipe=None)


def _load_file(file: Path, name) -> keras.Model:
    if not file.exists():
        raise UserError(
            f"there is no model {name}: {file} is missing; give a run directory that train.py "
            "has finished, a .keras file, or imagenet."
        )
    if file.suffix != ".keras":
        raise UserError(f"{file} is no .keras file; give one, or a run directory.")
    try:
        return keras.models.load_model(file, compile=False)
    except Exception as error:  # Keras raises almost anything for a damaged file
        raise UserError(
            f"{file} cannot be loaded as a Keras model: {_first_line(error)}"
        ) from error


def _variant(model: keras.Model, file: Path, expected: str | None) -> str:
    try:
        found = variant_of(model)
    except ValueError as error:
        raise UserError(f"{file} holds no GoogLeNet of this project.") from error
    if expected not in (None, found):
        raise UserError(f"{file} holds the variant {found}, not {expected}; leave --variant out.")
    return found


def _check_pictures(model: keras.Model, file: Path):
    height, width, channels = model.inputs[0].shape[1:]
    if height is None or height != width or channels != 3:
        raise UserError(
            f"{file} takes images of {height}x{width} with {channels} channels; the scripts need "
            "a network for square images of one size with 3. In Python it can be used as it is."
        )


def _check_classifier(model: keras.Model, file: Path):
    head = next((layer for layer in model.layers if layer.name == "main"), None)
    if head is None or head.activation.__name__ not in PROBABILITIES:
        raise UserError(
            f"{file} gives no probabilities; give a network with its classifier, which ends in "
            "softmax or sigmoid."
        )


def _read_labels(file: Path, classes: int) -> list[str]:
    if not file.exists():
        return default_labels(classes)
    labels = read_labels(file)
    if len(labels) != classes:
        raise UserError(
            f"{file} names {len(labels)} classes but the model has {classes}; put the labels "
            "beside the model that they belong to."
        )
    return labels


def _read_recipe(file: Path) -> dict | None:
    if not file.exists():
        return None
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"{file} is not JSON: {error}.") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
