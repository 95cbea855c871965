"""The results of a sweep: the best policy for each size, the fitted curve, and their table and pictures."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import Any

from ..arch.archfile import ArchFile
from ..arch.cost import cost
from ..config.schedule import CURVE, Constant, Curve, Schedule, from_ends
from ..core import files
from ..core.errors import BadInput, arg
from ..core.metric import Metric, of_keys
from ..core.units import format_duration, format_quantity
from ..reporting import pictures, tables, wording
from ..rundirs.folder import RunDir
from ..rundirs.result import TrainingResult, read_result
from . import stats
from .cells import Cell, plain_name
from .pruners import Policy, parts

FORMAT = "nasaug-sweep/1"
LINE = ("intercept", "slope", "low", "high")  # the keys of a curve file that define the line


def magnitude_of(policy: str) -> Schedule:
    """Parse a policy, RandAugment's magnitude: a number, a:b for a to b over training, or a curve's file."""
    if policy.endswith(".json"):
        return Schedule.parse(policy)
    try:
        return from_ends(policy)
    except BadInput as error:
        raise BadInput(f"policy {error.line}; or give a curve's JSON file") from None


def constants(policies: Iterable[str]) -> dict[str, float]:
    """The policies that are one magnitude throughout, in any notation, with their values."""
    numbers = [policy for policy in policies if not policy.endswith(".json")]
    return {p: m.value for p in numbers if isinstance(m := magnitude_of(p), Constant)}


def summarise(
    cells: list[Cell], nets: list[ArchFile], policies: list[str], methods: list[str], out: dict[Policy, dict],
    metric: Metric,
) -> dict[str, Any]:  # fmt: skip
    """Means by method, size and policy; the best policy of each size by validation; the fitted curves.

    Policies in `out` were pruned: they can be neither the best nor on a curve."""
    results = {}
    for cell in cells:
        size, method, policy = parts(cell)
        results[method, size, policy, cell.seed] = read_result(cell.path)
    facts = _facts(cells, list(results.values()))
    rows = []
    for method in methods:
        for net in nets:
            row = {"method": method, "size": net.name, "macs": cost(net.plan).macs, "policies": {}}
            for policy in policies:
                here = (method, net.name, policy)
                found = {key[3]: r for key, r in sorted(results.items()) if key[:3] == here}
                pruned = out.get((net.name, method, policy))
                if found or pruned:
                    row["policies"][policy] = _cell_row(found, metric) | ({"pruned": pruned} if pruned else {})
            if _running(row["policies"]):
                row["best"] = _best(_running(row["policies"]), metric)
                rows.append(row)
    curves = {method: fit([row for row in rows if row["method"] == method], metric) for method in methods}
    return {"format": FORMAT, "rows": rows, "curves": curves, "policies": policies, **facts, **metric.told}


def _facts(cells: list[Cell], results: list[TrainingResult]) -> dict[str, str]:
    """The data common to all trainings. Raises BadInput for a cell with other images, as when files were added to a
    folder.
    """
    told = [{key: getattr(result, key) for key in ("data", "data_key", "test_images")} for result in results]
    for cell, facts in zip(cells, told, strict=True):
        if facts != told[0]:
            other = f"{cell.path} has other images of {facts['data']} than {cells[0].path}"
            raise BadInput(f"{other}; remove the older one, or start anew with other {arg.cells}")
    return {"data": told[0]["data"], "data_key": told[0]["data_key"]}


def _cell_row(found: dict[int, TrainingResult], metric: Metric) -> dict:
    """The scores of one size, method and policy over its seeds."""
    row: dict[str, Any] = {"seeds": list(found)}
    for key in map(metric.key, ("val", "test", "train")) if found else ():
        values = [r.scores()[key] for r in found.values()]
        mean, half = stats.interval(values)
        row[key] = {"mean": mean, "half": half, "values": values}
    return row


def _running(policies: dict[str, dict]) -> dict[str, dict]:
    """The policies that were not pruned."""
    return {policy: cell for policy, cell in policies.items() if "pruned" not in cell}


def shared_seeds(policies: Iterable[dict]) -> list[int]:
    """The seeds with which every policy was trained."""
    sets = [set(cell["seeds"]) for cell in policies]
    return sorted(set.intersection(*sets)) if sets else []


def _values(cell: dict, key: str, seeds: list[int]) -> list[float]:
    return [cell[key]["values"][cell["seeds"].index(seed)] for seed in seeds]


def _best(policies: dict[str, dict], metric: Metric) -> dict:
    """The policy with the best mean validation score over the seeds that all share (the first of those that tie), and
    its test score compared with magnitude 0, paired by seed; the interval is not corrected for multiple comparisons."""
    seeds, val, test = shared_seeds(policies.values()), metric.key("val"), metric.key("test")
    means = {policy: fmean(_values(cell, val, seeds or cell["seeds"])) for policy, cell in policies.items()}
    name = min(means, key=lambda policy: metric.rank(means[policy]))
    found = {"policy": name, test: policies[name][test]["mean"]}
    plain = next((policy for policy, magnitude in constants(policies).items() if magnitude == 0), name)
    both = shared_seeds([policies[name], policies[plain]])
    if plain != name and len(both) > 1:
        paired = stats.paired(*(_values(policies[policy], test, both) for policy in (name, plain)))
        found["over_none"] = {"difference": paired.difference, "low": paired.low, "high": paired.high}
    return found


def fit(rows: list[dict], metric: Metric) -> dict | None:
    """Fit the best constant magnitude as a straight line in log10(MACs). Each size and seed gives one point: the
    magnitude best on validation, the lowest of those that tie.

    None if there are not at least two sizes, three points and two constant magnitudes. A pruned magnitude counts as
    worse than the others with every seed. `p` is for the hypothesis that the slope is 0, that is, the curve is a
    constant."""
    points, judged = [], []
    for row in rows:
        constant = {m: row["policies"][p] for p, m in constants(row["policies"]).items()}
        kept = {m: r for m, r in sorted(constant.items()) if "pruned" not in r}
        seeds = shared_seeds(kept.values()) if len(constant) > 1 else []
        judged += [len(seeds)] * bool(seeds)
        for seed in seeds:
            ranks = {m: metric.rank(_values(r, metric.key("val"), [seed])[0]) for m, r in kept.items()}
            points.append((math.log10(row["macs"]), min(ranks, key=ranks.__getitem__)))
    if len({x for x, _ in points}) < 2 or len(points) < 3:
        return None
    from scipy.stats import linregress, t

    magnitudes = sorted({y for _, y in points})
    if len(magnitudes) > 1:
        line = linregress([x for x, _ in points], [y for _, y in points])
        slope, intercept, p = line.slope, line.intercept, line.pvalue
        half = t.ppf(0.975, len(points) - 2) * line.stderr
    else:  # all prefer the same magnitude; linregress gives neither spread nor p value for a constant
        slope, intercept, p, half = 0.0, magnitudes[0], 1.0, 0.0
    return {
        "slope": slope, "intercept": intercept, "low": magnitudes[0], "high": magnitudes[-1], "slope_half": half,
        "p": p, "points": points, "distinct": bool(abs(slope) > half), "seeds": min(judged),
        "constant": fmean(y for _, y in points),
    }  # fmt: skip


def verdict(curve: dict) -> str:
    """Whether the curve differs significantly from the best constant."""
    if curve["seeds"] < wording.ENOUGH:
        return f"{wording.NOT_ENOUGH} ({wording.ENOUGH}) to tell it from a constant {curve['constant']:.1f}"
    return f"it {'differs from' if curve['distinct'] else 'cannot be told from'} a constant {curve['constant']:.1f}"


def metric_of(summary: dict) -> Metric:
    """The metric of what `summarise` returned; if it names none, it is inferred from the keys of the cells."""
    cells = (cell for row in summary["rows"] for cell in row["policies"].values())
    metric = next((found for cell in cells if (found := of_keys(summary | cell)) is not None), None)
    if metric is None:
        raise BadInput(f"{FORMAT}: no cell has a score; sweep again")
    return metric


def table(summary: dict, metric: Metric) -> str:
    """The validation score of each size and policy as text, with the best of each size starred, and its test score."""
    policies, parts = summary["policies"], []
    head = ["size", "MACs", *policies, f"best: test {metric.label}, over magnitude 0"]
    for method, rows in groupby(summary["rows"], lambda row: row["method"]):
        shown = (
            [row["size"], format_quantity(row["macs"], "macs"), *(_shown(row, p, metric) for p in policies),
             _best_told(row, metric)]
            for row in rows
        )
        parts += [f"{method}, validation {metric.label} by magnitude", tables.text(head, shown, left=(0, -1))]
    parts += [f"{method}: {_curve_told(curve)}" for method, curve in summary["curves"].items()]
    return "\n".join([*parts, *_pruned_told(summary["pruned"])])


def _best_told(row: dict, metric: Metric) -> str:
    best, over = row["best"], row["best"].get("over_none")
    told = f"{best['policy']}: {wording.score(row['policies'][best['policy']][metric.key('test')], metric)}"
    return told + (f", {wording.difference(over, metric)}" if over else "")


def _curve_told(curve: dict | None) -> str:
    if curve is None:
        return "no curve, which needs two sizes, three points (sizes x seeds) and two constant magnitudes"
    slope = f"{curve['slope']:+.2f} ± {curve['slope_half']:.2f} a factor of ten in MACs"
    return f"best magnitude {slope}, p = {curve['p']:.2g}: {verdict(curve)}"


def _shown(row: dict, policy: str, metric: Metric) -> str:
    cell = row["policies"].get(policy)
    if cell is None:
        return "-"
    if "pruned" in cell:
        return f"{metric.number(cell['pruned'][metric.key('val')])} pruned"
    most = max(len(other["seeds"]) for other in row["policies"].values())
    some = f" ({len(cell['seeds'])})" if len(cell["seeds"]) < most else ""  # number of seeds, if fewer than others
    return f"{metric.number(cell[metric.key('val')]['mean'])}{'*' if policy == row['best']['policy'] else ''}{some}"


def _pruned_told(pruned: dict) -> list[str]:
    if not pruned["policies"]:
        return []
    cells = f"{pruned['cells']} of {pruned['of']} trainings were left out or cut short"
    time = f"saved about {format_duration(pruned['seconds'])} of training"
    return [f"pruned by {pruned['pruner']}: {cells}, which {time}; a policy that is pruned may have recovered"]


def write(run: RunDir, summary: dict, cells: list[Cell], metric: Metric) -> None:
    """Write sweep.json, sweep.csv (one row per finished cell; `pruned` is the epoch at which its policy was pruned),
    sweep.png, and a curve for each method that has one."""
    files.write_json(run.sweep_file, summary)
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    scores = [metric.key(split) for split in ("val", "test", "train")]
    rows.writerow(["size", "arm", "seed", "macs", *scores, "seconds", "path", "pruned"])
    pruned = {
        (row["size"], f"{row['method']}@{policy}"): cell["pruned"]["epoch"]
        for row in summary["rows"] for policy, cell in row["policies"].items() if "pruned" in cell
    }  # fmt: skip
    for cell in cells:
        r = read_result(cell.path)
        figures = (r.macs, *r.scores().values(), r.seconds)
        epoch = pruned.get((cell.arch.stem, cell.arm))
        rows.writerow([cell.arch.stem, cell.arm, cell.seed, *figures, cell.path, epoch])
    files.write_with_names(run.swept_file, text.getvalue())
    for method, curve in summary["curves"].items():
        if curve is not None:
            kept = {key: curve[key] for key in LINE}
            facts = {"data": summary["data"], "data_key": summary["data_key"]}
            name = plain_name(method, summary["curves"])
            files.write_json(run.path / f"curve-{name}.json", {"format": CURVE, **kept, **facts})
    plot(run.sweep_picture, summary, metric)


def plot(path: Path, summary: dict, metric: Metric) -> None:
    """Plot heat maps of how far each validation score is behind its size's best, with the fitted curves beside them."""
    panels = []
    for method, curve in summary["curves"].items():
        rows = [row for row in summary["rows"] if row["method"] == method]
        if rows:
            grid = _heat_map(rows, summary["policies"], metric)
            panels.append(pictures.Panel(method, grid, curve and _fit_shown(curve)))
    title = f"validation {metric.label} {metric.behind} the size's best"
    labels = ("MACs", "best magnitude")
    pictures.heat_maps(path, panels, title, "magnitude", labels, lambda macs: format_quantity(macs, "macs"))


