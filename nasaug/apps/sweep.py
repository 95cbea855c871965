"""`sweep`: which magnitude of augmentation a network wants, by its size; and the curve that follows."""

from __future__ import annotations

import csv
import io
import math
import shlex
import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from .. import archfile, files, stats
from ..archfile import ArchFile
from ..around import below
from ..augment import at_magnitude
from ..caveats import warn_of_curves
from ..cost import cost
from ..errors import BadInput, RunFault, unknown
from ..plan import Plan, plan
from ..progress import say
from ..recipe import load
from ..rundir import RunDir, without_passwords
from ..runtime import open_runtime
from ..schedule import CURVE, Schedule, from_ends
from ..settings import Recipe
from ..space import Arch
from ..teaching import check_teacher
from ..train import job_for
from ..units import format_duration, format_quantity, parse_quantity
from .begin import read_job, refuse_existing, refuse_others, run_to_resume, stopping, write_job
from .cells import (
    Cell,
    Sets,
    check_begun,
    check_options,
    folder_name,
    key_of,
    plain_name,
    read_data,
    resume_command,
    train_missing,
)
from .compare import arms_of
from .pruners import PRUNERS, Policy, Pruning, saved
from .report import percent
from .train import Request, fitted

FORMAT = "nasaug-sweep/1"
CELLS, SIZES = Path("cells"), Path("sizes")
STEPS = 400  # of the width ladder that sizes are sought on
NEAR = 0.1  # how far a net's MACs may lie from the size asked for


@dataclass(frozen=True)
class Asked:
    """What to sweep over, beside the recipe; None: not given."""

    arch: str | None
    sizes: str | None
    policies: str | None
    methods: str | None
    seeds: int | None
    jobs: int | None
    cells: Path | None
    resolution: int | None
    pruner: str | None


DEFAULTS = {
    "arch": "mobilenetv2", "sizes": "0.1M,0.25M,0.6M,1.5M,3M", "policies": "0,4,9,14", "methods": "baseline",
    "seeds": 3, "resolution": None, "pruner": "none",
}  # fmt: skip


def command(asked: Asked, common) -> None:
    """Check everything, train every cell that is not there yet, and write the table, the curve and the pictures."""
    check_options(asked, common, "a sweep")
    if asked.pruner is not None and asked.pruner not in PRUNERS:
        raise unknown("--pruner", asked.pruner, PRUNERS)
    sets: Sets = {}
    cells = None if asked.cells is None else str(asked.cells.resolve())
    given = {name: getattr(asked, name) for name in DEFAULTS} | {"cells": cells}
    if common.resume:
        path = run_to_resume("sweep", common.run)
        with RunDir.resume(path) as run, stopping("sweep", run):
            setting, common = _resumed(given, common, run)
            nets = [archfile.read(str(path / SIZES / name)) for name in setting["nets"]]
            return _finish(nets, setting, common, run, asked.jobs, sets)
    refuse_existing(common.run)
    setting = DEFAULTS | {name: value for name, value in given.items() if value is not None} | {
        "set": list(common.set), "recipe": common.recipe, "data": common.data, "cells": cells,
    }  # fmt: skip
    plain = common.settings({}, arm="baseline")
    nets = nets_of(setting, plain)
    setting["nets"] = [f"{net.name}.json" for net in nets]
    _check_policies(setting["policies"])
    made = make_cells(nets, setting, common, Path("."), sets)
    if asked.cells:
        check_begun(made)
    with RunDir.create("sweep", plain, common.run) as run, stopping("sweep", run):
        (run.path / SIZES).mkdir()
        for net, name in zip(nets, setting["nets"], strict=True):
            net.save(run.path / SIZES / name)
        write_job(run, "sweep", **setting)
        _finish(nets, setting, common, run, asked.jobs, sets)


def _resumed(given: dict, common, run: RunDir) -> tuple[dict, Any]:
    """The settings that a sweep was begun with, and the options that say them. Raises BadInput, naming what differs,
    for others."""
    setting, begun = DEFAULTS | read_job(run.path, "sweep"), load(run.path / "recipe.toml", Recipe)
    data = None if common.data == begun.data.name else common.data
    refuse_others(run.path, setting, given | {"set": list(common.set) or None, "recipe": common.recipe, "data": data})
    common = replace(common, set=tuple(setting["set"]), recipe=setting["recipe"], data=setting["data"])
    run.check_settings(common.settings({}, arm="baseline"))  # of a recipe edited since, say
    return setting, common


