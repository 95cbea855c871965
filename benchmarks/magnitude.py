"""Which magnitude of augmentation suits which size (claim A of Yu, Zhang, Ma 2023): a sweep, then pruning under it.

    python benchmarks/magnitude.py FOLDER [--root runs/magnitude] [--jobs 2] [--pages]

FOLDER is an image folder with train/ and test/ (CIFAR-10 as JPEG). Few images and many epochs, so that the largest net
over-fits; otherwise there would be no effect to see. Resumable. For claims B and C see benchmarks/methods.py.
"""

from __future__ import annotations

import argparse
import csv
import shutil
from collections import defaultdict
from pathlib import Path
from statistics import mean

from cells import RESULTS, Cell, interval, write
from cells import run as run_cells

from nasaug.comparison import stats
from nasaug.comparison.sweep_results import FORMAT, verdict
from nasaug.core.files import read_json
from nasaug.core.units import format_quantity
from nasaug.reporting.wording import percent
from nasaug.rundirs.folder import RunDir
from nasaug.rundirs.result import read_result

SIZES, POLICIES, SEEDS = "0.1M,0.25M,0.6M,1.5M,3M", "0,4,9,14", 3
SETTING = ("data.train_images=4000", "epochs=60", "batch=64", "views.train.crop=0")
TARGET, STEPS = "0.3M", 5
PRUNED = {"falling": "9:0", "rising": "0:9", "constant": "4.5", "none": "0"}


def sweep(folder: str, jobs: int) -> Cell:
    """Claim A's grid as one resumable run."""
    options = ("--data", folder, "--sizes", SIZES, "--policies", POLICIES, "--seeds", str(SEEDS), "--jobs", str(jobs))
    return Cell("sweep", "sweep", (*options, *(word for item in SETTING for word in ("--set", item))))


def head(*columns: list[str] | str) -> list[str]:
    names = ["MACs", *(name for column in columns for name in ([column] if isinstance(column, str) else column))]
    return [f"| {' | '.join(names)} |", f"|{' --- |' * len(names)}"]


def page_of_sweep(run: Path) -> None:
    """Write docs/results/magnitude_sweep.md, .json and .png."""
    summary = read_json(RunDir(run).sweep_file, FORMAT)
    policies = summary["policies"]
    lines = [
        "`python benchmarks/magnitude.py FOLDER`", "",
        "CIFAR-10 (JPEG), 4,000 images, 60 epochs, batch 64, flips only at magnitude 0; `mobilenetv2` with all its "
        f"widths scaled; {SEEDS} seeds. Mean validation top-1 and its 95 % t interval; the best of each size in bold.",
        "", *head(policies, "best: test top-1, over magnitude 0"),
    ]  # fmt: skip
    for row in summary["rows"]:
        best, shown = row["best"], []
        for policy in policies:
            val = row["policies"][policy]["val_top1"]
            text = f"{val['mean']:.2f} ± {val['half']:.2f}"
            shown.append(f"**{text}**" if policy == best["policy"] else text)
        over = best.get("over_none")
        told = percent(row["policies"][best["policy"]]["test_top1"])
        told += f", {over['difference']:+.2f} [{over['low']:+.2f}, {over['high']:+.2f}]" if over else ""
        lines.append(f"| {format_quantity(row['macs'], 'macs')} | {' | '.join(shown)} | {best['policy']}: {told} |")
    lines += ["", "Accuracy on clean training images after the last epoch (in brackets: the epoch best on validation):"]
    lines += ["", *head(policies)]
    ends = last_epochs(run)
    for row in summary["rows"]:
        best = (row["policies"][p]["train_top1"]["mean"] for p in policies)
        shown = (f"{mean(ends[row['size'], p]):.1f} ({at:.1f})" for p, at in zip(policies, best, strict=True))
        lines.append(f"| {format_quantity(row['macs'], 'macs')} | {' | '.join(shown)} |")
    lines += ["", "The intervals are not corrected for multiple comparisons."]
    for method, curve in summary["curves"].items():
        if curve:
            slope = f"{curve['slope']:+.2f} ± {curve['slope_half']:.2f} per factor of ten in MACs"
            lines += ["", f"{method}: the best magnitude changes by {slope} (p = {curve['p']:.2g}): {verdict(curve)}."]
    shutil.copy(RunDir(run).sweep_picture, RESULTS / "magnitude_sweep.png")
    lines += ["", "![heat map and curve](magnitude_sweep.png)"]
    kept = {key: summary[key] for key in ("data", "data_key", "rows", "curves", "policies")}
    write("magnitude_sweep", "The best augmentation magnitude by network size", lines, kept)


