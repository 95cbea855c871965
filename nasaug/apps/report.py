"""Finished training runs side by side: a table, a page, JSON and CSV. Reads result files alone, trains nothing.

Runs are grouped by arm (what differs) and paired by seed (what is shared).
"""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from .. import files, stats
from ..errors import BadInput, unknown
from ..progress import say
from ..rundir import RunDir
from ..units import format_quantity

FORMAT = "nasaug-comparison/1"
LEVEL = 0.95
EQUAL_COMPUTE = 0.005  # a difference in training compute too small to divide by
RESULT, CORRECT = "result.json", "test.safetensors"
ELSEWHERE = "trainings"  # the fact that names a comparison's runs where they are not in its folder
SWEPT = "sweep.csv"  # a sweep's trainings, with their paths


@dataclass(frozen=True, slots=True)
class Run:
    """A finished training run: what its result.json holds.

    Accuracies in percent; macs of one forward pass of the net; train_macs of all forward passes of training;
    seconds of training; peak_memory in bytes. None: not recorded.
    """

    path: Path
    arm: str
    seed: int
    method: str
    arch: str
    data: str
    data_key: str
    macs: int
    params: int
    val_top1: float
    test_top1: float
    test_images: int
    epochs: float
    train_macs: float
    seconds: float
    device: str
    train_top1: float | None = None
    peak_memory: int | None = None
    history: tuple[dict[str, float], ...] = ()
    command: str | None = None

    @property
    def on_cpu(self) -> bool:
        return self.device.startswith("CPU")

    def correct(self) -> np.ndarray | None:
        """Bool [test_images]: whether each test image was right; None where that was not kept."""
        path = self.path / CORRECT
        if not path.is_file():
            return None
        from safetensors import SafetensorError
        from safetensors.numpy import load

        remedy = "leave the file out, or run it again"
        try:
            correct = load(files.read_bytes(path))["correct"].astype(bool)
        except (SafetensorError, KeyError) as error:
            raise BadInput(f'{path} holds no tensor "correct" ({error}); {remedy}') from error
        if correct.shape != (self.test_images,) or abs(100 * correct.mean() - self.test_top1) > 0.01:
            right = f"{correct.sum()} of {correct.size} images right"
            result = f"{RESULT} says {self.test_top1:.2f} % of {self.test_images}"
            raise BadInput(f"{path} has {right}, but {result}; {remedy}")
        return correct


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """The finished training runs that `paths` name: run folders, or folders with runs somewhere below.

    An arm whose runs train several networks becomes an arm for each. Raises BadInput for a path without a
    finished run, and for a broken result.
    """
    folders = [folder for path in paths for folder in _finished_below(Path(path))]
    runs = [_read(folder) for folder in {folder.resolve(): folder for folder in folders}.values()]
    archs = {arm: {run.arch for run in runs if run.arm == arm} for arm in {run.arm for run in runs}}
    return [replace(run, arm=f"{run.arm}, {run.arch}") if len(archs[run.arm]) > 1 else run for run in runs]


def _finished_below(path: Path) -> list[Path]:
    if not path.is_dir():
        raise BadInput(f"{path} is not the folder of a run; give run folders, like runs/train-1")
    # a comparison or sweep is a run too, finished or not, with its cells below it
    below = [result.parent for result in sorted(path.rglob(RESULT)) if "test_top1" in RunDir(result.parent).result()]
    elsewhere = [] if below else _elsewhere(path)
    below = below or [run for run in elsewhere if run.is_dir()]
    if below:
        return below
    if elsewhere:
        gone = f"the trainings of {path} are gone, {elsewhere[0]} for one"
        raise BadInput(f"{gone}; put them back, or give the folder that they were moved to")
    if (path / RESULT).is_file():
        raise BadInput(f"{path / RESULT} has no test_top1: no training run; give the folders of train or netaug-train")
    if (path / "recipe.toml").is_file():
        raise BadInput(f"{path} is not finished (it has no {RESULT}); go on with it by --resume, or leave it out")
    raise BadInput(f"{path} holds no finished training run (no {RESULT} in it or below); give run folders")


