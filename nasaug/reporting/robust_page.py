"""What runs can stand, as tables and as a self-contained HTML page: robust_page.html.j2, filled in, and plots."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any

from . import plots, tables
from .templates import style, template

Run = dict[str, Any]


def page(told: dict[str, Any]) -> str:
    """The page for the contents of robust.json. The same input gives the same page, byte for byte."""
    runs, settings = told["runs"], told["settings"]
    names = {run["run"]: f"{run['arm']}, seed {run['seed']} ({run['run']})" for run in runs}
    return template("robust_page.html.j2").render(
        title=f"Robustness: {', '.join(dict.fromkeys(run['arm'] for run in runs))}", style=style(),
        colours=plots.COLOURS, names=list(names.values()), facts=list(_facts(told)), summary=_summary(runs),
        errors=_errors(runs), attacks=_attacks(runs), thin=_thin(runs),
        likeness=[[each["run"], *(_number(each["cka"].get(run["run"]), 3) for run in runs)] for each in runs],
        figures=list(_figures(runs, settings)), frost=told["frost"], drawn="frost" in settings["corruptions"],
        attacked=runs[0]["attacked"],
    )  # fmt: skip


def table(runs: Sequence[Run]) -> str:
    """The summary, the errors by corruption and the accuracies under attack, as text."""
    shown = [_summary(runs), _errors(runs), _attacks(runs), _thin(runs)]
    return "\n\n".join(tables.text(rows[0], rows[1:]) for rows in shown if len(rows) > 1)


def _number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _facts(told: dict[str, Any]) -> Iterator[tuple[str, str]]:
    s = told["settings"]
    yield "Reference", told["reference"]
    yield "Test images", f"{told['runs'][0]['images']:,}"
    yield "Severities", ", ".join(map(str, s["severities"]))
    if s["eps"]:
        yield "Attacks", f"FGSM and PGD ({s['steps']} steps), on {told['runs'][0]['attacked']:,} images"
    yield "Seed", str(s["seed"])


def _summary(runs: Sequence[Run]) -> list[list[str]]:
    head = ["run", "arm", "seed", "error %", "corrupted %", "mCE %", "relative mCE %", "effective rank"]
    rows = [
        [
            run["run"], run["arm"], str(run["seed"]), _number(run["error"]), _number(run["mean_error"]),
            _number(run["mce"], 1), _number(run["relative_mce"], 1),
            f"{_number(run['effective_rank'], 1)} of {run['features']}",
        ]
        for run in runs
    ]  # fmt: skip
    return [head, *rows]


def _errors(runs: Sequence[Run]) -> list[list[str]]:
    """A row for each run and corruption: the error at each severity and their mean."""
    if not runs[0]["errors"]:
        return []
    severities = list(next(iter(runs[0]["errors"].values())))
    rows = [
        [name, run["run"], *map(_number, run["errors"][name].values()), _number(fmean(run["errors"][name].values()))]
        for name in runs[0]["errors"] for run in runs
    ]  # fmt: skip
    return [["corruption", "run", *(f"error % at {s}" for s in severities), "mean"], *rows]


def _attacks(runs: Sequence[Run]) -> list[list[str]]:
    if not runs[0]["attacks"]:
        return []
    radii = list(runs[0]["attacks"]["fgsm"])
    rows = [
        [kind.upper(), run["run"], *map(_number, _radii(run, kind)[1])] for kind in ("fgsm", "pgd") for run in runs
    ]
    return [["attack", "run", "accuracy %", *(f"eps {eps}/255" for eps in radii)], *rows]


def _thin(runs: Sequence[Run]) -> list[list[str]]:
    rows = [[run["run"], name, _number(value, 3)] for run in runs for name, value in run["thin_cka"].items()]
    return [["run", "thin net", "linear CKA with its base"], *rows]


def _figures(runs: Sequence[Run], settings: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(caption, SVG): accuracy against severity, the mean and each corruption, and against eps."""
    severities = [str(s) for s in settings["severities"]]

    def lines(of: Any) -> list[plots.Line]:
        return [plots.Line(i, *of(run)) for i, run in enumerate(runs)]

    def drawn(caption: str, made: list[plots.Line], xlabel: str) -> tuple[str, str]:
        def draw(axes: Any) -> None:
            plots.curves(axes, made, "test accuracy (%)")
            axes.set(xlabel=xlabel)

        return caption, plots.svg(caption, draw)

    def at(run: Run, names: Sequence[str]) -> tuple[list[float], list[float]]:
        means = [100 - fmean(run["errors"][name][s] for name in names) for s in severities]
        return [0.0, *map(float, severities)], [100 - run["error"], *means]

    names = list(runs[0]["errors"])
    if len(names) > 1:
        caption = f"Accuracy against severity, mean over {len(names)} corruptions (0: not corrupted)"
        yield drawn(caption, lines(lambda run: at(run, names)), "severity")
    if runs[0]["attacks"]:
        for kind in ("fgsm", "pgd"):
            of_runs = lines(lambda run, k=kind: _radii(run, k))
            yield drawn(f"Accuracy against eps under {kind.upper()}", of_runs, "eps (1/255)")
    for name in names:
        yield drawn(f"Accuracy against severity: {name}", lines(lambda run, n=name: at(run, [n])), "severity")


def _radii(run: Run, kind: str) -> tuple[list[float], list[float]]:
    found = run["attacks"]["clean"] | run["attacks"][kind]
    return [float(eps) for eps in found], list(found.values())
