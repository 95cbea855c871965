"""An overview of run folders: what each is, how far it has come, and its main figures."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core import files
from ..core.errors import BadInput, told_by, written
from ..core.metric import of_keys
from ..core.units import counted
from . import live
from .folder import ENV, JOB, RECIPE, RunDir
from .job import verb_of
from .result import is_training, read_result

ARMS = 3  # so many arms of a comparison are shown
FINISHED, RUNNING, STOPPED, UNBEGUN, DAMAGED = "finished", "running", "stopped", "never started", "damaged"


@dataclass(frozen=True)
class Overview:
    """A run. `state` is finished, running, stopped (it can be resumed), never started or damaged. `began` is in Unix
    seconds, `figures` says the main scores in words; `arch`, `data` and `macs` are empty or None where there are none.
    """

    path: Path
    verb: str
    state: str
    began: float
    arch: str = ""
    data: str = ""
    macs: int | None = None
    figures: str = ""

    def to_json(self) -> dict[str, Any]:
        return {name: str(value) if name == "path" else value for name, value in vars(self).items()}


def below(folder: Path) -> list[Overview]:
    """The runs in a folder or below it, the last that began first. The trainings of a comparison, sweep or search are
    part of that run, and not listed. Raises BadInput if the folder does not exist."""
    if not folder.is_dir():
        raise BadInput(f"{folder} is not a folder; give one that holds runs")
    return sorted(map(_seen, _found(folder)), key=lambda run: (-run.began, str(run.path)))


def _found(folder: Path) -> Iterator[Path]:
    if (folder / RECIPE).is_file() or (folder / JOB).is_file():
        yield folder
        return
    for each in sorted(folder.iterdir()):
        with contextlib.suppress(OSError):  # one that is being removed, or may not be listed
            if each.is_dir() and not each.is_symlink() and not each.name.startswith("."):
                yield from _found(each)


def _seen(path: Path) -> Overview:
    run, began = RunDir(path), 0.0
    try:
        began = min((f.stat().st_mtime for f in (path / ENV, path / RECIPE) if f.is_file()), default=0.0)
        verb = verb_of(path) or ""
        if run.finished:
            return _of_result(run, verb, began)
        state = RUNNING if run.in_use else STOPPED if verb else UNBEGUN
        figures = live.told(path) if state == RUNNING else ""
        return Overview(path, verb, state, began, figures=figures or _last(run))
    except (BadInput, OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        return Overview(path, "", DAMAGED, began, figures=files.escaped(written(told_by(error))))


def _of_result(run: RunDir, verb: str, began: float) -> Overview:
    table = run.result()
    facts = {name: table[name] for name in ("data", "macs") if name in table}
    if is_training(table):
        result = read_result(run.path)
        told = f"{result.arm}: {result}".replace(f" on {result.test_images} images", "")
        return Overview(run.path, verb, FINISHED, began, result.arch, **facts, figures=told)
    if run.comparison_file.is_file():
        return _of_comparison(run, verb, began)
    if run.sweep_file.is_file():
        many = counted(table["cells"], "training")
        grid = " x ".join(counted(len(table[key]), key[:-1]) for key in ("sizes", "methods"))
        data = files.read_json(run.sweep_file, "nasaug-sweep/1").get("data", "")
        return Overview(run.path, verb, FINISHED, began, data=data, figures=f"{many}: {grid}")
    return Overview(run.path, verb, FINISHED, began, table.get("found", ""), **facts, figures=_of_search(table))


def _of_comparison(run: RunDir, verb: str, began: float) -> Overview:
    """The arms' mean test scores with their intervals, the first ones if there are many."""
    summary = files.read_json(run.comparison_file, "nasaug-comparison/1")
    archs, arms = summary["archs"], summary["arms"]
    metric = of_keys(summary) or of_keys(arms[0])
    arch, macs = (archs[0], arms[0]["macs"]) if len(archs) == 1 else ("", None)
    told = ""
    if metric is not None:
        spreads = [arm[metric.key("test")] for arm in arms[:ARMS]]
        shown = ", ".join(f"{metric.spread(each)} {arm['arm']}" for each, arm in zip(spreads, arms, strict=False))
        told = f"test {metric.label} over {counted(max(len(each['values']) for each in spreads), 'seed')}: {shown}"
    more = f" and {len(arms) - ARMS} more" if len(arms) > ARMS else ""
    return Overview(run.path, verb, FINISHED, began, arch, summary["data"], macs, told + more)


def _of_search(table: dict[str, Any]) -> str:
    """The score of the net that a search found, after its own short training if it had one."""
    metric = of_keys(table, "val")
    if metric is None:
        return ""
    key = metric.key("val")
    own = next((net.get(f"trained_{key}") for net in table.get("finalists", ())), None)
    how = "with the supernet's weights" if own is None else "after a short training"
    return f"validation {metric.label} {metric.show(table[key] if own is None else own)} {how}"


def _last(run: RunDir) -> str:
    """The last evaluation in the log of an unfinished run."""
    for event in reversed(run.read_log()):
        if event.get("event") == "epoch":
            scores = (f"{key} {value:.4g}" for key, value in event.items() if key.startswith("val_"))
            return f"{event['stage']}, epoch {event['epoch']}: {', '.join(scores)}"
    return ""
