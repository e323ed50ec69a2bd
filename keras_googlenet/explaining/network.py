"""The network that is explained: the logits of one head, apart from the caller's model."""

import difflib
from collections.abc import Sequence
from numbers import Integral

import keras
import numpy as np
import tensorflow as tf

from keras_googlenet.errors import UserError
from keras_googlenet.googlenet import AUX_TAPS, HEADS
from keras_googlenet.imagenet import check_images, default_labels, find_class
from keras_googlenet.normal_form import check_alignment, copy_trunk, normal_form, trunk_inputs

LAST_MODULE = {"main": "5b", **AUX_TAPS}  # the last module that each head sees

ClassIndex = int | str | Sequence[int | str] | None


def explained(model: keras.Model, images, head: str = "main"):
    """Prepares a network and images for an explanation.

    Args:
        model: A GoogLeNet, as `normal_form` takes it.
        images: `(n, h, w, 3)` RGB in [0, 255] at the model's size.
        head: "main", "aux1" or "aux2".

    Returns:
        `(network, inputs)`: the `logit_network`, and what it takes for the images.

    Raises:
        UserError: If the model is no GoogLeNet or has no such head, or the images are not as
            `check_images` wants them.
    """
    model = normal_form(model)
    network = logit_network(model, head)
    images = check_images(images, model.inputs[0].shape[1:3])
    return network, np.asarray(trunk_inputs(model)(images), "float32")


def logit_network(model: keras.Model, head: str = "main") -> keras.Model:
    """Copies the part of a network from its trunk to the logits of one head.

    The copy computes in float32 whatever the policy of the original, so that the parts of a map
    add up, and nothing that is done to it reaches the original.

    Args:
        model: A GoogLeNet, as `normal_form` takes it.
        head: "main", "aux1" or "aux2".

    Returns:
        A model `(n, h, w, channels) -> (n, classes)`, from preprocessed images.

    Raises:
        UserError: If `model` is no GoogLeNet or has no such head, or its preprocessing cuts a
            part out of the image.
    """
    model = normal_form(model)
    check_alignment(model)
    present = [name for name in HEADS if any(layer.name == name for layer in model.layers)]
    if head not in present:
        raise UserError(f"`head` must be one that the model has: {present}. Received: {head=}.")
    network = copy_trunk(model, model.get_layer(head).output)
    network.get_layer(head).activation = keras.activations.linear
    return network


def check_layer(network: keras.Model, layer: str):
    """Raises `UserError` with the nearest names if the network has no such feature map."""
    layers = [one for one in network.layers if not isinstance(one, keras.layers.InputLayer)]
    maps = [found.name for found in layers if len(found.output.shape) == 4]
    if layer not in maps:
        outputs = [name for name in maps if name.endswith("_output")]
        near = ", ".join(difflib.get_close_matches(layer, maps)) or outputs[-1]
        raise UserError(
            f"`layer` must be a feature map that the head {network.layers[-1].name} sees, such as "
            f"{near}. Received: {layer=}."
        )


def choose_classes(
    network: keras.Model,
    inputs: np.ndarray,
    class_index: ClassIndex,
    labels: Sequence[str] | None = None,
) -> list[int]:
    """Says which class to explain in each image.

    Args:
        network: Ends in logits.
        inputs: `(n, h, w, channels)`, preprocessed.
        class_index: A class by number, wnid or name; one for each image; or `None` for the best
            class of each.
        labels: Class names; those of `default_labels` when not given.

    Returns:
        `n` class numbers.

    Raises:
        ValueError: If there is no such class.
    """
    if class_index is None:
        return tf.argmax(network([inputs], training=False), axis=-1).numpy().tolist()
    classes = network.output.shape[-1]
    chosen = [class_index] * len(inputs) if np.ndim(class_index) == 0 else list(class_index)
    labels = labels or default_labels(classes)
    chosen = [find_class(one, labels) if isinstance(one, str) else one for one in chosen]
    numbers = all(isinstance(one, Integral) and 0 <= one < classes for one in chosen)
    if len(chosen) != len(inputs) or not numbers:
        raise UserError(
            f"`class_index` must be in [0, {classes}), one for all images or one for each. "
            f"Received: {class_index=}."
        )
    return [int(index) for index in chosen]
