"""Accuracy against training compute: arms trained at several lengths, compared with a reference at the same compute;
or against the amount of data, which then takes the place of compute.

Between its own lengths the reference's score is interpolated linearly in the logarithm of compute, seed by seed; beyond
them nothing is said. Independent of runs and files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from ..reporting.wording import BETTER, FOR_INTERVAL, LESS, MORE, NO_SEEDS, NOT_ENOUGH
from . import stats

SAME = 0.005  # relative difference below which two amounts of compute are the same: a fraction of a step


@dataclass(frozen=True, slots=True)
class Point:
    """The runs of one arm at one length: (compute, score) by seed. There is at least one."""

    runs: Mapping[int, tuple[float, float]]

    @property
    def compute(self) -> float:
        return fmean(compute for compute, _ in self.runs.values())


@dataclass(frozen=True, slots=True)
class Compared:
    """An arm at one length against the reference at the same compute; `score` and `reference` are means over `seeds`.

    `why` is None, or the reason why they cannot be compared, one of wording's MORE, LESS (compute than all lengths of
    the reference) and NO_SEEDS (in common). Then there are no figures.
    """

    compute: float
    why: str | None = None
    seeds: tuple[int, ...] = ()
    score: float | None = None
    reference: float | None = None
    found: stats.Paired | None = None
    p_holm: float | None = None
    verdict: str | None = None


def interpolated(low: tuple[float, float], high: tuple[float, float], compute: float) -> float:
    """The score at `compute` on the line through two (compute, score), linear in log(compute).

    Outside them, where other seeds' compute may lie by a fraction of a step, it is the score of the nearer one."""
    (x0, y0), (x1, y1) = low, high
    if x0 <= 0 or x1 <= x0 or compute <= x0:
        return y0
    share = min(1.0, math.log(compute / x0) / math.log(x1 / x0))
    return y0 + share * (y1 - y0)


def neighbours(curve: Sequence[Point], compute: float) -> tuple[Point, Point] | str:
    """The reference's points on both sides of `compute`, twice the same if it has that compute; MORE or LESS if there
    are none."""
    curve = sorted(curve, key=lambda point: point.compute)
    for point in curve:
        if abs(point.compute - compute) <= SAME * compute:
            return point, point
    if compute > curve[-1].compute:
        return MORE
    if compute < curve[0].compute:
        return LESS
    after = next(i for i, point in enumerate(curve) if point.compute > compute)
    return curve[after - 1], curve[after]


def compare(
    arms: Mapping[str, Sequence[Point]], reference: Sequence[Point], level: float = 0.95, higher_is_better: bool = True
) -> dict[str, list[Compared]]:
    """Each arm's points, in their order, against the reference at the same compute, paired by seed.

    p values and intervals are corrected for all of these comparisons, as in `stats.paired` and `stats.holm`."""
    paired = {name: [_pairs(point, reference) for point in points] for name, points in arms.items()}
    tested = sum(
        not isinstance(pairs, str) and len(pairs) >= FOR_INTERVAL for each in paired.values() for pairs in each
    )
    found: dict[str, list[stats.Paired | None]] = {
        name: [None if isinstance(pairs, str) else _found(pairs, max(1, tested), level) for pairs in each]
        for name, each in paired.items()
    }
    p_values = [one.p for each in found.values() for one in each if one is not None and one.p is not None]
    holm = iter(stats.holm(p_values))
    compared: dict[str, list[Compared]] = {}
    for name, points in arms.items():
        compared[name] = []
        for point, pairs, one in zip(points, paired[name], found[name], strict=True):
            if isinstance(pairs, str) or one is None:
                compared[name].append(Compared(point.compute, why=str(pairs)))
                continue
            ours, theirs = zip(*pairs.values(), strict=True)
            p_holm = None if one.p is None else next(holm)
            verdict = stats.verdict(one.n, one.difference, p_holm, higher_is_better=higher_is_better)
            compared[name].append(
                Compared(point.compute, None, tuple(pairs), fmean(ours), fmean(theirs), one, p_holm, verdict)
            )
    return compared


def _found(pairs: Mapping[int, tuple[float, float]], comparisons: int, level: float) -> stats.Paired:
    ours, theirs = zip(*pairs.values(), strict=True)
    return stats.paired(ours, theirs, comparisons, level)


def _pairs(point: Point, reference: Sequence[Point]) -> dict[int, tuple[float, float]] | str:
    """(score, the reference's score at the same compute) by seed, for seeds that the reference has on both sides."""
    beside = neighbours(reference, point.compute)
    if isinstance(beside, str):
        return beside
    low, high = beside
    pairs = {
        seed: (score, interpolated(low.runs[seed], high.runs[seed], compute))
        for seed, (compute, score) in sorted(point.runs.items()) if seed in low.runs and seed in high.runs
    }  # fmt: skip
    return pairs or NO_SEEDS


def gains_from(compared: Sequence[Compared], higher_is_better: bool = True) -> int | None:
    """The index of the first point from which on the arm `gains` wherever it is compared; None if not at the last."""
    first = None
    for i in reversed(range(len(compared))):
        if compared[i].why is None:
            if not gains(compared[i], higher_is_better):
                break
            first = i
    return first


def gains(compared: Compared, higher_is_better: bool = True) -> bool:
    """Whether the arm is better than the reference at the same compute: by the verdict, or by the mean if there are not
    enough seeds for one."""
    if compared.found is None:
        return False
    if compared.verdict == NOT_ENOUGH:
        return compared.found.difference != 0 and (compared.found.difference > 0) == higher_is_better
    return compared.verdict == BETTER
