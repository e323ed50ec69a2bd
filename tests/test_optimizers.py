import dataclasses
import math

import keras
import numpy as np
import pytest

from keras_googlenet.training.optimizers import averaged, make_optimizer, make_schedule
from keras_googlenet.training.recipe import RECIPES, Recipe

STEPS = 100  # an epoch


def rates(recipe, epochs):
    schedule = make_schedule(recipe, STEPS)
    return [float(schedule(round(epoch * STEPS))) for epoch in epochs]


def test_the_papers_schedule_falls_by_four_percent_every_eight_epochs():
    expected = [0.01, 0.01, 0.01 * 0.96, 0.01 * 0.96**2, 0.01 * 0.96**30]
    assert rates(RECIPES["paper"], [0, 7.99, 8, 16, 240]) == pytest.approx(expected, rel=1e-5)


def test_bvlcs_schedule_is_a_square_root():
    expected = [0.01 * math.sqrt(1 - epoch / 60) for epoch in (0, 15, 45, 60)]
    assert rates(RECIPES["bvlc-quick"], [0, 15, 45, 60]) == pytest.approx(expected, abs=1e-8)


def test_the_modern_schedule_warms_up_and_falls_by_a_cosine():
    expected = [0, 0.05, 0.1, 0.05 * (1 + math.cos(math.pi / 2)), 0]
    assert rates(RECIPES["modern"], [0, 1, 2, 46, 90]) == pytest.approx(expected, abs=1e-6)


def one_weight(recipe):
    layer = keras.layers.Dense(1, name="fc")
    inputs = keras.Input((1,))
    model = keras.Model(inputs, layer(inputs))
    layer.set_weights([np.ones((1, 1)), np.ones(1)])
    optimizer = make_optimizer(recipe, STEPS)
    optimizer.build(model.trainable_variables)
    return model, optimizer


def test_decay_leaves_biases_alone():
    recipe = Recipe(weight_decay=0.5, warmup_epochs=0, learning_rate=0.1, average_share=0)
    model, optimizer = one_weight(recipe)
    optimizer.apply([np.zeros((1, 1), "float32"), np.zeros(1, "float32")])
    kernel, bias = (value.ravel()[0] for value in model.get_weights())
    assert kernel == pytest.approx(1 - 0.1 * 0.5) and bias == 1


def test_the_average_spans_its_share_of_the_run():
    """Weights 0, 1, 2, … averaged over n = 4% of 1000 steps, against a loop."""
    recipe = dataclasses.replace(
        RECIPES["modern"],
        epochs=10,
        optimizer="sgd",
        momentum=0.0,
        nesterov=False,
        weight_decay=0.0,
    )
    model, optimizer = one_weight(recipe)
    raw, average = [], None
    for _ in range(6):
        optimizer.apply([-np.ones((1, 1), "float32"), np.zeros(1, "float32")])
        raw.append(model.get_weights()[0].item())
        average = raw[-1] if average is None else average + (raw[-1] - average) / 40
    with averaged(model, optimizer):
        assert model.get_weights()[0].item() == pytest.approx(average, rel=1e-6)
    assert model.get_weights()[0].item() == raw[-1] != average


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_is_that_of_sutskever(nesterov):
    """Two steps down a slope of 1 by arithmetic: Sutskever et al. 2013, equations 1 to 4."""
    model, optimizer = one_weight(
        Recipe(
            learning_rate=0.1,
            momentum=0.6,
            nesterov=nesterov,
            weight_decay=0,
            average_share=0,
            schedule="steps",
        )
    )
    for _ in range(2):
        optimizer.apply([np.ones((1, 1), "float32"), np.zeros(1, "float32")])
    velocities = (-0.1, -0.1 * 1.6)
    ahead = [0.6 * v - 0.1 for v in velocities]
    expected = 1 + sum(ahead if nesterov else velocities)
    assert model.get_weights()[0].item() == pytest.approx(expected, rel=1e-6)


def test_adam_is_adam():
    """Its first step is the learning rate, whatever the gradient (Kingma and Ba 2015)."""
    recipe = Recipe(optimizer="adam", learning_rate=0.1, schedule="steps", weight_decay=0)
    model, optimizer = one_weight(recipe)
    optimizer.apply([np.full((1, 1), 7, "float32"), np.zeros(1, "float32")])
    assert model.get_weights()[0].item() == pytest.approx(1 - 0.1, rel=1e-5)
