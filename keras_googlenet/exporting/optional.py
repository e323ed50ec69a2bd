"""Packages that only some formats need."""

import importlib
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
