"""Search spaces as data: a fixed skeleton of blocks plus axes, each an ascending ladder of choices.

Architectures of a space are partially ordered, and one primitive, `Space.sample(rng, low, high, free)`,
serves the sandwich rule (between smallest and largest), NetAug (above a base) and GradAug (below it).
Pure: knows no network, no trainer and no optuna.
"""

from __future__ import annotations

import hashlib
import json
import re
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
    inner: int = 0  # in a space around a plan: the plan's own inner channels, whatever the divisor


class Arch(NamedTuple):
    """The choices of one architecture, in the order of its space's axes. Hashable; JSON through the Space."""

    space: str
    values: tuple[Value, ...]


class Named(NamedTuple):
    """A reference architecture, and the number of classes that its published figures are for."""

    arch: Arch
    classes: int


@dataclass(frozen=True)
class Space:
    """A skeleton (`rules`), its `axes` and the architectures that it names."""

    name: str
    divisor: int
    axes: tuple[Axis, ...]
    rules: tuple[Rule, ...]
    resolution: int | Ref
    archs: Mapping[str, Named] = field(default_factory=dict, compare=False)
    source: Mapping = field(default_factory=dict, compare=False)

    @cached_property
    def index(self) -> dict[str, int]:
        return {axis.name: i for i, axis in enumerate(self.axes)}

    @cached_property
    def smallest(self) -> Arch:
        return self.canonical(Arch(self.name, tuple(axis.choices[0] for axis in self.axes)))

    @cached_property
    def largest(self) -> Arch:
        return self.canonical(Arch(self.name, tuple(axis.choices[-1] for axis in self.axes)))

    @cached_property
    def _owners(self) -> tuple[tuple[int, int, int], ...]:
        """(axis, its stage's depth axis, block index) for each axis that a skipped block makes idle."""
        rows = []
        for rule in self.rules:
            if rule.depth is None:
                continue
            own = [i for name, i in self.index.items() if name.startswith(rule.name + ".")]
            rows += [(i, rule.depth.axis, rule.index) for i in own]
        return tuple(rows)

    @cached_property
    def _blocks(self) -> dict[int, int]:
        """Depth axis to the number of blocks that its stage has."""
        return {rule.depth.axis: rule.index for rule in self.rules if rule.depth is not None}

    def value(self, arch: Arch, axis: str) -> Value:
        return arch.values[self.index[axis]]

    def arch(self, choices: Mapping[str, Value]) -> Arch:
        """The architecture with these choices by axis name; values may lie off the ladder.

        Raises BadInput for missing and unknown axes and for values that no block can have."""
        for name in choices:
            if name not in self.index:
                raise unknown(f"axis of space {self.name}", name, self.index)
        missing = [a.name for a in self.axes if a.name not in choices]
        if missing:
            needed = f"all {len(self.axes)} axes need one"
            raise BadInput(f"no choice for axis {missing[0]!r} of space {self.name}; {needed}")
        for name, value in choices.items():
            self.check(f"space {self.name}", name, value)
        return self.canonical(Arch(self.name, tuple(choices[a.name] for a in self.axes)))

    def check(self, where: str, axis: str, value: Value) -> None:
        """Raises BadInput where no architecture, on the ladder or off it, can have this value of an axis."""
        place = self.index[axis]
        _number(where, axis, self.axes[place].kind, value)
        if value > self._blocks.get(place, value):
            raise BadInput(f"{where}: {axis} = {value}, but that stage has {self._blocks[place]} blocks")

    def rules_of(self, arch: Arch) -> list[Rule]:
        """The blocks that the architecture has."""
        values = arch.values
        return [rule for rule in self.rules if rule.depth is None or rule.index <= values[rule.depth.axis]]

    def choices(self, arch: Arch) -> dict[str, Value]:
        """The inverse of `arch`: axis name to value."""
        return {axis.name: value for axis, value in zip(self.axes, arch.values, strict=True)}

    def canonical(self, arch: Arch) -> Arch:
        """The same network, choices of skipped blocks folded to the smallest: equal nets, equal ids."""
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
        """A random architecture, low <= it <= high: uniform on axes of a `free` kind, elsewhere `low`'s."""
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
        """The architectures over `base` on axes of a `free` kind; every other axis keeps base's value."""
        return self.trimmed({
            axis.name: axis.between(v, axis.choices[-1]) if axis.kind in free else (v,)
            for axis, v in zip(self.axes, base.values, strict=True)
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
        return self.canonical(self.archs[name].arch)


# --- files --------------------------------------------------------------------------------------------------

SPACE_KEYS = {  # what a file holds: its type, and that type in words
    "format": (str, "a string"),
    "name": (str, "a string"),
    "summary": (str, "a string"),
    "divisor": (int, "a whole number"),
    "resolution": (int | list, "the image size in px, or an ascending list of sizes"),
    "stage": (list, "written as [[stage]] tables"),
    "arch": (dict, "written as [arch.NAME] tables"),
    "ladders": (dict, "a table of lists by axis"),
}
WORDS = {"act": ACTS, "shortcut": SHORTCUTS, "first": SHORTCUTS, "order": ORDERS}
_NAME = re.compile("[a-z][a-z0-9_]*")
_MOST = 1 << 16  # above any sensible width, size or depth


class _Builder:
    """Collects axes while a space file's stages are turned into rules."""

    def __init__(self, where: str):
        self.where = where
        self.axes: list[Axis] = []
        self.holes: dict[str, Value | Ref] = {}

    def hole(self, name: str, kind: str, given) -> Value | Ref:
        """A list becomes an axis, a number a constant, an earlier stage's name whatever that stage has."""
        if isinstance(given, str):
            self.holes[name] = self.tied(name, kind, given)
        elif isinstance(given, list):
            self.axes.append(Axis(name, kind, _ladder(self.where, name, kind, given)))
            self.holes[name] = Ref(len(self.axes) - 1)
        else:
            self.holes[name] = _number(self.where, name, kind, given)
        return self.holes[name]

    def tied(self, name: str, kind: str, stage: str) -> Value | Ref:
        if f"{stage}.{kind}" not in self.holes:
            raise BadInput(
                f"{self.where}: {name} = {stage!r} must be a number, an ascending list of them, or the name "
                f"of an earlier stage with one {kind}"
            )
        return self.holes[f"{stage}.{kind}"]

    def rules(self, stage: Mapping) -> list[Rule]:
        """The blocks of one stage, at the stage's greatest depth."""
        name = stage["name"]
        width = self.hole(f"{name}.width", "width", stage["width"]) if "width" in stage else 0
        stride = self.hole(f"{name}.stride", "stride", stage.get("stride", 1))
        if "depth" not in stage:
            return [self.rule(stage, name, 1, width, stride, None)]
        depth = self.hole(f"{name}.depth", "depth", stage["depth"])
        count = max(self.axes[depth.axis].choices) if isinstance(depth, Ref) else depth
        ref = depth if isinstance(depth, Ref) else None
        blocks = range(1, count + 1)
        return [self.rule(stage, f"{name}.b{i}", i, width, stride if i == 1 else 1, ref) for i in blocks]

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
            stride, depth, stage.get("act", ""), stage.get("se", 0), shortcut, stage.get("order", "post"),
        )  # fmt: skip


def _number(where: str, name: str, kind: str, value) -> Value:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _MOST:
        raise BadInput(f"{where}: {name} = {value!r} must be a number above 0 (up to {_MOST:,})")
    if kind != "expand" and not isinstance(value, int):
        raise BadInput(f"{where}: {name} = {value!r} must be a whole number")
    if kind == "kernel" and value % 2 == 0:
        raise BadInput(f"{where}: {name} = {value!r} must be odd, so that the centre of a kernel exists")
    return value


def _ladder(where: str, name: str, kind: str, given: list) -> tuple[Value, ...]:
    values = tuple(_number(where, name, kind, v) for v in given)
    keys = [-v if kind == "stride" else v for v in values]
    if not values or any(a >= b for a, b in zip(keys, keys[1:], strict=False)):
        order = "fall (a stride of 1 costs most)" if kind == "stride" else "rise"
        raise BadInput(f"{where}: {name} = {given} must have a first choice and {order} from there on")
    return values


def _check_keys(where: str, data: Mapping) -> None:
    for key, value in data.items():
        if key not in SPACE_KEYS:
            raise unknown(f"key in {where}:", key, SPACE_KEYS)
        kind, words = SPACE_KEYS[key]
        if not isinstance(value, kind):
            raise BadInput(f"{where}: {key} = {value!r:.60} must be {words}")
    if not data.get("stage"):
        raise BadInput(f"{where}: a space needs at least one [[stage]]")
    if "resolution" not in data:
        raise BadInput(f"{where}: a space needs resolution = …, {SPACE_KEYS['resolution'][1]}")


def _check_stage(where: str, stage, blocks: Mapping) -> None:
    name, block = (stage.get(key) if isinstance(stage, Mapping) else None for key in ("name", "block"))
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name == "classifier":
        rule = 'name of lower-case letters, digits and _, like "s1" ("classifier" is taken)'
        raise BadInput(f"{where}: every stage is a [[stage]] table with a {rule}; one has {name!r}")
    here = f"{where}, stage {name}"
    if not isinstance(block, str) or block not in blocks:
        raise unknown(f"block in {here}:", block, blocks)
    keys = ("name", "block", *blocks[block].takes)
    for key, value in stage.items():
        if key not in keys:
            raise unknown(f"key in {here} ({block}):", key, keys)
        if key in WORDS and value not in WORDS[key]:
            raise unknown(f"{key} in {here}:", value, WORDS[key])
    if "width" in keys and "width" not in stage:
        raise BadInput(f"{here}: a {block} needs width = …, its output channels")
    if "first" in stage and "depth" not in stage:
        raise BadInput(f"{here}: first is for the first of several blocks; give depth, or use shortcut")
    se = stage.get("se", 0)
    if isinstance(se, bool) or not isinstance(se, int | float) or not 0 <= se <= 1:
        raise BadInput(f"{here}: se = {se!r} must be a share of the expanded channels, 0 to 1, like 0.25")


def _check_chain(where: str, rules: Sequence[Rule]) -> None:
    """An identity shortcut must fit whatever is chosen; a classifier needs one feature vector an image."""
    stream: Value | Ref = 3
    for rule in rules:
        if rule.shortcut == "identity" and (rule.width != stream or rule.stride != 1):
            raise BadInput(
                f"{where}: block {rule.name} has an identity shortcut over a change of width or size; "
                'tie its width to an earlier stage (width = "stem"), or make the shortcut "project" or "none"'
            )
        stream = rule.width or stream
    kinds = [rule.block for rule in rules]
    if "pool" not in kinds or "linear" in kinds[: kinds.index("pool")]:
        raise BadInput(f'{where}: a stage with block = "pool" is missing before the linear layers at the end')


def _named(where: str, space: Space, name: str, table) -> Named:
    """A named architecture, from its compact table: a number for all, or by stage, or a list by block.

    Axes that the table leaves out take their largest choice."""
    here = f"{where}, [arch.{name}]"
    if not isinstance(table, Mapping):
        raise BadInput(f"{here} must be a table of choices, not {table!r}")
    choices = {axis.name: _given(table.get(axis.kind), axis) for axis in space.axes}
    for axis, value in choices.items():
        space.check(here, axis, value)
    arch = space.arch(choices)
    _check_table(here, space, arch, {key: given for key, given in table.items() if key != "classes"})
    return Named(arch, _number(here, "classes", "classes", table.get("classes", 1000)))


def _check_table(here: str, space: Space, arch: Arch, table: Mapping) -> None:
    """Refuse what says nothing: kinds and stages without a choice, and lists of a wrong length."""
    for kind, given in table.items():
        stages = {axis.name.partition(".")[0] for axis in space.axes if axis.kind == kind}
        if not stages:
            raise unknown(f"key in {here}:", kind, {axis.kind for axis in space.axes} | {"classes"})
        for stage, value in given.items() if isinstance(given, Mapping) else ():
            if stage not in stages:
                raise unknown(f"stage with a choice of {kind} in {here}:", stage, stages)
            depth = sum(rule.stage == stage for rule in space.rules_of(arch))
            if isinstance(value, list) and len(value) != depth:
                raise BadInput(f"{here}: {kind}.{stage} lists {len(value)} choices for {depth} blocks")


def _given(given, axis: Axis):
    """What a table's entry of the axis' kind says of it; blocks that a list leaves out are skipped ones."""
    stage, *block, _ = axis.name.split(".") if "." in axis.name else (axis.name, "")
    if isinstance(given, Mapping):
        given = given.get(stage)
    if isinstance(given, list) and block:
        place = int(block[0][1:]) - 1
        return given[place] if place < len(given) else axis.choices[0]
    return axis.choices[-1] if given is None else given


def _ladders(where: str, space: Space, given: Mapping) -> Space:
    """The space with the choices that a file's [ladders] replace: how a cropped space is kept."""
    for name, choices in given.items():
        if name not in space.index:
            raise unknown(f"axis in [ladders] of {where}:", name, space.index)
        if not isinstance(choices, list):
            raise BadInput(f"{where}: [ladders] {name} = {choices!r} must be a list of choices")
        _ladder(where, name, space.axes[space.index[name]].kind, choices)
        space.check(where, name, choices[-1])
    return space.trimmed(given) if given else space


def from_dict(data: Mapping, where: str, blocks: Mapping) -> Space:
    """A Space from the contents of a space file; `blocks` maps the kinds of block to the keys they take.

    Raises BadInput, one line, for whatever breaks the format's rules."""
    _check_keys(where, data)
    builder = _Builder(where)
    rules: list[Rule] = []
    for stage in data["stage"]:
        _check_stage(where, stage, blocks)
        if any(rule.stage == stage["name"] for rule in rules):
            raise BadInput(f"{where}: two stages are named {stage['name']!r}; every stage needs its own name")
        rules += builder.rules(stage)
    _check_chain(where, rules)
    resolution = builder.hole("resolution", "resolution", data["resolution"])
    divisor = _number(where, "divisor", "divisor", data.get("divisor", 8))
    name = data.get("name", Path(where).stem)
    space = Space(name, divisor, tuple(builder.axes), tuple(rules), resolution, source=dict(data))
    archs = {arch: _named(where, space, arch, table) for arch, table in data.get("arch", {}).items()}
    return _ladders(where, replace(space, archs=archs), data.get("ladders", {}))


def load(name: str, blocks: Mapping) -> Space:
    """A space by bundled name (`mobilenetv2-small`) or by the path of a TOML file."""
    path = Path(name)
    if path.suffix != ".toml":
        bundled = {p.stem: p for p in files.bundled("search_spaces").glob("*.toml")}
        if name not in bundled:
            raise unknown("search space", name, (*bundled, "or the path of a .toml file"))
        path = bundled[name]
    data = files.read_toml(path)
    if data.get("format") != FORMAT:
        raise BadInput(f'{path}: format = {data.get("format")!r}; a space file begins format = "{FORMAT}"')
    return from_dict(data, str(path), blocks)


def bundled_names() -> tuple[str, ...]:
    return tuple(sorted(p.stem for p in files.bundled("search_spaces").glob("*.toml")))


def find_named(name: str, blocks: Mapping) -> tuple[Space, Named]:
    """The bundled space that names architecture `name`, and that architecture."""
    found: list[str] = []
    for space_name in bundled_names():
        space = load(space_name, blocks)
        if name in space.archs:
            return space, space.archs[name]
        found += space.archs
    raise unknown("architecture", name, found)