def _heat_map(rows: list[dict], policies: list[str], metric: Metric) -> pictures.HeatMap:
    """Pruned policies have no score of a complete training, so their fields show "pruned"."""
    val = metric.key("val")
    ranks = [{p: metric.rank(c[val]["mean"]) for p, c in _running(row["policies"]).items()} for row in rows]
    values = [[min(rank.values()) - rank.get(policy, math.nan) for policy in policies] for rank in ranks]
    pruned = {
        (y, x): "pruned" for y, row in enumerate(rows) for x, policy in enumerate(policies)
        if "pruned" in row["policies"].get(policy, {})
    }  # fmt: skip
    return pictures.HeatMap([format_quantity(row["macs"], "macs") for row in rows], policies, values, pruned)


def _fit_shown(curve: dict) -> pictures.Fit:
    xs = [x for x, _ in curve["points"]]
    fitted = Curve(*(curve[key] for key in LINE))
    along = [10 ** (min(xs) + (max(xs) - min(xs)) * i / 100) for i in range(101)]
    title = f"slope {curve['slope']:+.2f} ± {curve['slope_half']:.2f}, p = {curve['p']:.2g}"
    points = [(10**x, y) for x, y in curve["points"]]
    return pictures.Fit(title, points, [(macs, fitted.of_net(macs)(0.0)) for macs in along])
