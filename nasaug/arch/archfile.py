"""Arch files: one network as data, with its position in a search space if it has one.

`--arch` takes a file written by any command, or the name of an architecture defined in a space. Independent of torch.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..core import files
from ..core.errors import BadInput
from . import plan as plans
from . import spacefile
from .blocks import BLOCKS
from .cost import cost
from .plan import Head, Outputs, Plan
from .space import Arch, Space

FORMAT = "nasaug-arch/1"
SMALLEST, LARGEST = 8, 1024  # px
KINDS = {
    "format": str, "name": str, "plan": Mapping, "cost": Mapping, "choices": Mapping, "space": Mapping,
    "supernet": str, "weights": str,
}  # fmt: skip
KIND_NAMES = {str: "a text", Mapping: "a table"}


@dataclass(frozen=True)
class ArchFile:
    """A network: its plan; its space and choices if it was found in a space; its supernet if it was found by a search;
    the model file with its own weights if it was trained or pruned.

    `facts` are the file's other entries: budget, validation score, data."""

    plan: Plan
    name: str
    space: Space | None = None
    arch: Arch | None = None
    supernet: Path | None = None
    facts: Mapping = field(default_factory=dict)
    weights: Path | None = None

    @property
    def start(self) -> Path | None:
        """The file with the default initial weights: the network's own, or the supernet's."""
        return self.weights or self.supernet

    @property
    def pruned(self) -> float:
        """The share of MACs removed by `prune`; 0 if the network was not pruned."""
        return self.facts.get("pruned", 0.0)

    def save(self, path: str | Path) -> None:
        """Write the file atomically. Paths in it, including that of an image folder as data, are stored relative to the
        file's folder, with links resolved."""
        path = Path(path)
        plan, total = self.plan.to_dict(), cost(self.plan).known
        data = {"format": FORMAT, "name": self.name, "plan": plan, "cost": total}
        if self.space is not None and self.arch is not None:
            data |= {"choices": self.space.choices(self.arch), "space": self.space.to_dict()}
        for key, file in (("supernet", self.supernet), ("weights", self.weights)):
            if file is not None:
                data[key] = _from(path, file)
        facts = dict(self.facts)
        if is_folder(facts.get("data")):
            facts["data"] = _from(path, os.path.expanduser(facts["data"]))
        files.write_json(path, data | facts)


def is_folder(data: object) -> bool:
    """Whether an arch file's data are an existing image folder rather than a named data set."""
    return isinstance(data, str) and data not in files.DATA_SETS and os.path.isdir(os.path.expanduser(data))


def _from(file: Path, path: str | Path) -> str:
    """The path as stored in `file`."""
    return os.path.relpath(Path(path).resolve(), file.parent.resolve())


def _read(path: Path) -> ArchFile:
    if path.suffix == ".toml":
        archs = [f"{path}:{arch}" for arch in spacefile.load(str(path), BLOCKS).archs]
        names = f"give one of its networks: {', '.join(archs)}" if archs else "give it an [arch.NAME]"
        rule = f"{path} is a search space, not a network; search it (nasaug search --space {path})"
        raise BadInput(f"{rule}, or {names}")
    data = files.read_json(path, FORMAT)
    _check_kinds(data, path)
    p = plans.from_dict(data["plan"], str(path))
    space = arch = None
    if "space" in data:
        space = spacefile.from_dict(data["space"], str(path), BLOCKS)
        arch = space.arch(data["choices"])
        if plans.plan(space, arch, p.classes) != p:
            raise BadInput(f"{path}: its choices do not match its plan, so it was edited; correct one of the two")
    pruned = data.get("pruned", 0.0)
    if isinstance(pruned, bool) or not isinstance(pruned, (int, float)) or not 0 <= pruned < 1:
        raise BadInput(f"{path}: pruned = {pruned!r:.60} must be a share from 0 to below 1; create the file again")
    supernet, weights = (path.parent / data[key] if key in data else None for key in ("supernet", "weights"))
    facts = {key: value for key, value in data.items() if key not in KINDS}
    said = facts.get("data")
    if isinstance(said, str) and said not in files.DATA_SETS and is_folder(os.path.join(path.parent, said)):
        facts["data"] = os.path.normpath(os.path.join(path.parent, said))
    return ArchFile(p, data.get("name", path.stem), space, arch, supernet, facts, weights)


def _check_kinds(data: Mapping, path: Path) -> None:
    """Raises BadInput for an entry of the wrong type, and for a missing plan or missing choices."""
    for key, kind in KINDS.items():
        if key in data and not isinstance(data[key], kind):
            given = f"{path}: {key} = {str(data[key])[:60]}"
            raise BadInput(f"{given} must be {KIND_NAMES[kind]}; create the file again")
    for key in ("plan", *(["choices"] if "space" in data else [])):
        if key not in data:
            raise BadInput(f"{path}: an arch file needs {key}; write it again with nasaug search")


def path_of(arch: object) -> str:
    """The path or name in an argument `arch` from Python. Raises BadInput if it can be neither."""
    if not isinstance(arch, (str, os.PathLike)):
        remedy = "give the path of an arch file like found.json, or the name of an architecture"
        raise BadInput.of(argument="arch", value=f"{arch!r:.60}", rule="names no network", remedy=remedy)
    return os.fsdecode(arch)


def is_path(name: str) -> bool:
    """Whether `--arch` names a file rather than an architecture."""
    name = os.fspath(name)
    if spacefile.IN_FILE.fullmatch(name):
        return False
    return os.path.exists(name) or name.endswith((".json", ".toml")) or os.sep in name


def check_sizes(resolution: int | None, classes: Outputs | None) -> None:
    """Raises BadInput for an impossible resolution or number of classes."""
    for argument, value, kinds in (("resolution", resolution, int), ("classes", classes, (int, Head))):
        if value is not None and (isinstance(value, bool) or not isinstance(value, kinds)):
            rule = f"must be a whole number, not of type {type(value).__name__}"
            raise BadInput.of(argument=argument, value=value, rule=rule)
    if resolution is not None and not SMALLEST <= resolution <= LARGEST:
        rule = f"must be {SMALLEST} to {LARGEST} px"
        raise BadInput.of(argument="resolution", value=resolution, rule=rule)
    if isinstance(classes, int) and classes < 1:
        raise BadInput.of(argument="classes", value=classes, rule="must be at least 1")


def read(name: str, *, resolution: int | None = None, classes: Outputs | None = None) -> ArchFile:
    """The network of an arch file or of a named architecture (`mcunet`, `mine.toml:plain`), adapted to `classes`
    outputs (or a task's head) and `resolution` px.

    By default a file keeps its resolution and a named architecture has its own. Raises BadInput for a missing or broken
    file, an unknown name, and impossible sizes."""
    check_sizes(resolution, classes)
    if is_path(name):
        found = _read(Path(name))
    else:
        space, named = spacefile.find_named(name, BLOCKS)
        found = ArchFile(plans.plan(space, named.arch, named.classes), spacefile.short_name(name))
    if resolution is not None and resolution != found.plan.resolution:
        found = replace(found, plan=found.plan.at(resolution), space=None, arch=None)
    if classes is not None and classes != found.plan.classes:
        found = replace(found, plan=found.plan.of_classes(classes))
    return found
