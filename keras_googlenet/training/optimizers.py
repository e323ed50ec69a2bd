"""How the weights are updated: learning-rate schedule, optimizer and moving average."""

import contextlib
from collections.abc import Iterator

import keras

from keras_googlenet.training.recipe import Recipe


def make_optimizer(recipe: Recipe, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """Returns the optimizer of a recipe with its schedule, moving average and loss scaling."""
    average_steps = recipe.average_share * recipe.epochs * steps_per_epoch
    settings = {
        "name": "optimizer",  # its variables are saved under this name
        "learning_rate": make_schedule(recipe, steps_per_epoch),
        "weight_decay": recipe.weight_decay or None,
        "use_ema": recipe.average_share > 0,
        "ema_momentum": 1.0 - 1.0 / max(1.0, average_steps),
    }
    if recipe.optimizer == "adam":
        optimizer = keras.optimizers.Adam(**settings)
    else:
        optimizer = keras.optimizers.SGD(
            momentum=recipe.momentum, nesterov=recipe.nesterov, **settings
        )
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    if recipe.precision == "float16":
        return keras.optimizers.LossScaleOptimizer(optimizer, name="loss_scale")
    return optimizer


def make_schedule(recipe: Recipe, steps_per_epoch: int):
    """Returns the learning rate as a function of the global step.

    "cosine" is Loshchilov and Hutter's (2017) after the linear warm-up of Goyal et al. (2017),
    "steps" that of section 6, "power" that of BVLC's quick_solver.
    """
    schedules = keras.optimizers.schedules
    rate, steps = recipe.scaled_learning_rate, recipe.epochs * steps_per_epoch
    if recipe.schedule == "steps":
        every = max(1, round(recipe.step_epochs * steps_per_epoch))
        return schedules.ExponentialDecay(rate, every, recipe.step_factor, staircase=True)
    if recipe.schedule == "power":
        return schedules.PolynomialDecay(rate, steps, end_learning_rate=0.0, power=recipe.power)
    warmup = round(recipe.fitting_warmup_epochs * steps_per_epoch)
    return schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else rate,
        decay_steps=max(1, steps - warmup),
        warmup_target=rate if warmup else None,
        warmup_steps=warmup,
    )


@contextlib.contextmanager
def averaged(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> Iterator[None]:
    """Gives the network its averaged weights inside the block, if the optimizer keeps them."""
    raw = [variable.numpy() for variable in model.trainable_variables]
    optimizer.finalize_variable_values(model.trainable_variables)  # does nothing without average
    try:
        yield
    finally:
        for variable, value in zip(model.trainable_variables, raw, strict=True):
            variable.assign(value)
