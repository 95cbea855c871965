"""Statistics of a comparison over seeds: intervals, paired differences, corrections, and the verdict in words.

Scores and differences are in the unit of the metric: percentage points for an accuracy. Independent of runs and files.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ..reporting.wording import BETTER, ENOUGH, FOR_INTERVAL, NOT_ENOUGH, NOT_SHOWN, WORSE


@dataclass(frozen=True, slots=True)
class Paired:
    """The mean of a - b over `n` pairs, with its t interval and p value (two-sided, uncorrected).

    low, high and p are None for fewer than FOR_INTERVAL pairs, which say hardly anything about the spread.
    """

    n: int
    difference: float
    low: float | None
    high: float | None
    p: float | None


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """The score of a minus that of b on the same images, and its percentile interval."""

    difference: float
    low: float
    high: float


def interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float | None]:
    """The mean and the half width of Student's t interval around it, None for fewer than FOR_INTERVAL values.

    Raises ValueError for an empty sequence or values that are not finite.
    """
    x = _finite(values)
    if len(x) < FOR_INTERVAL:
        return float(x.mean()), None
    from scipy.special import stdtrit  # as scipy.stats.t.ppf, but importing scipy.stats takes a second

    return float(x.mean()), float(stdtrit(len(x) - 1, (1 + level) / 2) * x.std(ddof=1) / math.sqrt(len(x)))


def paired(a: Sequence[float], b: Sequence[float], comparisons: int = 1, level: float = 0.95) -> Paired:
    """The mean difference a - b over pairs (same seed), with the paired t test.

    The interval is Bonferroni-corrected: `comparisons` of them hold simultaneously at `level`. The p value is for this
    pair of arms only; `holm` corrects a family of p values. Raises ValueError if the lengths differ.
    """
    if len(a) != len(b):
        raise ValueError(f"pairs are needed, not {len(a)} and {len(b)} values")
    if comparisons < 1:
        raise ValueError(f"comparisons must be 1 or more, not {comparisons}")
    x, y = _finite(a), _finite(b)
    mean = float((x - y).mean())
    if len(x) < FOR_INTERVAL:
        return Paired(len(x), mean, None, None, None)
    from scipy.stats import ttest_rel  # slow to import (a second)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # raised if all differences are (almost) the same
        found = ttest_rel(x, y)
        low, high = found.confidence_interval(1 - (1 - level) / comparisons)
    p = 1.0 if math.isnan(found.pvalue) else float(found.pvalue)  # NaN if all pairs are equal
    return Paired(len(x), mean, float(low), float(high), p)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p values (Scandinavian Journal of Statistics 6, 1979), in the input's order.

    scipy's false_discovery_control offers other corrections only.
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def bootstrap(
    correct_a: ArrayLike, correct_b: ArrayLike, draws: int = 2000, seed: int = 0, level: float = 0.95
) -> Bootstrap:
    """Paired bootstrap over test images of one seed's difference in accuracy, in percentage points, with its percentile
    interval. `bootstrap_of_means` is for other scores.

    `correct_a` and `correct_b` say whether each image is classified correctly, in the same order. An image that both or
    neither get right adds 0 to the difference, so a resample is one multinomial draw of three counts. This is exact and
    takes 1 ms for 10,000 images. scipy.stats.bootstrap draws every image and takes 0.4 s for the same interval up to
    chance: 10 s for six arms with five seeds.
    """
    a, b = np.asarray(correct_a, bool), np.asarray(correct_b, bool)
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise ValueError(f"two rows of the same images are needed, not shapes {a.shape} and {b.shape}")
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    shares = np.array([only_a, only_b, len(a) - only_a - only_b]) / len(a)
    drawn = np.random.default_rng(seed).multinomial(len(a), shares, size=draws)
    low, high = np.percentile(100 * (drawn[:, 0] - drawn[:, 1]) / len(a), [50 * (1 - level), 50 * (1 + level)])
    return Bootstrap(100 * (only_a - only_b) / len(a), float(low), float(high))


def bootstrap_of_means(
    a: ArrayLike, b: ArrayLike, draws: int = 2000, seed: int = 0, level: float = 0.95
) -> Bootstrap:  # fmt: skip
    """`bootstrap` for scores that are means of per-image values, in the values' unit; `a` and `b` list the same test
    images in the same order. The interval of a single image has no width.
    """
    d = np.asarray(a, float) - np.asarray(b, float)
    if d.ndim != 1 or not len(d):
        raise ValueError(f"two rows of the same images are needed, not shapes {np.shape(a)} and {np.shape(b)}")
    if len(d) == 1:  # which scipy refuses
        return Bootstrap(float(d[0]), float(d[0]), float(d[0]))
    from scipy.stats import bootstrap as resampled  # slow to import (a second)

    found = resampled(
        (d,), np.mean, method="percentile", n_resamples=draws, batch=100, confidence_level=level,
        rng=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    return Bootstrap(float(d.mean()), float(found.low), float(found.high))


def verdict(
    seeds: int, difference: float, p: float | None, alpha: float = 0.05, higher_is_better: bool = True
) -> str:  # fmt: skip
    """What can be said about a difference over `seeds` pairs; `p` is corrected (Holm) for all comparisons."""
    if seeds < ENOUGH or p is None:
        return NOT_ENOUGH
    if p >= alpha:
        return NOT_SHOWN
    return BETTER if (difference > 0) == higher_is_better else WORSE


def _finite(values: Sequence[float]) -> np.ndarray:
    x = np.asarray(values, float)
    if x.ndim != 1 or not len(x) or not np.isfinite(x).all():
        raise ValueError(f"one or more finite values are needed, not {values!r:.200}")
    return x
