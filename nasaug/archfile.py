"""Arch files: one network as data, with its place in a search space where it has one.

`--arch` takes a file written by any command, or the name of an architecture that a space names. Pure.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from . import files
from . import plan as plans
from . import space as spaces
from .cost import cost
from .errors import BadInput
from .plan import Plan
from .space import Arch, Space

FORMAT = "nasaug-arch/1"


@dataclass(frozen=True)
class ArchFile:
    """A network: its plan; space and choices where it was found in one; the supernet it can inherit from.

    `facts` is what the file says beside: budget, validation score, data."""

    plan: Plan
    name: str
    space: Space | None = None
    arch: Arch | None = None
    supernet: Path | None = None
    facts: Mapping = field(default_factory=dict)

    def save(self, path: str | Path) -> None:
        """Write the file whole; the supernet's path is kept relative to the file's folder."""
        path = Path(path)
        plan, total = self.plan.to_dict(), cost(self.plan)._asdict()
        data = {"format": FORMAT, "name": self.name, "plan": plan, "cost": total}
        if self.space is not None:
            data |= {"choices": self.space.choices(self.arch), "space": self.space.to_dict()}
        if self.supernet is not None:
            data["supernet"] = os.path.relpath(self.supernet, path.parent)
        files.write_json(path, data | dict(self.facts))


def _read(path: Path) -> ArchFile:
    data = files.read_json(path, FORMAT)
    if "plan" not in data:
        raise BadInput(f"{path}: an arch file needs a plan; write it again with nasaug search")
    p = plans.from_dict(data["plan"], str(path))
    space = arch = None
    if "space" in data:
        space = spaces.from_dict(data["space"], str(path), plans.BLOCKS)
        arch = space.arch(data.get("choices", {}))
        if plans.plan(space, arch, p.classes) != p:
            raise BadInput(f"{path}: its choices do not give its plan; it was edited: correct one of the two")
    supernet = path.parent / data["supernet"] if "supernet" in data else None
    known = {"format", "name", "plan", "cost", "choices", "space", "supernet"}
    facts = {key: value for key, value in data.items() if key not in known}
    return ArchFile(p, str(data.get("name", path.stem)), space, arch, supernet, facts)


def read(name: str, *, resolution: int | None = None, classes: int | None = None) -> ArchFile:
    """The network of an arch file or of a named architecture, made for `classes` outputs and `resolution` px.

    A named architecture takes the given resolution (its own where None); a file keeps the one it was found at
    unless told. Raises BadInput for a file that is missing or broken and for an unknown name."""
    if Path(name).is_file() or name.endswith(".json"):
        found = _read(Path(name))
    else:
        space, named = spaces.find_named(name, plans.BLOCKS)
        found = ArchFile(plans.plan(space, named.arch, named.classes), name)
    p = found.plan
    if resolution is not None and resolution != p.resolution:
        p = p.at(resolution)
        found = replace(found, plan=p, space=None, arch=None)
    if classes is not None and classes != p.classes:
        head = p.blocks[-1].spec._replace(width=classes)
        p = plans.from_specs((*(b.spec for b in p.blocks[:-1]), head), p.resolution, classes)
        found = replace(found, plan=p, supernet=None)
    return found
