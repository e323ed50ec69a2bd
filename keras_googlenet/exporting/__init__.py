"""A trained network as files that run without this project.

`export_saved_model`, `export_litert`, `export_onnx` and `export_openvino`; each is imported when it
is first used, so that export.py can read the table of formats without TensorFlow.
"""

import importlib

from keras_googlenet.exporting.formats import FORMATS

__all__ = [f"export_{name}" for name in FORMATS]


def __getattr__(name: str):
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = FORMATS[name.removeprefix("export_")].module
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)
