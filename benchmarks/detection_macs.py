"""AP50 against MACs for baseline and NetAug, and the MACs that NetAug saves at equal AP50: `nasaug train` per cell.

    python benchmarks/detection_macs.py FOLDER/voc runs/detection-macs [--seeds 3] [--train-macs 4e11] [--jobs 2]

FOLDER/voc is a set that detection.py wrote. Two networks at two resolutions each; each cell is resumable. The baseline
has so many training MACs, and not seconds, which are worth less on a machine that does other work; NetAug has as many
MACs, and then as many epochs.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean

import numpy as np
from cells import Cell, interval, run, train, write

ARCHS = ("mobilenetv2-tiny", "mobilenetv2-w0.35")
METHODS = {"baseline": "baseline", "netaug": "NetAug, equal MACs", "netaug-epochs": "NetAug, equal epochs"}


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
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], metavar="a.b=c", help="further recipe keys")
    parser.add_argument("--page", default="detection_macs", help="name of the page in docs/results")
    o = parser.parse_args()
    nets = [(arch, px) for arch in o.archs for px in o.resolutions]

    def cell(arch: str, px: int, method: str, seed: int, *length: str) -> Cell:
        sets = [word for key in (*length, *o.set) for word in ("--set", key)]
        return train(
            f"{arch}-{px}-{method}-s{seed}", arch, "--data", str(o.data), "--resolution", str(px), *sets,
            method=method.partition("-")[0], seed=seed,
        )  # fmt: skip

    every = [(arch, px, seed) for seed in range(o.seeds) for arch, px in nets]
    results = run(o.root, [
        cell(arch, px, method, seed, "stop=macs", f"train_macs={o.train_macs:g}")
        for arch, px, seed in every for method in ("baseline", "netaug")
    ], o.jobs)  # fmt: skip
    results |= run(o.root, [
        cell(arch, px, "netaug-epochs", seed, f"epochs={round(results[f'{arch}-{px}-baseline-s{seed}']['epochs'])}")
        for arch, px, seed in every
    ], o.jobs)  # fmt: skip
    scores, macs = {}, {}
    for arch, px in nets:
        for method in METHODS:
            each = [results[f"{arch}-{px}-{method}-s{seed}"] for seed in range(o.seeds)]
            scores[arch, px, method] = [result["test_ap50"] for result in each]
            macs[arch, px] = each[0]["macs"]
    lines = [
        f"`python benchmarks/detection_macs.py canvases/voc runs/detection-macs --seeds {o.seeds} "
        f"--train-macs {o.train_macs:g}`", "",
        f"Each network trained from scratch with {o.train_macs:.3g} forward MACs, NetAug's wider nets included, and "
        "with NetAug once more for as many whole epochs as the baseline had. AP50 on the test images in percent, mean "
        "and 95 % t interval over the seeds; differences to the baseline are paired by seed.", "",
        f"| network | MACs | {' | difference | '.join(METHODS.values())} | difference |", "| --- " * 7 + "|",
    ]  # fmt: skip
    for arch, px in nets:
        base, *wider = (scores[arch, px, method] for method in METHODS)
        shown = [interval(base)]
        for wide in wider:
            shown += [interval(wide), interval([b - a for a, b in zip(base, wide, strict=True)])]
        lines.append(f"| {arch}, {px} px | {macs[arch, px] / 1e6:.2f}M | {' | '.join(shown)} |")
    curves = {method: [(macs[net], mean(scores[*net, method])) for net in nets] for method in METHODS}
    percent = {method: saved(curves[method], curves["baseline"]) for method in METHODS if method != "baseline"}
    for method, levels in percent.items():
        listed = ", ".join(f"{value:.0f} % at AP50 {level}" for level, value in levels.items())
        listed = listed or "none, because no AP50 is reached by both fronts"
        lines += ["", f"MACs saved at equal AP50, interpolated along both fronts: {METHODS[method]}: {listed}."]
    if o.seeds < 5:
        lines += ["", "Fewer than five seeds: not enough for a verdict."]
    told = {name: {key: value for key, value in result.items() if key != "data"} for name, result in results.items()}
    write(o.page, "AP50 against MACs, with and without NetAug", lines, {"cells": told, "saved": percent})


if __name__ == "__main__":
    main()
