"""Best score so far of TPE against random sampling at equal evaluations, on one trained supernet.

    python benchmarks/samplers.py runs/search-1 [--trials 100] [--seeds 3]
"""

from __future__ import annotations

import argparse
from itertools import accumulate
from pathlib import Path
from statistics import mean

from cells import interval, write
from reopen import reopen

from nasaug.core.signals import Pending

SAMPLERS = ("tpe", "nsga2", "random")
AT = (20, 40, 60, 80, 100)


def curve(finished, sampler: str, seed: int, trials: int) -> list[float]:
    """Best score so far (validation top-1 on the scoring images) after each evaluated candidate."""
    scores: list[float] = []
    search = finished.search("sqlite://", seed, sampler=sampler, trials=trials, predicted=0.0, by="score")
    search.run(Pending(), lambda arch, judged, macs: scores.append(judged.score))
    return list(accumulate(scores, max))


def plot(curves: dict[str, list[list[float]]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4), layout="constrained")
    for name, rows in curves.items():
        (line,) = axes.plot(range(1, len(rows[0]) + 1), [mean(c) for c in zip(*rows, strict=True)], label=name)
        for row in rows:
            axes.plot(range(1, len(row) + 1), row, lw=0.6, alpha=0.5, color=line.get_color())
    axes.set(xlabel="candidates evaluated", ylabel="best validation top-1 so far (%)")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=3)
    o = parser.parse_args()
    finished = reopen(o.run)
    curves = {s: [curve(finished, s, seed, o.trials) for seed in range(o.seeds)] for s in SAMPLERS}
    at = [n for n in AT if n <= o.trials]
    lines = [
        "`python benchmarks/samplers.py runs/search-1`", "",
        f"Supernet of `search --mac-budget 1M` on Fashion-MNIST, {o.seeds} seeds; best validation top-1 (%, on "
        "1,000 images) after n evaluated candidates, mean and 95 % t interval. Thin lines: single seeds.", "",
        "| sampler | " + " | ".join(f"n = {n}" for n in at) + " |", "| --- |" + " --- |" * len(at),
    ]  # fmt: skip
    for name, rows in curves.items():
        lines.append(f"| {name} | " + " | ".join(interval([r[n - 1] for r in rows]) for n in at) + " |")
    lines += ["", "![curves](samplers.png)"]
    plot(curves, Path(__file__).resolve().parent.parent / "docs" / "results" / "samplers.png")
    write("samplers", "Samplers at equal evaluations", lines, curves)


if __name__ == "__main__":
    main()
