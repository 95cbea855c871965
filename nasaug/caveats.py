"""What is told before a training: that something it follows was fitted on other data, or may have seen these."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from . import checkpoint
from .archfile import ArchFile
from .data import Data
from .models import inherited_from, model_file
from .progress import say
from .schedule import Curve, Schedule
from .settings import Recipe

SEVERAL = "several"  # the val_key of what was trained with one split after another


def curves_of(recipe: Recipe) -> list[tuple[str, Schedule]]:
    """The views' magnitudes that follow a curve, each with its key."""
    views = recipe.views.items()
    return [(f"views.{name}.magnitude", v.magnitude) for name, v in views if isinstance(v.magnitude, Curve)]


def warn_of_curves(curves: Iterable[tuple[str, Schedule]], read: Callable[[], Data]) -> None:
    """Say where a curve, by the name of its key or option, was fitted on other data."""
    for name, curve in curves:
        if curve.data_key != (data := read()).key:
            fitted, here = curve.data or "unnamed data", data.name
            other = f"{fitted}, these are {here}" if fitted != here else f"other images of {here}, or other splits"
            say(f"  warning: {name}: its curve was fitted on {other}; what suits one need not suit the other")


def of_other_splits(found: ArchFile, recipe: Recipe, data: Data) -> list[str]:
    """What the training starts from or is taught by that had other validation images, or learnt from what had: it may
    have been trained on those that are validated on here."""
    sources, teacher = {}, recipe.teacher.source
    if (start := inherited_from(found, recipe.init)) is not None:
        sources[str(start)] = start
    if teacher == "supernet" and found.supernet is not None:
        sources[f"the teacher {found.supernet}"] = found.supernet
    elif teacher and not teacher.startswith("torchvision:"):
        sources[f"the teacher {teacher}"] = model_file(teacher)
    return [what for what, path in sources.items() if other_split(checkpoint.facts(path), data)]


def other_split(facts: dict, data: Data) -> bool:
    """Whether a model's file says that it had other validation images than these."""
    return facts.get("val_key", data.val_key) != data.val_key


def warn_of_other_splits(sources: list[str]) -> None:
    for source in sources:
        seen = "it may have been trained on those that are validated on here"
        say(f"  warning: {source} had other validation images: {seen}")
