"""A Gaussian process that predicts a candidate's score from its choices and its size, and proposes the next one.

It learns from the scores alone and needs neither Optuna nor a network (Rasmussen and Williams 2006, algorithm 2.1;
proposals by the upper confidence bound, Srinivas et al., ICML 2010).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..arch.cost import Cost
from ..arch.space import Arch, Space

SCALES = (1.0, 2.0, 4.0, 8.0, 16.0)  # length scales, and the shares of noise, among which the likelihood decides
NOISES = (0.01, 0.03, 0.1, 0.3, 1.0)
MOST = 400  # scores to learn from: the latest ones, since the time grows with their cube
HOPE = 0.5  # standard deviations by which an uncertain candidate's prediction is raised


def features(space: Space, arch: Arch, cost: Cost) -> list[float]:
    """One value for each rung above an axis's first, 1 if the choice is at least that high; log MACs; log parameters.

    So neighbouring rungs are alike, and rungs of tuples need no distance."""
    rungs = (axis.choices.index(value) for axis, value in zip(space.axes, arch.values, strict=True))
    steps = [
        float(rung >= step)
        for axis, rung in zip(space.axes, rungs, strict=True)
        for step in range(1, len(axis.choices))
    ]
    return [*steps, math.log(cost.macs), math.log(cost.params)]


@dataclass
class Predictor:
    """Scores by `features` [n, d], standardised; with a Gaussian kernel of one length scale for all features."""

    inputs: np.ndarray
    mean: float
    deviation: float
    scale: float
    lower: np.ndarray  # Cholesky factor of the kernel matrix
    weights: np.ndarray
    amplitude: float

    @classmethod
    def fit(cls, inputs: Sequence[Sequence[float]], scores: Sequence[float]) -> Predictor:
        """The process whose length scale and noise make the scores most likely. Needs at least one score."""
        x, y = np.array(inputs[-MOST:], dtype=float), np.array(scores[-MOST:], dtype=float)
        mean, deviation = float(y.mean()), float(y.std()) or 1.0
        z, apart = (y - mean) / deviation, _squared_distances(x, x)
        best: tuple[float, float, np.ndarray, np.ndarray, float] | None = None
        for scale in SCALES:
            kernel = np.exp(-apart / (2 * scale * scale))
            for noise in NOISES:
                lower = np.linalg.cholesky(kernel + noise * np.eye(len(z)))
                weights = np.linalg.solve(lower.T, np.linalg.solve(lower, z))
                amplitude = max(float(z @ weights) / len(z), 1e-12)
                likelihood = -0.5 * len(z) * math.log(amplitude) - float(np.log(np.diag(lower)).sum())
                if best is None or likelihood > best[0]:
                    best = likelihood, scale, lower, weights, amplitude
        assert best is not None
        _, scale, lower, weights, amplitude = best
        return cls(x, mean, deviation, scale, lower, weights, amplitude)

    def predict(self, inputs: Sequence[Sequence[float]]) -> tuple[np.ndarray, np.ndarray]:
        """Means and standard deviations [n] of the scores, without the noise of a single score."""
        near = np.exp(-_squared_distances(np.array(inputs, dtype=float), self.inputs) / (2 * self.scale**2))
        spread = np.linalg.solve(self.lower, near.T)
        variance = self.amplitude * np.clip(1.0 - (spread * spread).sum(0), 1e-12, None)
        return near @ self.weights * self.deviation + self.mean, np.sqrt(variance) * self.deviation


def _squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.clip((a * a).sum(1)[:, None] + (b * b).sum(1)[None] - 2 * a @ b.T, 0.0, None)


def propose(
    space: Space, judged: Mapping[Arch, tuple[Cost, float]], pool: Iterable[tuple[Arch, Cost]],
    worth: Callable[[float, Cost], float] = lambda score, _: score,
) -> Arch | None:  # fmt: skip
    """The most promising architecture of the pool by what is `judged`, whose scores are the higher the better: the one
    whose hopeful score is worth the most at its cost, which is known. None if the pool is empty."""
    costs = dict(sorted(dict(pool).items()))
    left = [(arch, features(space, arch, cost)) for arch, cost in costs.items()]
    if not left:
        return None
    known = [features(space, arch, cost) for arch, (cost, _) in judged.items()]
    mean, deviation = Predictor.fit(known, [score for _, score in judged.values()]).predict([x for _, x in left])
    hopeful = [worth(float(score), costs[arch]) for score, (arch, _) in zip(mean + HOPE * deviation, left, strict=True)]
    return left[int(np.argmax(hopeful))][0]
