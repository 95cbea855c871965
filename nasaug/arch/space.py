"""Search spaces as data: a fixed skeleton of blocks plus axes, each an ascending ladder of choices.

Architectures of a space are partially ordered, and one primitive, `Space.sample(rng, low, high, free)`, serves the
sandwich rule (between smallest and largest), NetAug (above a base) and GradAug (below it). Independent of networks,
training and Optuna.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from itertools import zip_longest
from operator import itemgetter
from random import Random
from typing import Any, NamedTuple

from ..core.errors import BadInput, unknown

KINDS = ("width", "expand", "depth", "kernel", "stride", "resolution", "skip")
ACTS = ("", "relu", "relu6", "hswish")
SHORTCUTS = ("none", "identity", "project")
ORDERS = ("post", "pre")
MOST = 1 << 16  # above any sensible width or size
DEEPEST = 256  # blocks of a stage; ResNet-1202 has 200
TOGETHER = "+"  # joins the kinds of an axis that sets several properties of a block: expand+kernel
Value = Any  # int or float, or a tuple of them on an axis of several kinds: each is ordered with its own kind only


@dataclass(frozen=True, slots=True)
class Axis:
    """One choice of the architecture: `choices` ascend in cost (so strides descend).

    The name's prefix is its scope: `resolution` (net), `s3.width` (stage), `s3.b2.expand` (block). An axis of several
    kinds (`s3.b2.expand+kernel`) has tuples as choices, each at least as large in every part as the one before.
    """

    name: str
    kind: str
    choices: tuple[Value, ...]

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(self.kind.split(TOGETHER))

    def free_in(self, kinds: Iterable[str]) -> bool:
        """Whether all properties that the axis sets are of these kinds."""
        if TOGETHER not in self.kind:  # asked for every axis of every sample
            return self.kind in kinds
        return all(kind in kinds for kind in self.kinds)

    def key(self, value: Value) -> Value:
        """A sort key by cost; a larger stride is a cheaper net."""
        if isinstance(value, tuple):
            return tuple(-v if kind == "stride" else v for kind, v in zip(self.kinds, value, strict=True))
        return -value if self.kind == "stride" else value

    def between(self, low: Value, high: Value) -> tuple[Value, ...]:
        """The choices from `low` to `high`, and `low` itself if it is off the ladder."""
        if low == self.choices[0] and high == self.choices[-1]:
            return self.choices
        return _between(self, low, high)


@lru_cache(maxsize=65536)
def _between(axis: Axis, low: Value, high: Value) -> tuple[Value, ...]:
    inside = tuple(c for c in axis.choices if axis.key(low) <= axis.key(c) <= axis.key(high))
    return inside if low in inside else (low, *inside)


def _nothing(values: tuple[Value, ...]) -> tuple:
    return ()


def choice(where: str, name: str, kind: str, value) -> Any:
    """Validate `value` as a choice of an axis of this kind, a tuple for several kinds; the message of BadInput starts
    with `where`."""
    kinds = kind.split(TOGETHER)
    if len(kinds) == 1:
        return number(where, name, kind, value)
    if not isinstance(value, list | tuple) or len(value) != len(kinds):
        raise BadInput(f"{where}: {name} = {value!r} must be {len(kinds)} numbers, {' and '.join(kinds)}")
    return tuple(number(where, f"{name}'s {each}", each, v) for each, v in zip(kinds, value, strict=True))


def number(where: str, name: str, kind: str, value) -> Any:
    """Validate `value` as one number of this kind. An expand ratio may be 0: the block then has no body."""
    if kind == "expand" and value == 0 and not isinstance(value, bool):
        return value
    most = DEEPEST if kind == "depth" else MOST
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most:
        rule = "0, or a number above it" if kind == "expand" else "a number above 0"
        raise BadInput(f"{where}: {name} = {value!r} must be {rule} (up to {most:,})")
    if kind != "expand" and not isinstance(value, int):
        raise BadInput(f"{where}: {name} = {value!r} must be a whole number")
    if kind == "kernel" and value % 2 == 0:
        raise BadInput(f"{where}: {name} = {value!r} must be odd, so that a kernel has a centre")
    return value


class Ref(NamedTuple):
    """A block property determined by an axis, given by the axis's index in the space.

    With `of`, the axis's value is a factor applied to it (one axis for the widths of a whole net). `part` is the
    property's place in the tuples of an axis of several kinds."""

    axis: int
    of: int = 0
    part: int = 0


def resolve(item: Value | Ref, values: tuple[Value, ...]) -> Any:
    """The value of a block property in the architecture with these `values`: an int, or a float for expand ratios."""
    if not isinstance(item, Ref):
        return item
    value = values[item.axis]
    if isinstance(value, tuple):
        return value[item.part]
    return max(1, int(item.of * value + 0.5)) if item.of else value


