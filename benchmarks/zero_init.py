"""Residual blocks that start as identities (`zero_init_residual`) against torch's initialisation: short trainings.

    python benchmarks/zero_init.py runs/zero [--epochs 3] [--seeds 3] [--jobs 2] [ARCH ...]

Fashion-MNIST at 28 px; everything else is as in the default recipe.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from cells import interval, run, train, write

ARCHS = ("mobilenetv2-tiny", "mobilenetv3-w0.35")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("archs", nargs="*", default=ARCHS)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    o = parser.parse_args()
    arms, seeds = ("false", "true"), range(o.seeds)

    def cell(arch: str, arm: str, seed: int):
        sets = ("--set", f"epochs={o.epochs}", "--set", f"zero_init_residual={arm}")
        return train(f"{arch}-{arm}-s{seed}", arch, *sets, seed=seed)

    results = run(o.root, [cell(a, arm, s) for a in o.archs for s in seeds for arm in arms], o.jobs)
    lines = [
        "`python benchmarks/zero_init.py runs/zero`", "",
        f"Fashion-MNIST at 28 px, {o.epochs} epochs of plain training, {o.seeds} seeds; validation top-1, mean and "
        "95 % interval.", "",
        "| net | torch's start | last norms' scales 0 | paired difference |", "| --- | --- | --- | --- |",
    ]  # fmt: skip
    for arch in o.archs:
        plain, zero = ([results[f"{arch}-{arm}-s{s}"]["val_top1"] for s in seeds] for arm in arms)
        gains = [b - a for a, b in zip(plain, zero, strict=True)]
        lines.append(f"| {arch} | {interval(plain)} | {interval(zero)} | {interval(gains)} |")
    if o.seeds < 5:
        lines += ["", "Under five seeds: not enough seeds for a verdict."]
    write("zero_init", "Residual blocks that begin as identities", lines, results)


if __name__ == "__main__":
    main()
