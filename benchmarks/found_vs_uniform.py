"""Does the search win? The net found for 1M MACs against MobileNetV2 with a single width multiplier, both trained
plainly from scratch on Fashion-MNIST.

    python benchmarks/found_vs_uniform.py found.json runs/uniform [--epochs 10] [--seeds 3] [--jobs 2]

The uniform net has the published depth, expand ratio and kernel. For each resolution and stem stride of the space,
the multiplier is the one whose MACs are nearest to the found net's, within 3 %; validation accuracy of seed 0 chooses
among them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from cells import interval, run, train, write

from nasaug.arch import archfile, cost, plan, spacefile

PUBLISHED = "mobilenetv2-small"
TOLERANCE = 0.03


def uniform(resolution: int, stride: int, macs: int) -> archfile.ArchFile | None:
    """MobileNetV2 with the multiplier that comes nearest to `macs`; None if none is within 3 %."""
    s = spacefile.load(PUBLISHED, plan.BLOCKS)
    published = s.choices(s.named(PUBLISHED)) | {"resolution": resolution, "stem.stride": stride}
    best = None
    for step in range(20, 400):
        m = step / 200
        wide = {k: plan.make_divisible(v * m, 8) for k, v in published.items() if k.endswith(".width")}
        arch = s.arch(published | wide)
        p = plan.plan(s, arch, 10)
        off = abs(cost.cost(p).macs / macs - 1)
        if off <= TOLERANCE and (best is None or off < best[0]):
            best = off, archfile.ArchFile(p, f"mobilenetv2 x {m:g} at {resolution} px, stem stride {stride}")
    return best and best[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("found")
    parser.add_argument("root", type=Path)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    o = parser.parse_args()
    o.root.mkdir(parents=True, exist_ok=True)
    found = archfile.read(o.found)
    macs = cost.cost(found.plan).macs
    common = ("--from-scratch", "--set", f"epochs={o.epochs}")
    files = {}
    for resolution in (16, 20, 24, 28):
        for stride in (1, 2):
            rival = uniform(resolution, stride, macs)
            if rival:
                files[f"uniform-{resolution}-{stride}"] = o.root / f"uniform-{resolution}-{stride}.json"
                rival.save(files[f"uniform-{resolution}-{stride}"])
    plain = ("--set", f"epochs={o.epochs}")
    ours = [train(f"found-s{i}", o.found, *common, seed=i) for i in range(o.seeds)]
    first = run(o.root, [*ours, *(train(f"{n}-s0", f, *plain) for n, f in files.items())], o.jobs)
    best = max(files, key=lambda n: first[f"{n}-s0"]["val_top1"])
    more = run(o.root, [train(f"{best}-s{i}", files[best], *plain, seed=i) for i in range(o.seeds)], o.jobs)
    rows = {"found": [first[f"found-s{i}"] for i in range(o.seeds)]}
    rows[best] = [more[f"{best}-s{i}"] for i in range(o.seeds)]
    lines = [
        "`python benchmarks/found_vs_uniform.py found.json runs/uniform`", "",
        f"Fashion-MNIST, {o.epochs} epochs from scratch, plain training, {o.seeds} seeds; mean and 95 % interval.", "",
        "| net | MACs | parameters | validation top-1 | test top-1 |", "| --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for name, results in rows.items():
        shown = "found by the search" if name == "found" else archfile.read(str(files[name])).name
        r = results[0]
        val, test = (interval([x[k] for x in results]) for k in ("val_top1", "test_top1"))
        lines.append(f"| {shown} | {r['macs']:,} | {r['params']:,} | {val} | {test} |")
    lines += ["", "Choice of the uniform net's resolution and stem stride, seed 0, validation top-1:", ""]
    lines += [f"- {archfile.read(str(f)).name}: {first[f'{n}-s0']['val_top1']:.2f} %" for n, f in files.items()]
    write("found_vs_uniform", "The found net against a uniform width multiplier", lines, {"found": first, "best": more})


if __name__ == "__main__":
    main()
