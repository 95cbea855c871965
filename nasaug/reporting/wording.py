"""How the figures of a comparison are written: with units, intervals and signs, and the wording of verdicts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..core.metric import Metric, of_keys
from ..core.units import format_quantity
from ..rundirs.result import BY_DATA
from . import tables

ENOUGH = 5  # minimum number of seeds for a verdict
FOR_INTERVAL = 3  # and for an interval: that of two is 13 times as wide as they are apart
PERCENT = Metric("accuracy", "%")
_ENDS = ("difference", "low", "high")
NOT_ENOUGH, BETTER, WORSE, NOT_SHOWN = "not enough seeds", "better", "worse", "no difference shown"
NO_REFERENCE = "no reference of this length"
# why an arm cannot be compared with the reference at the same compute
MORE, LESS, NO_SEEDS = "reference not trained as long", "reference trained longer only", "no seeds in common"


def metric_of(summary: dict[str, Any]) -> Metric:
    """The metric of a comparison's scores."""
    said = {"metric": summary["metric"]} if "metric" in summary else {}
    return of_keys(summary["arms"][0] | said)


def score(spread: dict[str, Any] | None, metric: Metric) -> str:
    """A mean score and its interval, as `Metric.spread` says it; "-" if not recorded."""
    return "-" if spread is None else metric.spread(spread)


def percent(spread: dict[str, Any] | None) -> str:
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


def length(unit: str, value: float | None) -> str:
    """A training's length: 30 epochs, 1.2T MACs, 5 m."""
    if value is None:
        return "length auto"
    what = {"fraction": " of the images", "shots": " image{} per class", "epochs": " epoch{}"}.get(unit)
    if what is not None:
        return bare(unit, value) + what.format("" if value == 1 else "s")
    return quantity(value, unit) + (" MACs" if unit == "macs" else "")


def bare(unit: str, value: float) -> str:
    """The value of a length in epochs, shots or fractions without what it counts, as on an axis or in a list."""
    return f"{100 * value:g} %" if unit == "fraction" else f"{value:g}"


def by_data(arms: Sequence[dict[str, Any]]) -> bool:
    """Whether the entries of "arms" are told apart by how much data they were trained on."""
    return any(arm.get("length", {}).get("unit") in BY_DATA for arm in arms)


def lengths(several: Sequence[dict[str, Any]]) -> str:
    """Lengths as a list: 10, 30 and 90 epochs."""
    texts = [length(**each) for each in several]
    known = all(each["value"] is not None for each in several)
    if known and {each["unit"] for each in several} in ({"epochs"}, {"shots"}, {"fraction"}):
        texts[:-1] = [bare(**each) for each in several[:-1]]
    return listed(texts)


def listed(texts: Sequence[str]) -> str:
    """One, two and three."""
    return " and ".join(filter(None, (", ".join(texts[:-1]), texts[-1])))


def label(arm: dict[str, Any]) -> str:
    """An entry of "arms": its name, with the length if there are several."""
    return f"{arm['arm']}, {length(**arm['length'])}" if "length" in arm else arm["arm"]


