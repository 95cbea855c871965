"""The registry of methods available to `train --method` and a recipe's `method`, by name."""

from __future__ import annotations

import dataclasses
import keyword

from ..core.errors import BadInput
from .base import Method

METHODS: dict[str, type[Method]] = {}

PARTS = ("cycle", "reorders", "space", "passes", "losses", "prepare", "describe", "check_views", "on_epoch")


def register(name: str, method: type[Method]) -> None:
    """Make a method available as `--method NAME`, with its fields as the recipe's table `[NAME]`.

    Raises BadInput if the name is taken or cannot be a recipe key, or if the class is not a frozen dataclass with
    defaults for all fields or does not implement `Method`."""
    what = f"register({name!r}, {getattr(method, '__name__', method)})"
    identifier = isinstance(name, str) and name.isidentifier() and not keyword.iskeyword(name)
    if not identifier or name != name.lower() or name.startswith("_"):
        rule = "a method's name must be usable as a recipe key"
        raise BadInput(f"{what}: {rule}; give lower-case letters, digits and _, like mine")
    if name in METHODS:
        taken = f"the name is taken by {METHODS[name].__module__}.{METHODS[name].__qualname__}"
        raise BadInput(f"{what}: {taken}; give another. Taken: {', '.join(sorted(METHODS))}")
    abstract = getattr(method, "__abstractmethods__", ())
    lacking = [part for part in PARTS if part in abstract or not hasattr(method, part)]
    if lacking:
        remedy = "define it, and derive the class from nasaug.methods.Method, which has the rest"
        raise BadInput(f"{what}: the class lacks {', '.join(lacking)}; {remedy}")
    frozen = dataclasses.is_dataclass(method) and method.__dataclass_params__.frozen  # type: ignore[attr-defined]
    if not frozen or any(_without_default(field) for field in dataclasses.fields(method)):  # type: ignore[arg-type]
        raise BadInput(f"{what}: a method is a frozen dataclass whose fields all have defaults; make it one")
    METHODS[name] = method


def _without_default(field: dataclasses.Field) -> bool:
    missing = dataclasses.MISSING
    return field.init and field.default is missing and field.default_factory is missing
