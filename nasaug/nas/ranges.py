"""What a space offers under a budget: the range from which networks are drawn, how many there are, and a report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..arch.binding import Bound
from ..arch.cost import LABELS, Budget, Reach, all_within, cost_of, describe, most_macs
from ..arch.plan import Outputs, Plan
from ..arch.space import Arch, Space
from ..core.errors import arg

SLACK = 1.2  # draws reach up to this factor above the budget, so that the subnets tried surround it
# Subnets are trained from BELOW to ABOVE times the budget. A supernet that is also trained well above the budget ranks
# the networks just below it best (docs/results/finalist_ranks.md).
BELOW, ABOVE = 0.5, 2.4
KNOWN = 1000  # the networks within the budget are enumerated if there are at most this many


def macs_range(space: Space, budget: Budget, classes: Outputs) -> tuple[float, float]:
    """The MACs range in which candidates are first drawn, within the space: up to 1.2 times the most that all budgets
    allow, from an eighth of that most; without a MAC budget, from the smallest net."""
    low, high, most = _ends(space, budget, classes)
    return low if budget.macs is None else max(low, most / 8), min(high, SLACK * most)


def trained_range(space: Space, budget: Budget, classes: Outputs, several: bool) -> tuple[float, float]:
    """The MACs range of the subnets that a supernet is trained on, within the space: from half of the most that all
    budgets allow to 2.4 times that. With `several` objectives, or without a MAC budget, much smaller nets are judged
    too, so it begins where candidates are drawn."""
    low, high, most = _ends(space, budget, classes)
    if several or budget.macs is None:
        low = macs_range(space, budget, classes)[0]
    else:
        low = max(low, BELOW * most)
    return low, min(high, ABOVE * most)


def _ends(space: Space, budget: Budget, classes: Outputs) -> tuple[float, float, float]:
    """The MACs of the smallest net, of the largest, and the most that all budgets allow."""
    low, high = (float(cost_of(space, end, classes).macs) for end in (space.smallest, space.largest))
    return low, high, float(most_macs(space, budget, classes))


def known_within(space: Space, budget: Budget, classes: Outputs) -> dict[Plan, Arch] | None:
    """All networks within the budget; None if they are more than KNOWN."""
    return all_within(space, budget, classes, KNOWN)


def candidates_of(space: Space, budget: Budget, classes: Outputs, trials: int) -> int:
    """The number of candidates to judge: `trials`, or all networks within the budget if they are fewer."""
    known = known_within(space, budget, classes)
    return trials if known is None else min(trials, len(known))


def report_reach(reach: Reach, budget: Budget, bounds: Sequence[Bound] = ()) -> str:
    """What the space offers under the budget, in four lines; with several budgets, which of them leaves out what, and
    which one binds."""
    rows = [f"  {name:8s} {describe(getattr(reach, name))}" for name in ("smallest", "middle", "largest")]
    if not budget.limits:
        free = f"no budget is given, so nets of all sizes are searched; to limit them, give {arg.mac_budget} …"
        return "\n".join([*rows, f"  {free}"])
    share = f"  {100 * reach.feasible:.0f} % of {reach.samples} uniform samples are within: {budget}"
    return "\n".join([*rows, share, *_binding(bounds, budget.holds(reach.largest))])


def _binding(bounds: Sequence[Bound], free: bool) -> Iterator[str]:
    """Two lines about several budgets; `free`: even the largest net of the space is within all."""
    if not bounds:
        return
    over = (f"{100 * b.over:.0f} % by {LABELS[b.key]} ({100 * b.alone:.0f} % by that alone)" for b in bounds)
    yield f"  left out: {', '.join(over)}"
    first, *others = sorted(bounds, key=lambda b: -b.used)
    used = ", ".join(f"{100 * b.used:.0f} % of {LABELS[b.key]}" for b in (first, *others))
    yield f"  binding: {'none' if free else LABELS[first.key]}; the largest nets within all budgets use {used}"
