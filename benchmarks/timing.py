"""How speed is measured here: jobs in alternating rounds, and table rows with their targets."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

from nasaug.data import Data
from nasaug.data.split import MemorySplit

TINY = "mobilenetv2-tiny"
BATCH, SIZE = 128, 32
Job = Callable[[], object]


class Row(NamedTuple):
    """One figure: a ratio unless `unit` is given. `reach` and `goal` are bounds, upper ones if `most`."""

    path: str
    value: float
    unit: str = "x"
    reach: float | None = None
    goal: float | None = None
    most: bool = False

    def meets(self, bound: float | None) -> str:
        if bound is None:
            return ""
        return "yes" if (self.value <= bound if self.most else self.value >= bound) else "NO"

    def shown(self) -> str:
        digits = 0 if abs(self.value) >= 100 else 2
        return f"{self.value:,.{digits}f} {self.unit}"


def alternate(jobs: dict[str, Job], rounds: int, calls: int) -> dict[str, list[float]]:
    """Seconds per call of each job in each round, after one warm-up round."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds + 1):
        for name, job in jobs.items():
            begun = time.perf_counter()
            for _ in range(calls):
                job()
            times[name].append((time.perf_counter() - begun) / calls)
    return {name: rows[1:] for name, rows in times.items()}


def ratio(times: dict[str, list[float]], slow: str, fast: str) -> float:
    """How many times faster, median over rounds of the ratio within a round."""
    return median(a / b for a, b in zip(times[slow], times[fast], strict=True))


def made_up(train: int, val: int = 256, size: int = SIZE) -> Data:
    """Random RGB images in ten classes."""
    import torch

    g = torch.Generator().manual_seed(0)

    def split(n: int) -> MemorySplit:
        pixels = torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=g)
        return MemorySplit(pixels, torch.arange(n) % 10)

    return Data("made-up", tuple("0123456789"), flip=True, train=split(train), val=split(val), test=split(16))
