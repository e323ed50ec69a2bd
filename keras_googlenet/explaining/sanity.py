"""Networks that have forgotten: a map that does not change with them explains nothing.

Source: Adebayo et al., "Sanity checks for saliency maps", 2018, cascading randomization.
"""

import random

import keras


def randomize(network: keras.Model, lowest: str, seed: int = 0) -> keras.Model:
    """Copies a network with new random weights from its end down to a layer.

    Args:
        network: A functional model.
        lowest: Name of the first layer, counted from the image, that is random.
        seed: Decides the weights.

    Returns:
        The copy. Layers that do not depend on `lowest`, nor it on them, such as other branches of
        the same module, are random if they stand after it in `network.layers`.

    Raises:
        ValueError: If there is no such layer.
    """
    names = [layer.name for layer in network.layers]
    if lowest not in names:
        raise ValueError(f"`lowest` must be a layer of the network. Received: {lowest=}.")
    state = random.getstate()
    random.seed(seed)  # Keras draws the seeds of its initializers here
    try:
        copied = keras.models.clone_model(network)
    finally:
        random.setstate(state)
    for name in names[: names.index(lowest)]:
        copied.get_layer(name).set_weights(network.get_layer(name).get_weights())
    return copied
