"""How the figures of a comparison are written: with units, intervals and signs, and the words of a verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ..core.units import format_quantity
from . import tables

ENOUGH = 5  # seeds, under which no verdict is given
NOT_ENOUGH, BETTER, WORSE, NOT_SHOWN = "not enough seeds", "better", "worse", "no difference shown"


def percent(spread: dict[str, float | None] | None) -> str:
    """A mean accuracy and its interval: 71.23 ± 0.45 %; without "±" for one run, "-" where not recorded."""
    if spread is None:
        return "-"
    return f"{spread['mean']:.2f} %" if spread["half"] is None else f"{spread['mean']:.2f} ± {spread['half']:.2f} %"


def signed(value: float | None, digits: int = 2) -> str:
    """+0.52, -0.10 or "-"; never -0.00."""
    if value is None:
        return "-"
    text = f"{value:+.{digits}f}"
    return text if float(text) else text.replace("-", "+")


def difference(versus: dict[str, Any] | None) -> str:
    """+0.52 [-0.10, +1.14], or what there is of it."""
    if versus is None or versus["low"] is None:
        return signed(versus and versus["difference"])
    return f"{signed(versus['difference'])} [{signed(versus['low'])}, {signed(versus['high'])}]"


def p_value(versus: dict[str, Any] | None) -> str:
    """The corrected p value; "-" where there are too few seeds to read anything into it."""
    if versus is None or versus["p_holm"] is None or versus["verdict"] == NOT_ENOUGH:
        return "-"
    return "< 0.001" if versus["p_holm"] < 0.001 else f"{versus['p_holm']:.3f}"


def verdict(versus: dict[str, Any] | None) -> str:
    return "reference" if versus is None else versus["verdict"]


def quantity(value: float | None, kind: str) -> str:
    """`value` as units.format_quantity prints it, "-" for None."""
    return "-" if value is None else format_quantity(value, kind)


COLUMNS: tuple[tuple[str, Callable[[dict[str, Any]], str]], ...] = (
    ("n", lambda arm: str(arm["n"])),
    ("test top-1", lambda arm: percent(arm["test_top1"])),
    ("difference", lambda arm: difference(arm["versus"])),
    ("p (Holm)", lambda arm: p_value(arm["versus"])),
    ("verdict", lambda arm: verdict(arm["versus"])),
    ("net MACs", lambda arm: quantity(arm["macs"], "macs")),
    ("training MACs", lambda arm: quantity(arm["train_macs"], "macs")),
    ("time a run", lambda arm: quantity(arm["seconds"], "seconds")),
    ("peak memory", lambda arm: quantity(arm["peak_memory"], "bytes")),
)


def cells(summary: dict[str, Any]) -> list[list[str]]:
    """The table's head and a row for each arm, without the columns that no arm has anything in."""
    columns = [["arm", *(arm["arm"] for arm in summary["arms"])]]
    for title, show in COLUMNS:
        shown = [show(arm) for arm in summary["arms"]]
        if any(cell != "-" for cell in shown):
            columns.append([title, *shown])
    return [list(row) for row in zip(*columns, strict=True)]


def table(summary: dict[str, Any]) -> str:
    """The comparison for a terminal: one line an arm, then what failed."""
    head, *rows = cells(summary)
    return "\n".join([tables.text(head, rows), *(f"failed: {told}" for told in failures(summary))])


def failures(summary: dict[str, Any]) -> Iterator[str]:
    """A line for each run that failed."""
    for cell in summary["failed"]:
        yield f"{cell.get('arm', '?')}, seed {cell.get('seed', '?')}: {cell.get('error', 'no reason given')}"
