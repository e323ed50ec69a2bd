"""The network of a run, its training step and its validation step."""

from collections.abc import Callable

import keras
import tensorflow as tf

from keras_googlenet.errors import UserError
from keras_googlenet.googlenet import HEADS, MINIMUM_SIZE_WITH_AUX, VARIANTS, GoogLeNet
from keras_googlenet.imagenet import preprocess_input
from keras_googlenet.labels import TOP
from keras_googlenet.training.recipe import Recipe
from keras_googlenet.weights.saved_weights import copy_layers, random_layers_message

QUANTITIES = ("loss", "accuracy", "top5")  # of each head, after the number of examples


def check_network(recipe: Recipe):
    """Raises `UserError` if no network can be built, before data is read or a file written."""
    if recipe.image_size < MINIMUM_SIZE_WITH_AUX:
        raise UserError(
            f"--image-size must be at least {MINIMUM_SIZE_WITH_AUX}, because the auxiliary heads "
            f"pool 5x5; it is {recipe.image_size}."
        )
    if recipe.variant not in VARIANTS:
        raise UserError(f"--variant must be one of {', '.join(VARIANTS)}; it is {recipe.variant}.")


def build_network(
    recipe: Recipe, classes: int, weights: keras.Model | None, say: Callable[[str], None]
) -> keras.Model:
    """Builds the three-output network of a recipe, from `weights` of the same variant if given.

    `say` receives a sentence if some layers start from random weights instead.
    """
    model = GoogLeNet(
        classes=classes,
        input_shape=(recipe.image_size, recipe.image_size, 3),
        variant=recipe.variant,
        dropout=recipe.dropout,
        aux_dropout=recipe.aux_dropout,
    )
    if weights is not None:
        random = copy_layers(weights, model, "--weights")
        if random:
            say(random_layers_message("--weights", random))
    if recipe.freeze_until is not None:
        freeze(model, recipe.freeze_until)
    synchronize_batch_norm(model, recipe.sync_batch_norm)
    return model


def freeze(model: keras.Model, name: str):
    """Freezes a layer, for example `inception_4e_output`, and all that it depends on."""
    if name not in {layer.name for layer in model.layers}:
        raise UserError(
            f"--freeze-until {name} is not a layer; give one such as inception_4e_output."
        )
    for layer in keras.Model(model.inputs, model.get_layer(name).output).layers:
        layer.trainable = False
    if not model.trainable_variables:
        raise UserError(f"--freeze-until {name} leaves nothing to train; give an earlier layer.")


def synchronize_batch_norm(model: keras.Model, synchronized: bool):
    """Makes batch normalization use the whole batch, or only each replica's part of it."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = synchronized


def make_train_step(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    recipe: Recipe,
    strategy: tf.distribute.Strategy,
    class_weights: tf.Tensor | None = None,
) -> Callable:
    """Returns the function that trains the network on one batch: section 5.

    Args:
        model: The network, with one output for each head of `HEADS`.
        optimizer: Its optimizer, built.
        recipe: Sets variant, label smoothing, clipping and `jit`.
        strategy: Runs the step on each of its replicas; their gradients are added up.
        class_weights: `(classes,)` float32, weights of the examples by class; `None`: 1.

    Returns:
        `(images, labels) -> sums`, with batches as `strategy` distributes them: RGB in [0, 255]
        and one-hot. The sums are those of `head_sums` over the whole batch.
    """

    def step_of_replica(images, labels):
        x = preprocess_input(tf.cast(images, tf.float32), recipe.variant)
        weights = 1.0 if class_weights is None else tf.linalg.matvec(labels, class_weights)
        with tf.GradientTape() as tape:
            predictions = model(x, training=True)
            losses = [
                tf.reduce_mean(weights * _cross_entropy(labels, p, recipe.label_smoothing))
                for p in predictions
            ]
            loss = sum(w * head for w, head in zip(HEADS.values(), losses, strict=True))
            scaled = optimizer.scale_loss(loss / strategy.num_replicas_in_sync)
        gradients = tape.gradient(scaled, model.trainable_variables)
        if recipe.clip_norm:
            gradients = _clip(gradients, optimizer.scale_loss(recipe.clip_norm))
        optimizer.apply(gradients, model.trainable_variables)  # adds up those of all replicas
        return head_sums(labels, predictions, tf.ones(tf.shape(labels)[0]))

    return _on_all_replicas(step_of_replica, strategy, recipe.jit)


def make_test_step(model: keras.Model, recipe: Recipe, strategy: tf.distribute.Strategy):
    """Returns `(images, labels, weights) -> sums`, which measures a batch without training."""

    def step_of_replica(images, labels, weights):
        x = preprocess_input(tf.cast(images, tf.float32), recipe.variant)
        return head_sums(labels, model(x, training=False), weights)

    return _on_all_replicas(step_of_replica, strategy, recipe.jit)


def _on_all_replicas(step: Callable, strategy: tf.distribute.Strategy, jit: bool) -> Callable:
    @tf.function(jit_compile=jit)
    def on_all_replicas(batch):
        return strategy.reduce("SUM", strategy.run(step, args=batch), axis=None)

    return on_all_replicas


def _cross_entropy(labels, probabilities, smoothing: float = 0.0):
    return keras.losses.categorical_crossentropy(labels, probabilities, label_smoothing=smoothing)


def _clip(gradients: list, greatest: tf.Tensor) -> list:
    """Scales the gradients of a replica so that the sum over all has at most this norm."""
    total = tf.distribute.get_replica_context().all_reduce("SUM", gradients)
    factor = tf.minimum(1.0, greatest / tf.linalg.global_norm(total))
    return [gradient * factor for gradient in gradients]


def head_sums(labels, predictions: list, weights) -> tf.Tensor:
    """Adds up examples, plain cross-entropy, top-1 and top-5 hits of a batch, for each head.

    Args:
        labels: `(n, classes)`, one-hot or mixed.
        predictions: Probabilities `(n, classes)` of each head of `HEADS`.
        weights: `(n,)`, weights of the examples.

    Returns:
        `(heads, 4)` float32, columns in the order of `QUANTITIES` after the number of examples.
    """

    def sums(p):
        top1 = keras.metrics.categorical_accuracy(labels, p)
        top5 = keras.metrics.top_k_categorical_accuracy(labels, p, min(TOP, p.shape[-1]))
        columns = (tf.ones_like(weights), _cross_entropy(labels, p), top1, top5)
        return [tf.reduce_sum(weights * tf.cast(column, tf.float32)) for column in columns]

    return tf.convert_to_tensor([sums(p) for p in predictions])


def metrics_of(sums) -> dict[str, float]:
    """Turns sums of `head_sums` into `<head>_<quantity>` and `loss`, the weighted total."""
    means = {
        f"{head}_{quantity}": float(total / row[0])
        for head, row in zip(HEADS, sums, strict=True)
        for quantity, total in zip(QUANTITIES, row[1:], strict=True)
    }
    return {"loss": sum(w * means[f"{head}_loss"] for head, w in HEADS.items())} | means
