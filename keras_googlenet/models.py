"""Loads MODEL, as every script does: a network with its variant, labels and image size."""

import json
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from keras_googlenet.errors import UserError, first_line
from keras_googlenet.googlenet import DEFAULT_VARIANT, GoogLeNet, variant_of
from keras_googlenet.imagenet import check_images
from keras_googlenet.labels import default_labels, labels_path, read_labels
from keras_googlenet.normal_form import (
    check_classifier,
    check_image_shape,
    check_pixels,
    check_trunk_scale,
    normal_form,
    preprocess_for,
)
from keras_googlenet.run_files import LABELS_FILE, MODEL_FILE, RECIPE_FILE
from keras_googlenet.weights import publishes_aux_heads

PUBLISHED = "imagenet"


class LoadedModel(NamedTuple):
    """A network and the meaning of its inputs and outputs.

    Attributes:
        model: In normal form, with three outputs or one, not compiled.
        variant: Key of `VARIANTS`; sets the preprocessing, unless it is inside the network.
        labels: Class names in the order of the outputs.
        image_size: Side of its input images in pixels.
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
        """Computes the probabilities of the classes.

        Args:
            images: `(n, size, size, 3)` RGB in [0, 255].

        Returns:
            `(n, classes)` float32.

        Raises:
            UserError: If the images have another shape or range.
        """
        images = check_images(images, self.model.inputs[0].shape[1:3])
        outputs = self.model.predict_on_batch(preprocess_for(self.model, images))
        return outputs[0] if len(self.model.outputs) > 1 else outputs


def load(name: str | Path, variant: str | None = None, need_classifier: bool = True) -> LoadedModel:
    """Loads a network.

    Args:
        name: A run directory of train.py, a `.keras` file, or "imagenet" for published weights.
        variant: Variant of the published weights, "paper" by default; a file must have it.
        need_classifier: Whether to refuse a network that gives no probabilities. If not, its
            trunk must expect the variant's preprocessing, which training applies.

    Returns:
        The network with its variant, labels, image size and recipe.

    Raises:
        UserError: If there is no such model, `normal_form` refuses it, it is not for square color
            images of one size, its weights hold NaN, or its labels do not match.
    """
    if name == PUBLISHED:
        return _load_published(variant or DEFAULT_VARIANT)
    path = Path(name).expanduser()
    if path.is_dir():
        file, labels_file = path / MODEL_FILE, path / LABELS_FILE
        recipe = _read_recipe(path / RECIPE_FILE)
    else:
        file, labels_file, recipe = path, labels_path(path), None
    model = _checked(_load_file(file, name), file, need_classifier)
    its_variant = variant_of(model)
    if variant not in (None, its_variant):
        raise UserError(
            f"{file} holds the variant {its_variant}, not {variant}; leave --variant out."
        )
    return LoadedModel(
        model=model,
        variant=its_variant,
        labels=_read_labels(labels_file, model.outputs[0].shape[-1]),
        image_size=model.inputs[0].shape[1],
        recipe=recipe,
        workdir=path if path.is_dir() else None,
    )


def _load_published(variant: str) -> LoadedModel:
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
        raise UserError(f"{file} is not a .keras file; give a .keras file or a run directory.")
    try:
        return keras.models.load_model(file, compile=False)
    except Exception as error:  # for a damaged file Keras raises errors of many types
        raise UserError(f"{file} cannot be loaded as a Keras model: {first_line(error)}") from error


def _checked(model: keras.Model, file: Path, need_classifier: bool) -> keras.Model:
    """Returns the normal form of a network, after all checks."""
    try:
        network = normal_form(model)
    except UserError as error:
        raise UserError(f"{file} holds no GoogLeNet that the scripts can use: {error}") from error
    _check_weights(network, file)
    try:
        check_image_shape(network)
        check_pixels(network)
        check_classifier(network) if need_classifier else check_trunk_scale(network)
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    return network


def _check_weights(model: keras.Model, file: Path):
    broken = [
        layer.name
        for layer in model.layers
        if not all(np.isfinite(value).all() for value in layer.get_weights())
    ]
    if broken:
        names = ", ".join(broken[:3]) + (", …" if len(broken) > 3 else "")
        raise UserError(
            f"{file} has NaN or infinity in its weights ({names}), so its training diverged; "
            "train again with a lower learning rate, or give an earlier file."
        )


def _read_labels(file: Path, classes: int) -> list[str]:
    if not file.exists():
        return default_labels(classes)
    labels = read_labels(file)
    if len(labels) != classes:
        raise UserError(
            f"{file} names {len(labels)} classes but the model has {classes}; put the model's own "
            "labels beside it."
        )
    return labels


def _read_recipe(file: Path) -> dict | None:
    if not file.exists():
        return None
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"{file} is not JSON: {error}.") from error
