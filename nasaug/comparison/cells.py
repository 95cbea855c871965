"""The cells of a comparison or sweep: each a training in a folder of its own, whose name identifies its settings."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..arch.archfile import ArchFile
from ..config.layers import differing, flatten, load, to_dict
from ..core import own
from ..core.errors import BadInput, arg
from ..data import Data, Record, whole_of
from ..nets.store import digest, teacher_digest
from ..reporting import wording
from ..rundirs.folder import HIDDEN, RunDir, without_passwords
from ..rundirs.job import refuse_changed
from ..rundirs.result import Length
from ..tasks import chosen
from ..training.begin import at_path, begun_record, other_data
from ..training.job import load_data
from ..training.options import Options
from ..training.provenance import sources_of
from ..training.recipe import CHANGE_NOTHING, Recipe
from ..training.start import inherited_from
from ..training.start import named as start_named

CELLS = Path("cells")  # the folder for the trainings in a run
LONGEST = 60  # characters of an arm's name in a file name
# keys of the recipe that only searches read, so that a new default of theirs does not make trainings begin anew
OF_SEARCHES = tuple(key for key in flatten(to_dict(Recipe())) if key.startswith(("search.", "sandwich.")))
# keys in which an existing cell may differ: runs and images may have moved, and the cell's key covers their contents
MAY_DIFFER = ("arm", "teacher.source", "init", "data.name", *OF_SEARCHES, *CHANGE_NOTHING)


@dataclass
class Sets:
    """The data sets read so far, by their settings, so that each is read once. `begun`: a resumed run's record."""

    begun: Record | None = None
    read: dict[str, Data] = field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """One training: an arm and a seed, in its own folder, whose name identifies its settings."""

    arm: str
    seed: int
    recipe: Recipe
    arch: Path  # the network's arch file
    path: Path
    length: Length | None = None  # if its arm is trained at several

    @property
    def kind(self) -> str:
        """The label shared by all cells that differ only in seed and length."""
        return self.arm if self.arch.stem == "base" else f"{self.arch.stem}, {self.arm}"

    @property
    def title(self) -> str:
        length = "" if self.length is None else f", {wording.length(*self.length)}"
        return f"{self.kind}{length}, seed {self.seed}"

    @property
    def finished(self) -> bool:
        return RunDir(self.path).finished


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What job.json stores of any job with many trainings, with defaults filled in."""

    seeds: int
    cells: str | None = None  # the folder for the trainings, absolute; None: in the run
    set: list[str] = field(default_factory=list)
    recipe: str | None = None
    data: str | None = None
    storage: str | None = None  # the URL, without its password, of the study that several processes share

    @property
    def cells_folder(self) -> Path:
        """The folder for the trainings; a relative path is in the run."""
        return CELLS if self.cells is None else Path(self.cells)


def common(asked: Any) -> dict[str, Any]:
    """The fields of a `Setting` that are taken from a job as they were given."""
    options, cells = asked.options, None if asked.cells is None else str(asked.cells.resolve())
    storage = asked.storage and without_passwords(asked.storage)
    said = {"set": list(options.set), "recipe": options.recipe, "data": options.data}
    return {"cells": cells, "storage": storage, **said}


def resumed(
    asked: Any, run: RunDir, setting: Setting, of_nets: str | None, said: Mapping[str, Any]
) -> tuple[Options, Recipe, Sets]:
    """The options to go on with, the run's recipe, and its data sets. `of_nets` is the data set that the arch files
    name, `said` the job's own arguments (None: not given).

    Raises BadInput for arguments that differ from those the run was begun with, a recipe that was edited since, or
    images that have moved to a place that is not given."""
    given, recipe = asked.options, load(run.recipe_file, Recipe)
    sets = Sets(begun_record(run, recipe))
    now = common(asked) | {"set": _fixed(given.set) or None, "data": other_data(given.data, recipe)} | said
    refuse_changed(run.path, {name: getattr(setting, name) for name in now} | {"set": _fixed(setting.set)}, now)
    if asked.storage is None and HIDDEN in (setting.storage or ""):
        told = f"give its {arg.storage} again, {setting.storage} with the password"
        raise BadInput(f"{run.path} keeps no passwords: {told}")
    recipe = at_path(recipe, given.data)
    data = setting.data if given.data is None else given.data  # loading checks that the images are the same
    options = replace(given, set=(*setting.set, *given.set), recipe=setting.recipe, data=data)
    # the recipe file may have been edited since
    run.check_settings(options.settings({}, arm="baseline", data=of_nets), CHANGE_NOTHING)
    return options, recipe, sets


def placed(cells: Iterable[Cell], run: RunDir) -> list[Cell]:
    """The cells with paths in the run, where they were relative to it."""
    return [replace(cell, arch=run.path / cell.arch, path=run.path / cell.path) for cell in cells]


def joined(given: str | Sequence[object] | None) -> str | None:
    """An argument for several values as one text, as on the command line."""
    return given if given is None or isinstance(given, str) else ",".join(map(str, given))


def check_begun(cells: list[Cell]) -> None:
    """Raises BadInput if an existing folder was trained with other settings than its cell's.

    The key leaves out defaults, so a version of nasaug with other defaults gives the same key to other settings."""
    for cell in cells:
        if RunDir(cell.path).job_file.is_file():
            differs = differing(load(RunDir(cell.path).recipe_file, Recipe), cell.recipe, aside=MAY_DIFFER)
            if differs:
                remedy = f"remove it, or start anew with other {arg.cells}"
                raise BadInput(f"{cell.path} was trained with {', '.join(differs)}; {remedy}")


def check_options(asked: Any, whose: str) -> None:
    """Raises BadInput for options that do not suit a job of many trainings; `whose` names it in the message."""
    common = asked.options
    for argument in ("seeds", "jobs"):
        value = getattr(asked, argument)
        if value is not None and value < 1:
            raise BadInput.of(argument=argument, value=value, rule="must be at least 1")
    if common.seed is not None:
        raise BadInput(f"{arg.seed} {common.seed}: {whose} has several, 0 and up; say how many with {arg.seeds}")
    if common.profile:
        many = f"{whose} has many trainings, each with a log of its own"
        raise BadInput(f"{arg.profile}: {many}; give it for a single training")
    if asked.cells is not None and asked.cells.exists() and not asked.cells.is_dir():
        raise BadInput(f"{arg.cells} {asked.cells} is not a folder; give one, or a new name")


def check_registered(cells: list[Cell], sets: Sets) -> None:
    """Raises BadInput if a cell's method or task is registered in a module that the cells' own processes would not
    import."""
    for recipe in {cell.arm: cell.recipe for cell in cells}.values():
        task = chosen(recipe.task, sets.read[repr(recipe.data)].info)
        for kind, name, used in (("method", recipe.method, type(recipe.chosen_method())), ("task", task.name, task)):
            module = used.__module__
            if not own.imports(module):
                rule = f"is registered in {module}, which the trainings' own processes do not import"
                remedy = f"set {own.IMPORT}={module} in the environment"
                if module == "__main__":
                    rule = "is registered in a script, which the trainings' own processes do not run"
                    remedy = f"put it into a module that Python finds, and set {own.IMPORT}=MODULE in the environment"
                raise BadInput.of(field=kind, value=name, rule=rule, remedy=remedy)


def _fixed(sets: Sequence[str]) -> list[str]:
    """The overrides of recipe keys that must stay the same on resuming."""
    return [item for item in sets if item.partition("=")[0].strip() not in CHANGE_NOTHING]


def read_data(recipe: Recipe, found: ArchFile, sets: Sets) -> Data:
    key = repr(recipe.data)
    if key not in sets.read:
        sources = sources_of(found, recipe).values()
        sets.read[key] = load_data(recipe, found.plan.resolution, None, sources, sets.begun)
    return sets.read[key]


def record_of(recipe: Recipe, found: ArchFile, sets: Sets) -> Record:
    """Which image is in which split before fewer of them are trained on, as each cell does by its own recipe."""
    return read_data(replace(recipe, data=whole_of(recipe.data)), found, sets).record


def key_of(found: ArchFile, start: str, recipe: Recipe, data: Data) -> str:
    """SHA-256 hex digest of everything that a cell's result depends on, except its arm's name.

    Weights to start from (`start` is their digest), a teacher and an image folder enter by content, since files move
    and change."""
    usual = flatten(to_dict(Recipe()))  # left out, so that adding a key in a later version does not change the digest
    said, aside = flatten(to_dict(recipe)), ("arm", *OF_SEARCHES, *CHANGE_NOTHING)
    table = {key: value for key, value in said.items() if key not in aside and value != usual.get(key)}
    if len(data.record.files):
        table["data.name"] = data.record.whole_key
        table.pop("data.targets", None)  # the record's key covers the targets
    if teacher := teacher_digest(recipe.teacher.source):
        table["teacher.source"] = teacher
    if start_named(recipe.init):
        table["init"] = digest(inherited_from(found, recipe.init))
    elif found.start is None:  # weights are fresh whether or not init says so
        table.pop("init", None)
    what = [table, found.plan.to_dict(), start, *([found.pruned] if found.pruned else [])]
    text = json.dumps(what, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def plain_name(arm: str, among: Iterable[str] = ()) -> str:
    """An arm as part of a file name; with a hash if it is cut short or clashes with another arm in `among`."""
    name = _replaced(arm)
    if len(name) <= LONGEST and all(other == arm or _replaced(other) != name for other in among):
        return name
    told_apart = hashlib.sha256(arm.encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{name[:LONGEST]}-{told_apart}"


def _replaced(arm: str) -> str:
    return re.sub(r"[^A-Za-z0-9.=_-]+", "_", arm)


def folder_name(arm: str, seed: int, key: str) -> str:
    """A cell's folder name: readable, plus the start of its key."""
    return f"{plain_name(arm)}-s{seed}-{key[:8]}"
