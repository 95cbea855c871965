"""NetAug (published factors) against plain training: mobilenetv2-tiny at 28 px on CIFAR-10 (JPEG).

    python benchmarks/netaug_vs_baseline.py FOLDER runs/netaug [--epochs 10] [--seeds 3] [--jobs 2]

FOLDER is an image folder with train/ and test/. Compared at equal epochs and at equal seconds: for the latter, the
baseline's epochs are multiplied by the ratio of the training times (seed 0, measured in the same run).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from cells import interval, run, train, write

ARCH = "mobilenetv2-tiny"
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

    def cell(arm: str, method: str, epochs: int, seed: int):
        options = ("--data", o.folder, "--resolution", "28", "--set", f"epochs={epochs}", "--set", "data.workers=0")
        return train(f"{arm}-s{seed}", ARCH, *options, method=method, seed=seed)

    results = run(o.root, [cell(m, m, o.epochs, s) for s in seeds for m in LABELS], o.jobs)
    longer = round(o.epochs * results["netaug-s0"]["seconds"] / results["baseline-s0"]["seconds"])
    results |= run(o.root, [cell(f"baseline{longer}", "baseline", longer, s) for s in seeds], o.jobs)
    lines = [
        "`python benchmarks/netaug_vs_baseline.py FOLDER runs/netaug`", "",
        f"{ARCH} at 28 px on CIFAR-10 (JPEG), {o.seeds} seeds, mean and 95 % t interval. Training MACs count forward "
        "passes; seconds are for one thread.", "",
        "| training | epochs | validation top-1 | test top-1 | training MACs | seconds |",
        "| --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for arm, label in (*LABELS.items(), (f"baseline{longer}", "baseline, equal seconds")):
        rows = [results[f"{arm}-s{s}"] for s in seeds]
        shown = [interval([r[k] for r in rows]) for k in ("val_top1", "test_top1", "seconds")]
        lines.append(
            f"| {label} | {rows[0]['epochs']} | {shown[0]} | {shown[1]} | {rows[0]['train_macs']:.3g} | {shown[2]} |"
        )
    if o.seeds < 5:
        lines += ["", "Fewer than five seeds: not enough for a verdict."]
    write("netaug_vs_baseline", "NetAug against plain training of a tiny net", lines, results)


if __name__ == "__main__":
    main()
