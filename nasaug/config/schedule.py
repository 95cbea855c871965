"""Schedules: hyper-parameters as functions of training progress in [0, 1].

In a recipe, a schedule is a number or a table with a `kind`: `{kind = "linear", start = 9, end = 0}`,
`{kind = "steps", at = [0.5, 0.75], values = [1, 0.1, 0.01]}`. Two kinds depend on the network instead of progress:
`{kind = "pruned", start = 9, end = 2}` on how much of it was pruned, and the path of a curve written by `nasaug sweep`
on its size.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from ..core.errors import BadInput, unknown
from ..core.files import read_json
from ..core.units import finite


class Schedule:
    """Base of all schedules. Calling one with the progress of training, 0 to 1, returns the value at that point."""

    __slots__ = ()

    def __call__(self, progress: float) -> float:
        raise NotImplementedError

    def of_net(self, macs: float, pruned: float = 0.0) -> Schedule:
        """The schedule for a network with this many MACs and the fraction `pruned` removed; returns itself unless it
        depends on the network."""
        return self

    def sampled(self) -> tuple[float, ...]:
        """Values over the course of training, dense enough to determine the range."""
        return tuple(self(percent / 100) for percent in range(101))

    @staticmethod
    def parse(value: Any) -> Schedule:
        """Parse a schedule: a number, a table, or the path of a curve. Raises BadInput for anything else."""
        if isinstance(value, Schedule):
            return value
        if isinstance(value, str) and value.endswith(".json"):
            return Curve.read(value)
        if not isinstance(value, dict):
            rule = f"a number, a table with kind = {' | '.join(_KINDS)}, or the path of a curve, ending in .json"
            if not finite(value):
                raise BadInput(f"a schedule must be {rule}, not {value!r}", value=value, rule=f"must be {rule}")
            return Constant(value)
        fields = dict(value)
        kind = fields.pop("kind", None)
        if not isinstance(kind, str) or kind not in _KINDS:
            raise unknown("kind of schedule", kind, _KINDS, field="kind")
        names = [field.name for field in dataclasses.fields(_KINDS[kind])]
        if sorted(fields) != sorted(names):
            given = ", ".join(fields) or "none"
            raise BadInput(f"a {kind} schedule takes {', '.join(names)}; given: {given}")
        return _KINDS[kind](**fields)

    def to_plain(self) -> Any:
        """The schedule in a recipe's notation, which `parse` accepts."""
        kind = next(name for name, cls in _KINDS.items() if type(self) is cls)
        return {"kind": kind} | dataclasses.asdict(self)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(Schedule.parse)


def _number(name: str, value: Any) -> float:
    if not finite(value):
        raise _wrong(name, value, "must be a finite number")
    return float(value)


def _wrong(name: str, value: Any, rule: str) -> BadInput:
    return BadInput(f"{name} {rule}, not {value!r}", field=name, value=value, rule=rule)


def _numbers(name: str, value: Any) -> tuple[float, ...]:
    if not isinstance(value, (list, tuple)):
        raise _wrong(name, value, "must be an array of numbers")
    return tuple(_number(name, item) for item in value)


@dataclasses.dataclass(frozen=True, slots=True)
class Constant(Schedule):
    """A constant value."""

    value: float

    def __post_init__(self):
        object.__setattr__(self, "value", _number("value", self.value))

    def __call__(self, progress: float) -> float:
        return self.value

    def sampled(self) -> tuple[float, ...]:
        return (self.value,)

    def to_plain(self) -> float:
        return self.value


@dataclasses.dataclass(frozen=True, slots=True)
class Linear(Schedule):
    """A straight line from `start` to `end`."""

    start: float
    end: float

    def __post_init__(self):
        for name in ("start", "end"):
            object.__setattr__(self, name, _number(name, getattr(self, name)))

    def __call__(self, progress: float) -> float:
        return self.start + (self.end - self.start) * progress


@dataclasses.dataclass(frozen=True, slots=True)
class Cosine(Linear):
    """Half a cosine period from `start` to `end` (Loshchilov and Hutter, ICLR 2017)."""

    def __call__(self, progress: float) -> float:
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * progress)) / 2


