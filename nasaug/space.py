"""Search spaces as data: a fixed skeleton of blocks plus axes, each an ascending ladder of choices.

Architectures of a space are partially ordered, and one primitive, `Space.sample(rng, low, high, free)`,
serves the sandwich rule (between smallest and largest), NetAug (above a base) and GradAug (below it).
Pure: knows no network, no trainer and no optuna.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from random import Random
from typing import NamedTuple

from . import files
from .errors import BadInput, unknown

FORMAT = "nasaug-space/1"
KINDS = ("width", "expand", "depth", "kernel", "stride", "resolution")
ACTS = ("", "relu", "relu6", "hswish")
SHORTCUTS = ("none", "identity", "project")
ORDERS = ("post", "pre")
Value = int | float


@dataclass(frozen=True, slots=True)
class Axis:
    """One choice of the architecture: `choices` ascend in cost (strides therefore fall).

    The name tells the scope: `resolution` (net), `s3.width` (stage), `s3.b2.expand` (block).
    """

    name: str
    kind: str
    choices: tuple[Value, ...]

    def key(self, value: Value) -> Value:
        """Sorts values by cost; a larger stride is a cheaper net."""
        return -value if self.kind == "stride" else value

    def between(self, low: Value, high: Value) -> tuple[Value, ...]:
        """The choices from `low` to `high`, and `low` itself where it lies off the ladder."""
        return _between(self, low, high)


@lru_cache(maxsize=65536)
def _between(axis: Axis, low: Value, high: Value) -> tuple[Value, ...]:
    inside = tuple(c for c in axis.choices if axis.key(low) <= axis.key(c) <= axis.key(high))
    return inside if low in inside else (low, *inside)


class Ref(NamedTuple):
    """A property of a block that an axis decides; `table` maps the choice to the property's value."""

    axis: int
    table: tuple[tuple[Value, Value], ...] | None = None

    def of(self, values: tuple[Value, ...]) -> Value:
        choice = values[self.axis]
        return choice if self.table is None else dict(self.table)[choice]


def resolve(item: Value | Ref, values: tuple[Value, ...]) -> Value:
    """The value of a block's property in the architecture with these `values`."""
    return item.of(values) if isinstance(item, Ref) else item


@dataclass(frozen=True, slots=True)
class Rule:
    """One block of the skeleton; a property is a constant or refers to an axis."""

    name: str
    stage: str
    index: int  # 1-based place in its stage: left out where the stage's depth is smaller
    block: str
    width: int | Ref = 0
    expand: float | Ref = 1.0  # expanded channels / input channels (ResNets: inner / output channels)
    kernel: int | Ref = 1
    stride: int | Ref = 1
    depth: Ref | None = None
    act: str = ""
    se: float = 0.0  # squeeze-excite middle / expanded channels, 0 = none
    shortcut: str = "none"
    order: str = "post"


