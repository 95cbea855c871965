"""The shape of a net, its resolution and where it halves its images, can be chosen before a supernet is trained.

Scores at different resolutions are not comparable in a supernet (docs/results/resolution.md). So the space's own design
is scaled to the budget in many shapes, each is trained briefly on its own, and the search goes on in the best shape
alone.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from functools import cache, partial
from itertools import product
from random import Random

from ..arch.cost import Budget, cost_of, most_macs
from ..arch.plan import Outputs
from ..arch.space import Arch, Axis, Space, Value

KINDS = ("resolution", "stride")
NEAR = 0.75  # a design is tried if it has this part of the MACs that the budgets allow
FAR = 1.5  # times: a design whose widths change by more is another design
FACTORS = [2 ** (i / 8) for i in range(-32, 33)]  # of a design's widths: 1/16 to 16
MOST = 4096  # shapes considered; of more, so many are drawn


def designs(space: Space, budget: Budget, outputs: Outputs, count: int) -> list[Arch]:
    """The space's own design in up to `count` shapes, all its widths scaled by one factor to the most that fits the
    budgets: those whose factor is nearest to 1 first, since the others are strangled or bloated.

    The design is the first named architecture, or else the middle of each ladder."""
    base, found = _design(space), {}
    for shape in _shapes(space):
        if fitted := _fitted(space, budget, outputs, base, shape):
            arch, factor = fitted
            found[arch] = abs(math.log(factor))
    return sorted(found, key=lambda arch: (found[arch], arch))[:count]


def design(space: Space, budget: Budget, outputs: Outputs) -> Arch | None:
    """The first named architecture in its own shape, its widths scaled to the budgets; None if the space names none, or
    if that changes its widths by more than FAR."""
    if not space.archs:
        return None
    base, shape = _design(space), {}
    for i, axis in enumerate(space.axes):
        if axis.kind in KINDS:
            if base[i] not in axis.choices:  # cropped
                return None
            shape[i] = base[i]
    fitted = _fitted(space, budget, outputs, base, shape)
    return fitted[0] if fitted is not None and 1 / FAR <= fitted[1] <= FAR else None


def _fitted(
    space: Space, budget: Budget, outputs: Outputs, base: tuple[Value, ...], shape: dict[int, Value]
) -> tuple[Arch, float] | None:  # fmt: skip
    """The base in this shape, its widths scaled by the largest factor that fits the budgets, and that factor; None if
    there is none, or if it is too small to use them."""
    sized = partial(_scaled, space, base, shape)
    # costs rise with the factor
    fits = bisect_left(FACTORS, True, key=lambda factor: not budget.holds(cost_of(space, sized(factor), outputs)))
    factor = FACTORS[max(fits - 1, 0)]
    arch = sized(factor)
    enough = cost_of(space, arch, outputs).macs >= NEAR * _allowed(space, budget, outputs)
    return (arch, factor) if fits and enough else None


@cache
def _allowed(space: Space, budget: Budget, outputs: Outputs) -> float:
    """The most MACs that an architecture of the space may have."""
    return min(most_macs(space, budget, outputs), budget.macs or math.inf)


def fixed(space: Space, arch: Arch) -> Space:
    """The space in the shape of `arch` alone."""
    return space.trimmed({
        axis.name: (value,) for axis, value in zip(space.axes, arch.values, strict=True) if axis.kind in KINDS
    })


def _shapes(space: Space) -> list[dict[int, Value]]:
    """The values of the axes that make a shape, by index."""
    places = [i for i, axis in enumerate(space.axes) if axis.kind in KINDS]
    ladders = [space.axes[i].choices for i in places]
    if math.prod(map(len, ladders)) > MOST:
        rng = Random(f"shapes/{space.name}")
        drawn = [tuple(rng.choice(choices) for choices in ladders) for _ in range(MOST)]
        return [dict(zip(places, values, strict=True)) for values in dict.fromkeys(drawn)]
    return [dict(zip(places, values, strict=True)) for values in product(*ladders)]


def _design(space: Space) -> tuple[Value, ...]:
    """The values of the space's own design; they may lie off the ladders of a cropped space."""
    for named in space.archs.values():
        return named.arch.values
    return tuple(axis.choices[len(axis.choices) // 2] for axis in space.axes)


def _scaled(space: Space, base: tuple[Value, ...], shape: dict[int, Value], factor: float) -> Arch:
    """The base with the widths nearest to `factor` times its own, in this shape."""

    def value(i: int, axis: Axis) -> Value:
        own = base[i]
        if i in shape:
            return shape[i]
        if isinstance(own, tuple):
            return own if own in axis.choices else axis.choices[-1]
        wanted = own * factor if axis.kind == "width" else own
        return min(axis.choices, key=lambda choice: (abs(choice - wanted), choice))  # type: ignore[operator]

    return space.canonical(Arch(space.name, tuple(value(i, axis) for i, axis in enumerate(space.axes))))
