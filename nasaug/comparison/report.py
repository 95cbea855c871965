"""Compares finished training runs: a table, a page, JSON and CSV. Only reads result files; trains nothing.

Runs are grouped by arm, and by length if an arm was trained at several, and paired by seed.
"""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from ..core import files
from ..core.errors import BadInput, arg, unknown
from ..core.progress import say
from ..reporting import wording
from ..reporting.page import page
from ..reporting.wording import FOR_INTERVAL, NO_REFERENCE, NOT_ENOUGH, table
from ..rundirs.folder import RESULT, RunDir
from ..rundirs.result import BY_DATA, Length, TrainingResult, is_training, lengths_of, read_result
from . import curves, stats

FORMAT = "nasaug-comparison/1"
LEVEL = 0.95
EQUAL_COMPUTE = curves.SAME  # relative difference in training compute below which gain per compute is not reported
ELSEWHERE = "trainings"  # the fact that lists a comparison's runs if they are outside its folder


def read_runs(paths: Sequence[Path]) -> list[TrainingResult]:
    """The finished training runs in `paths`: run folders, or folders with runs at any depth.

    An arm whose runs train several networks is split into one arm per network. Raises BadInput for a path without a
    finished run, and for a broken result.
    """
    folders = [folder for path in paths for folder in _finished_below(Path(path))]
    runs = [read_result(folder) for folder in {folder.resolve(): folder for folder in folders}.values()]
    archs = {arm: {run.arch for run in runs if run.arm == arm} for arm in {run.arm for run in runs}}
    return [replace(run, arm=f"{run.arm}, {run.arch}") if len(archs[run.arm]) > 1 else run for run in runs]


def _finished_below(path: Path) -> list[Path]:
    if not path.is_dir():
        raise BadInput(f"{path} is not the folder of a run; give run folders, like runs/train-1")
    # a comparison or sweep, finished or not, is a run folder too, with its cells below it
    below = [result.parent for result in sorted(path.rglob(RESULT)) if is_training(RunDir(result.parent).result())]
    elsewhere = [] if below else _elsewhere(path)
    below = below or [run for run in elsewhere if run.is_dir()]
    if below:
        return below
    if elsewhere:
        gone = f"the trainings of {path} are gone, {elsewhere[0]} for one"
        raise BadInput(f"{gone}; put them back, or give the folder that they were moved to")
    run = RunDir(path)
    if run.finished:
        remedy = "give the folders of train or netaug-train"
        raise BadInput(f"{run.result_file} has no test score: no training run; {remedy}")
    if run.recipe_file.is_file():
        raise BadInput(f"{path} is not finished (it has no {RESULT}); go on with it by {arg.resume}, or leave it out")
    raise BadInput(f"{path} holds no finished training run (no {RESULT} in it or below); give run folders")


def _elsewhere(path: Path) -> list[Path]:
    """The training folders listed by a comparison or a sweep."""
    swept = RunDir(path).swept_file
    if swept.is_file():
        with open(swept, newline="", encoding="utf-8", errors="surrogateescape") as file:
            return [Path(row["path"]) for row in csv.DictReader(file)]
    return [Path(run) for run in _comparison_in(path).get("facts", {}).get(ELSEWHERE, ())]


Arms = dict[tuple[str, Length | None], list[TrainingResult]]  # runs by arm and length


def _arms(runs: Sequence[TrainingResult]) -> Arms:
    """The runs of each arm, by length or amount of data if any arm has several: in the runs' order of arms, the short
    lengths first."""
    lengths = {id(run): length for run, length in zip(runs, lengths_of(runs), strict=True)}
    names = dict.fromkeys(run.arm for run in runs)

    def ascending(name: str) -> list[Length | None]:
        of_arm = {lengths[id(run)] for run in runs if run.arm == name}
        return sorted(of_arm, key=lambda length: (length.unit, length.value or 0.0) if length else ("", 0.0))

    return {
        (name, length): [run for run in runs if (run.arm, lengths[id(run)]) == (name, length)]
        for name in names for length in ascending(name)
    }  # fmt: skip


def _check_seeds(arms: Arms) -> None:
    for runs in arms.values():
        seen: dict[int, TrainingResult] = {}
        for run in runs:
            other = seen.setdefault(run.seed, run)
            if other is not run:
                twice = f"{other.path} and {run.path} are both {run.arm} with seed {run.seed}"
                raise BadInput(f"{twice}; give one of them, or runs of different seeds")


