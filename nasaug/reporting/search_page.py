"""A finished search as a self-contained HTML page: search_page.html.j2, filled in, and plots."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..core.metric import Metric
from . import plots, wording
from .templates import style, template

_STRATEGY = {
    "supernet": "supernet: it scores candidates, and the best of them are trained on their own",
    "halving": "halving: networks drawn by size are trained on their own, without a supernet",
}
_PICKED = {
    "best": "the best score, whatever it costs",
    "knee": "the knee of the front: the net farthest from the line between its ends",
}
_STAGES = {
    "shape": ("shapes, trained briefly", "training"), "supernet": ("supernet", "training"),
    "candidate": ("candidates, scored", "net"), "finalist": ("finalists, trained on their own", "training"),
}  # fmt: skip
_NAMES = {"macs": "MACs", "params": "parameters", "sram": "peak SRAM"}  # of objectives that are not plain words
_COSTS = {  # of rows: heading and unit
    "macs": ("MACs", "macs"), "params": ("params", "params"), "peak": ("SRAM", "bytes"), "flash": ("flash", "bytes"),
    "latency": ("latency", "milliseconds"),
}  # fmt: skip


def search_page(summary: Mapping[str, Any]) -> str:
    """The page for a search. The same summary gives the same page, byte for byte.

    Keys of `summary`; a score is None where there is none:
        name, data, images (what the data are), space: texts. drawing: the found net's SVG, which is not escaped.
        command, budget, searched (the budget that the search kept to, if another), strategy, seed, recipe (TOML),
            device, versions (by package), commit: what was asked, and where it ran; command and commit may be None.
        metric (its fields), by ("score" or "loss"), score_images (None without a supernet), val_images.
        axes: (name, kind, choices) each.
        shapes, front, finalists: rows, the best or smallest first: id, scored, full, trained, rounds, epochs, macs,
            params, peak, flash, resolution, and latency if there is a table; shapes also have their shape,
            {axis: value}. rounds is 0 where not trained. latency_of: the table's device and back end, or empty.
        objectives (names), pick: as in the recipe. ended: the finalists' front, as rows with the `rules` of pick that
            choose each net. candidates: their number. panels: trained and scored, each a list of the fields of
            pictures.Scatter, one for each pair of objectives; empty where there is nothing to draw.
        stages: stage, nets, train_macs (may be None), seconds. costs: what, unit, used, budget (may be None).
        little_used, agreed: sentences, or empty. commands: (what it does, command) each.
    """
    metric = Metric(**summary["metric"])
    return template("search_page.html.j2").render(
        title=f"Search on {summary['data']}: {summary['name']}", style=style(), summary=summary, metric=metric,
        better="higher" if metric.higher_is_better else "lower", facts=list(_facts(summary, metric)),
        costs=list(_costs(summary["costs"])), space=_space(summary["axes"]), shapes=_shapes(summary["shapes"], metric),
        chosen=_chosen(summary["shapes"], metric), untrained=sum(not row["rounds"] for row in summary["shapes"]),
        front=[_cells(row, ("scored",), metric) for row in summary["front"]],
        finalists=_finalists(summary["finalists"], metric),
        columns=_columns(summary["finalists"][0]), stages=list(_stages(summary["stages"])),
        figures={
            name: [_figure(name, panel, several=len(panels) > 1) for panel in panels]
            for name, panels in summary["panels"].items() if any(map(_drawable, panels))
        },
        several=len(summary["objectives"]) > 1, objectives=wording.listed(_objectives(summary, metric)),
        ended=[
            [*_cells(row, ("trained" if row["rounds"] else "full",), metric), ", ".join(row["rules"]) or "-"]
            for row in summary["ended"]
        ],
    )  # fmt: skip


def _facts(summary: Mapping[str, Any], metric: Metric) -> Iterator[tuple[str, str]]:
    """What was asked: terms and texts."""
    found = summary["finalists"][0]
    limit = f"; nets within {summary['searched']} were searched" if summary["searched"] else ""
    yield "Budget", summary["budget"] + limit
    yield "Data", f"{summary['data']}: {summary['images']}"
    yield "Space", summary["space"]
    if summary["latency_of"]:
        yield "Latency", f"of one image, as predicted by the table of {summary['latency_of']}"
    if len(summary["objectives"]) > 1:
        yield "Objectives", ", ".join(_objectives(summary, metric))
    if len(summary["objectives"]) > 1 or summary["pick"] != "best":
        lowest = f"the net of the front with the lowest {_name(summary['pick'].removeprefix('min-'))}"
        yield "Picked", _PICKED.get(summary["pick"], lowest)
    yield "Strategy", _STRATEGY[summary["strategy"]]
    yield "Seed", str(summary["seed"])
    scores = [("after its own training", found["trained"]), ("with the supernet's weights", found["full"])]
    told = ", ".join(f"{metric.show(score)} {when}" for when, score in scores if score is not None)
    yield "Found", summary["name"] + (f"; validation {metric.label} {told}" if told else "")
    versions = [f"{package} {version}" for package, version in summary["versions"].items() if version]
    commit = f" (commit {summary['commit'][:12]})" if summary["commit"] else ""
    yield "Ran on", f"{summary['device']}; {', '.join(versions)}{commit}"


def _costs(costs: Sequence[Mapping[str, Any]]) -> Iterator[list[str]]:
    for each in costs:
        used, limit = (wording.quantity(each[key], each["unit"]) for key in ("used", "budget"))
        share = "-" if each["budget"] is None else f"{100 * each['used'] / each['budget']:.0f} %"
        yield [each["what"], used, limit, share]


def _space(axes: Sequence[tuple[str, str, Sequence[Any]]]) -> list[list[str]]:
    """A header and a row for each stage: the choices of each property, those of all its blocks together."""
    ladders: dict[str, dict[str, list[str]]] = {}
    for name, kind, choices in axes:
        stage = name.split(".")[0] if "." in name else "network"
        told = ", ".join(_value(choice) for choice in choices)
        of = ladders.setdefault(stage, {}).setdefault(kind, [])
        if told not in of:
            of.append(told)
    kinds = list(dict.fromkeys(kind for of in ladders.values() for kind in of))
    rows = [[stage, *("; ".join(of.get(kind, ["-"])) for kind in kinds)] for stage, of in ladders.items()]
    return [["stage", *kinds], *rows]


def _value(choice: Any) -> str:
    return "/".join(map(str, choice)) if isinstance(choice, list | tuple) else str(choice)


def _chosen(shapes: Sequence[Mapping[str, Any]], metric: Metric) -> str:
    """The shape that the search went on in."""
    if not shapes or not shapes[0]["rounds"]:
        return ""
    best = shapes[0]
    shape = ", ".join(f"{axis} {_value(value)}" for axis, value in best["shape"].items())
    after = "" if best["trained"] is None else f" ({metric.show(best['trained'])} after {best['epochs']:.2g} epochs)"
    return f"{shape}{after}"


def _shapes(shapes: Sequence[Mapping[str, Any]], metric: Metric) -> list[list[str]]:
    """A header and a row for each shape that was trained."""
    axes, trained = list(shapes[0]["shape"]) if shapes else [], [row for row in shapes if row["rounds"]]
    rows = [
        [row["id"], _trained(row, metric), *_training(row), wording.quantity(row["macs"], "macs"),
         *(_value(row["shape"][axis]) for axis in axes)]
        for row in trained
    ]  # fmt: skip
    return [["design", "trained", "rounds", "epochs", "MACs", *axes], *rows] if rows else []


def _finalists(rows: Sequence[Mapping[str, Any]], metric: Metric) -> list[list[str]]:
    """A header and a row for each finalist; without a supernet there are no scores by it."""
    scores = {"supernet": "full", "scored": "scored"} if any(row["full"] is not None for row in rows) else {}
    table = [["arch", "rounds", "epochs", "trained", *scores, *_columns(rows[0])]]
    for row in rows:
        name, *cells = _cells(row, tuple(scores.values()), metric)
        table.append([name, *_training(row), _trained(row, metric), *cells])
    return table


def _columns(row: Mapping[str, Any]) -> list[str]:
    """The headings of a net's costs."""
    return [*(heading for key, (heading, _) in _COSTS.items() if key in row), "px"]