def _elsewhere(path: Path) -> list[Path]:
    """The trainings that a comparison or a sweep names."""
    if (path / SWEPT).is_file():
        with open(path / SWEPT, newline="", encoding="utf-8", errors="surrogateescape") as file:
            return [Path(row["path"]) for row in csv.DictReader(file)]
    return [Path(run) for run in _told(path).get("facts", {}).get(ELSEWHERE, ())]


_TEXT, _COUNT, _FIGURE = (str,), (int,), (int, float)
_REQUIRED = {
    "seed": _COUNT, "method": _TEXT, "arch": _TEXT, "data": _TEXT, "data_key": _TEXT, "macs": _COUNT,
    "params": _COUNT, "val_top1": _FIGURE, "test_top1": _FIGURE, "test_images": _COUNT, "epochs": _FIGURE,
    "train_macs": _FIGURE, "seconds": _FIGURE, "device": _TEXT,
}  # fmt: skip
_OPTIONAL = {"arm": _TEXT, "train_top1": _FIGURE, "peak_memory": _FIGURE}


def _read(folder: Path) -> Run:
    result, path = RunDir(folder).result(), folder / RESULT
    fields: dict[str, Any] = {}
    for name, kinds in (_REQUIRED | _OPTIONAL).items():
        value = result.get(name)
        if value is None and name in _OPTIONAL:
            continue
        good = isinstance(value, kinds) and not isinstance(value, bool)
        if not good or (kinds != _TEXT and not math.isfinite(value)):
            raise BadInput(f"{path}: {name} is {value!r:.80}, not what a training run writes; run it again")
        fields[name] = value
    arm = fields.pop("arm", fields["method"])
    return Run(folder, arm, history=_history(result.get("val")), command=_command_of(folder), **fields)


def _history(rows: Any) -> tuple[dict[str, float], ...]:
    """The figures of each epoch."""
    figures = (row.items() for row in rows if isinstance(row, dict)) if isinstance(rows, list) else ()
    return tuple({name: value for name, value in row if isinstance(value, _FIGURE)} for row in figures)


def _command_of(folder: Path) -> str | None:
    path = folder / "env.json"
    command = files.read_json(path, "nasaug-env/1").get("command") if path.is_file() else None
    return command if isinstance(command, str) else None


def _check_seeds(runs: Sequence[Run]) -> None:
    seen: dict[tuple[str, int], Run] = {}
    for run in runs:
        other = seen.setdefault((run.arm, run.seed), run)
        if other is not run:
            twice = f"{other.path} and {run.path} are both {run.arm} with seed {run.seed}"
            raise BadInput(f"{twice}; give one of them, or runs of different seeds")


def _check_comparable(runs: Sequence[Run]) -> None:
    if not runs:
        raise BadInput("there is no finished run to report; give one or more run folders")
    first = runs[0]
    for run in runs:
        pair = f"{first.path} and {run.path} cannot be compared"
        if run.data_key != first.data_key:
            data = f"they used different data: {first.data} ({first.data_key}) and {run.data} ({run.data_key})"
            raise BadInput(f"{pair}: {data}; give runs on the same data and splits")
        if run.test_images != first.test_images:
            sizes = f"they were tested on {first.test_images} and {run.test_images} images"
            raise BadInput(f"{pair}: {sizes}; give runs with the same test images")


