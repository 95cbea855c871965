"""Does the supernet rank subnets as stand-alone training does? Kendall's tau with a bootstrap interval.

    python benchmarks/ranking.py runs/search-1 runs/ranking [--epochs 3] [--jobs 2]

Twelve subnets within 15 % of 1M MACs and twelve over the whole range of the cropped space, log-uniform in MACs. Each
is scored by the supernet (calibrated, whole validation split) and trained on its own from scratch.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
from cells import run, train, write
from reopen import reopen
from scipy.stats import kendalltau

from nasaug.arch.archfile import ArchFile
from nasaug.arch.cost import cost, cost_of, sample_near
from nasaug.arch.plan import plan

COUNT = 12


def draw(space, low: float, high: float, seed: str) -> list:
    """COUNT different architectures with MACs from `low` to `high`."""
    rng, found = Random(seed), []
    for _ in range(10_000):
        arch = sample_near(space, rng, low, high, 10)
        if low <= cost_of(space, arch, 10).macs <= high and arch not in found:
            found.append(arch)
        if len(found) == COUNT:
            return found
    raise SystemExit(f"fewer than {COUNT} architectures between {low:g} and {high:g} MACs were drawn")


def with_interval(correlation: Callable, a, b, draws: int = 2000) -> tuple[float, float, float]:
    """One of SciPy's correlations and its 95 % percentile bootstrap interval over the nets."""
    a, b, rng = np.asarray(a), np.asarray(b), np.random.default_rng(0)
    picks = (rng.integers(0, len(a), len(a)) for _ in range(draws))
    drawn = [correlation(a[i], b[i]).statistic for i in picks]
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return float(correlation(a, b).statistic), float(low), float(high)


def tau(a, b, draws: int = 2000) -> tuple[float, float, float]:
    """Kendall's tau-b and its interval."""
    return with_interval(kendalltau, a, b, draws)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("root", type=Path)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    o = parser.parse_args()
    o.root.mkdir(parents=True, exist_ok=True)
    finished = reopen(o.run)
    space, supernet = finished.found.space, finished.supernet.resolve()
    smallest, largest = (cost_of(space, a, 10).macs for a in (space.smallest, space.largest))
    sets = {"near": draw(space, 0.85e6, 1.15e6, "near"), "range": draw(space, smallest, largest, "range")}
    search = finished.search("sqlite://")
    rows, cells = [], []
    for name, archs in sets.items():
        for i, arch in enumerate(archs):
            path = o.root / f"{name}-{i}.json"
            p = plan(space, arch, 10)
            ArchFile(p, f"{name}-{i}", space, arch, supernet).save(path)
            score = search.scorer.score(search.scorer.calibrated(search.net, p), finished.data.val)
            rows.append({"set": name, "cell": f"{name}-{i}", "macs": cost(p).macs, "supernet": score})
            cells.append(train(f"{name}-{i}", path, "--from-scratch", "--set", f"epochs={o.epochs}"))
    results = run(o.root, cells, o.jobs)
    for row in rows:
        row["alone"] = results[row["cell"]]["val_top1"]
    lines = [
        "`python benchmarks/ranking.py runs/search-1 runs/ranking`", "",
        f"Supernet of `search --mac-budget 1M`; subnets trained on their own from scratch, {o.epochs} epochs, one "
        "seed; Kendall tau against their validation top-1, with a 95 % bootstrap interval over the nets.", "",
        "| nets | n | supernet score | MACs alone |", "| --- | --- | --- | --- |",
    ]  # fmt: skip
    figures = {"rows": rows}
    for name, label in (("near", "within 15 % of 1M MACs"), ("range", "whole cropped range")):
        part = [r for r in rows if r["set"] == name]
        alone = [r["alone"] for r in part]
        figures[name] = {k: tau([r[k] for r in part], alone) for k in ("supernet", "macs")}
        shown = ["{:.2f} [{:.2f}, {:.2f}]".format(*figures[name][k]) for k in ("supernet", "macs")]
        lines.append(f"| {label} | {len(part)} | {shown[0]} | {shown[1]} |")
    write("ranking", "The supernet's ranking against stand-alone training", lines, figures)


if __name__ == "__main__":
    main()