def _cells(row: Mapping[str, Any], scores: Sequence[str], metric: Metric) -> list[str]:
    """A net's id, scores and costs."""
    shown = ("-" if row[key] is None else metric.show(row[key]) for key in scores)
    costs = (wording.quantity(row[key], unit) for key, (_, unit) in _COSTS.items() if key in row)
    return [row["id"], *shown, *costs, str(row["resolution"])]


def _training(row: Mapping[str, Any]) -> list[str]:
    return [str(row["rounds"]), f"{row['epochs']:.2g}"] if row["rounds"] else ["-", "-"]


def _trained(row: Mapping[str, Any], metric: Metric) -> str:
    if row["trained"] is None:
        return "diverged" if row["rounds"] else "-"
    return metric.show(row["trained"])


def _stages(stages: Sequence[Mapping[str, Any]]) -> Iterator[list[str]]:
    for each in stages:
        name, unit = _STAGES[each["stage"]]
        nets = f"{each['nets']} {unit}{'' if each['nets'] == 1 else 's'}"
        yield [name, nets, *_took(each["train_macs"], each["seconds"])]
    if len(stages) > 1:
        macs = sum(each["train_macs"] or 0 for each in stages)
        yield ["total", "", *_took(macs, sum(each["seconds"] for each in stages))]


def _took(macs: float | None, seconds: float) -> list[str]:
    return [wording.quantity(macs, "macs"), wording.quantity(seconds, "seconds")]


def _objectives(summary: Mapping[str, Any], metric: Metric) -> list[str]:
    """The objectives in words; what ranks nets stands for accuracy."""
    ranks = "loss" if summary["by"] == "loss" else metric.label
    return [f"validation {ranks}" if name == "accuracy" else _name(name) for name in summary["objectives"]]


def _name(objective: str) -> str:
    return _NAMES.get(objective, objective)


def _drawable(panel: Mapping[str, Any]) -> bool:
    return any(map(len, panel["points"].values()))


def _figure(name: str, panel: Mapping[str, Any], several: bool) -> tuple[str, str]:
    """(caption, SVG) of a panel; `several`: of one of several panels, whose captions say what their axes are."""
    rounds = len(panel["points"]) > 1
    caption = {
        "scored": "Candidates with the weights of the supernet, and their Pareto front",
        "trained": "Finalists after their own training" + (rounds * ", by the round that they reached"),
    }[name]
    x, y = panel["x"], panel["y"]
    if several:
        caption += f": {y.label if y else 'score'} against {x.label}"
    drawn = plots.svg(caption, lambda axes: plots.scatter(
        axes, **{key: panel[key] for key in ("points", "front", "found", "limit", "line")}, xlabel=x.label,
        ylabel=y.label if y else panel["ylabel"].split(",")[0],
        x_text=lambda value: wording.quantity(value * x.factor, x.unit),
        y_text=y and (lambda value: wording.quantity(value * y.factor, y.unit)),
    ), height=3.9)  # fmt: skip
    return caption, drawn
