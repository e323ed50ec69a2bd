"""The network of a run: built from its recipe, begun from other weights, compiled for `fit`."""

from collections.abc import Callable

import keras

from keras_googlenet.errors import UserError
from keras_googlenet.googlenet import HEADS, MINIMUM_SIZE_WITH_AUX, VARIANTS, GoogLeNet
from keras_googlenet.imagenet import TOP
from keras_googlenet.training.distribution import SpreadModel
from keras_googlenet.training.optimizers import make_optimizer
from keras_googlenet.training.recipe import Recipe

EXACT_LOSS = "crossentropy"  # the metric that becomes `<head>_loss`
QUANTITIES = {"accuracy": "accuracy", "top5": "top5", "loss": EXACT_LOSS}  # of a head: its metric


def check_network(recipe: Recipe):
    """Refuses what no network can be built for, before anything is read or written."""
    if recipe.image_size < MINIMUM_SIZE_WITH_AUX:
        raise UserError(
            f"--image-size must be at least {MINIMUM_SIZE_WITH_AUX}, because the auxiliary heads "
            f"pool 5x5; it is {recipe.image_size}."
        )
    if recipe.variant not in VARIANTS:
        raise UserError(f"--variant must be one of {', '.join(VARIANTS)}; it is {recipe.variant}.")


def build_network(
    recipe: Recipe, classes: int, weights: keras.Model | None, say: Callable[[str], None]
) -> SpreadModel:
    """Builds the three-output network of a recipe.

    Args:
        recipe: Says variant, size, dropout and what is frozen.
        classes: Number of classes.
        weights: Network of the same variant to begin from, or `None`.
        say: Is told which layers found nothing in it.

    Raises:
        UserError: If `recipe.freeze_until` is no layer.
    """
    model = GoogLeNet(
        classes=classes,
        input_shape=(recipe.image_size, recipe.image_size, 3),
        variant=recipe.variant,
        dropout=recipe.dropout,
        aux_dropout=recipe.aux_dropout,
    )
    if weights is not None:
        anew = copy_weights(weights, model)
        if anew:
            say(f"--weights has nothing of their shapes, so these begin anew: {', '.join(anew)}")
    if recipe.freeze_until is not None:
        freeze(model, recipe.freeze_until)
    return SpreadModel(model.inputs, model.outputs, name=model.name)


def compile_network(model: keras.Model, recipe: Recipe, steps_per_epoch: int):
    """Compiles a network with the losses of section 5 and each head's metrics.

    Args:
        model: With three outputs; labels are one-hot.
        recipe: Says optimizer, label smoothing and `jit`.
        steps_per_epoch: What the learning rate's schedule counts in.
    """
    classes = model.outputs[0].shape[-1]
    smoothing = recipe.label_smoothing
    model.compile(
        optimizer=make_optimizer(recipe, steps_per_epoch),
        loss=[keras.losses.CategoricalCrossentropy(label_smoothing=smoothing) for _ in HEADS],
        loss_weights=list(HEADS.values()),
        weighted_metrics=[_head_metrics(classes) for _ in HEADS],
        jit_compile=recipe.jit,
    )


def _head_metrics(classes: int) -> list[keras.metrics.Metric]:
    return [
        keras.metrics.CategoricalCrossentropy(name=EXACT_LOSS),
        keras.metrics.CategoricalAccuracy(name="accuracy"),
        keras.metrics.TopKCategoricalAccuracy(min(TOP, classes), name="top5"),
    ]


def exact_metrics(logs: dict[str, float]) -> dict[str, float]:
    """Names metrics as DESIGN does, every one a mean over examples of plain cross-entropy.

    Keras averages the losses of several heads over batches, so that the examples of a short batch
    count for more, and smooths their labels; its metrics do neither.

    Args:
        logs: What `fit` or `evaluate` reports.

    Returns:
        `loss`, the weighted total, and `<head>_accuracy`, `<head>_top5`, `<head>_loss`.
    """
    named = {
        f"{head}_{quantity}": float(logs[f"{head}_{metric}"])
        for head in HEADS
        for quantity, metric in QUANTITIES.items()
    }
    return {"loss": sum(w * named[f"{head}_loss"] for head, w in HEADS.items())} | named


def copy_weights(source: keras.Model, target: keras.Model) -> list[str]:
    """Copies by layer name what fits, and leaves out a head that does not.

    Args:
        source: Network to copy from.
        target: Network to copy to, changed in place.

    Returns:
        Names of the layers of `target` with weights that kept their own.

    Raises:
        UserError: If a layer of the trunk is missing or has another shape.
    """
    available = {layer.name: layer.get_weights() for layer in source.layers}
    kept = []
    for layer in target.layers:
        own, other = layer.get_weights(), available.get(layer.name, [])
        if [value.shape for value in own] == [value.shape for value in other]:
            layer.set_weights(other)
        elif layer.name.partition("_")[0] in HEADS:
            kept.append(layer.name)
        else:
            raise UserError(
                f"--weights does not fit: its layer {layer.name} has other shapes than "
                "this variant's; give weights of the same variant."
            )
    return kept


def freeze(model: keras.Model, name: str):
    """Stops a layer, and all that it depends on, from learning.

    Args:
        model: Changed in place.
        name: Layer, for example `inception_4e_output`.

    Raises:
        UserError: If there is no such layer.
    """
    if name not in {layer.name for layer in model.layers}:
        raise UserError(
            f"--freeze-until {name} is no layer; give one such as conv2_3x3 or inception_4e_output."
        )
    for layer in keras.Model(model.inputs, model.get_layer(name).output).layers:
        layer.trainable = False
    if not model.trainable_variables:
        raise UserError(f"--freeze-until {name} leaves nothing to learn; give an earlier layer.")


def synchronize_batch_norm(model: keras.Model, synchronized: bool):
    """Lets batch normalisation look at the whole batch or at each replica's part of it."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = synchronized
