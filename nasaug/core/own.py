"""Modules of the user's own that register methods and tasks, named in the environment: each process imports them."""

from __future__ import annotations

import importlib
import os

from .errors import BadInput, told_by

IMPORT = "NASAUG_IMPORT"  # the environment variable with their names, separated by commas


def named() -> list[str]:
    """The names of the modules, in order."""
    return [name for name in map(str.strip, os.environ.get(IMPORT, "").split(",")) if name]


def imports(module: str) -> bool:
    """Whether every process of nasaug imports this module: nasaug's own, and the packages of those that are named."""
    return module.partition(".")[0] in {"nasaug", *(name.partition(".")[0] for name in named())}


def import_named() -> None:
    """Import the modules. Raises BadInput for the first that cannot be imported."""
    for name in named():
        try:
            importlib.import_module(name)
        except Exception as error:  # whatever a user's module raises
            why = f"{type(error).__name__}: {told_by(error)}"
            remedy = "name modules that Python can find, for example in a folder of PYTHONPATH, or unset it"
            raise BadInput(f"{IMPORT} = {os.environ[IMPORT]}: {name} cannot be imported ({why}); {remedy}") from error