class Arch(NamedTuple):
    """The choices of one architecture, in the order of its space's axes. Hashable; JSON through the Space."""

    space: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Space:
    """A skeleton (`rules`), its `axes` and the architectures that it names."""

    name: str
    divisor: int
    axes: tuple[Axis, ...]
    rules: tuple[Rule, ...]
    resolution: int | Ref
    archs: Mapping[str, Mapping] = field(default_factory=dict, compare=False)
    source: Mapping = field(default_factory=dict, compare=False)

    @cached_property
    def index(self) -> dict[str, int]:
        return {axis.name: i for i, axis in enumerate(self.axes)}

    @cached_property
    def smallest(self) -> Arch:
        return self.canonical(Arch(self.name, tuple(axis.choices[0] for axis in self.axes)))

    @cached_property
    def largest(self) -> Arch:
        return Arch(self.name, tuple(axis.choices[-1] for axis in self.axes))

    @cached_property
    def _owners(self) -> tuple[tuple[int, int, int], ...]:
        """(axis, its stage's depth axis, block index) for each axis that a skipped block makes idle."""
        rows = []
        for rule in self.rules:
            if rule.depth is None:
                continue
            prefix = rule.name + "."
            rows += [(i, rule.depth.axis, rule.index) for name, i in self.index.items() if name.startswith(prefix)]
        return tuple(rows)

    def value(self, arch: Arch, axis: str) -> Value:
        return arch.values[self.index[axis]]

    def arch(self, choices: Mapping[str, Value]) -> Arch:
        """The architecture with these choices by axis name; values may lie off the ladder.

        Raises BadInput for missing and unknown axes."""
        for name in choices:
            if name not in self.index:
                raise unknown(f"axis of space {self.name}", name, self.index)
        missing = [a.name for a in self.axes if a.name not in choices]
        if missing:
            raise BadInput(f"no choice for axis {missing[0]!r} of space {self.name}; all of {len(self.axes)} are needed")
        return self.canonical(Arch(self.name, tuple(choices[a.name] for a in self.axes)))

    def choices(self, arch: Arch) -> dict[str, Value]:
        """The inverse of `arch`: axis name to value."""
        return {axis.name: value for axis, value in zip(self.axes, arch.values, strict=True)}

    def canonical(self, arch: Arch) -> Arch:
        """The same network with the choices of skipped blocks folded to the smallest: equal nets, equal ids."""
        values = list(arch.values)
        for axis, depth, place in self._owners:
            if place > values[depth]:
                values[axis] = self.axes[axis].choices[0]
        return Arch(arch.space, tuple(values))

    def id(self, arch: Arch) -> str:
        """Ten hexadecimal digits that are equal for equal networks of this space."""
        text = json.dumps(self.choices(self.canonical(arch)), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    def contains(self, arch: Arch) -> bool:
        """Whether every value that the network uses lies on its ladder."""
        canonical = self.canonical(arch)
        return all(v in axis.choices for axis, v in zip(self.axes, canonical.values, strict=True))

    def sample(
        self, rng: Random, low: Arch | None = None, high: Arch | None = None, free: Iterable[str] = KINDS
    ) -> Arch:
        """A random architecture, low <= it <= high, uniform on each axis of a `free` kind, elsewhere `low`'s."""
        low, high = low or self.smallest, high or self.largest
        values = tuple(
            rng.choice(axis.between(a, b)) if axis.kind in free else a
            for axis, a, b in zip(self.axes, low.values, high.values, strict=True)
        )
        return self.canonical(Arch(self.name, values))

    def leq(self, a: Arch, b: Arch) -> bool:
        """Whether a <= b on every axis."""
        return all(x.key(v) <= x.key(w) for x, v, w in zip(self.axes, a.values, b.values, strict=True))

    def trimmed(self, ladders: Mapping[str, Sequence[Value]]) -> Space:
        """The same space with the choices of some axes replaced."""
        axes = tuple(replace(a, choices=tuple(ladders.get(a.name, a.choices))) for a in self.axes)
        merged = {**self.source.get("ladders", {}), **{name: list(c) for name, c in ladders.items()}}
        return replace(self, axes=axes, source={**self.source, "ladders": merged})

    def above(self, base: Arch, free: Iterable[str]) -> Space:
        """The architectures over `base` on the axes of a `free` kind; every other axis keeps base's one value."""
        top = self.largest.values
        return self.trimmed({
            axis.name: axis.between(v, top[i]) if axis.kind in free else (v,)
            for i, (axis, v) in enumerate(zip(self.axes, base.values, strict=True))
        })

    def to_dict(self) -> dict:
        """JSON and TOML form, read back by `from_dict`."""
        if not self.source:
            raise BadInput(f"space {self.name!r} was made around one architecture and has no file form")
        return dict(self.source)

    def named(self, name: str) -> Arch:
        """A reference architecture of this space, by name."""
        if name not in self.archs:
            raise unknown(f"architecture of space {self.name}", name, self.archs)
        return self.arch(_spread(self, self.archs[name]))


def _spread(space: Space, table: Mapping) -> dict[str, Value]:
    """A named architecture's compact table (scalar, per stage, or per block) spread over the axes.

    Axes that the table leaves out take their largest choice, block axes of skipped blocks the smallest."""
    choices: dict[str, Value] = {}
    for axis in space.axes:
        given = table.get(axis.kind)
        stage, _, rest = axis.name.partition(".")
        if isinstance(given, Mapping):
            given = given.get(stage)
        if isinstance(given, Sequence):
            place = int(rest.split(".")[0][1:]) - 1
            given = given[place] if place < len(given) else axis.choices[0]
        choices[axis.name] = axis.choices[-1] if given is None else given
    return choices


# --- files ---------------------------------------------------------------------------------------------------

STAGE_KEYS = {
    "name", "block", "width", "depth", "expand", "kernel", "stride", "act", "se", "shortcut", "first", "order",
}  # fmt: skip
SPACE_KEYS = {"format", "name", "summary", "divisor", "resolution", "stage", "arch", "ladders"}
SHORTCUTS = ("none", "identity", "project")


class _Builder:
    """Collects axes while a space file's stages are turned into rules."""

    def __init__(self, where: str):
        self.where = where
        self.axes: list[Axis] = []

    def hole(self, name: str, kind: str, given) -> Value | Ref:
        """A list becomes an axis, a number a constant, a stage's name that stage's axis of the same kind."""
        if isinstance(given, str):
            return self.tied(name, f"{given}.{kind}")
        if not isinstance(given, list):
            return _number(self.where, name, kind, given)
        self.axes.append(Axis(name, kind, _ladder(self.where, name, kind, given)))
        return Ref(len(self.axes) - 1)

    def tied(self, name: str, other: str) -> Ref:
        names = [axis.name for axis in self.axes]
        if other not in names:
            raise BadInput(f"{self.where}: {name} refers to {other!r}, which is no axis of an earlier stage")
        return Ref(names.index(other))

    def rules(self, stage: Mapping) -> list[Rule]:
        """The blocks of one stage, at the stage's greatest depth."""
        name = stage["name"]
        width = self.hole(f"{name}.width", "width", stage.get("width", 0))
        stride = self.hole(f"{name}.stride", "stride", stage.get("stride", 1))
        if "depth" not in stage:
            return [self.rule(stage, name, 1, width, stride, None)]
        depth = self.hole(f"{name}.depth", "depth", stage["depth"])
        count = max(self.axes[depth.axis].choices) if isinstance(depth, Ref) else depth
        ref = depth if isinstance(depth, Ref) else None
        return [
            self.rule(stage, f"{name}.b{i}", i, width, stride if i == 1 else 1, ref) for i in range(1, count + 1)
        ]

    def rule(self, stage: Mapping, name: str, index: int, width, stride, depth: Ref | None) -> Rule:
        deep = "depth" in stage
        default = "identity" if deep and stage["block"] != "conv" else "none"
        shortcut = stage.get("shortcut", default)
        if deep and index == 1:
            shortcut = stage.get("first", "none")
        return Rule(
            name, stage["name"], index, stage["block"], width,
            self.hole(f"{name}.expand", "expand", stage.get("expand", 1)),
            self.hole(f"{name}.kernel", "kernel", stage.get("kernel", 1)),
            stride, depth, stage.get("act", ""), float(stage.get("se", 0)), shortcut, stage.get("order", "post"),
        )  # fmt: skip


def _number(where: str, name: str, kind: str, value) -> Value:
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise BadInput(f"{where}: {name} = {value!r} must be a number, or an ascending list of them")
    if kind != "expand" and not isinstance(value, int):
        raise BadInput(f"{where}: {name} = {value!r} must be a whole number")
    if kind == "kernel" and value % 2 == 0:
        raise BadInput(f"{where}: {name} = {value!r} must be odd, so that the centre of a kernel exists")
    return value


def _ladder(where: str, name: str, kind: str, given: list) -> tuple[Value, ...]:
    values = tuple(_number(where, name, kind, v) for v in given)
    keys = [-v if kind == "stride" else v for v in values]
    if not values or any(a >= b for a, b in zip(keys, keys[1:], strict=False)) or min(values) <= 0:
        order = "fall (a stride of 1 costs most)" if kind == "stride" else "rise"
        raise BadInput(f"{where}: the choices of {name}, {list(given)}, must be positive and {order} from the first on")
    return values


def _check_stage(where: str, stage: Mapping, blocks: Iterable[str]) -> None:
    for key in ("name", "block"):
        if not isinstance(stage.get(key), str):
            raise BadInput(f"{where}: every [[stage]] needs {key} = \"…\"; one has {stage.get(key)!r}")
    here = f"{where}, stage {stage['name']!r}"
    for key in stage:
        if key not in STAGE_KEYS:
            raise unknown(f"key in {here}:", key, STAGE_KEYS)
    if stage["block"] not in blocks:
        raise unknown(f"block in {here}:", stage["block"], blocks)
    for key in ("shortcut", "first"):
        if stage.get(key, "none") not in SHORTCUTS:
            raise unknown(f"{key} in {here}:", stage[key], SHORTCUTS)
    if stage.get("order", "post") not in ("post", "pre"):
        raise unknown(f"order in {here}:", stage["order"], ("post", "pre"))


def from_dict(data: Mapping, where: str, blocks: Iterable[str]) -> Space:
    """A Space from the contents of a space file; `blocks` names the block kinds that exist.

    Raises BadInput, one line, for whatever breaks the format's rules."""
    for key in data:
        if key not in SPACE_KEYS:
            raise unknown(f"key in {where}:", key, SPACE_KEYS)
    stages = data.get("stage")
    if not isinstance(stages, list) or not stages:
        raise BadInput(f"{where}: a space needs at least one [[stage]]")
    builder = _Builder(where)
    rules = []
    for stage in stages:
        _check_stage(where, stage, blocks)
        rules += builder.rules(stage)
    if len({rule.name for rule in rules}) < len(rules):
        raise BadInput(f"{where}: two stages have the same name; every stage needs its own")
    resolution = builder.hole("resolution", "resolution", data.get("resolution", 0))
    space = Space(
        data.get("name", Path(where).stem), data.get("divisor", 8), tuple(builder.axes), tuple(rules), resolution,
        data.get("arch", {}), dict(data),
    )  # fmt: skip
    for name in data.get("ladders", {}):
        if name not in space.index:
            raise unknown(f"axis in [ladders] of {where}:", name, space.index)
    return space.trimmed(data["ladders"]) if data.get("ladders") else space


def load(name: str, blocks: Iterable[str]) -> Space:
    """A space by bundled name (`mobilenetv2-small`) or by the path of a TOML file."""
    path = Path(name)
    if path.suffix != ".toml":
        bundled = {p.stem: p for p in files.bundled("search_spaces").glob("*.toml")}
        if name not in bundled:
            raise unknown("search space", name, bundled)
        path = bundled[name]
    data = files.read_toml(path)
    if data.get("format") != FORMAT:
        raise BadInput(f'{path}: format is {data.get("format")!r}; a space file starts with format = "{FORMAT}"')
    return from_dict(data, str(path), blocks)


def bundled_names() -> tuple[str, ...]:
    return tuple(sorted(p.stem for p in files.bundled("search_spaces").glob("*.toml")))


def find_named(name: str, blocks: Iterable[str]) -> tuple[Space, Arch, Mapping]:
    """The bundled space that names architecture `name`, the architecture, and its table (resolution, classes)."""
    found: list[str] = []
    for space_name in bundled_names():
        space = load(space_name, blocks)
        if name in space.archs:
            return space, space.named(name), space.archs[name]
        found += space.archs
    raise unknown("architecture", name, found)
