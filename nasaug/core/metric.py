"""What a score is called, which way it is better, and how it is written. Pure: a task has one, whatever reads results
needs it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

WORST = 1e30  # of a figure that is better when lower: what no net comes to


@dataclass(frozen=True, slots=True)
class Metric:
    """`name` is a part of keys in files (val_NAME, test_NAME); `unit` is written after a figure, like "%" or "kg"."""

    name: str
    unit: str = ""
    higher_is_better: bool = True

    @property
    def label(self) -> str:
        """The name as people write it: a hyphen before what it ends with, where that is a number."""
        return re.sub(r"(?<=[a-z])(?=\d+$)", "-", self.name)

    @property
    def in_percent(self) -> bool:
        return self.unit == "%"

    @property
    def axis(self) -> str:
        """For the axis of a plot: the label, and the unit where there is one."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    @property
    def worst(self) -> float:
        """A score that no net is below: what one has that cannot be judged, since its training diverged, say."""
        return 0.0 if self.higher_is_better else WORST

    @property
    def behind(self) -> str:
        """Where a worse score lies."""
        return "below" if self.higher_is_better else "above"

    @property
    def direction(self) -> str:
        """As Optuna calls it."""
        return "maximize" if self.higher_is_better else "minimize"

    def key(self, split: str) -> str:
        """The key of a split's score in a file."""
        return f"{split}_{self.name}"

    def rank(self, score: float) -> float:
        """To sort by, or to find the best as the least: the better score has the lower rank."""
        return -score if self.higher_is_better else score

    def better(self, score: float, other: float | None) -> bool:
        """Whether a score is better than another one, or there is no other."""
        return other is None or self.rank(score) < self.rank(other)

    def best(self, scores: Iterable[float]) -> float:
        """The best of some, the first of those that tie."""
        return min(scores, key=self.rank)

    def number(self, value: float) -> str:
        """A score without its unit: with two decimals in percent, else to four figures."""
        return f"{value:.2f}" if self.in_percent else f"{value:.4g}"

    def show(self, value: float) -> str:
        """A score with its unit: 71.23 %, or 0.1234."""
        return f"{self.number(value)} {self.unit}" if self.unit else self.number(value)

    def signed(self, value: float) -> str:
        """A difference of two scores, with its sign; never -0.00."""
        text = f"{value:+.2f}" if self.in_percent else f"{value:+.4g}"
        return text if float(text) else text.replace("-", "+")

    def to_plain(self) -> dict[str, Any]:
        """As files hold it. Files of a share in percent, of which more is better, leave it out: `of_keys` finds it."""
        return {"name": self.name, "unit": self.unit, "higher_is_better": self.higher_is_better}

    @property
    def told(self) -> dict[str, Any]:
        """What a file says of it beside its keys: {"metric": …}, or nothing where the keys alone will do."""
        usual = self == Metric(self.name, "%")
        return {} if usual else {"metric": self.to_plain()}


def of_keys(table: dict[str, Any], split: str = "test") -> Metric | None:
    """The metric of a result: that which it names, else a share in percent, by the name in the keys of its splits'
    scores. None where it has no scores, or what it says of its metric is no such table."""
    said = table.get("metric")
    if said is not None:
        right = isinstance(said, dict) and {k: type(v) for k, v in said.items()} == _TYPES
        return Metric(**said) if right else None
    names = [key.removeprefix(f"{split}_") for key in table if key.startswith(f"{split}_")]
    names = [name for name in names if f"val_{name}" in table]
    return Metric(names[0], "%") if len(names) == 1 else None


_TYPES = {"name": str, "unit": str, "higher_is_better": bool}
