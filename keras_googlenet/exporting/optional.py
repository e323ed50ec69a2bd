"""What only some formats need, or can hold."""

import contextlib
import importlib
import textwrap
from types import ModuleType

from keras_googlenet.errors import UserError


def optional(package: str) -> ModuleType:
    """Imports a package of requirements-serving.txt.

    Raises:
        UserError: If it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UserError(
            f"this format needs the package {package}; install it with "
            "`python -m pip install -r requirements-serving.txt`."
        ) from error


@contextlib.contextmanager
def converting(kind: str):
    """Runs a converter, which may not know an operation of the preprocessing inside a network.

    Args:
        kind: What is written, by name.

    Raises:
        UserError: If the block fails in any way but for the place that is written to.
    """
    try:
        yield
    except (UserError, OSError):
        raise
    except Exception as error:  # TensorFlow, tf2onnx and the runtimes raise almost anything
        reason = textwrap.shorten(str(error), 200, placeholder=" …")
        raise UserError(
            f"the network cannot be written as {kind} ({reason}); write a SavedModel, or take the "
            "preprocessing out of the network and apply it to the images."
        ) from error