def is_empty(expand: Value) -> bool:
    """Whether a choice of an axis with the expand ratio (in a tuple the first part) leaves the block without a body."""
    return (expand[0] if isinstance(expand, tuple | list) else expand) == 0


@dataclass(frozen=True, slots=True)
class Rule:
    """One block of the skeleton; each property is a constant or refers to an axis."""

    name: str
    stage: str
    index: int  # 1-based index in its stage; the block is absent if the stage's depth is smaller
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
    inner: int = 0  # in a space around a plan: the plan's own inner channels, exempt from the divisor
    skip: Ref | None = None  # the block is skipped if 0; its shortcut stays
    thin: bool = False  # in a space below a plan: inner channels may be fewer than the plan's

    def optional(self, space: Space) -> bool:
        """Whether the smallest choice of the expand ratio leaves the block without a body."""
        return isinstance(self.expand, Ref) and is_empty(space.axes[self.expand.axis].choices[0])

    def present(self, values: tuple[Value, ...]) -> bool:
        """Whether the architecture with these values has this block."""
        if self.depth is not None and self.index > values[self.depth.axis]:
            return False
        return self.skip is None or values[self.skip.axis] > 0


class Arch(NamedTuple):
    """The choices of one architecture, in the order of its space's axes. Hashable; the Space converts it to JSON."""

    space: str
    values: tuple[Value, ...]


class Named(NamedTuple):
    """A reference architecture, and the number of classes that its published figures are for."""

    arch: Arch
    classes: int


