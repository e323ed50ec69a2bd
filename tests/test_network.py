import numpy as np
import pytest
from training_process import small_network

from keras_googlenet import GoogLeNet
from keras_googlenet.errors import UserError
from keras_googlenet.training import network
from keras_googlenet.training.recipe import Recipe

SIZE = (65, 65, 3)
CLASSES = 9


def test_weights_of_other_classes_keep_the_trunk_and_renew_the_heads():
    source = GoogLeNet(classes=7, input_shape=(96, 96, 3))
    said = []
    target = network.build_network(Recipe(variant="paper", image_size=65), 3, source, said.append)
    assert len(said) == 1 and said[0].endswith("begin anew: main, aux1, aux2")
    assert network.copy_weights(target, target) == []
    for name in ("conv1_7x7_s2", "inception_5b_5x5", "aux1_conv"):
        for ours, theirs in zip(
            target.get_layer(name).get_weights(), source.get_layer(name).get_weights(), strict=True
        ):
            np.testing.assert_array_equal(ours, theirs)


def test_weights_of_another_variant_are_refused():
    with pytest.raises(UserError, match="give weights of the same variant"):
        network.copy_weights(
            GoogLeNet(classes=3, input_shape=SIZE, variant="batchnorm"),
            GoogLeNet(classes=3, input_shape=SIZE),
        )


def test_freezing_stops_what_a_layer_depends_on_and_nothing_else():
    model = GoogLeNet(classes=3, input_shape=SIZE)
    network.freeze(model, "inception_4a_output")
    frozen = {layer.name for layer in model.layers if not layer.trainable}
    assert {"conv1_7x7_s2", "inception_3b_5x5", "inception_4a_pool_proj"} <= frozen
    assert not frozen & {"inception_4b_1x1", "aux1_conv", "main"}
    with pytest.raises(UserError, match="--freeze-until stem is no layer"):
        network.freeze(model, "stem")


def test_freezing_everything_is_refused():
    model = GoogLeNet(classes=3, input_shape=SIZE, aux_heads=False)
    with pytest.raises(UserError, match="leaves nothing to learn"):
        network.freeze(model, "main")


def test_metrics_are_means_of_plain_cross_entropy_weighted_as_in_the_paper():
    logs = {"loss": 9.0, "main_loss": 8.0}  # Keras' own: of smoothed labels, over batches
    for head, value in (("main", 2.0), ("aux1", 3.0), ("aux2", 4.0)):
        logs |= {f"{head}_crossentropy": value, f"{head}_accuracy": 0.5, f"{head}_top5": 1.0}
    named = network.exact_metrics(logs)
    assert named["aux1_loss"] == 3 and named["loss"] == pytest.approx(2 + 0.3 * 3 + 0.3 * 4)
    assert len(named) == 10 and named["aux2_top5"] == 1


def compiled(**settings):
    """A small network with three heads, and a batch of images and labels for it."""
    recipe = Recipe(image_size=65, dropout=0, aux_dropout=0, weight_decay=0, **settings)
    model = small_network(recipe, CLASSES, None, print)
    network.compile_network(model, recipe, steps_per_epoch=10)
    generator = np.random.default_rng(0)
    images = generator.normal(0, 50, (30, 65, 65, 3)).astype("float32")
    return model, images, np.eye(CLASSES, dtype="float32")[generator.integers(0, CLASSES, 30)]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_what_is_minimised_is_the_papers_weighted_sum(smoothing):
    model, images, labels = compiled(label_smoothing=smoothing)
    for factor, head in ((4, "main"), (2, "aux1"), (1, "aux2")):  # three losses, all ranks
        model.get_layer(head).bias.assign(factor * np.linspace(-1, 1, CLASSES))
    outputs = [np.asarray(output, "float64") for output in model(images, training=True)]
    target = labels * (1 - smoothing) + smoothing / CLASSES
    main, aux1, aux2 = (-(target * np.log(p)).sum(axis=1).mean() for p in outputs)
    assert not model.jit_compile  # unless it is asked for
    logs = model.train_on_batch(images, [labels] * 3, return_dict=True)
    assert logs["loss"] == pytest.approx(main + 0.3 * aux1 + 0.3 * aux2, rel=1e-4)  # section 5
    assert abs(main - aux1) > 0.01 and abs(aux1 - aux2) > 0.01
    plain = [-(labels * np.log(p)).sum(axis=1).mean() for p in outputs]
    named = network.exact_metrics(logs)
    found = [named[f"{head}_loss"] for head in ("main", "aux1", "aux2")]
    assert found == pytest.approx(plain, rel=1e-4)
    better = (outputs[0] > (outputs[0] * labels).sum(axis=1, keepdims=True)).sum(axis=1)
    assert named["main_accuracy"] == pytest.approx(np.mean(better == 0))
    assert named["main_top5"] == pytest.approx(np.mean(better < 5))
    assert {0, 4, 5} <= set(better)


def test_a_recipe_decides_how_its_network_is_built():
    recipe = Recipe(variant="paper", image_size=72, dropout=0.25, aux_dropout=0.75, jit=True)
    model = network.build_network(recipe, 3, None, print)
    rates = [model.get_layer(f"{name}dropout").rate for name in ("", "aux1_", "aux2_")]
    assert rates == [0.25, 0.75, 0.75] and model.input_shape == (None, 72, 72, 3)
    network.compile_network(model, recipe, steps_per_epoch=10)
    assert model.jit_compile
