"""What each branch of an inception module adds to the evidence for a class."""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from keras_googlenet.errors import UserError, nearest
from keras_googlenet.explaining.cam import choose_classes, explained, modules_seen
from keras_googlenet.googlenet import BRANCHES

BranchMaps = dict[str, np.ndarray]


def branch_maps(
    model: keras.Model,
    image: np.ndarray,
    module: str = "5b",
    class_index: int | str | None = None,
    *,
    head: str = "main",
    labels: Sequence[str] | None = None,
) -> BranchMaps:
    """Splits the map that Grad-CAM's ReLU is applied to into the four branches of a module.

    The map is L = sum over channels of a_k A_k, with a_k the spatial mean of the gradient of the
    class's logit with respect to channel A_k of the concatenation. A branch's share is the same
    sum over its own channels, so the four add up to L. In module 5b under the main head the sum
    over L is the logit without its bias.

    Args:
        model: A GoogLeNet, as `normal_form` takes it. It is not changed.
        image: `(h, w, 3)` RGB in [0, 255] at the model's size; the variant's preprocessing is
            applied inside, unless the model has its own.
        module: "3a" to "5b", one that the head sees.
        class_index: A class by index, wnid or name; the best one if not given.
        head: Whose logit is explained: "main", "aux1" or "aux2".
        labels: Class names, for a class that is given by name.

    Returns:
        "1x1", "3x3", "5x5" and "pool" -> `(h', w')` float32 at the module's resolution, signed.

    Raises:
        ValueError: If there is no such module, class or head, `model` is not a GoogLeNet, or
            `image` has another shape or holds NaN.

    Source: Selvaraju et al. 2017, section 3, for L; the split is this project's own.
    """
    maps = branch_maps_of_modules(model, image, [module], class_index, head=head, labels=labels)
    return maps[module]


def branch_maps_of_modules(
    model: keras.Model,
    image: np.ndarray,
    modules: Sequence[str] | None = None,
    class_index: int | str | None = None,
    *,
    head: str = "main",
    labels: Sequence[str] | None = None,
) -> dict[str, BranchMaps]:
    """Returns the `branch_maps` of several modules, or of all that the head sees, in one pass."""
    network, inputs = explained(model, np.asarray(image)[None], head)
    seen = modules_seen(network)
    modules = seen if modules is None else modules
    for module in modules:
        if module not in seen:
            near = ", ".join(nearest(module, seen, cutoff=0.5)) or seen[-1]
            raise UserError(
                f"`module` must be one that the head {head} sees ({', '.join(seen)}), such as "
                f"{near}. Received: {module=}."
            )
    index = choose_classes(network, inputs, class_index, labels)[0]
    outputs = [network.get_layer(f"inception_{module}_output").output for module in modules]
    with_modules = keras.Model(network.inputs, [*outputs, network.output])
    with tf.GradientTape() as tape:
        *activations, logits = with_modules([inputs], training=False)
        gradients = tape.gradient(logits[0, index], activations)
    return {
        module: _split(network, module, activation[0].numpy(), gradient[0].numpy())
        for module, activation, gradient in zip(modules, activations, gradients, strict=True)
    }


def shares(maps: BranchMaps) -> dict[str, float]:
    """Returns how much of a module's evidence comes from each branch.

    That is the sum over its map, divided by the absolute sums of the four together: in [-1, 1],
    negative where the branch is evidence against the class. All are 0 if there is no evidence.
    """
    sums = {branch: float(one.sum()) for branch, one in maps.items()}
    total = sum(map(abs, sums.values()))
    return {branch: value / total if total else 0.0 for branch, value in sums.items()}


def _split(network, module: str, activation: np.ndarray, gradient: np.ndarray) -> BranchMaps:
    """Weights the channels and adds up those of each branch of the concatenation."""
    weighted = activation * gradient.mean(axis=(0, 1))
    inputs = network.get_layer(f"inception_{module}_output").input
    ends = np.cumsum([tensor.shape[-1] for tensor in inputs])
    parts = np.split(weighted, ends[:-1], axis=-1)
    return {branch: part.sum(axis=-1) for branch, part in zip(BRANCHES, parts, strict=True)}