@dataclass(frozen=True)
class Space:
    """A skeleton (`rules`), its `axes`, and its named architectures."""

    name: str
    divisor: int
    axes: tuple[Axis, ...]
    rules: tuple[Rule, ...]
    resolution: int | Ref
    archs: Mapping[str, Named] = field(default_factory=dict, compare=False)
    source: Mapping = field(default_factory=dict, compare=False)
    device: Any = None  # predicts latencies (nasaug.arch.cost.Device); not part of the space's file

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
        """(axis, its stage's depth axis, block index) for each axis that has no effect if its block is skipped."""
        rows = []
        for rule in self.rules:
            if rule.depth is None:
                continue
            own = [i for name, i in self.index.items() if name.startswith(rule.name + ".")]
            rows += [(i, rule.depth.axis, rule.index) for i in own]
        return tuple(rows)

    def depths_of(self, axis: int) -> list[tuple[int, int]]:
        """(depth axis, block index) of the block that the axis belongs to, if that may be skipped."""
        return [(depth, place) for own, depth, place in self._owners if own == axis]

    @cached_property
    def _runs(self) -> tuple[tuple[tuple[int, ...], ...], ...]:
        """Runs of blocks that may have no body, by the axes of each block, the one of its expand ratio first.

        The blocks of a run are interchangeable: consecutive, with identity shortcuts and the same choices. A block that
        changes the shape is a run of its own."""
        runs: list[list[tuple[int, ...]]] = []
        before: Rule | None = None
        for rule in self.rules:
            if not rule.optional(self):
                before = None
                continue
            axes = tuple(dict.fromkeys(ref.axis for ref in (rule.expand, rule.kernel) if isinstance(ref, Ref)))
            alike = before is not None and before.stage == rule.stage and before.shortcut == rule.shortcut == "identity"
            if alike and self._choices(runs[-1][0]) == self._choices(axes):
                runs[-1].append(axes)
            else:
                runs.append([axes])
            before = rule
        return tuple(map(tuple, runs))

    def _choices(self, axes: Iterable[int]) -> list[tuple[Value, ...]]:
        return [self.axes[i].choices for i in axes]

    @cached_property
    def _blocks(self) -> dict[int, int]:
        """Depth axis to the number of blocks of its stage."""
        return {rule.depth.axis: rule.index for rule in self.rules if rule.depth is not None}

    @cached_property
    def lowerings(self) -> tuple[tuple[Rule, Callable, dict], ...]:
        """(rule, a function selecting its choices from an architecture's values, blocks lowered so far): the cache of
        `plan`, which makes it possible to cost thousands of architectures per second."""
        rows: list[tuple[Rule, Callable, dict]] = []
        for rule in self.rules:
            refs = [p.axis for p in (rule.width, rule.expand, rule.kernel, rule.stride) if isinstance(p, Ref)]
            refs = list(dict.fromkeys(refs))
            rows.append((rule, itemgetter(*refs) if refs else _nothing, {}))
        return tuple(rows)

    def value(self, arch: Arch, axis: str) -> Value:
        return arch.values[self.index[axis]]

    def arch(self, choices: Mapping[str, Value]) -> Arch:
        """The architecture with these choices by axis name; values may be off the ladder.

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
        values = (choices[a.name] for a in self.axes)  # JSON has lists for tuples
        return self.canonical(Arch(self.name, tuple(tuple(v) if isinstance(v, list) else v for v in values)))

    def check(self, where: str, axis: str, value: Value) -> None:
        """Raises BadInput if no architecture, on or off the ladder, can have this value of an axis."""
        place = self.index[axis]
        choice(where, axis, self.axes[place].kind, value)
        if "expand" in self.axes[place].kinds and is_empty(value) and not is_empty(self.axes[place].choices[0]):
            raise BadInput(f"{where}: {axis} = {value}, but that block always has a body; give an expand ratio above 0")
        if place in self._blocks and value > self._blocks[place]:
            raise BadInput(f"{where}: {axis} = {value}, but that stage has {self._blocks[place]} blocks")

    def rules_of(self, arch: Arch) -> list[Rule]:
        """The blocks of the architecture."""
        values = arch.values
        return [rule for rule in self.rules if rule.present(values)]

    def choices(self, arch: Arch) -> dict[str, Value]:
        """The inverse of `arch`: axis name to value."""
        return {axis.name: value for axis, value in zip(self.axes, arch.values, strict=True)}

    def canonical(self, arch: Arch) -> Arch:
        """The same network, with the choices of skipped blocks set to the smallest, and blocks without a body behind
        the interchangeable ones that have one.

        Choices that a divisor rounds to the same width remain distinct: only the plan reveals that."""
        values = list(arch.values)
        for axis, depth, place in self._owners:
            if place > values[depth]:
                values[axis] = self.axes[axis].choices[0]
        for run in self._runs:
            bodies = [[values[i] for i in axes] for axes in run if not is_empty(values[axes[0]])]
            for axes, body in zip_longest(run, bodies):
                for place, i in enumerate(axes):
                    values[i] = self.axes[i].choices[0] if body is None else body[place]
        return Arch(arch.space, tuple(values))

    def id(self, arch: Arch) -> str:
        """Ten hexadecimal digits, equal for equal choices except those of skipped blocks."""
        text = json.dumps(self.choices(self.canonical(arch)), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    def contains(self, arch: Arch) -> bool:
        """Whether every value that the network uses is on its ladder."""
        canonical = self.canonical(arch)
        return all(v in axis.choices for axis, v in zip(self.axes, canonical.values, strict=True))

    def sample(
        self, rng: Random, low: Arch | None = None, high: Arch | None = None, free: Iterable[str] = KINDS
    ) -> Arch:
        """A random architecture from low to high: uniform on axes of a `free` kind, `low`'s value on the others."""
        low, high = low or self.smallest, high or self.largest
        values = tuple(
            rng.choice(axis.between(a, b)) if axis.free_in(free) else a
            for axis, a, b in zip(self.axes, low.values, high.values, strict=True)
        )
        drawn = self.canonical(Arch(self.name, values))
        if not self._runs or self.leq(drawn, high):
            return drawn
        # a body that moved forward in its run may be larger than its new place allows
        capped = (min(v, top, key=axis.key) for axis, v, top in zip(self.axes, drawn.values, high.values, strict=True))
        return self.canonical(Arch(self.name, tuple(capped)))

    def leq(self, a: Arch, b: Arch) -> bool:
        """Whether a <= b on every axis."""
        return all(x.key(v) <= x.key(w) for x, v, w in zip(self.axes, a.values, b.values, strict=True))

    def trimmed(self, ladders: Mapping[str, Sequence[Value]]) -> Space:
        """The same space with the choices of some axes replaced."""
        axes = tuple(replace(a, choices=tuple(ladders.get(a.name, a.choices))) for a in self.axes)
        merged = {**self.source.get("ladders", {}), **{name: list(c) for name, c in ladders.items()}}
        return replace(self, axes=axes, source={**self.source, "ladders": merged})

    def above(self, base: Arch, free: Iterable[str]) -> Space:
        """The architectures above `base` on axes of a `free` kind; every other axis keeps base's value."""
        return self.trimmed({
            axis.name: axis.between(v, axis.choices[-1]) if axis.free_in(free) else (v,)
            for axis, v in zip(self.axes, base.values, strict=True)
        })

    def to_dict(self) -> dict:
        """JSON and TOML form, read back by `spacefile.from_dict`."""
        if not self.source:
            raise BadInput(f"space {self.name!r} was made around one architecture and has no file form")
        return dict(self.source)

    def named(self, name: str) -> Arch:
        """A reference architecture of this space, by name."""
        if name not in self.archs:
            raise unknown(f"architecture of space {self.name}", name, self.archs)
        return self.canonical(self.archs[name].arch)
