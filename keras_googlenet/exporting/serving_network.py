"""The network that is exported: a Keras model for inference only, which Keras' exporters write.

Batch normalization is folded into the convolutions, which apply their own ReLU; dropout and the
auxiliary heads are gone; the preprocessing is inside.
"""

import keras

from keras_googlenet.googlenet import inference_model
from keras_googlenet.layers import LocalResponseNormalization, fold_batch_normalization
from keras_googlenet.normal_form import (
    check_classifier,
    check_image_shape,
    check_pixels,
    normal_form,
    preprocess_for,
)

TRUNK = (  # layers that compute in the precision of the export; the rest stays in float32
    keras.layers.Conv2D,
    keras.layers.ZeroPadding2D,
    keras.layers.MaxPooling2D,
    keras.layers.Concatenate,
    LocalResponseNormalization,
)


def exported_network(model: keras.Model) -> keras.Model:
    """Returns the main head of any GoogLeNet in normal form, sharing weights with `model`.

    Raises:
        UserError: If it is not a GoogLeNet, gives no probabilities, has no fixed square size of
            color images, or is for pixels of another range than [0, 255].
    """
    network = inference_model(normal_form(model))
    check_classifier(network)
    check_image_shape(network)
    check_pixels(network)
    return network


def serving_network(
    model: keras.Model,
    precision: str = "float32",
    replacements: dict[str, keras.Layer] | None = None,
    features: bool = False,
) -> keras.Model:
    """Builds the network that is exported.

    Args:
        model: Any GoogLeNet; the main head is exported.
        precision: "float32" or "bfloat16": what the trunk computes in.
        replacements: Layers to use in place of those of these names.
        features: Whether `features`, `(n, channels)` float32 of the last pooling, is an output too.

    Returns:
        A model with copied weights from `image`, `(n, size, size, 3)` float32 RGB in [0, 255], to
        `probabilities`, `(n, classes)` float32.

    Raises:
        UserError: As `exported_network`.
    """
    network = exported_network(model)
    copy = _without_training(network, precision, replacements or {})
    image = keras.Input(network.inputs[0].shape[1:], name="image")
    pooled, probabilities = copy(preprocess_for(network, image))
    outputs = {"features": pooled} if features else {}
    return keras.Model(image, outputs | {"probabilities": probabilities})


def _without_training(network: keras.Model, precision: str, replacements: dict) -> keras.Model:
    """Copies a network, to `pool5` and `main`, without the layers that only training needs."""
    layers = {layer.name: layer for layer in network.layers}
    convolutions = {name for name in layers if isinstance(layers[name], keras.layers.Conv2D)}
    folded = {f"{name}_{part}" for name in convolutions for part in ("bn", "relu")}

    def clone(layer):
        return replacements.get(layer.name) or _fresh_copy(layer, precision)

    def call(layer, *arguments, **options):
        if layer.name in folded or isinstance(layer, keras.layers.Dropout):
            return arguments[0]
        return layer(*arguments, **options)

    outputs = [layers["pool5"].output, network.outputs[0]]
    whole = keras.Model(network.inputs[0], outputs, name=network.name)
    copy = keras.models.clone_model(whole, clone_function=clone, call_function=call)
    for layer in copy.layers:
        original = layers[layer.name]
        if layer.name in convolutions:
            norm = layers.get(f"{layer.name}_bn")
            layer.set_weights(fold_batch_normalization(original, norm))
        elif layer.name not in replacements:
            layer.set_weights(original.get_weights())
    return copy


def _fresh_copy(layer, precision: str):
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