# --- sizes and policies ----------------------------------------------------------------------------------------


def nets_of(setting: dict, recipe: Recipe) -> list[ArchFile]:
    """The nets to train, ascending in MACs: arch files, or --arch with all its widths scaled to a size.

    Raises BadInput for a size that no width reaches, with the nearest that there are."""
    sizes, px = setting["sizes"], setting["resolution"]
    base = fitted(Request("sweep", setting["arch"], None, False, px), recipe)
    scaled = None
    nets = []
    for item in filter(None, (part.strip() for part in sizes.split(","))):
        if archfile.is_path(item):
            net = fitted(Request("sweep", item, None, False, px), recipe)
        else:
            scaled = scaled or _scaled(base.plan)
            net = _of_size(item, scaled, base)
        nets.append(replace(net, space=None, arch=None, supernet=None))
    names = [net.name for net in nets]
    if len(nets) < 1 or len(set(names)) < len(names):
        raise BadInput(f"--sizes {sizes!r}: give one or more, each once, like 0.1M,0.6M,3M")
    return sorted(nets, key=lambda net: cost(net.plan).macs)


def _scaled(base: Plan) -> dict[int, Plan]:
    """MACs to the net of a space of one width factor, resolution and depth held alike."""
    space, _ = below(base, tuple(i / STEPS for i in range(1, STEPS)))
    plans = (plan(space, Arch(space.name, (w,)), base.classes) for w in space.axes[0].choices)
    return {cost(p).macs: p for p in plans}


def _of_size(asked: str, scaled: dict[int, Plan], base: ArchFile) -> ArchFile:
    try:
        macs = parse_quantity(asked, "macs")
    except BadInput as error:
        raise BadInput(f"--sizes: {error}, or the path of an arch file") from None
    nearest = min(scaled, key=lambda m: abs(m - macs))
    if abs(nearest - macs) > NEAR * macs:
        near = [max((m for m in scaled if m < macs), default=None), min((m for m in scaled if m > macs), default=None)]
        shown = " and ".join(format_quantity(m, "macs") for m in near if m is not None)
        whose = f"no width of {base.name} at {base.plan.resolution} px has as many MACs; the nearest: {shown}"
        raise BadInput(f"--sizes {asked}: {whose}; give that, or another --arch or --resolution")
    return ArchFile(scaled[nearest], f"{base.name}-{asked}")


def _check_policies(policies: str) -> list[str]:
    names = [name.strip() for name in policies.split(",") if name.strip()]
    if not names or len({magnitude_of(name) for name in names}) < len(names):
        raise BadInput(f"--policies {policies!r}: give one or more, each once, like 0,4,9,0:9")
    return names


def magnitude_of(policy: str) -> Schedule:
    """RandAugment's magnitude: a number, a:b from a to b over training, or the file of a curve."""
    if policy.endswith(".json"):
        return Schedule.parse(policy)
    try:
        return from_ends(policy)
    except BadInput as error:
        raise BadInput(f"policy {error}; or give a curve's JSON file") from None


def make_cells(nets: list[ArchFile], setting: dict, common, folder: Path, sets: Sets) -> list[Cell]:
    """All cells, seed by seed. An arm is METHOD@POLICY."""
    runtime, cells = open_runtime(common.device), []
    where = Path(setting["cells"]) if setting["cells"] else folder / CELLS
    for seed in range(setting["seeds"]):
        for net, name in zip(nets, setting["nets"], strict=True):
            for method in arms_of(setting["methods"]):
                for policy in _check_policies(setting["policies"]):
                    recipe = common.settings({"seed": seed, "arm": f"{method}@{policy}"}, arm=method)
                    magnitude = magnitude_of(policy).of_net(cost(net.plan).macs)
                    view = at_magnitude(recipe.views["train"], magnitude)
                    recipe = replace(recipe, views=recipe.views | {"train": view})
                    if seed == 0:
                        images = recipe.data.train_images or len(read_data(recipe, net, sets).train)
                        job_for(net, recipe, runtime, images)
                        check_teacher(recipe, partial(read_data, recipe, net, sets))
                    place = where / folder_name(f"{net.name}_{recipe.arm}", seed, key_of(net, "", recipe))
                    cells.append(Cell(recipe.arm, seed, recipe, folder / SIZES / name, place))
    return cells


