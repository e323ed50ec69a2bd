import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from training_process import small_network

from keras_googlenet import GoogLeNet
from keras_googlenet.errors import UserError
from keras_googlenet.googlenet import HEADS
from keras_googlenet.training import train_steps
from keras_googlenet.training.optimizers import make_optimizer
from keras_googlenet.training.recipe import Recipe

SIZE = (65, 65, 3)
CLASSES = 9
MEANS = {"paper": ((123, 117, 104), 1), "google": (117, 1), "torchvision": (127.5, 127.5)}


def test_weights_of_other_classes_give_the_trunk_and_leave_the_heads_random():
    source = GoogLeNet(classes=7, input_shape=(96, 96, 3))
    recipe, said = Recipe(variant="paper", image_size=65), []
    target = train_steps.build_network(recipe, 3, source, said.append)
    assert len(said) == 1 and said[0].startswith("--weights has no weights of a matching shape")
    assert said[0].endswith("start from random weights: main, aux1, aux2")
    train_steps.build_network(recipe, 3, target, said.append)
    assert len(said) == 1
    for name in ("conv1_7x7_s2", "inception_5b_5x5", "aux1_conv"):
        for ours, theirs in zip(
            target.get_layer(name).get_weights(), source.get_layer(name).get_weights(), strict=True
        ):
            np.testing.assert_array_equal(ours, theirs)


def test_weights_of_another_variant_are_refused():
    source = GoogLeNet(classes=3, input_shape=SIZE, variant="batchnorm")
    with pytest.raises(UserError, match="--weights does not fit: its layer conv1_7x7_s2 has"):
        train_steps.build_network(Recipe(variant="paper", image_size=65), 3, source, print)


def test_freezing_includes_all_that_a_layer_depends_on_and_nothing_else():
    model = GoogLeNet(classes=3, input_shape=SIZE)
    train_steps.freeze(model, "inception_4a_output")
    frozen = {layer.name for layer in model.layers if not layer.trainable}
    assert {"conv1_7x7_s2", "inception_3b_5x5", "inception_4a_pool_proj"} <= frozen
    assert not frozen & {"inception_4b_1x1", "aux1_conv", "main"}
    with pytest.raises(UserError, match="--freeze-until stem is not a layer"):
        train_steps.freeze(model, "stem")


def test_freezing_everything_is_refused():
    model = GoogLeNet(classes=3, input_shape=SIZE, aux_heads=False)
    with pytest.raises(UserError, match="leaves nothing to train"):
        train_steps.freeze(model, "main")


def test_metrics_are_means_weighted_as_in_the_paper():
    """`head_sums` of 4 examples: their number, cross-entropy, hits, hits among five."""
    named = train_steps.metrics_of([[4, 8, 2, 4], [4, 12, 1, 3], [4, 16, 0, 4]])
    assert (named["main_loss"], named["aux1_accuracy"], named["aux1_top5"]) == (2, 0.25, 0.75)
    assert named["loss"] == pytest.approx(2 + 0.3 * 3 + 0.3 * 4)  # section 5
    assert len(named) == 10


BATCH, RATE = 30, 0.5


def small(**settings):
    """A small network with three heads, its recipe, and a batch of images and labels for it."""
    plain = {
        "variant": "paper",
        "momentum": 0.0,
        "nesterov": False,
        "schedule": "steps",
        "weight_decay": 0,
    }
    plain |= {"dropout": 0, "aux_dropout": 0, "label_smoothing": 0, "average_share": 0}
    plain |= {"batch_size": BATCH, "learning_rate": RATE * 256 / BATCH}
    recipe = Recipe(image_size=65, **(plain | settings))
    model = small_network(recipe, CLASSES, None, print)
    for factor, head in ((4, "main"), (2, "aux1"), (1, "aux2")):  # three losses, all ranks
        model.get_layer(head).bias.assign(factor * np.linspace(-1, 1, CLASSES))
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (BATCH, 65, 65, 3), "uint8")
    return model, recipe, images, np.eye(CLASSES, dtype="float32")[np.arange(BATCH) % CLASSES]


def train(model, recipe, images, labels, class_weights=None):
    """Takes a step; returns its sums and how far each head's bias moved, over the rate."""
    optimizer = make_optimizer(recipe, steps_per_epoch=10)
    optimizer.build(model.trainable_variables)
    strategy = tf.distribute.get_strategy()
    step = train_steps.make_train_step(model, optimizer, recipe, strategy, class_weights)
    before = [model.get_layer(head).bias.numpy() for head in HEADS]
    sums = step((tf.constant(images), tf.constant(labels))).numpy()
    after = [model.get_layer(head).bias.numpy() for head in HEADS]
    return sums, [(a - b) / RATE for a, b in zip(after, before, strict=True)]


