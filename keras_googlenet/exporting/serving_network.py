"""The network that is exported: a Keras model that only answers, for Keras' exporters to write.

Batch normalization is folded into the convolutions, which own their ReLU; dropout and the
auxiliary heads are gone; the preprocessing is inside.
"""

import keras

from keras_googlenet.errors import UserError
from keras_googlenet.googlenet import inference_model
from keras_googlenet.layers import LocalResponseNormalization, fold_batch_normalization
from keras_googlenet.normal_form import (
    check_classifier,
    check_pixels,
    normal_form,
    preprocess_for,
)

TRUNK = (  # what computes in the precision of the export; the rest stays in float32
    keras.layers.Conv2D,
    keras.layers.ZeroPadding2D,
    keras.layers.MaxPooling2D,
    keras.layers.Concatenate,
    LocalResponseNormalization,
)


def exported_network(model: keras.Model) -> keras.Model:
    """Returns the main head of a network that can be exported.

    Args:
        model: Any GoogLeNet.

    Returns:
        The network in its normal form with one output, sharing weights with `model`.

    Raises:
        UserError: If it is no GoogLeNet, gives no probabilities, does not take square images of
            one size with three channels, or is for pixels of another range than [0, 255].
    """
    network = inference_model(normal_form(model))
    check_classifier(network)
    height, width, channels = network.inputs[0].shape[1:]
    if height is None or height != width or channels != 3:
        raise UserError(
            f"the model takes images of {height}x{width} with {channels} channels; an export "
            "needs one fixed square size and 3 channels."
        )
    check_pixels(network)
    return network


def serving_network(
    model: keras.Model,
    precision: str = "float32",
    replacements: dict[str, keras.Layer] | None = None,
) -> keras.Model:
    """Builds the network that is exported.

    Args:
        model: Any GoogLeNet; the main head is taken.
        precision: "float32" or "bfloat16": what the trunk computes in.
        replacements: Layers that take the place of those of these names.

    Returns:
        A model with copied weights from `image`, `(n, size, size, 3)` float32 RGB in [0, 255], to
        `features`, `(n, channels)`, and `probabilities`, `(n, classes)`, both float32.

    Raises:
        UserError: As `exported_network`.
    """
    network = exported_network(model)
    copy = _answering(network, precision, replacements or {})
    image = keras.Input(network.inputs[0].shape[1:], name="image")
    features, probabilities = copy(preprocess_for(network, image))
    return keras.Model(image, {"features": features, "probabilities": probabilities})


def answering_network(model: keras.Model, **options) -> keras.Model:
    """Does what `serving_network` does, with `probabilities` as the only output."""
    network = serving_network(model, **options)
    answer = {"probabilities": network.output["probabilities"]}
    return keras.Model(network.inputs[0], answer)


def _answering(network: keras.Model, precision: str, replacements: dict) -> keras.Model:
    """Copies a network without what only training needs: to `pool5` and `main`."""
    layers = {layer.name: layer for layer in network.layers}
    convolutions = {name for name in layers if isinstance(layers[name], keras.layers.Conv2D)}
    folded = {f"{name}_{part}" for name in convolutions for part in ("bn", "relu")}

    def clone(layer):
        return replacements.get(layer.name) or _copied(layer, precision)

    def call(layer, *arguments, **options):
        if layer.name in folded or isinstance(layer, keras.layers.Dropout):
            return arguments[0]
        return layer(*arguments, **options)

    outputs = [layers["pool5"].output, network.outputs[0]]
    answering = keras.Model(network.inputs[0], outputs, name=network.name)
    copy = keras.models.clone_model(answering, clone_function=clone, call_function=call)
    for layer in copy.layers:
        if layer.name in convolutions:
            layer.set_weights(
                fold_batch_normalization(layers[layer.name], layers.get(f"{layer.name}_bn"))
            )
        elif layer.name not in replacements:
            layer.set_weights(layers[layer.name].get_weights())
    return copy


def _copied(layer, precision: str):
    """Makes a layer or operation without weights, for the precision."""
    config = layer.get_config()
    if isinstance(layer, keras.layers.Conv2D):
        config |= {"use_bias": True, "activation": "relu"}
    if isinstance(layer, keras.layers.Layer):
        config["dtype"] = precision if isinstance(layer, TRUNK) else "float32"
    if precision != "float32" and isinstance(layer, LocalResponseNormalization):
        return _LowPrecisionNormalization.from_config(config)
    return type(layer).from_config(config)


class _LowPrecisionNormalization(LocalResponseNormalization):
    """The layer without its cast to float32 and back."""

    def call(self, inputs, training=None):
        return self._normalize(inputs)