# --- what came of it --------------------------------------------------------------------------------------------


def _finish(nets: list[ArchFile], setting: dict, common, run: RunDir, jobs: int | None, sets: Sets) -> None:
    cells = make_cells(nets, setting, common, run.path, sets)
    policies, methods = _check_policies(setting["policies"]), arms_of(setting["methods"])
    grid = f"{len(nets)} sizes x {len(policies)} policies x {len(methods)} methods x {setting['seeds']} seeds"
    followed = [(f"--policies {p}", magnitude_of(p)) for p in policies if p.endswith(".json")]
    warn_of_curves(followed, partial(read_data, cells[0].recipe, nets[0], sets))
    pruning = None if setting["pruner"] == "none" else Pruning(setting["pruner"], cells, run.path)
    failed = train_missing(cells, grid, run, common.device, jobs, sets, pruning)
    done, out = [cell for cell in cells if cell.finished], pruning.out if pruning else {}
    summary = summarise(done, nets, policies, methods, out) | {
        "failed": failed, "pruned": {"pruner": setting["pruner"], **saved(cells, out)},
        "command": without_passwords(shlex.join(sys.orig_argv)),
    }  # fmt: skip
    write(run.path, summary, done)
    say(table(summary))
    say(f"figures, heat map and curve in {run.path}: sweep.json, sweep.csv, sweep.png, curve-METHOD.json")
    if failed:
        raise RunFault(f"{len(failed)} of {len(cells)} cells failed; try them again with {resume_command(run)}")
    sizes = [net.name for net in nets]
    run.finish({"cells": len(cells), "sizes": sizes, "policies": policies, "methods": methods, "pruned": len(out)})


def summarise(
    cells: list[Cell], nets: list[ArchFile], policies: list[str], methods: list[str], out: dict[Policy, dict]
) -> dict[str, Any]:
    """Means by method, size and policy; the best policy of each size by validation; the fitted curves.

    Policies that are `out`, by what is known of their pruning, can be neither best nor on a curve."""
    results = {}
    for cell in cells:
        method, _, policy = cell.arm.rpartition("@")
        results[method, cell.arch.stem, policy, cell.seed] = RunDir(cell.path).result()
    any_result = next(iter(results.values()))
    rows = []
    for method in methods:
        for net in nets:
            row = {"method": method, "size": net.name, "macs": cost(net.plan).macs, "policies": {}}
            for policy in policies:
                here = (method, net.name, policy)
                found = {key[3]: r for key, r in sorted(results.items()) if key[:3] == here}
                pruned = out.get((net.name, method, policy))
                if found or pruned:
                    row["policies"][policy] = _cell_row(found) | ({"pruned": pruned} if pruned else {})
            if _running(row["policies"]):
                row["best"] = _best(_running(row["policies"]))
                rows.append(row)
    curves = {method: fit([row for row in rows if row["method"] == method]) for method in methods}
    facts = {"data": any_result["data"], "data_key": any_result["data_key"]}
    return {"format": FORMAT, "rows": rows, "curves": curves, "policies": policies, **facts}


def _cell_row(found: dict[int, dict]) -> dict:
    """What the seeds of one size, method and policy came to."""
    row: dict[str, Any] = {"seeds": list(found)}
    for key in ("val_top1", "test_top1", "train_top1") if found else ():
        values = [r[key] for r in found.values()]
        mean, half = stats.interval(values)
        row[key] = {"mean": mean, "half": half, "values": values}
    return row


def _running(policies: dict[str, dict]) -> dict[str, dict]:
    """Those in the running: not pruned."""
    return {policy: cell for policy, cell in policies.items() if "pruned" not in cell}


def _best(policies: dict[str, dict]) -> dict:
    """The policy with the best mean validation accuracy, and its test accuracy against magnitude 0's, seed by seed."""
    name = max(policies, key=lambda policy: policies[policy]["val_top1"]["mean"])
    found = {"policy": name, "test_top1": policies[name]["test_top1"]["mean"]}
    plain = policies.get("0")
    if plain is not None and name != "0" and plain["seeds"] == policies[name]["seeds"] and len(plain["seeds"]) > 1:
        paired = stats.paired(policies[name]["test_top1"]["values"], plain["test_top1"]["values"])
        found["over_none"] = {"difference": paired.difference, "low": paired.low, "high": paired.high}
    return found