def last_epochs(run: Path) -> dict[tuple[str, str], list[float]]:
    """Accuracy on clean training images after the last epoch, per seed, by (size, policy)."""
    found = defaultdict(list)
    with open(RunDir(run).swept_file) as file:
        for row in csv.DictReader(file):
            last = read_result(run / row["path"]).history[-1]
            found[row["size"], row["arm"].rpartition("@")[2]].append(last["train_top1"])
    return found


def largest(run: Path) -> dict[int, str]:
    """By seed, the run folder of the largest net's training at its best policy."""
    row = read_json(RunDir(run).sweep_file, FORMAT)["rows"][-1]
    with open(RunDir(run).swept_file) as file:
        cells = [c for c in csv.DictReader(file) if c["size"] == row["size"]]
    arm = f"{row['method']}@{row['best']['policy']}"
    return {int(c["seed"]): str((run / c["path"]).resolve()) for c in cells if c["arm"] == arm}


def cells_of(starts: dict[int, str]) -> list[Cell]:
    return [
        Cell(f"prune-{name}-s{seed}", "prune",
             ("--from", path, "--target-macs", TARGET, "--steps", str(STEPS), "--magnitude", magnitude))
        for seed, path in starts.items() for name, magnitude in PRUNED.items()
    ]  # fmt: skip


def page_of_pruning(results: dict[str, dict], starts: dict[int, str]) -> None:
    """Write docs/results/magnitude_pruning.md and .json."""
    seeds = list(starts)
    by = {name: [results[f"prune-{name}-s{seed}"] for seed in seeds] for name in PRUNED}
    start = by["constant"][0]["start"]
    lines = [
        "`python benchmarks/magnitude.py FOLDER`", "",
        f"The largest net of [the sweep](magnitude_sweep.md) ({format_quantity(start['macs'], 'macs')} MACs) pruned to "
        f"{TARGET} in {STEPS} steps, 60 epochs of 4,000 images in all; seeds {', '.join(map(str, seeds))}. Mean and "
        "95 % t interval; differences paired over seeds.", "",
        "| magnitude | test top-1 | validation top-1 | over constant, test |", "| --- | --- | --- | --- |",
    ]  # fmt: skip
    for name, rows in by.items():
        test, val = ([r[key] for r in rows] for key in ("test_top1", "val_top1"))
        told = "-"
        if name != "constant" and len(seeds) > 1:
            p = stats.paired(test, [r["test_top1"] for r in by["constant"]])
            told = f"{p.difference:+.2f} [{p.low:+.2f}, {p.high:+.2f}]"
        lines.append(f"| {name} ({PRUNED[name]}) | {interval(test)} | {interval(val)} | {told} |")
    kept = ("seed", "macs", "val_top1", "test_top1", "train_top1", "steps", "seconds", "train_macs")
    figures = {name: [{key: r[key] for key in kept} for r in rows] for name, rows in by.items()}
    write("magnitude_pruning", "Pruning with falling, rising and constant magnitude", lines, figures)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--root", type=Path, default=Path("runs/magnitude"))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--pages", action="store_true", help="write the pages of finished runs, train nothing")
    o = parser.parse_args()
    root = o.root.resolve()
    root.mkdir(parents=True, exist_ok=True)
    run = root / "sweep"
    if not o.pages:
        run_cells(root, [sweep(str(Path(o.folder).resolve()), o.jobs)], 1)
    if not RunDir(run).finished:
        raise SystemExit("the sweep is not finished, so there is no page yet")
    page_of_sweep(run)
    starts = largest(run)
    cells = cells_of(starts)
    if not o.pages or all(RunDir(root / cell.name).finished for cell in cells):
        page_of_pruning(run_cells(root, cells, o.jobs), starts)


if __name__ == "__main__":
    main()
