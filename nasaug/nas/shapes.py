"""The shape of a net, its resolution and where it halves its images, can be chosen before a supernet is trained.

Scores at different resolutions are not comparable in a supernet (docs/results/resolution.md). So the space's own design
is scaled to the budget in many shapes, each is trained briefly on its own, and the search goes on in the best shape
alone.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from functools import partial
from itertools import product
from random import Random

from ..arch.cost import Budget, cost_of, most_macs
from ..arch.plan import Outputs
from ..arch.space import Arch, Axis, Space, Value

KINDS = ("resolution", "stride")
NEAR = 0.75  # a design is tried if it has this part of the MACs that the budgets allow
FACTORS = [2 ** (i / 8) for i in range(-32, 33)]  # of a design's widths: 1/16 to 16
MOST = 4096  # shapes considered; of more, so many are drawn


def designs(space: Space, budget: Budget, outputs: Outputs, count: int) -> list[Arch]:
    """The space's own design in up to `count` shapes, all its widths scaled by one factor to the most that fits the
    budgets: those whose factor is nearest to 1 first, since the others are strangled or bloated.

    The design is the first named architecture, or else the middle of each ladder."""
    base = _design(space)
    wanted = NEAR * min(most_macs(space, budget, outputs), budget.macs or math.inf)
    found: dict[Arch, float] = {}
    for shape in _shapes(space):
        sized = partial(_scaled, space, base, shape)
        # costs rise with the factor
        fits = bisect_left(FACTORS, True, key=lambda factor: not budget.holds(cost_of(space, sized(factor), outputs)))
        arch = sized(FACTORS[max(fits - 1, 0)])
        if fits and cost_of(space, arch, outputs).macs >= wanted:
            found[arch] = abs(math.log(FACTORS[fits - 1]))
    return sorted(found, key=lambda arch: (found[arch], arch))[:count]


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