def fit(rows: list[dict]) -> dict | None:
    """The best constant magnitude as a straight line in log10(MACs): one point a size and seed, chosen on validation.

    None where two sizes, or two magnitudes, are not there; one that was pruned has lost to the others, whatever the
    seed. `p` is of a slope of 0: a curve that is a constant."""
    points, judged = [], []
    for row in rows:
        constant = {float(p): r for p, r in row["policies"].items() if p.replace(".", "", 1).isdigit()}
        kept = {m: r for m, r in constant.items() if "pruned" not in r}
        seeds = set.intersection(*(set(r["seeds"]) for r in kept.values())) if kept and len(constant) > 1 else set()
        judged += [len(seeds)] * bool(seeds)
        for seed in sorted(seeds):
            val = {m: r["val_top1"]["values"][r["seeds"].index(seed)] for m, r in kept.items()}
            points.append((math.log10(row["macs"]), max(val, key=val.__getitem__)))
    if len({x for x, _ in points}) < 2 or len(points) < 3:
        return None
    from scipy.stats import linregress, t

    magnitudes = sorted({y for _, y in points})
    if len(magnitudes) > 1:
        line = linregress([x for x, _ in points], [y for _, y in points])
        slope, intercept, p = line.slope, line.intercept, line.pvalue
        half = t.ppf(0.975, len(points) - 2) * line.stderr
    else:  # all want the same: a constant, of whose slope scipy gives neither spread nor p value
        slope, intercept, p, half = 0.0, magnitudes[0], 1.0, 0.0
    return {
        "slope": slope, "intercept": intercept, "low": magnitudes[0], "high": magnitudes[-1], "slope_half": half,
        "p": p, "points": points, "distinct": bool(abs(slope) > half), "seeds": min(judged),
        "constant": fmean(y for _, y in points),
    }  # fmt: skip


def verdict(curve: dict) -> str:
    """Whether the curve can be told from the best constant."""
    if curve["seeds"] < stats.ENOUGH:
        return f"{stats.NOT_ENOUGH} ({stats.ENOUGH}) to tell it from a constant {curve['constant']:.1f}"
    return f"it {'differs from' if curve['distinct'] else 'cannot be told from'} a constant {curve['constant']:.1f}"


def table(summary: dict) -> str:
    """A heat map in letters: validation top-1 of each size and policy, the best of each size starred and told with its
    test top-1."""
    policies, lines = summary["policies"], []
    width = 14 if summary["pruned"]["policies"] else 12
    for row in summary["rows"]:
        if not lines or lines[-1][0] != row["method"]:
            lines.append((row["method"], f"{row['method']}, validation top-1 by magnitude"))
            head = "".join(f"{p:>{width}s}" for p in policies)
            lines.append((row["method"], f"{'size':24s}{'MACs':>8s}{head}  best: test top-1, over magnitude 0"))
        shown = "".join(f"{_shown(row, policy):>{width}s}" for policy in policies)
        best, over = row["best"], row["best"].get("over_none")
        told = f"{best['policy']}: {percent(row['policies'][best['policy']]['test_top1'])}"
        told += f", {over['difference']:+.2f} [{over['low']:+.2f}, {over['high']:+.2f}]" if over else ""
        macs = format_quantity(row["macs"], "macs")
        lines.append((row["method"], f"{row['size']:24s}{macs:>8s}{shown}  {told}"))
    for method, curve in summary["curves"].items():
        if curve is None:
            needed = "two sizes, three points (sizes x seeds) and two constant magnitudes"
            lines.append((method, f"{method}: no curve, which needs {needed}"))
            continue
        slope = f"{curve['slope']:+.2f} ± {curve['slope_half']:.2f} a factor of ten in MACs"
        lines.append((method, f"{method}: best magnitude {slope}, p = {curve['p']:.2g}: {verdict(curve)}"))
    return "\n".join([*(line for _, line in lines), *_pruned_told(summary["pruned"])])


def _shown(row: dict, policy: str) -> str:
    cell = row["policies"].get(policy)
    if cell is None:
        return "-"
    if "pruned" in cell:
        return f"{cell['pruned']['val_top1']:.2f} pruned"
    return f"{cell['val_top1']['mean']:.2f}{'*' if policy == row['best']['policy'] else ''}"


def _pruned_told(pruned: dict) -> list[str]:
    if not pruned["policies"]:
        return []
    cells = f"{pruned['cells']} of {pruned['of']} trainings were left out or cut short"
    time = f"saved about {format_duration(pruned['seconds'])} of training"
    return [f"pruned by {pruned['pruner']}: {cells}, which {time}; a policy that is pruned may have recovered"]