def _check_comparable(runs: Sequence[TrainingResult]) -> None:
    if not runs:
        raise BadInput("there is no finished run to report; give one or more run folders")
    first = runs[0]
    for run in runs:
        pair = f"{first.path} and {run.path} cannot be compared"
        if run.metric != first.metric:
            metrics = f"their scores are {first.metric.label} and {run.metric.label}"
            raise BadInput(f"{pair}: {metrics}; give runs of one task")
        fewer = run.amount() != first.amount() and "val_key" in run.more  # then the training images differ by design
        if run.data_key != first.data_key and not (fewer and run.more["val_key"] == first.more.get("val_key")):
            data = f"they used different data: {first.data} ({first.data_key}) and {run.data} ({run.data_key})"
            raise BadInput(f"{pair}: {data}; give runs on the same data and splits")
        if run.test_images != first.test_images:
            sizes = f"they were tested on {first.test_images} and {run.test_images} images"
            raise BadInput(f"{pair}: {sizes}; give runs with the same test images")


def summarise(
    runs: Sequence[TrainingResult], reference: str | None = None, match: str | None = None,
    facts: dict[str, Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The comparison as stored in JSON, "format": "nasaug-comparison/1".

    If an arm was trained at several lengths, "arms" has an entry for each arm and length, with its "length", {"unit":
    epochs, macs or seconds, "value": null if left to nasaug}; "versus" compares it with the reference at the same
    length. "crossings" then compares each arm with the reference at the same training compute: for each of the arm's
    lengths "points" has both scores, the reference's interpolated between its own lengths (`curves`), and their
    difference, or "why" there is none; "from" is the length from which on the arm gives more, or null; "words" says
    this in a sentence. With several amounts of data it is the same: their unit is fraction or shots, and they take the
    place of compute.

    Args:
        reference: the arm that the others are compared with; defaults to `baseline` if present, else the first.
        match: what the arms were given equal amounts of: epochs, compute, seconds, or a free text; None if unknown.
        facts: facts about the whole comparison, stored under their names; "failed" is a list of {arm, seed, error},
            "commands" the command lines used (defaults to those of the runs).

    Raises BadInput if the runs cannot be compared: different data, or the same arm and seed twice.
    """
    _check_comparable(runs)
    arms = _arms(runs)
    _check_seeds(arms)
    names = list(dict.fromkeys(name for name, _ in arms))
    if reference is None:
        reference = "baseline" if "baseline" in names else names[0]
    if reference not in names:
        raise unknown("reference arm", reference, names)
    facts = dict(facts or {})
    commands = facts.pop("commands", None) or dict.fromkeys(run.command for run in runs if run.command)
    rows = [_arm(name, length, members) for (name, length), members in arms.items()]
    versus = _compare(arms, reference)
    for row, arm in zip(rows, arms, strict=True):
        row["versus"] = versus.get(arm)
        if row["versus"] and match == "compute":  # the remaining difference is a fraction of a step
            row["versus"]["per_percent"] = None
    first = runs[0]
    return {
        "format": FORMAT, "reference": reference, "match": match, "level": LEVEL,
        "comparisons": sum(v["p"] is not None for v in versus.values()),
        "data": first.data, "data_key": first.data_key, "test_images": first.test_images, **first.metric.told,
        "archs": list(dict.fromkeys(run.arch for run in runs)), "seeds": sorted({run.seed for run in runs}),
        "commands": list(commands),
        "arms": rows, **_crossings(arms, rows, reference), "cost": _cost(runs),
        "failed": list(facts.pop("failed", None) or []), "facts": facts,
    }  # fmt: skip


def _arm(name: str, length: Length | None, runs: Sequence[TrainingResult]) -> dict[str, Any]:
    runs = sorted(runs, key=lambda run: run.seed)

    def values(field: str) -> list[Any]:
        return [getattr(run, field) for run in runs]

    def spread(field: str) -> dict[str, Any] | None:
        if None in values(field):
            return None
        mean, half = stats.interval(values(field), LEVEL)
        return {"mean": mean, "half": half, "values": values(field)}

    peaks, metric = values("peak_memory"), runs[0].metric
    told = {} if length is None else {"length": length._asdict()}
    return {
        "arm": name, **told, "n": len(runs), "seeds": values("seed"), "method": runs[0].method,
        "arch": runs[0].arch,
        **{metric.key(split): spread(f"{split}_score") for split in ("test", "val", "train")},
        "macs": fmean(values("macs")), "params": fmean(values("params")), "epochs": fmean(values("epochs")),
        "train_macs": fmean(values("train_macs")), "seconds": fmean(values("seconds")),
        "peak_memory": None if None in peaks else max(peaks),
        "devices": list(dict.fromkeys(values("device"))), "cost": _cost(runs),
    }  # fmt: skip


def _cost(runs: Sequence[TrainingResult]) -> dict[str, float]:
    """Training time in hours of wall clock, on CPUs and on accelerators, and forward MACs, summed over the runs."""
    cpu = math.fsum(run.seconds for run in runs if run.on_cpu) / 3600
    total = math.fsum(run.seconds for run in runs) / 3600
    macs = math.fsum(run.train_macs for run in runs)
    return {"runs": len(runs), "cpu_hours": cpu, "gpu_hours": total - cpu, "hours": total, "train_macs": macs}


def _crossings(arms: Arms, rows: Sequence[dict[str, Any]], reference: str) -> dict[str, list[dict[str, Any]]]:
    """The entry "crossings" of `summarise`; empty without lengths."""
    if any(length is None for _, length in arms):
        return {}
    points: dict[str, list[curves.Point]] = {}
    lengths: dict[str, list[dict[str, Any]]] = {}
    for (name, _), row, runs in zip(arms, rows, arms.values(), strict=True):
        at = row["length"]["value"] if row["length"]["unit"] in BY_DATA else None
        here = {run.seed: (run.train_macs if at is None else at, run.test_score) for run in runs}
        points.setdefault(name, []).append(curves.Point(here))
        lengths.setdefault(name, []).append(row["length"])
    metric = next(iter(arms.values()))[0].metric
    higher = metric.higher_is_better
    base = points.pop(reference)
    measured = [each(point.compute for point in base) for each in (min, max)]
    told = []
    for name, compared in curves.compare(points, base, LEVEL, higher).items():
        first = curves.gains_from(compared, higher)
        crossing = {
            "arm": name, "reference": reference, "reference_macs": measured,
            "from": None if first is None else lengths[name][first],
            "points": [_at_compute(*each, higher) for each in zip(compared, lengths[name], strict=True)],
        }  # fmt: skip
        told.append(crossing | {"words": wording.crossing(crossing, metric)})
    return {"crossings": told}


def _at_compute(compared: curves.Compared, length: dict[str, Any], higher_is_better: bool) -> dict[str, Any]:
    found = compared.found
    return {
        "length": length, "train_macs": compared.compute, "why": compared.why, "n": len(compared.seeds),
        "seeds": list(compared.seeds), "score": compared.score, "reference": compared.reference,
        **{key: getattr(found, key, None) for key in ("difference", "low", "high", "p")}, "p_holm": compared.p_holm,
        "verdict": compared.verdict, "gains": curves.gains(compared, higher_is_better),
    }  # fmt: skip


def _compare(arms: Arms, reference: str) -> dict[tuple[str, Length | None], dict[str, Any]]:
    """Each arm other than the reference compared with it, at the same length, over the seeds that both have."""
    bases = {length: {run.seed: run for run in runs} for (name, length), runs in arms.items() if name == reference}
    pairs = {}
    for (name, length), runs in arms.items():
        if name != reference:
            base = bases.get(length, {})
            shared = [(run, base[run.seed]) for run in sorted(runs, key=lambda r: r.seed) if run.seed in base]
            pairs[name, length] = shared
    tested = [arm for arm, shared in pairs.items() if len(shared) >= FOR_INTERVAL]
    found: dict[tuple[str, Length | None], stats.Paired] = {}
    for arm, shared in pairs.items():
        if shared:
            ours, theirs = zip(*((a.test_score, b.test_score) for a, b in shared), strict=True)
            found[arm] = stats.paired(ours, theirs, max(1, len(tested)), LEVEL)
    corrected = dict(zip(tested, stats.holm([found[arm].p for arm in tested]), strict=True))
    known = {length: {seed: run.judged() for seed, run in base.items()} for length, base in bases.items()}
    versus = {}
    for (name, length), shared in pairs.items():
        arm, judged = (name, length), [known[length][b.seed] for _, b in shared]
        versus[arm] = _versus(shared, found.get(arm), corrected.get(arm), judged)
        if length not in bases:
            versus[arm]["verdict"] = NO_REFERENCE
    return versus


_UNKNOWN = "difference low high p p_holm compute per_percent".split()  # values are None if no seed is shared


def _versus(
    shared: list[tuple[TrainingResult, TrainingResult]], found: stats.Paired | None, p_holm: float | None,
    known: list[np.ndarray | None],
) -> dict[str, Any]:  # fmt: skip
    if found is None:
        return {"n": 0, "seeds": [], "verdict": NOT_ENOUGH, "bootstrap": []} | dict.fromkeys(_UNKNOWN)
    resampled = []
    for (run, _), theirs in zip(shared, known, strict=True):
        ours = run.judged()
        if ours is not None and theirs is not None:
            resample = stats.bootstrap if ours.dtype == bool else stats.bootstrap_of_means
            drawn = resample(ours, theirs, level=LEVEL)
            resampled.append(
                {"seed": run.seed, "difference": drawn.difference, "low": drawn.low, "high": drawn.high}
            )
    higher = shared[0][0].metric.higher_is_better
    compute = _ratio([a.train_macs for a, _ in shared], [b.train_macs for _, b in shared])
    equal = compute is None or abs(compute - 1) <= EQUAL_COMPUTE
    return {
        "n": found.n, "seeds": [run.seed for run, _ in shared], "difference": found.difference,
        "low": found.low, "high": found.high, "p": found.p, "p_holm": p_holm,
        "verdict": stats.verdict(found.n, found.difference, p_holm, higher_is_better=higher), "bootstrap": resampled,
        "compute": compute, "per_percent": None if equal else found.difference / (100 * (compute - 1)),
    }  # fmt: skip


def _ratio(ours: list[float], theirs: list[float]) -> float | None:
    return sum(ours) / sum(theirs) if sum(theirs) > 0 else None


_CSV = (
    "arm", "seed", "method", "arch", "data", "test_score", "test_images", "val_score", "train_score", "macs", "params",
    "epochs", "train_macs", "seconds", "peak_memory", "device", "path",
)  # fmt: skip


def _csv(runs: Sequence[TrainingResult]) -> str:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    keys = {f"{split}_score": runs[0].metric.key(split) for split in ("test", "val", "train")}
    rows.writerow([keys.get(field, field) for field in _CSV])
    rows.writerows([getattr(run, field) for field in _CSV] for run in runs)
    return text.getvalue()


def write(folder: Path, summary: dict[str, Any], runs: Sequence[TrainingResult], name: str = "comparison") -> Path:
    """Write NAME.json, NAME.csv (one row per run) and NAME.html into `folder`; return the page's path."""
    shown = page(summary, runs)
    files.write_json(folder / f"{name}.json", summary)
    files.write_with_names(folder / f"{name}.csv", _csv(runs))
    files.write_whole(folder / f"{name}.html", shown)
    return folder / f"{name}.html"


def report(paths: Sequence[Path], out: Path | None = None) -> dict[str, Any]:
    """Compare the runs in `paths`: print the table, and write the page `out` with its JSON and CSV beside it.

    `out` defaults to report.html. Returns the summary. If a comparison's folder is the only path, its own settings
    (reference, match, failed runs) are kept.
    """
    out = Path("report.html") if out is None else Path(out)
    if out.suffix != ".html":
        raise BadInput(f"{arg.out} {out}: give the path of a page, ending in .html")
    if not paths:
        raise BadInput("report needs run folders, like: nasaug report runs/train-1 runs/train-2")
    runs = read_runs(paths)
    told = _comparison_in(Path(paths[0])) if len(paths) == 1 else {}
    place = {arm["arm"]: i for i, arm in enumerate(told.get("arms", ()))}
    runs.sort(key=lambda run: place.get(run.arm, len(place)))
    names, reference = Counter(run.arm for run in runs), told.get("reference")
    facts = told.get("facts", {}) | {"failed": told.get("failed"), "commands": told.get("commands")}
    summary = summarise(runs, reference if reference in names else None, told.get("match"), facts)
    written = write(out.parent, summary, runs, out.stem)
    say(table(summary))
    say(f"page: {written}")
    return summary


def _comparison_in(folder: Path) -> dict[str, Any]:
    """The summary of the comparison in this folder; empty if there is none."""
    path = RunDir(folder).comparison_file
    return files.read_json(path, FORMAT) if path.is_file() else {}
