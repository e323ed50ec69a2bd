import numpy as np
import pytest

from keras_googlenet import GoogLeNet
from keras_googlenet.errors import UserError
from keras_googlenet.training import network
from keras_googlenet.training.recipe import Recipe

SIZE = (65, 65, 3)


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
