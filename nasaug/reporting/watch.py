"""What a watching page shows of runs, as values for JSON, read from the files that runs write."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..core.errors import BadInput
from ..core.metric import Metric, of_keys
from ..core.units import format_quantity
from ..rundirs import live
from ..rundirs.folder import RunDir
from ..rundirs.overview import Overview, below

PAGES = ("search.html", "comparison.html", "robust.html", "report.html")  # that verbs leave in a run's folder
POINTS, SERIES, ROWS = 300, 30, 12  # most points of a curve, curves, and rows of a table
LOWER_IS_BETTER = ("mae",)  # a log names the metric alone; a result says its direction
REST = 10  # the folder is searched again after so many times the seconds that it took

Json = dict[str, Any]


class Watched:
    """The runs in a folder and below it. Nothing outside the folder is read."""

    def __init__(self, root: Path):
        self.root = root.resolve()
        self._runs: dict[str, Overview] = {}
        self._again = 0.0

    def runs(self) -> dict[str, Overview]:
        """The runs by their path in the folder, "." for the folder itself, the latest first."""
        begun = time.monotonic()
        if begun >= self._again:
            found = below(self.root) if self.root.is_dir() else []
            self._runs = {run.path.relative_to(self.root).as_posix(): run for run in found}
            now = time.monotonic()
            self._again = now + max(1.0, REST * (now - begun))
        return self._runs

    def overview(self) -> Json:
        """All runs, each with how far it is."""
        rows = [_row(name, run) for name, run in self.runs().items()]
        return {"folder": str(self.root), "time": time.time(), "runs": rows}

    def details(self, name: str) -> Json | None:
        """One run: its curves, candidates, cells and pages; None if there is no such run."""
        run = self.runs().get(name)
        if run is None:
            return None
        there, result, log = RunDir(run.path), _json(run.path / "result.json"), _log(run.path)
        metric = of_keys(result, "val") or _metric(log)
        shown = _candidates(there, log, metric)
        cells = [_row(cell.path.name, cell) for cell in self._cells(run)]
        return {
            **_row(name, run), "time": time.time(), "metric": None if metric is None else metric.to_plain(),
            "label": "" if metric is None else metric.axis, "curves": _curves(log, metric), "candidates": shown,
            "front": _front(shown, metric), "best": _best(there, result, shown, metric), "cells": cells,
            "pages": [page for page in PAGES if self.page(name, page) is not None],
        }  # fmt: skip

    def page(self, name: str, page: str) -> Path | None:
        """The file of a page of a run; None unless it is one of PAGES and lies in the folder."""
        run = self.runs().get(name)
        if run is None or page not in PAGES:
            return None
        path = (run.path / page).resolve()
        return path if path.is_file() and path.is_relative_to(self.root) else None

    def _cells(self, run: Overview) -> list[Overview]:
        """The trainings of a comparison, a sweep or an evaluation, where they lie in its folder."""
        folder = run.path / "cells"
        inside = folder.is_dir() and folder.resolve().is_relative_to(self.root)
        return sorted(below(folder), key=lambda cell: cell.path.name) if inside else []


def _row(name: str, run: Overview) -> Json:
    macs = "" if run.macs is None else format_quantity(run.macs, "macs")
    progress = live.read(run.path, run.state == "running") if run.state != "finished" else {}
    return {
        "id": name, "verb": run.verb, "state": run.state, "began": run.began, "network": run.arch, "macs": macs,
        "data": run.data, "figures": run.figures, "progress": progress,
    }  # fmt: skip


def _json(path: Path) -> Json:
    """The object in a file; empty if it cannot be read, as while it is being removed."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _log(run: Path) -> list[Json]:
    try:
        return RunDir(run).read_log()
    except (BadInput, OSError):
        return []


def _scores(event: Json) -> Iterator[str]:
    return (key for key in event if key.startswith("val_") and key != "val_loss")


def _metric(log: Sequence[Json]) -> Metric | None:
    """The metric of the validation scores in a log."""
    for event in log:
        for key in _scores(event):
            name = key.removeprefix("val_")
            return Metric(name, higher_is_better=False) if name in LOWER_IS_BETTER else Metric(name, "%")
    return None


def _curves(log: Sequence[Json], metric: Metric | None) -> list[Json]:
    """For each training its validation score by epoch, the last trainings only."""
    curves: dict[str, list[list[float]]] = {}
    for event in log if metric is not None else ():
        value = event.get(metric.key("val")) if metric is not None else None
        if event["event"] == "epoch" and isinstance(value, (int, float)):
            curves.setdefault(str(event.get("stage", "")), []).append([event.get("epoch", 0), value])
    return [{"name": name, "points": _thinned(points)} for name, points in list(curves.items())[-SERIES:]]


def _thinned(points: list[list[float]]) -> list[list[float]]:
    """At most about POINTS of the points, with the last."""
    every = -(-len(points) // POINTS)
    return points[:-1:every] + points[-1:]


def _candidates(run: RunDir, log: Sequence[Json], metric: Metric | None) -> list[Json]:
    """The candidates of a search: id, MACs (None in old logs) and validation score with the supernet's weights."""
    if metric is None:
        return []
    rows = _json(run.candidates_file).get("candidates")
    if rows is None:
        rows = [event | {"id": event.get("arch")} for event in log if event["event"] == "candidate"]
    key = metric.key("val")
    return [
        {"id": row.get("id"), "macs": row.get("macs"), "score": row[key]}
        for row in rows if isinstance(row, dict) and isinstance(row.get(key), (int, float))
    ]  # fmt: skip


def _front(candidates: Sequence[Json], metric: Metric | None) -> list[Json]:
    """The candidates that no other of as few MACs beats, by ascending MACs."""
    front: list[Json] = []
    if metric is None:
        return front
    known = [each for each in candidates if each["macs"] is not None]
    for each in sorted(known, key=lambda each: (each["macs"], metric.rank(each["score"]))):
        if not front or metric.better(each["score"], front[-1]["score"]):
            front.append(each)
    return front


def _best(run: RunDir, result: Json, candidates: Sequence[Json], metric: Metric | None) -> list[Json]:
    """The best candidates: those of the latest round of their own training, else by the supernet's score."""
    if metric is None:
        return []
    macs = {each["id"]: each["macs"] for each in candidates}
    if result.get("finalists"):
        key = f"trained_{metric.key('val')}"
        rows = [
            {"id": net["id"], "macs": net["macs"], "score": net.get(metric.key("val")), "own": net.get(key)}
            for net in result["finalists"]
        ]
    else:
        scores = {each["id"]: each["score"] for each in candidates}
        rounds = [each for each in _json(run.finalists_file).get("rounds", ()) if each]
        own = {name: judged[0] for each in rounds for name, judged in each.items()}
        trained = [name for each in reversed(rounds) for name in sorted(each, key=lambda n: metric.rank(each[n][0]))]
        names = list(dict.fromkeys([*trained, *sorted(scores, key=lambda name: metric.rank(scores[name]))]))
        rows = [{"id": n, "macs": macs.get(n), "score": scores.get(n), "own": own.get(n)} for n in names]
    return [
        {
            "id": row["id"], "macs": "" if row["macs"] is None else format_quantity(row["macs"], "macs"),
            "score": "" if row["score"] is None else metric.show(row["score"]),
            "own": "" if row["own"] is None else "diverged" if row["own"] == metric.worst else metric.show(row["own"]),
        }
        for row in rows[:ROWS]
    ]  # fmt: skip
