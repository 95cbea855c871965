"""AP50 against MACs for baseline and NetAug, and the MACs that NetAug saves at equal AP50: `nasaug train` per cell.

    python benchmarks/detection_macs.py FOLDER/voc runs/detection-macs [--seeds 3] [--train-macs 4e11] [--epochs 20]
        [--jobs 2]

FOLDER/voc is a set that detection.py wrote. Two networks at two resolutions are trained twice: with equal training MACs
(not seconds, which are worth less on a machine that does other work), and for equal epochs. Each cell is resumable.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean

import numpy as np
from cells import interval, run, train, write

from nasaug.core.units import format_quantity

ARCHS = ("mobilenetv2-tiny", "mobilenetv2-w0.35")
METHODS = ("baseline", "netaug")


def saved(ours: list[tuple[float, float]], reference: list[tuple[float, float]]) -> dict[str, float]:
    """The MACs saved, in percent, at each AP50 that both curves reach with one of their own points.

    The curves are points (MACs, AP50); between them log MACs are interpolated linearly in AP50. A curve is its own
    Pareto front: a net that costs more and finds less is left out."""
    curves = [np.array(front(points)) for points in (ours, reference)]
    low, high = max(curve[0, 1] for curve in curves), min(curve[-1, 1] for curve in curves)
    levels = sorted({score for curve in curves for score in curve[:, 1].tolist() if low <= score <= high})
    macs = [np.exp(np.interp(levels, curve[:, 1], np.log(curve[:, 0]))) for curve in curves]
    return {f"{level:.2f}": float(100 * (1 - a / b)) for level, a, b in zip(levels, *macs, strict=True)}


def front(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points (MACs, AP50) that no cheaper one reaches, by rising MACs."""
    kept: list[tuple[float, float]] = []
    for macs, score in sorted(points, key=lambda point: (point[0], -point[1])):
        if not kept or score > kept[-1][1]:
            kept.append((macs, score))
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("root", type=Path)
    parser.add_argument("--archs", nargs="+", default=ARCHS)
    parser.add_argument("--resolutions", nargs="+", type=int, default=(80, 112))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--train-macs", type=float, default=4e11, help="of each training, NetAug's wide nets included")
    parser.add_argument("--epochs", type=int, default=20, help="of each training at equal epochs")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], metavar="a.b=c", help="further recipe keys")
    parser.add_argument("--page", default="detection_macs", help="name of the page in docs/results")
    o = parser.parse_args()
    nets = [(arch, px) for arch in o.archs for px in o.resolutions]
    lengths = {
        "": (f"{format_quantity(o.train_macs, 'macs')} training MACs, NetAug's wider nets included",
             ("stop=macs", f"train_macs={o.train_macs:g}")),
        f"-e{o.epochs}": (f"{o.epochs} epochs", (f"epochs={o.epochs}",)),
    }  # fmt: skip
    results = run(o.root, [
        train(f"{arch}-{px}-{method}{length}-s{seed}", arch, "--data", str(o.data), "--resolution", str(px),
              *(word for key in (*keys, *o.set) for word in ("--set", key)), method=method, seed=seed)
        for length, (_, keys) in lengths.items() for seed in range(o.seeds) for arch, px in nets for method in METHODS
    ], o.jobs)  # fmt: skip
    lines = [
        f"`python benchmarks/detection_macs.py canvases/voc runs/detection-macs --seeds {o.seeds} "
        f"--train-macs {o.train_macs:g} --epochs {o.epochs}`", "",
        "Each network trained from scratch. AP50 on the test images in percent, mean and 95 % t interval over the "
        "seeds; differences are paired by seed." + " Fewer than five seeds: not enough for a verdict." * (o.seeds < 5),
    ]  # fmt: skip
    savings = {}
    for length, (title, _) in lengths.items():
        found = {
            (*net, method): [results[f"{net[0]}-{net[1]}-{method}{length}-s{seed}"] for seed in range(o.seeds)]
            for net in nets for method in METHODS
        }  # fmt: skip
        table, savings[title] = compared(nets, found)
        lines += ["", f"## {title}", "", *table]
    cells = {
        name: {key: value for key, value in result.items() if key not in ("data", "val")}
        for name, result in results.items()
    }  # fmt: skip
    write(o.page, "AP50 against MACs, with and without NetAug", lines, {"cells": cells, "saved": savings})


def compared(nets: list[tuple[str, int]], found: dict[tuple, list[dict]]) -> tuple[list[str], dict[str, float]]:
    """A table of the results by network, resolution and method, and `saved`."""
    lines = ["| network | MACs | baseline, epochs | AP50 | NetAug, epochs | AP50 | difference |", "| --- " * 7 + "|"]
    scores = {key: [result["test_ap50"] for result in results] for key, results in found.items()}
    macs = {net: found[*net, "baseline"][0]["macs"] for net in nets}
    for net in nets:
        base, wide = (scores[*net, method] for method in METHODS)
        epochs = [f"{mean(result['epochs'] for result in found[*net, method]):.1f}" for method in METHODS]
        paired = interval([b - a for a, b in zip(base, wide, strict=True)])
        lines.append(
            f"| {net[0]}, {net[1]} px | {macs[net] / 1e6:.2f}M | {epochs[0]} | {interval(base)} | {epochs[1]} | "
            f"{interval(wide)} | {paired} |"
        )
    curves = {method: [(macs[net], mean(scores[*net, method])) for net in nets] for method in METHODS}
    levels = saved(curves["netaug"], curves["baseline"])
    listed = ", ".join(f"{value:.0f} % at AP50 {level}" for level, value in levels.items())
    listed = listed or "none can be told, because no AP50 is reached by both fronts"
    return [*lines, "", f"MACs that NetAug saves at equal AP50, interpolated along both fronts: {listed}."], levels


if __name__ == "__main__":
    main()
