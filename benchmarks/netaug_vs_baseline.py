"""NetAug (published factors) against plain training: mobilenetv2-tiny at 28 px on CIFAR-10 (JPEG).

    python benchmarks/netaug_vs_baseline.py FOLDER runs/netaug [--epochs 10] [--seeds 3] [--jobs 2]

FOLDER is an image folder with train/ and test/. Each method has the learning rate that is best for it on validation
(seed 0). Then, at equal epochs and at equal seconds: the baseline again, with as many times the epochs
as NetAug's seconds are of its own (seed 0, measured in the same run).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from cells import interval, run, train, write

ARCH = "mobilenetv2-tiny"
RATES = {"netaug": (0.025, 0.05), "baseline": (0.05, 0.1)}  # around each method's best of a wider grid, see the page
LABELS = {"baseline": "baseline", "netaug": "NetAug"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("root", type=Path)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    o = parser.parse_args()
    seeds = range(o.seeds)

    def name(method: str, rate: float, seed: int, epochs: int = o.epochs) -> str:
        return f"{method}-{rate:g}-{epochs}-s{seed}"

    def cell(method: str, rate: float, seed: int, epochs: int = o.epochs):
        options = ("--data", o.folder, "--resolution", "28", "--set", "data.workers=0")
        options += ("--set", f"epochs={epochs}", "--set", f"lr={rate:g}")
        return train(name(method, rate, seed, epochs), ARCH, *options, method=method, seed=seed)

    grid = run(o.root, [cell(m, r, 0) for m, rates in RATES.items() for r in rates], o.jobs)
    best = {m: max(rates, key=lambda r: grid[name(m, r, 0)]["val_top1"]) for m, rates in RATES.items()}
    results = run(o.root, [cell(m, best[m], s) for s in seeds for m in RATES], o.jobs)
    seconds = {m: results[name(m, best[m], 0)]["seconds"] for m in LABELS}
    longer = round(o.epochs * seconds["netaug"] / seconds["baseline"])
    results |= run(o.root, [cell("baseline", best["baseline"], s, longer) for s in seeds], o.jobs)
    lines = [
        f"`python benchmarks/netaug_vs_baseline.py {o.folder} runs/netaug`", "",
        f"{ARCH} at 28 px on CIFAR-10 (JPEG), {o.seeds} seeds, mean and 95 % t interval. Training MACs count forward "
        "passes; seconds are of one thread.", "",
        "| training | learning rate | epochs | validation top-1 | test top-1 | training MACs | seconds |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for method, label, epochs in (
        ("baseline", "baseline", o.epochs), ("netaug", "NetAug", o.epochs),
        ("baseline", "baseline, equal seconds", longer),
    ):  # fmt: skip
        rows = [results[name(method, best[method], s, epochs)] for s in seeds]
        shown = [interval([r[k] for r in rows]) for k in ("val_top1", "test_top1", "seconds")]
        lines.append(
            f"| {label} | {best[method]:g} | {epochs} | {shown[0]} | {shown[1]} | {rows[0]['train_macs']:.3g} "
            f"| {shown[2]} |"
        )
    if o.seeds < 5:
        lines += ["", "Under five seeds: not enough seeds for a verdict."]
    lines += ["", f"The learning rates, seed 0, {o.epochs} epochs, validation top-1:", ""]
    lines += [
        f"- {LABELS[m]}, {r:g}: {grid[name(m, r, 0)]['val_top1']:.2f} %" for m, rates in RATES.items() for r in rates
    ]
    write("netaug_vs_baseline", "NetAug against plain training of a tiny net", lines, grid | results)


if __name__ == "__main__":
    main()
