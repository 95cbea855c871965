"""A comparison as a self-contained HTML page: page.html.j2, filled in, and plots."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..core.boxes import SURE
from ..core.units import format_duration
from ..rundirs.folder import RunDir
from ..rundirs.result import lengths_of
from . import photos, plots, wording
from .templates import style, template

if TYPE_CHECKING:
    from ..core.metric import Metric
    from ..rundirs.result import TrainingResult

_MATCHED = {
    "epochs": "epochs: each arm passes over the training images as often",
    "compute": "compute: each arm takes as many forward MACs in training",
    "seconds": "seconds: each arm trains for as long by the clock",
}
_SAID = {
    wording.BETTER: "Better than the reference",
    wording.WORSE: "Worse than the reference",
    wording.NOT_SHOWN: "No difference to the reference shown, which does not show that there is none",
    wording.NO_REFERENCE: "The reference was not trained at this length",
    wording.NOT_ENOUGH: f"Not enough seeds for a verdict ({wording.ENOUGH} in common with the reference are needed)",
}
_MANY = 4  # a fact with more entries is collapsed


def page(summary: dict[str, Any], runs: Sequence[TrainingResult]) -> str:
    """The page for a summary of `runs` (comparison.report). The same input gives the same page, byte for byte."""
    arms, metric = summary["arms"], wording.metric_of(summary)
    names = list(dict.fromkeys(arm["arm"] for arm in arms))
    return template("page.html.j2").render(
        title=f"{_listed(summary['archs'])} on {summary['data']}: {_listed(names)}",
        style=style(), colours=plots.COLOURS,
        metric=metric, points=wording.points(metric), enough=wording.ENOUGH, not_enough=wording.NOT_ENOUGH,
        summary=summary, intervals=_intervals(summary), wide=_wide(summary), names=names,
        crossings=wording.crossings(summary), at_compute=_at_compute(summary, metric),
        facts=list(_facts(summary)), result=wording.cells(summary), reading=_reading(arms),
        more=[_more(arm, metric) for arm in arms], resampled=_resampled(arms, metric),
        effects=list(_effects(arms, metric)),
        ledger=[_ledger(wording.label(arm), arm["cost"]) for arm in arms] + [_ledger("total", summary["cost"])],
        devices=sorted({device for arm in arms for device in arm["devices"]}),
        failed=[_failed(cell) for cell in summary["failed"]], figures=list(_figures(summary, runs)),
        sure=SURE, detections=list(_detections(runs)),
    )  # fmt: skip


def _listed(names: Sequence[str], most: int = 4) -> str:
    return ", ".join(names) if len(names) <= most else f"{', '.join(names[:most])} and {len(names) - most} more"


# --- the contents of its tables ---


def _facts(summary: dict[str, Any]) -> Iterator[tuple[str, str | list[str]]]:
    """What was compared: terms, each with a text, or with a list if that is long."""
    seeds, count = ", ".join(map(str, summary["seeds"])), sum(arm["n"] for arm in summary["arms"])
    matched = _MATCHED.get(summary["match"], summary["match"])
    yield "Network", ", ".join(summary["archs"])
    yield "Data", f"{summary['data']} ({summary['data_key']}), {summary['test_images']:,} test images"
    lengths = {tuple(arm["length"].values()): arm["length"] for arm in summary["arms"] if "length" in arm}
    if lengths:
        ascending = sorted(lengths.values(), key=lambda each: (each["unit"], each["value"] or 0))
        yield "Training images" if wording.by_data(summary["arms"]) else "Lengths", wording.lengths(ascending)
    yield "Matched by", matched or "not said: the arms may differ in epochs and compute"
    yield "Reference", summary["reference"]
    yield "Seeds", f"{seeds} ({count} run{'s' if count > 1 else ''})"
    for name, value in summary["facts"].items():
        texts = list(map(str, value if isinstance(value, list) else [value]))
        yield str(name).replace("_", " ").capitalize(), texts if len(texts) > _MANY else ", ".join(texts)


def _reading(arms: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """The conclusions, each with the arms that it applies to."""
    said = {word: [a for a in arms if a["versus"] and a["versus"]["verdict"] == word] for word in _SAID}
    return [(_SAID[word], _at_lengths(those)) for word, those in said.items() if those]


def _at_lengths(arms: Sequence[dict[str, Any]]) -> str:
    """a, b, or with lengths: a at 10 and 30 epochs; b at 10 epochs."""
    if any("length" not in arm for arm in arms):
        return ", ".join(arm["arm"] for arm in arms)
    names = dict.fromkeys(arm["arm"] for arm in arms)
    of = {name: wording.lengths([arm["length"] for arm in arms if arm["arm"] == name]) for name in names}
    return "; ".join(f"{name} at {lengths}" for name, lengths in of.items())


def _more(arm: dict[str, Any], metric: Metric) -> list[str]:
    return [
        wording.label(arm), *(wording.score(arm[metric.key(s)], metric) for s in ("val", "train")),
        f"{round(arm['epochs'], 2):g}", wording.quantity(arm["params"], "params"), ", ".join(map(str, arm["seeds"])),
    ]  # fmt: skip


def _resampled(arms: Sequence[dict[str, Any]], metric: Metric) -> list[list[str]]:
    """The bootstrap of each seed, below a header row; empty if no arm has one."""
    found = {
        wording.label(arm): {seed["seed"]: wording.difference(seed, metric) for seed in arm["versus"]["bootstrap"]}
        for arm in arms if arm["versus"] and arm["versus"]["bootstrap"]
    }  # fmt: skip
    seeds = sorted({seed for by_seed in found.values() for seed in by_seed})
    rows = [[arm, *(by_seed.get(seed, "-") for seed in seeds)] for arm, by_seed in found.items()]
    return [["arm", *(f"seed {seed}" for seed in seeds)], *rows] if rows else []


def _effects(arms: Sequence[dict[str, Any]], metric: Metric) -> Iterator[list[str]]:
    for arm in arms:
        versus = arm["versus"]
        if versus and versus["compute"] is not None:
            effect = "equal compute" if versus["per_percent"] is None else wording.signed(versus["per_percent"], 4)
            compute = f"{wording.signed(100 * (versus['compute'] - 1), 1)} %"
            yield [wording.label(arm), compute, metric.signed(versus["difference"]), effect]


def _at_compute(summary: dict[str, Any], metric: Metric) -> list[list[str]]:
    """A row for each arm and length that says how it compares with the reference of the same training compute; none for
    amounts of data, where the table of results says it."""
    rows: list[list[str]] = []
    if wording.by_data(summary["arms"]):
        return rows
    for told in summary.get("crossings", ()):
        for point in told["points"]:
            length, macs = wording.length(**point["length"]), wording.quantity(point["train_macs"], "macs")
            scores = ["-" if point[key] is None else metric.show(point[key]) for key in ("score", "reference")]
            rows.append([
                told["arm"], length, macs, str(point["n"]), *scores, wording.difference(point, metric),
                wording.p_value(point), point["verdict"] or point["why"],
            ])  # fmt: skip
    return rows


def _ledger(name: str, cost: dict[str, Any]) -> list[str]:
    spent = (3600 * cost[key] for key in ("cpu_hours", "gpu_hours", "hours"))
    times = (format_duration(seconds) if seconds else "-" for seconds in spent)
    return [name, str(cost["runs"]), *times, wording.quantity(cost["train_macs"], "macs")]


def _failed(cell: dict[str, Any]) -> list[str]:
    return [wording.label({"arm": "?"} | cell), str(cell.get("seed", "?")), str(cell.get("error", "no reason given"))]


def _detections(runs: Sequence[TrainingResult]) -> Iterator[tuple[str, str]]:
    """(arm and seed, a sheet of images as data URI) for the first run of each arm that stored detections."""
    for run in {run.arm: run for run in reversed(runs)}.values():
        drawn = photos.detections(RunDir(run.path).shown_file, run.more.get("classes", ()))
        if drawn is not None:
            yield f"{run.arm}, seed {run.seed}", f"data:image/png;base64,{base64.b64encode(drawn).decode()}"


# --- the contents of its plots ---


def _figures(summary: dict[str, Any], runs: Sequence[TrainingResult]) -> Iterable[tuple[str, str]]:
    """(caption, SVG) for each plot."""
    names = list(dict.fromkeys(arm["arm"] for arm in summary["arms"]))
    several = any("length" in arm for arm in summary["arms"])
    by_data = several and wording.by_data(summary["arms"])
    told = [length and length._asdict() for length in lengths_of(runs)]
    of_runs = [(run.arm, length) for run, length in zip(runs, told, strict=True)]
    arms = [
        (arm, [run for run, of in zip(runs, of_runs, strict=True) if of == (arm["arm"], arm.get("length"))])
        for arm in summary["arms"]
    ]
    metric = wording.metric_of(summary)
    label, (test, val, train) = metric.label, (metric.key(split) for split in ("test", "val", "train"))
    seen = {key for run in runs for row in run.history for key in row}
    means = [
        plots.Interval(
            arm[test]["mean"], arm[test]["half"], wording.label(arm), [r.test_score for r in of_arm],
            arm["length"]["value"] if by_data else arm["train_macs"], names.index(arm["arm"]),
        )
        for arm, of_arm in arms
    ]  # fmt: skip

    def drawn(caption: str, draw: Any, *shown: Any, **options: float) -> tuple[str, str]:
        return caption, plots.svg(caption, lambda axes: draw(axes, *shown), **options)

    level = f"{100 * summary['level']:g} % interval over seeds{_wide(summary)}"
    mean = f"mean and {level}" if _intervals(summary) else "mean over seeds"
    bounds = (0.0, 100.0) if metric.in_percent else None
    of_compute = f"Test {label} against training compute (forward MACs of a run): {mean}"
    labels = "training MACs of a run", f"test {metric.axis}", lambda macs: wording.quantity(macs, "macs")
    if by_data:
        caption = f"Learning curves: test {label} against the training images used, {mean}"
        unit = summary["arms"][0]["length"]["unit"]
        used = "training images per class" if unit == "shots" else "training images used"
        axes = used, f"test {metric.axis}", lambda value: wording.bare(unit, value)
        yield drawn(caption, plots.against, means, *axes, bounds, True)
    elif several:
        caption = f"{of_compute}, a point for each length"
        yield drawn(caption, plots.against, means, *labels, bounds, True)
    caption = f"Test {label} of each arm: {mean.replace(' and ', ', ')}, and each seed as a dot"
    yield drawn(caption, plots.rows, means, f"test {metric.axis}", bounds, height=1.0 + 0.42 * len(arms))
    if val in seen:
        caption, fields = f"{label.capitalize()} on validation images while training, mean over seeds", [val]
        if train in seen:
            which = "validation (solid) and training images (dashed)"
            caption = f"{label.capitalize()} while training, mean over seeds: {which}"
            fields.append(train)
        yield drawn(caption, plots.curves, _lines(arms, fields), metric.axis)
    if "loss_base" in seen:
        caption = "Training loss of the network itself (augmented passes left out), mean over seeds"
        yield drawn(caption, plots.curves, _lines(arms, ["loss_base"]), "training loss")
    if not several:
        yield drawn(of_compute, plots.against, means, *labels, bounds)


def _intervals(summary: dict[str, Any]) -> bool:
    """Whether some arm has enough seeds for an interval."""
    return any(arm["n"] >= wording.FOR_INTERVAL for arm in summary["arms"])


def _wide(summary: dict[str, Any]) -> str:
    """What is said of intervals of few seeds; empty if there are none."""
    few = [arm["n"] for arm in summary["arms"] if wording.FOR_INTERVAL <= arm["n"] < wording.ENOUGH]
    return f" (wide: there are {min(few)})" if few else ""


def _lines(arms: Sequence[tuple[dict[str, Any], list[TrainingResult]]], fields: Sequence[str]) -> list[plots.Line]:
    """The mean over the runs of each arm and length by epoch; the second field is dashed."""
    lines = []
    names = list(dict.fromkeys(arm["arm"] for arm, _ in arms))
    for arm, runs in arms:
        for field in fields:
            epochs = sorted({row["epoch"] for run in runs for row in run.history if field in row and "epoch" in row})
            means = [_mean_at(runs, field, epoch) for epoch in epochs]
            lines.append(plots.Line(names.index(arm["arm"]), epochs, means, dashed=field != fields[0]))
    return lines


def _mean_at(runs: Sequence[TrainingResult], field: str, epoch: int) -> float:
    seen = [row[field] for run in runs for row in run.history if row.get("epoch") == epoch and field in row]
    return sum(seen) / len(seen)