def summarise(
    runs: Sequence[Run], reference: str | None = None, match: str | None = None, facts: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The comparison as JSON holds it, "format": "nasaug-comparison/1".

    Args:
        reference: the arm that the others are compared to; default: `baseline` if there is one, else the first.
        match: what the arms were given equal amounts of: epochs, compute, seconds, or other words; None: not said.
        facts: of the comparison as a whole, kept under their names; "failed" is a list of {arm, seed, error},
            "commands" the command lines it took (default: the runs' own).

    Raises BadInput where the runs cannot be compared: other data, or the same arm and seed twice.
    """
    _check_comparable(runs)
    _check_seeds(runs)
    arms = {name: [run for run in runs if run.arm == name] for name in dict.fromkeys(run.arm for run in runs)}
    if reference is None:
        reference = "baseline" if "baseline" in arms else next(iter(arms))
    if reference not in arms:
        raise unknown("reference arm", reference, arms)
    facts = dict(facts or {})
    commands = facts.pop("commands", None) or dict.fromkeys(run.command for run in runs if run.command)
    rows = [_arm(name, members) for name, members in arms.items()]
    versus = _compare(arms, reference)
    for row in rows:
        row["versus"] = versus.get(row["arm"])
        if row["versus"] and match == "compute":  # what is left is a part of a step
            row["versus"]["per_percent"] = None
    first = runs[0]
    return {
        "format": FORMAT, "reference": reference, "match": match, "level": LEVEL,
        "comparisons": sum(v["p"] is not None for v in versus.values()),
        "data": first.data, "data_key": first.data_key, "test_images": first.test_images,
        "archs": list(dict.fromkeys(run.arch for run in runs)), "seeds": sorted({run.seed for run in runs}),
        "commands": list(commands),
        "arms": rows, "cost": _cost(runs), "failed": list(facts.pop("failed", None) or []), "facts": facts,
    }  # fmt: skip


def _arm(name: str, runs: Sequence[Run]) -> dict[str, Any]:
    def values(field: str) -> list[Any]:
        return [getattr(run, field) for run in runs]

    def spread(field: str) -> dict[str, float | None] | None:
        if None in values(field):
            return None
        mean, half = stats.interval(values(field), LEVEL)
        return {"mean": mean, "half": half}

    peaks = values("peak_memory")
    return {
        "arm": name, "n": len(runs), "seeds": sorted(values("seed")), "method": runs[0].method, "arch": runs[0].arch,
        "test_top1": spread("test_top1"), "val_top1": spread("val_top1"), "train_top1": spread("train_top1"),
        "macs": fmean(values("macs")), "params": fmean(values("params")), "epochs": fmean(values("epochs")),
        "train_macs": fmean(values("train_macs")), "seconds": fmean(values("seconds")),
        "peak_memory": None if None in peaks else max(peaks),
        "devices": list(dict.fromkeys(values("device"))), "cost": _cost(runs),
    }  # fmt: skip


def _cost(runs: Sequence[Run]) -> dict[str, float]:
    """Hours of training by the clock, on processors and on accelerators, and forward MACs, of all runs together."""
    cpu = math.fsum(run.seconds for run in runs if run.on_cpu) / 3600
    total = math.fsum(run.seconds for run in runs) / 3600
    macs = math.fsum(run.train_macs for run in runs)
    return {"runs": len(runs), "cpu_hours": cpu, "gpu_hours": total - cpu, "hours": total, "train_macs": macs}


def _compare(arms: dict[str, list[Run]], reference: str) -> dict[str, dict[str, Any]]:
    """Each other arm against the reference over the seeds that both have, by arm."""
    base = {run.seed: run for run in arms[reference]}
    pairs = {}
    for name, runs in arms.items():
        if name != reference:
            pairs[name] = [(run, base[run.seed]) for run in sorted(runs, key=lambda r: r.seed) if run.seed in base]
    tested = [name for name, shared in pairs.items() if len(shared) > 1]
    found: dict[str, stats.Paired] = {}
    for name, shared in pairs.items():
        if shared:
            ours, theirs = zip(*((a.test_top1, b.test_top1) for a, b in shared), strict=True)
            found[name] = stats.paired(ours, theirs, max(1, len(tested)), LEVEL)
    corrected = dict(zip(tested, stats.holm([found[name].p for name in tested]), strict=True))
    known = {seed: run.correct() for seed, run in base.items()}
    return {
        name: _versus(shared, found.get(name), corrected.get(name), [known[b.seed] for _, b in shared])
        for name, shared in pairs.items()
    }


_UNKNOWN = "difference low high p p_holm compute per_percent".split()  # where no seed is shared


def _versus(
    shared: list[tuple[Run, Run]], found: stats.Paired | None, p_holm: float | None, known: list[np.ndarray | None]
) -> dict[str, Any]:
    if found is None:
        return {"n": 0, "seeds": [], "verdict": stats.NOT_ENOUGH, "bootstrap": []} | dict.fromkeys(_UNKNOWN)
    resampled = []
    for (run, _), theirs in zip(shared, known, strict=True):
        ours = run.correct()
        if ours is not None and theirs is not None:
            drawn = stats.bootstrap(ours, theirs, level=LEVEL)
            resampled.append(
                {"seed": run.seed, "difference": drawn.difference, "low": drawn.low, "high": drawn.high}
            )
    compute = _ratio([a.train_macs for a, _ in shared], [b.train_macs for _, b in shared])
    equal = compute is None or abs(compute - 1) <= EQUAL_COMPUTE
    return {
        "n": found.n, "seeds": [run.seed for run, _ in shared], "difference": found.difference,
        "low": found.low, "high": found.high, "p": found.p, "p_holm": p_holm,
        "verdict": stats.verdict(found.n, found.difference, p_holm), "bootstrap": resampled,
        "compute": compute, "per_percent": None if equal else found.difference / (100 * (compute - 1)),
    }  # fmt: skip


def _ratio(ours: list[float], theirs: list[float]) -> float | None:
    return sum(ours) / sum(theirs) if sum(theirs) > 0 else None


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
    if versus is None or versus["p_holm"] is None or versus["verdict"] == stats.NOT_ENOUGH:
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
    rows = cells(summary)
    first, *widths = (max(map(len, column)) for column in zip(*rows, strict=True))
    lines = [
        "  ".join([arm.ljust(first), *(cell.rjust(width) for cell, width in zip(rest, widths, strict=True))])
        for arm, *rest in rows
    ]
    return "\n".join([*lines, *(f"failed: {told}" for told in failures(summary))])


def failures(summary: dict[str, Any]) -> Iterator[str]:
    """A line for each run that failed."""
    for cell in summary["failed"]:
        yield f"{cell.get('arm', '?')}, seed {cell.get('seed', '?')}: {cell.get('error', 'no reason given')}"


_CSV = (
    "arm", "seed", "method", "arch", "data", "test_top1", "test_images", "val_top1", "train_top1", "macs", "params",
    "epochs", "train_macs", "seconds", "peak_memory", "device", "path",
)  # fmt: skip


def _csv(runs: Sequence[Run]) -> str:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(_CSV)
    rows.writerows([getattr(run, field) for field in _CSV] for run in runs)
    return text.getvalue()


def write(folder: Path, summary: dict[str, Any], runs: Sequence[Run], name: str = "comparison") -> Path:
    """Writes NAME.json, NAME.csv (a row a run) and NAME.html into `folder`; returns the page's path."""
    from .page import page

    shown = page(summary, runs)
    files.write_json(folder / f"{name}.json", summary)
    files.write_with_names(folder / f"{name}.csv", _csv(runs))
    files.write_whole(folder / f"{name}.html", shown)
    return folder / f"{name}.html"


def command(paths: Sequence[Path], out: Path | None = None) -> dict[str, Any]:
    """Report the runs that `paths` name: print the table, and write the page `out` with its JSON and CSV beside it.

    `out` defaults to report.html. Returns the summary. What a comparison wrote of itself into its folder
    (reference, match, failed runs) is kept where that folder is the only path.
    """
    out = Path("report.html") if out is None else Path(out)
    if out.suffix != ".html":
        raise BadInput(f"--out {out}: give the path of a page, ending in .html")
    if not paths:
        raise BadInput("report needs run folders, like: nasaug report runs/train-1 runs/train-2")
    runs = read_runs(paths)
    told = _told(Path(paths[0])) if len(paths) == 1 else {}
    place = {arm["arm"]: i for i, arm in enumerate(told.get("arms", ()))}
    runs.sort(key=lambda run: place.get(run.arm, len(place)))
    names, reference = Counter(run.arm for run in runs), told.get("reference")
    facts = told.get("facts", {}) | {"failed": told.get("failed"), "commands": told.get("commands")}
    summary = summarise(runs, reference if reference in names else None, told.get("match"), facts)
    page = write(out.parent, summary, runs, out.stem)
    say(table(summary))
    say(f"page: {page}")
    return summary


def _told(folder: Path) -> dict[str, Any]:
    path = folder / "comparison.json"
    return files.read_json(path, FORMAT) if path.is_file() else {}