def crossing(told: dict[str, Any], metric: Metric) -> str:
    """From what length on an arm gives more than the reference of the same training compute, in a sentence."""
    arm, points = told["arm"], told["points"]
    plain = "plain training" if told["reference"] == "baseline" else told["reference"]
    by_amount = any(point["length"]["unit"] in BY_DATA for point in points)
    of_the_same = f"than {plain} {'on as many images' if by_amount else 'of the same compute'}"
    more, no_more = "more", "no more"
    if not metric.higher_is_better:
        more, no_more = f"a lower {metric.label}", f"no lower {metric.label}"
    compared = [point for point in points if point["why"] is None]
    if not compared:
        return f"whether {arm} gives {more} {of_the_same} cannot be said {_reasons(points, told)}"
    last, gaining = compared[-1], [point for point in compared if point["gains"]]
    if told["from"] is not None:
        tail = compared[[point["length"] for point in compared].index(told["from"]) :]
        text = f"from {length(**told['from'])} on {arm} gives {more} {of_the_same} ({_evidence(tail[0], metric)}"
        open_ones = [point["length"] for point in tail[1:] if point["verdict"] == NOT_ENOUGH]
        if open_ones and tail[0]["verdict"] != NOT_ENOUGH:
            text += f"; {_VERDICTS[NOT_ENOUGH]} at {lengths(open_ones)}"
        text += ")"
    else:
        longest = "the longest tried" if last is points[-1] else "the longest that can be compared"
        longest = "the most tried" if by_amount else longest
        evidence = f"{longest}, {length(**last['length'])}: {_evidence(last, metric, where=False)}"
        if gaining:
            at = lengths([point["length"] for point in gaining])
            text = f"at {at} {arm} gives {more} {of_the_same}, but not at {evidence}"
        elif last["verdict"] == NOT_SHOWN:
            text = f"{arm} is not shown to give {more} {of_the_same}, up to {evidence}"
        else:
            text = f"{arm} gives {no_more} {of_the_same}, up to {evidence}"
    left = [point for point in points if point["why"] is not None]
    return f"{text}; it cannot be said {_reasons(left, told)}" if left else text


_VERDICTS = {NOT_ENOUGH: "not enough seeds for a verdict"}


def _evidence(point: dict[str, Any], metric: Metric, where: bool = True) -> str:
    at = f"{length(**point['length'])}: " if where else ""
    return f"{at}{difference(point, metric)}, {_VERDICTS.get(point['verdict'], point['verdict'])}"


def _reasons(points: Sequence[dict[str, Any]], told: dict[str, Any]) -> str:
    """At which lengths nothing can be said, and why: at 90 epochs, where it took 41.4T MACs, baseline at most 27T."""
    least, most = (quantity(macs, "macs") for macs in told["reference_macs"])
    texts = []
    for why in dict.fromkeys(point["why"] for point in points):
        those = [point for point in points if point["why"] == why]
        text = f"at {lengths([point['length'] for point in those])}"
        macs = [point["train_macs"] for point in those]
        if why == MORE:
            text += f", where it took {quantity(min(macs), 'macs')} MACs{_ends(macs, ' or more')}"
            text += f", {told['reference']} at most {most}"
        elif why == LESS:
            text += f", where it took {quantity(max(macs), 'macs')} MACs{_ends(macs, ' or less')}"
            text += f", {told['reference']} at least {least}"
        else:
            text += f", where it has no seeds in common with {told['reference']}"
        texts.append(text)
    return "; ".join(texts)


def _ends(macs: Sequence[float], words: str) -> str:
    return words if len(macs) > 1 else ""


def _epochs(arm: dict[str, Any]) -> str:
    if "length" not in arm:
        return "-"
    epochs = arm["epochs"]  # no whole number where MACs or seconds are given
    return f"{epochs:.0f}" if epochs >= 100 else f"{epochs:.3g}"


def _other_length(arm: dict[str, Any]) -> str:
    return length(**arm["length"]) if arm.get("length", {}).get("unit", "epochs") != "epochs" else "-"


COLUMNS: tuple[tuple[str, Callable[[dict[str, Any], Metric], str]], ...] = (
    ("length", lambda arm, _: _other_length(arm)),
    ("epochs", lambda arm, _: _epochs(arm)),
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
    """The comparison as text: a line per arm (and length), then where curves cross, then the failures."""
    head, *rows = cells(summary)
    failed = (f"failed: {told}" for told in failures(summary))
    return "\n".join([tables.text(head, rows), *crossings(summary), *failed])


def crossings(summary: dict[str, Any]) -> list[str]:
    """A sentence for each arm; empty without lengths."""
    return [each["words"] for each in summary.get("crossings", ())]


def failures(summary: dict[str, Any]) -> Iterator[str]:
    """A line for each run that failed."""
    for cell in summary["failed"]:
        yield f"{label({'arm': '?'} | cell)}, seed {cell.get('seed', '?')}: {cell.get('error', 'no reason given')}"
