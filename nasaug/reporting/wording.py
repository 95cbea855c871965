"""How the figures of a comparison are written: with units, intervals and signs, and the wording of verdicts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ..core.metric import Metric, of_keys
from ..core.units import format_quantity
from . import tables

ENOUGH = 5  # minimum number of seeds for a verdict
PERCENT = Metric("accuracy", "%")
_ENDS = ("difference", "low", "high")
NOT_ENOUGH, BETTER, WORSE, NOT_SHOWN = "not enough seeds", "better", "worse", "no difference shown"


def metric_of(summary: dict[str, Any]) -> Metric:
    """The metric of a comparison's scores."""
    said = {"metric": summary["metric"]} if "metric" in summary else {}
    return of_keys(summary["arms"][0] | said)


def score(spread: dict[str, float | None] | None, metric: Metric) -> str:
    """A mean score and its interval: 71.23 ± 0.45 %; without "±" for one run, "-" if not recorded."""
    if spread is None:
        return "-"
    half = "" if spread["half"] is None else f"{metric.number(spread['mean'])} ± "
    return half + metric.show(spread["mean"] if spread["half"] is None else spread["half"])


def percent(spread: dict[str, float | None] | None) -> str:
    """`score` of an accuracy."""
    return score(spread, PERCENT)


def points(metric: Metric) -> str:
    """The unit of a difference of scores."""
    return "points" if metric.in_percent else metric.label


def signed(value: float | None, digits: int = 2) -> str:
    """+0.52, -0.10 or "-"; never -0.00."""
    if value is None:
        return "-"
    text = f"{value:+.{digits}f}"
    return text if float(text) else text.replace("-", "+")


def difference(versus: dict[str, Any] | None, metric: Metric = PERCENT) -> str:
    """+0.52 [-0.10, +1.14], or as much of it as is known."""
    known = {} if versus is None else {key: metric.signed(v) for key in _ENDS if (v := versus[key]) is not None}
    if "low" not in known:
        return known.get("difference", "-")
    return f"{known['difference']} [{known['low']}, {known['high']}]"


def p_value(versus: dict[str, Any] | None) -> str:
    """The corrected p value; "-" if there are too few seeds to interpret it."""
    if versus is None or versus["p_holm"] is None or versus["verdict"] == NOT_ENOUGH:
        return "-"
    return "< 0.001" if versus["p_holm"] < 0.001 else f"{versus['p_holm']:.3f}"


def verdict(versus: dict[str, Any] | None) -> str:
    return "reference" if versus is None else versus["verdict"]


def quantity(value: float | None, kind: str) -> str:
    """`value` as units.format_quantity prints it, "-" for None."""
    return "-" if value is None else format_quantity(value, kind)


COLUMNS: tuple[tuple[str, Callable[[dict[str, Any], Metric], str]], ...] = (
    ("n", lambda arm, _: str(arm["n"])),
    ("test", lambda arm, metric: score(arm[metric.key("test")], metric)),
    ("difference", lambda arm, metric: difference(arm["versus"], metric)),
    ("p (Holm)", lambda arm, _: p_value(arm["versus"])),
    ("verdict", lambda arm, _: verdict(arm["versus"])),
    ("net MACs", lambda arm, _: quantity(arm["macs"], "macs")),
    ("training MACs", lambda arm, _: quantity(arm["train_macs"], "macs")),
    ("time a run", lambda arm, _: quantity(arm["seconds"], "seconds")),
    ("peak memory", lambda arm, _: quantity(arm["peak_memory"], "bytes")),
)


def cells(summary: dict[str, Any]) -> list[list[str]]:
    """The table's header and a row for each arm, without columns that are empty for all arms."""
    metric = metric_of(summary)
    columns = [["arm", *(arm["arm"] for arm in summary["arms"])]]
    for title, show in COLUMNS:
        shown = [show(arm, metric) for arm in summary["arms"]]
        if any(cell != "-" for cell in shown):
            columns.append([f"test {metric.label}" if title == "test" else title, *shown])
    return [list(row) for row in zip(*columns, strict=True)]


def table(summary: dict[str, Any]) -> str:
    """The comparison as text: one line per arm, then the failures."""
    head, *rows = cells(summary)
    return "\n".join([tables.text(head, rows), *(f"failed: {told}" for told in failures(summary))])


def failures(summary: dict[str, Any]) -> Iterator[str]:
    """A line for each run that failed."""
    for cell in summary["failed"]:
        yield f"{cell.get('arm', '?')}, seed {cell.get('seed', '?')}: {cell.get('error', 'no reason given')}"