@dataclasses.dataclass(frozen=True, slots=True)
class Steps(Schedule):
    """`values[i]` until the progress reaches `at[i]`, the last value after that."""

    at: tuple[float, ...]
    values: tuple[float, ...]

    def __post_init__(self):
        for name in ("at", "values"):
            object.__setattr__(self, name, _numbers(name, getattr(self, name)))
        if not all(a < b for a, b in zip((0.0, *self.at), (*self.at, 1.0), strict=True)):
            raise _wrong("at", list(self.at), "must ascend between 0 and 1")
        if len(self.values) != len(self.at) + 1:
            raise _wrong("values", len(self.values), f"must be one more than at ({len(self.at) + 1})")

    def __call__(self, progress: float) -> float:
        return self.values[sum(progress >= edge for edge in self.at)]

    def sampled(self) -> tuple[float, ...]:
        return self.values


CURVE = "nasaug-curve/1"
STRONGEST = 30.0  # RandAugment's largest magnitude


@dataclasses.dataclass(frozen=True, slots=True)
class Curve(Schedule):
    """intercept + slope x log10(MACs), clamped to [low, high]: the best value for a network of this size on the data
    that the curve was fitted on (their name and hash). Until the size is known, the middle of the range."""

    intercept: float
    slope: float
    low: float
    high: float
    data: str = ""
    data_key: str = ""

    def __post_init__(self):
        for name in ("intercept", "slope", "low", "high"):
            object.__setattr__(self, name, _number(name, getattr(self, name)))
        for name in ("data", "data_key"):
            if not isinstance(value := getattr(self, name), str):
                raise BadInput(f"a curve's {name} must be a string, not {value!r}; write it again with nasaug sweep")
        if not self.low <= self.high:
            raise BadInput(f"a curve's low = {self.low:g} is above its high = {self.high:g}")

    @staticmethod
    def read(path: str) -> Curve:
        """Read a curve written by `nasaug sweep`."""
        table = read_json(path, CURVE)
        missing = [field.name for field in dataclasses.fields(Curve) if field.name not in table]
        if missing:
            raise BadInput(f"{path}: {missing[0]} is missing; write the curve again with nasaug sweep")
        try:
            return Curve(*(table[field.name] for field in dataclasses.fields(Curve)))
        except BadInput as error:
            raise error.within(f"{path}: ") from None

    def __call__(self, progress: float) -> float:
        return (self.low + self.high) / 2

    def of_net(self, macs: float, pruned: float = 0.0) -> Schedule:
        return Constant(min(max(self.intercept + self.slope * math.log10(macs), self.low), self.high))


@dataclasses.dataclass(frozen=True, slots=True)
class Pruned(Linear):
    """Linear in the fraction that `prune` removed, from `start` (nothing) to `end` (everything): a fraction of the
    MACs, or of the weights in unstructured pruning. Until that is known, `start`.

    Yu, Zhang and Ma (2023): in iterative pruning, the magnitude should vary with the remaining size."""

    def __call__(self, progress: float) -> float:
        return self.start

    def of_net(self, macs: float, pruned: float = 0.0) -> Schedule:
        return Constant(self.start + (self.end - self.start) * pruned)


_KINDS = {
    "constant": Constant, "linear": Linear, "cosine": Cosine, "steps": Steps, "curve": Curve, "pruned": Pruned,
}  # fmt: skip


def weight(name: str, schedule: Schedule) -> None:
    """Validate a loss weight. Raises BadInput if it is ever negative, or depends on the network (not supported)."""
    if schedule.of_net(1.0) is not schedule:
        rule, remedy = "cannot depend on the network", "give a number, or a schedule over training"
        raise BadInput(f"{name} {rule}; {remedy}", field=name, value=schedule, rule=rule, remedy=remedy)
    if (least := min(schedule.sampled())) < 0:
        raise BadInput.of(field=name, value=schedule, rule=f"reaches {least:g}", remedy="give at least 0")


def from_ends(text: str) -> Constant | Linear:
    """Parse a magnitude as given on a command line: "9" is constant, "9:2" linear from 9 to 2.

    Raises BadInput unless it is one or two numbers from 0 to 30."""
    try:
        ends = [float(end) for end in text.split(":")]
    except ValueError:
        ends = []
    if len(ends) not in (1, 2) or not all(0 <= end <= STRONGEST for end in ends):
        raise BadInput(f"{text!r} must be a number from 0 to 30, or two like 9:2, from the first to the second")
    return Constant(ends[0]) if len(set(ends)) == 1 else Linear(*ends)
