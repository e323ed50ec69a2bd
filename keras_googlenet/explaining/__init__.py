"""Maps of the evidence for a class: by method, by branch of a module, and by head.

    from keras_googlenet.explaining import branch_maps, gradcam

TensorFlow is imported with the first of the two names, so that the scripts' `--help` can read
`methods` at once.
"""

import importlib

_MODULES = {"branch_maps": "branches", "gradcam": "cam"}
__all__ = list(_MODULES)


def __getattr__(name: str):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