def write(folder: Path, summary: dict, cells: list[Cell]) -> None:
    """sweep.json, sweep.csv (a row a finished cell; of a policy that was pruned, the epoch at which), sweep.png, and a
    curve for each method that has one."""
    files.write_json(folder / "sweep.json", summary)
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow("size arm seed macs val_top1 test_top1 train_top1 seconds path pruned".split())
    pruned = {
        (row["size"], f"{row['method']}@{policy}"): cell["pruned"]["epoch"]
        for row in summary["rows"] for policy, cell in row["policies"].items() if "pruned" in cell
    }  # fmt: skip
    for cell in cells:
        r = RunDir(cell.path).result()
        figures = (r[key] for key in ("macs", "val_top1", "test_top1", "train_top1", "seconds"))
        epoch = pruned.get((cell.arch.stem, cell.arm))
        rows.writerow([cell.arch.stem, cell.arm, cell.seed, *figures, cell.path, epoch])
    files.write_whole(folder / "sweep.csv", text.getvalue())
    for method, curve in summary["curves"].items():
        if curve is not None:
            kept = {key: curve[key] for key in ("intercept", "slope", "low", "high")}
            facts = {"data": summary["data"], "data_key": summary["data_key"]}
            files.write_json(folder / f"curve-{plain_name(method)}.json", {"format": CURVE, **kept, **facts})
    plot(folder / "sweep.png", summary)


def plot(path: Path, summary: dict) -> None:
    """Heat maps of validation top-1 below each size's best, and the fitted curves beside them."""
    from matplotlib.figure import Figure

    methods = [method for method in summary["curves"] if any(row["method"] == method for row in summary["rows"])]
    figure = Figure(figsize=(9, 1 + 3 * len(methods)), layout="constrained")
    axes = figure.subplots(len(methods), 2, squeeze=False)
    for (left, right), method in zip(axes, methods, strict=True):
        rows = [row for row in summary["rows"] if row["method"] == method]
        left.set(xlabel="magnitude", title=f"{method}: validation top-1 below the size's best")
        _plot_grid(left, rows, summary["policies"])
        _plot_curve(right, summary["curves"][method])
    with files.whole_file(path) as file:
        figure.savefig(file, dpi=150, format="png")


def _plot_grid(axes: Any, rows: list[dict], policies: list[str]) -> None:
    """Colours and figures; hatched where a policy was pruned, which has no figure of a whole training."""
    means = [{p: cell["val_top1"]["mean"] for p, cell in _running(row["policies"]).items()} for row in rows]
    grid = [[mean.get(policy, math.nan) - max(mean.values()) for policy in policies] for mean in means]
    axes.imshow(grid, cmap="viridis", aspect="auto")
    axes.set_xticks(range(len(policies)), policies)
    axes.set_yticks(range(len(rows)), [format_quantity(row["macs"], "macs") for row in rows])
    worst = min((value for line in grid for value in line if not math.isnan(value)), default=0.0)
    for y, line in enumerate(grid):
        for x, value in enumerate(line):
            ink = "white" if value < 0.6 * worst else "black"  # the lower end of the colours is dark
            if "pruned" in rows[y]["policies"].get(policies[x], {}):
                axes.fill_between([x - 0.5, x + 0.5], y - 0.5, y + 0.5, facecolor="none", edgecolor="grey", hatch="//")
                axes.text(x, y, "pruned", ha="center", va="center", backgroundcolor="white")
            elif not math.isnan(value):
                axes.text(x, y, f"{value:.2f}", ha="center", va="center", color=ink)


def _plot_curve(axes: Any, curve: dict | None) -> None:
    axes.set(xlabel="MACs", ylabel="best magnitude", xscale="log")
    if curve is None:
        axes.set_title("no curve")
        return
    xs = [10**x for x, _ in curve["points"]]
    axes.plot(xs, [y for _, y in curve["points"]], "o", alpha=0.4)
    ends = [min(xs), max(xs)]
    line = [min(max(curve["intercept"] + curve["slope"] * math.log10(x), curve["low"]), curve["high"]) for x in ends]
    axes.plot(ends, line, "-")
    axes.set_title(f"slope {curve['slope']:+.2f} ± {curve['slope_half']:.2f}, p = {curve['p']:.2g}")