def outputs_of(model, recipe, images):
    """Probabilities of the heads in training, from images that NumPy has preprocessed."""
    mean, scale = MEANS[recipe.variant]
    x = (images.astype("float32") - np.float32(mean)) / np.float32(scale)
    return [np.asarray(output, "float64") for output in model(x, training=True)]


@pytest.mark.parametrize("variant", MEANS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_papers_weighted_sum(smoothing, variant):
    """The gradient of softmax and cross-entropy in a bias is probability minus label."""
    model, recipe, images, labels = small(label_smoothing=smoothing, variant=variant)
    outputs = outputs_of(model, recipe, images)
    target = labels * (1 - smoothing) + smoothing / CLASSES
    _, moved = train(model, recipe, images, labels)
    for weight, output, step in zip((1, 0.3, 0.3), outputs, moved, strict=True):  # section 5
        np.testing.assert_allclose(step, weight * (target - output).mean(axis=0), atol=1e-5)


def test_a_step_measures_the_heads_before_it_updates_them():
    model, recipe, images, labels = small(label_smoothing=0.1)
    outputs = outputs_of(model, recipe, images)
    sums, _ = train(model, recipe, images, labels)
    for row, p in zip(sums, outputs, strict=True):
        better = (p > (p * labels).sum(axis=1, keepdims=True)).sum(axis=1)
        expected = [BATCH, -(labels * np.log(p)).sum(), np.sum(better == 0), np.sum(better < 5)]
        assert row.tolist() == pytest.approx(expected, rel=1e-4)
    losses = sums[:, 1] / BATCH
    assert abs(losses[0] - losses[1]) > 0.01 and abs(losses[1] - losses[2]) > 0.01
    assert {0, 4, 5} <= set(better)


def test_class_weights_scale_the_gradients():
    model, recipe, images, labels = small()
    weights = np.linspace(0.2, 1.8, CLASSES, dtype="float32")
    outputs = outputs_of(model, recipe, images)
    _, moved = train(model, recipe, images, labels, tf.constant(weights))
    for share, output, step in zip((1, 0.3, 0.3), outputs, moved, strict=True):
        each = (labels - output) * (labels @ weights)[:, None]
        np.testing.assert_allclose(step, share * each.mean(axis=0), atol=1e-5)


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("greatest", [0.01, 1e6])
def test_gradients_are_clipped_by_their_norm_together(greatest, precision):
    """In float16 they are scaled by 32768 until they are applied."""
    clipped = small(clip_norm=greatest, precision=precision)
    free = small(precision=precision)
    free[0].set_weights(clipped[0].get_weights())
    steps = []
    for model, recipe, images, labels in (clipped, free):
        before = [v.numpy() for v in model.trainable_variables]
        train(model, recipe, images, labels)
        after = [v.numpy() for v in model.trainable_variables]
        moved = [(a - b).ravel() for a, b in zip(after, before, strict=True)]
        steps.append(np.concatenate(moved) / RATE)
    norm = np.linalg.norm(steps[1])
    expected = steps[1] * min(1, greatest / norm)
    np.testing.assert_allclose(steps[0], expected, atol=1e-4 * np.linalg.norm(expected))
    assert norm > 0.1


def test_padding_of_a_batch_is_not_measured():
    model, recipe, images, labels = small()
    step = train_steps.make_test_step(model, recipe, tf.distribute.get_strategy())

    def measure(count, weights):
        batch = (images[:count], labels[:count], np.float32(weights))
        return step(tuple(map(tf.constant, batch))).numpy()

    padded = measure(10, [1] * 6 + [0] * 4)
    np.testing.assert_allclose(padded, measure(6, [1] * 6), rtol=1e-5)
    assert padded[0, 0] == 6


def test_a_network_is_built_from_its_recipe():
    recipe = Recipe(variant="batchnorm", image_size=72, dropout=0.25, aux_dropout=0.75)
    model = train_steps.build_network(recipe, 3, None, print)
    rates = [model.get_layer(f"{name}dropout").rate for name in ("", "aux1_", "aux2_")]
    assert rates == [0.25, 0.75, 0.75] and model.input_shape == (None, 72, 72, 3)
    assert not model.get_layer("conv2_3x3_bn").synchronized  # each replica its part
    model = train_steps.build_network(
        dataclasses.replace(recipe, sync_batch_norm=True), 3, None, print
    )
    assert model.get_layer("conv2_3x3_bn").synchronized
