"""Values that change in the course of training: progress in [0, 1] to a number.

In a recipe a schedule is a number, or a table that names its `kind`:
`{kind = "linear", start = 9, end = 0}`, `{kind = "steps", at = [0.5, 0.75], values = [1, 0.1, 0.01]}`. Two follow from
the network and not from progress: `{kind = "pruned", start = 9, end = 2}` from how much of it was pruned, and the path
of a curve that `nasaug sweep` wrote from its size.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from ..core.errors import BadInput, unknown
from ..core.files import read_json


class Schedule:
    """Base of all schedules; calling one with the progress of training, 0 to 1, gives its value there."""

    __slots__ = ()

    def __call__(self, progress: float) -> float:
        raise NotImplementedError

    def of_net(self, macs: float, pruned: float = 0.0) -> Schedule:
        """The schedule of a network with so many MACs, of which the share `pruned` was removed: itself, unless it
        depends on one of them."""
        return self

    def sampled(self) -> tuple[float, ...]:
        """Values that it takes in the course of training, close enough to tell what it reaches."""
        return tuple(self(percent / 100) for percent in range(101))

    @staticmethod
    def parse(value: Any) -> Schedule:
        """The schedule written as `value`: a number or a table; BadInput where it is neither."""
        if isinstance(value, Schedule):
            return value
        if isinstance(value, str) and value.endswith(".json"):
            return Curve.read(value)
        if not isinstance(value, dict):
            rule = f"a number, a table with kind = {' | '.join(_KINDS)}, or the path of a curve, ending in .json"
            if not _is_number(value):
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
        """The schedule as a recipe writes it; `parse` gives it back."""
        kind = next(name for name, cls in _KINDS.items() if type(self) is cls)
        return {"kind": kind} | dataclasses.asdict(self)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(Schedule.parse)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _number(name: str, value: Any) -> float:
    if not _is_number(value):
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
    """The same value throughout."""

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
    """Half a cosine wave from `start` to `end`: slow, fast, slow (Loshchilov and Hutter, ICLR 2017)."""

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
STRONGEST = 30.0  # RandAugment's magnitude


@dataclasses.dataclass(frozen=True, slots=True)
class Curve(Schedule):
    """intercept + slope x log10(MACs), within `low` and `high`: what a network of some size wants on the data it was
    fitted on (their name and hash). While the size is not known, the middle."""

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
                raise BadInput(f"a curve's {name} must be a text, not {value!r}; write it anew with nasaug sweep")
        if not self.low <= self.high:
            raise BadInput(f"a curve's low = {self.low:g} is above its high = {self.high:g}")

    @staticmethod
    def read(path: str) -> Curve:
        """The curve of a file that `nasaug sweep` wrote."""
        table = read_json(path, CURVE)
        missing = [field.name for field in dataclasses.fields(Curve) if field.name not in table]
        if missing:
            raise BadInput(f"{path}: {missing[0]} is missing; write the curve anew with nasaug sweep")
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
    """From `start` for a whole network in a straight line to `end` for one of which nothing is left: what `prune` took
    away, as a share of the MACs (of the weights, where they became zero). While that is not known, `start`.

    Yu, Zhang and Ma (2023): in iterative pruning the magnitude should vary with what is left."""

    def __call__(self, progress: float) -> float:
        return self.start

    def of_net(self, macs: float, pruned: float = 0.0) -> Schedule:
        return Constant(self.start + (self.end - self.start) * pruned)


_KINDS = {
    "constant": Constant, "linear": Linear, "cosine": Cosine, "steps": Steps, "curve": Curve, "pruned": Pruned,
}  # fmt: skip


def weight(name: str, schedule: Schedule) -> None:
    """Raises BadInput for a loss's weight that is below 0 somewhere, or depends on the network, which none looks at."""
    if schedule.of_net(1.0) is not schedule:
        rule, remedy = "cannot follow from the network", "give a number, or a schedule over training"
        raise BadInput(f"{name} {rule}; {remedy}", field=name, value=schedule, rule=rule, remedy=remedy)
    if (least := min(schedule.sampled())) < 0:
        raise BadInput.of(field=name, value=schedule, rule=f"reaches {least:g}", remedy="give at least 0")


def from_ends(text: str) -> Constant | Linear:
    """The magnitude that people write on a command line: "9" a constant, "9:2" a straight line from 9 to 2.

    Raises BadInput for anything but one or two numbers from 0 to 30."""
    try:
        ends = [float(end) for end in text.split(":")]
    except ValueError:
        ends = []
    if len(ends) not in (1, 2) or not all(0 <= end <= STRONGEST for end in ends):
        raise BadInput(f"{text!r} must be a number from 0 to 30, or two as in 9:2, from the one to the other")
    return Constant(ends[0]) if len(set(ends)) == 1 else Linear(*ends)
