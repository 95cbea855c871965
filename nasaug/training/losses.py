"""The mean of each loss since the last evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..core.errors import Diverged, arg


class Losses:
    """Running sums by loss name, kept on the device until they are read."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def note(self, name: str, loss: Tensor) -> None:
        self._sums[name] = self._sums[name] + loss if name in self._sums else loss
        self._counts[name] = self._counts.get(name, 0) + 1

    def means(
        self, step: int, rate: float, summed: Callable[..., list[float]] | None = None
    ) -> dict[str, float]:  # fmt: skip
        """Means by name. Raises Diverged if one is not finite, with the `step` and, as a remedy, half the `rate`.

        `summed` returns the sums of its arguments over several processes, if the means are to be those of all."""
        means = {name: float(total) / self._counts[name] for name, total in self._sums.items()}
        if summed is not None:
            *totals, count = summed(*means.values(), 1.0)
            means = {name: total / count for name, total in zip(means, totals, strict=True)}
        for name, value in means.items():
            if not math.isfinite(value):
                half = f"{rate / 2:g}"
                lower = f"{arg.set} lr={half}, a supernet's by {arg.set} search.lr={half}"
                remedy = f"start anew with a lower learning rate: {lower}"
                raise Diverged(f"the {name} loss is {value} by step {step}; {remedy}")
        return means

    def copy(self) -> Losses:
        twin = Losses()
        twin._sums, twin._counts = dict(self._sums), dict(self._counts)
        return twin

    def state(self) -> dict:
        """The sums and counts in JSON-serialisable form, for checkpoints."""
        sums = {name: float(total) for name, total in self._sums.items()}
        return {"sums": sums, "counts": dict(self._counts)}

    def restore(self, state: dict) -> None:
        self._sums = {name: torch.tensor(total) for name, total in state["sums"].items()}
        self._counts = dict(state["counts"])
