"""GoogLeNet (Inception v1) for Keras 3 and TensorFlow.

Importing the package is fast and starts nothing: Keras comes with the first name that needs it.
"""

import importlib
import importlib.abc
import importlib.machinery
import sys

__version__ = "0.1.0"

_HOMES = {
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
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))


class _RegisterLayers(importlib.abc.MetaPathFinder):
    """Imports `googlenet` as soon as somebody imports Keras.

    `keras.models.load_model` finds our classes only once they are registered, which needs Keras;
    this makes it work after a bare `import keras_googlenet` without paying for Keras there.
    """

    def find_spec(self, fullname, path=None, target=None):
        if fullname != "keras":
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is not None:
            run = spec.loader.exec_module
            spec.loader.exec_module = lambda module: (run(module), _register_layers())
        return spec


def _register_layers():
    importlib.import_module(f"{__name__}.googlenet")


if "keras" in sys.modules:
    _register_layers()
else:
    sys.meta_path.insert(0, _RegisterLayers())
