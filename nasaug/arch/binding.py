"""Which of several budgets binds: what each one leaves out of a space, and how much of it the largest nets within all
of them use."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

from .cost import Budget, cost_of, sample_near
from .plan import Outputs
from .space import Space

CLIMBS = 16  # random climbs to the largest nets within all budgets


class Bound(NamedTuple):
    """One of several budgets."""

    key: str  # of the cost
    over: float  # share of uniform samples over it
    alone: float  # share of uniform samples over it and over no other
    used: float  # mean share of it that the largest nets within all budgets use


def bounds(space: Space, budget: Budget, classes: Outputs, samples: int = 2000) -> tuple[Bound, ...]:
    """Each budget of several; empty if there are fewer than two. The space's smallest net must be within all."""
    keys = list(budget.limits)
    if len(keys) < 2:
        return ()
    rng = Random("reach")  # the samples of `reach`
    drawn = [budget.excess(cost_of(space, space.sample(rng), classes)) for _ in range(samples)]
    over = [{key for key, share in excess.items() if share > 0} for excess in drawn]
    top = cost_of(space, space.largest, classes).macs
    climbs = (sample_near(space, Random(f"bound/{i}"), top, top, classes, budget) for i in range(CLIMBS))
    within = [budget.excess(cost_of(space, arch, classes)) for arch in climbs]
    return tuple(
        Bound(
            key, sum(key in those for those in over) / samples, sum(those == {key} for those in over) / samples,
            1 + sum(excess[key] for excess in within) / CLIMBS,
        )
        for key in keys
    )  # fmt: skip
