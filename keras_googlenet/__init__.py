"""GoogLeNet (Inception v1) for Keras 3 and TensorFlow.

    from keras_googlenet import GoogLeNet, decode_predictions, preprocess_input

    model = GoogLeNet(weights="imagenet")  # three outputs: main, aux1, aux2
    main, *_ = model.predict(preprocess_input(images))  # (n, 224, 224, 3) RGB in [0, 255]
    decode_predictions(main)

Keras is imported with the first of these names that is used. Its layers are registered as soon as
Keras is imported, so that `keras.models.load_model` knows them.
"""

import importlib

import wrapt

__version__ = "0.1.0"

_MODULES = {
    "GoogLeNet": "googlenet",
    "HEADS": "googlenet",
    "TABLE_1": "googlenet",
    "VARIANTS": "googlenet",
    "inference_model": "googlenet",
    "variant_of": "googlenet",
    "LocalResponseNormalization": "layers",
    "decode_predictions": "imagenet",
    "preprocess_input": "imagenet",
}
__all__ = ["__version__", *_MODULES]


def __getattr__(name: str):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))


@wrapt.when_imported("keras")
def _register_layers(keras):
    importlib.import_module(f"{__name__}.googlenet")
