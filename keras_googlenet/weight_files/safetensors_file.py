"""`.safetensors`, by Hugging Face's own library."""

from pathlib import Path

import numpy as np

from keras_googlenet.weight_files.contents import Array, Contents, check_names

TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "bfloat16"}  # others: as they are called


def open_file(path: Path) -> Contents:
    """Lists the tensors of a file."""
    import ml_dtypes  # noqa: F401 - teaches NumPy bfloat16
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:  # checks the header against the size
        names = list(file.keys())
        check_names(names)
        views = {name: file.get_slice(name) for name in names}
        arrays = {
            name: Array(TYPES.get(view.get_dtype(), view.get_dtype()), tuple(view.get_shape()))
            for name, view in views.items()
        }

    def read(name: str) -> np.ndarray:
        with safe_open(path, framework="numpy") as file:
            return file.get_tensor(name)

    return Contents(arrays, read)
