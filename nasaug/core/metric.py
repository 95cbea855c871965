"""A task's metric: its name, its direction and how scores are formatted. Also used by everything that reads results."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

WORST = 1e30  # for metrics where lower is better: worse than any net's score


@dataclass(frozen=True, slots=True)
class Metric:
    """`name` is part of keys in files (val_NAME, test_NAME); `unit` is printed after a score, like "%" or "kg"."""

    name: str
    unit: str = ""
    higher_is_better: bool = True

    @property
    def label(self) -> str:
        """The name for display, with a hyphen before trailing digits: abc5 becomes abc-5."""
        return re.sub(r"(?<=[a-z])(?=\d+$)", "-", self.name)

    @property
    def in_percent(self) -> bool:
        return self.unit == "%"

    @property
    def axis(self) -> str:
        """The label of a plot's axis, with the unit if there is one."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    @property
    def worst(self) -> float:
        """The worst score, for a net that cannot be evaluated, for example because its training diverged."""
        return 0.0 if self.higher_is_better else WORST

    @property
    def behind(self) -> str:
        """The side on which worse scores lie."""
        return "below" if self.higher_is_better else "above"

    @property
    def direction(self) -> str:
        """The direction in Optuna's terms."""
        return "maximize" if self.higher_is_better else "minimize"

    def key(self, split: str) -> str:
        """The key of a split's score in a file."""
        return f"{split}_{self.name}"

    def rank(self, score: float) -> float:
        """A sort key: better scores have lower ranks."""
        return -score if self.higher_is_better else score

    def better(self, score: float, other: float | None) -> bool:
        """Whether `score` is better than `other`; None means there is no other."""
        return other is None or self.rank(score) < self.rank(other)

    def best(self, scores: Iterable[float]) -> float:
        """The best score; the first one if several tie."""
        return min(scores, key=self.rank)

    def best_told(self, scores: Iterable[float]) -> tuple[float, str]:
        """The best score's rank, and what progress says of it: best mae 3.2."""
        best = self.best(scores)
        return self.rank(best), f"best {self.label} {self.show(best)}"

    def number(self, value: float) -> str:
        """A score without its unit: two decimals for percentages, else four significant digits."""
        return f"{value:.2f}" if self.in_percent else f"{value:.4g}"

    def show(self, value: float) -> str:
        """A score with its unit: 71.23 %, or 0.1234."""
        return f"{self.number(value)} {self.unit}" if self.unit else self.number(value)

    def spread(self, spread: Mapping[str, Any]) -> str:
        """A mean score and its interval: 71.23 ± 0.45 %; each score if there are too few for one: 71.02, 71.44 %."""
        if spread["half"] is not None:
            return f"{self.number(spread['mean'])} ± {self.show(spread['half'])}"
        *others, last = spread.get("values") or [spread["mean"]]
        return "".join(f"{self.number(value)}, " for value in others) + self.show(last)

    def signed(self, value: float) -> str:
        """A difference of two scores with its sign; never -0.00."""
        text = f"{value:+.2f}" if self.in_percent else f"{value:+.4g}"
        return text if float(text) else text.replace("-", "+")

    def to_plain(self) -> dict[str, Any]:
        """The metric as stored in files. Files omit a percentage where higher is better: `of_keys` infers it."""
        return {"name": self.name, "unit": self.unit, "higher_is_better": self.higher_is_better}

    @property
    def told(self) -> dict[str, Any]:
        """The entry for files, {"metric": …}; empty if the metric can be inferred from the keys."""
        usual = self == Metric(self.name, "%")
        return {} if usual else {"metric": self.to_plain()}


def of_keys(table: dict[str, Any], split: str = "test") -> Metric | None:
    """The metric of a result: the one stored in it, else a percentage with the name found in the keys of its scores.
    None if it has no scores, or if the stored metric is malformed."""
    said = table.get("metric")
    if said is not None:
        right = isinstance(said, dict) and {k: type(v) for k, v in said.items()} == _TYPES
        return Metric(**said) if right else None
    names = [key.removeprefix(f"{split}_") for key in table if key.startswith(f"{split}_")]
    names = [name for name in names if f"val_{name}" in table]
    return Metric(names[0], "%") if len(names) == 1 else None


_TYPES = {"name": str, "unit": str, "higher_is_better": bool}
