"""What a space offers under a budget: the range from which networks are drawn, how many there are, and a report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..arch.binding import Bound
from ..arch.cost import LABELS, Budget, Reach, all_within, cost_of, describe, most_macs
from ..arch.plan import Outputs, Plan
from ..arch.space import Arch, Space
from ..core.errors import arg

SLACK = 1.2  # draws reach up to this factor above the budget, so that trained and tried subnets surround it
KNOWN = 1000  # the networks within the budget are enumerated if there are at most this many


def macs_range(space: Space, budget: Budget, classes: Outputs) -> tuple[float, float]:
    """The MACs range in which subnets are trained and first drawn, within the space: up to 1.2 times the most that all
    budgets allow, from an eighth of that most; without a MAC budget, from the smallest net."""
    low, high = (cost_of(space, end, classes).macs for end in (space.smallest, space.largest))
    most = most_macs(space, budget, classes)
    return float(low if budget.macs is None else max(low, most / 8)), float(min(high, SLACK * most))


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
