"""Warnings before a training: a curve it uses was fitted on other data, or weights it uses may have been trained on
images that it validates on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from ..arch.archfile import ArchFile
from ..config.layers import load as load_recipe
from ..config.schedule import Curve, Schedule
from ..core import tensorfile
from ..core.errors import BadInput, arg
from ..core.files import DATA_SETS
from ..core.progress import say
from ..data import Data, DataConfig, Like, Record
from ..nets.store import model_file
from .recipe import Recipe
from .start import inherited_from

SEVERAL = "several"  # val_key of weights whose training history involves several validation splits


def curves_of(recipe: Recipe) -> list[tuple[str, Schedule]]:
    """(recipe key, curve) of every view whose magnitude follows a curve."""
    views = recipe.views.items()
    return [(f"views.{name}.magnitude", v.magnitude) for name, v in views if isinstance(v.magnitude, Curve)]


def warn_of_curves(curves: Iterable[tuple[str, Schedule]], read: Callable[[], Data]) -> None:
    """Warn about each curve, given with its key or option, that was fitted on other data."""
    for name, curve in curves:
        if curve.data_key != (data := read()).key:
            fitted, here = curve.data or "unnamed data", data.name
            other = f"{fitted}, these are {here}" if fitted != here else f"other images of {here}, or other splits"
            say(f"  warning: {name}: its curve was fitted on {other}; it may not suit these data")


def sources_of(found: ArchFile, recipe: Recipe) -> dict[str, Path]:
    """The weight files that a training starts from or that its teacher uses, keyed by their names in messages."""
    sources, teacher = {}, recipe.teacher.source
    if (start := inherited_from(found, recipe.init)) is not None:
        sources[str(start)] = start
    if teacher == "supernet" and found.supernet is not None:
        sources[f"the teacher {found.supernet}"] = found.supernet
    elif teacher and not teacher.startswith("torchvision:"):
        sources[f"the teacher {teacher}"] = model_file(teacher)
    return sources


def like_sources(sources: Iterable[Path], config: DataConfig) -> Like | None:
    """The data record of the first of these weights' runs that has one; None if none has."""
    for path in sources:
        begun = path.parent / "recipe.toml"
        record = Record.of_run(path.parent)
        if record is not None and len(record.files) and begun.is_file():
            theirs = load_recipe(begun, Recipe).data
            return Like(record, all(getattr(theirs, key) == getattr(config, key) for key in SPLIT_BY))
    return None


SPLIT_BY = ("val_images", "train_images", "fraction", "shots", "split_seed")


def of_other_splits(found: ArchFile, recipe: Recipe, data: Data) -> list[str]:
    """Names of the inherited weights and teachers that may have been trained on images of this validation split.

    Raises BadInput if one was trained on test images."""
    others = []
    for what, path in sources_of(found, recipe).items():
        instead = "name another teacher.source" if what.startswith("the teacher ") else f"use {arg.from_scratch}"
        if other_split(what, path, data, instead):
            others.append(what)
    return others


def other_split(what: str, path: Path, data: Data, instead: str) -> bool:
    """Whether these weights, or any that their own run used, may have been trained on images of this validation split.

    Raises BadInput, with `instead` as the remedy, if they were trained on test images."""
    record, here, facts = Record.of_run(path.parent), data.record, tensorfile.facts(path)
    told, theirs = facts.get("val_key", data.val_key), record.name if record else facts.get("data", data.name)
    if theirs != data.name and {theirs, data.name} <= {*DATA_SETS}:  # no two of these share images
        return told == SEVERAL
    if record is None or not len(record.files) or not len(here.files):
        if record is not None and not {*record.classes} & {*here.classes}:  # nor do sets without a common class
            return told == SEVERAL
        return told != data.val_key
    seen = here.trained_on_in("test", record)
    if seen:
        many = f"{seen} of the {len(here.places('test'))} test images of {data.name} are training images of {what}"
        raise BadInput(f"{many}; {instead}, or give {arg.data} with the images that it was trained on")
    return told == SEVERAL or here.trained_on_in("val", record) > 0


def warn_of_other_splits(sources: list[str]) -> None:
    for source in sources:
        seen = "it may have been trained on images that are used for validation here"
        say(f"  warning: {source} had other validation images: {seen}")
