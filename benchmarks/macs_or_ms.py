"""Do fewer MACs mean fewer milliseconds, and does it matter which of them accuracy is compared at?

    python benchmarks/macs_or_ms.py FOLDER ROOT [--count 12] [--epochs 3] [--jobs 2] [--train]

FOLDER is CIFAR-10 as JPEG files, at 32 px. Networks of all sizes are drawn from each space, trained alone and equally,
and timed in ONNX Runtime (float32, one image, one thread) beside a reference network. Timing needs an idle machine;
--train only trains. Repeating the command continues where it stopped.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from random import Random
from statistics import median

from cells import Cell, run, train, write
from ranking import tau

from nasaug.arch import archfile
from nasaug.arch.archfile import ArchFile
from nasaug.arch.blocks import BLOCKS
from nasaug.arch.cost import cost, sample_near
from nasaug.arch.plan import Plan, plan
from nasaug.arch.space import Arch, Space
from nasaug.arch.spacefile import load
from nasaug.core.units import format_quantity
from nasaug.deployment.timing import VISITS, Clock, device, figure, swept, torch_threads, version

SPACES = ("tiny-images", "mobilenetv2-small")
LOW, HIGH, CLASSES = 250_000, 4_000_000, 10
LISTED = 10  # pairs of networks that MACs and milliseconds order differently


def drawn(space: Space, count: int) -> list[Arch]:
    """Different networks, one drawn towards each of `count` equal steps of log MACs."""
    step = (HIGH / LOW) ** (1 / count)
    nets: dict[Plan, Arch] = {}
    for i in range(count):
        arch = sample_near(space, Random(f"macs or ms/{space.name}/{i}"), LOW * step**i, LOW * step ** (i + 1), CLASSES)
        nets.setdefault(plan(space, arch, CLASSES), arch)
    return list(nets.values())


def cells(folder: Path, root: Path, count: int, epochs: int) -> list[Cell]:
    found = []
    for name in SPACES:
        space = load(name, BLOCKS)
        for i, arch in enumerate(drawn(space, count)):
            cell = f"{name}-{i}"
            path = root / f"{cell}.json"
            if not path.is_file():
                ArchFile(plan(space, arch, CLASSES), cell, space, arch).save(path)
            found.append(train(cell, path, "--data", str(folder.resolve()), "--set", f"epochs={epochs}"))
    return found


def timed(plans: Sequence[Plan]) -> list[float]:
    """Milliseconds of each network, at the machine's median speed."""
    with torch_threads(1):
        clock = Clock(sorted(plans, key=lambda p: cost(p).macs)[len(plans) // 3], "onnxruntime", 1)
        seen: list[list] = [[] for _ in plans]
        swept(clock, plans, [2 * VISITS] * len(plans), seen)
    usual = median(reference for each in seen for _, reference in each)
    return [figure(each, usual) for each in seen]


def front(rows: Iterable[Mapping], by: str) -> list[Mapping]:
    """The networks than which no other is both at most as large and more accurate."""
    kept: list[Mapping] = []
    for row in sorted(rows, key=lambda r: (r[by], -r["val"])):
        if not kept or row["val"] > kept[-1]["val"]:
            kept.append(row)
    return kept


def turned(rows: Sequence[Mapping]) -> list[tuple[Mapping, Mapping]]:
    """Pairs in which the network with fewer MACs takes longer, those that differ most first."""

    def gap(pair: tuple[Mapping, Mapping]) -> float:
        few, many = pair
        return math.log(many["macs"] / few["macs"]) * math.log(few["ms"] / many["ms"])

    pairs = ((a, b) for a in rows for b in rows if a["macs"] < b["macs"] and a["ms"] > b["ms"])
    return sorted(pairs, key=gap, reverse=True)


def row_of(row: Mapping) -> str:
    macs, params = format_quantity(row["macs"], "macs"), format_quantity(row["params"], "params")
    return f"| {row['cell']} | {macs} | {row['ms']:.3f} | {params} | {row['resolution']} | {row['val']:.1f} |"


def page(rows: Sequence[dict], epochs: int) -> None:
    val, macs, ms = ([row[key] for row in rows] for key in ("val", "macs", "ms"))
    figures = {
        "device": device(), "onnxruntime": version("onnxruntime"), "epochs": epochs, "rows": rows,
        "tau": {"macs, ms": tau(macs, ms), "macs, accuracy": tau(macs, val), "ms, accuracy": tau(ms, val)},
    }  # fmt: skip
    fronts = {by: [row["cell"] for row in front(rows, by)] for by in ("macs", "ms")}
    pairs, every = turned(rows), len(rows) * (len(rows) - 1) // 2
    figures |= {"fronts": fronts, "turned": len(pairs), "pairs": every}
    head = ["| network | MACs | ms | parameters | px | validation top-1 |", "| --- | --- | --- | --- | --- | --- |"]
    lines = [
        "`python benchmarks/macs_or_ms.py FOLDER ROOT`", "",
        f"{len(rows)} networks of about {format_quantity(LOW, 'macs')} to {format_quantity(HIGH, 'macs')} MACs from "
        f"the spaces {' and '.join(SPACES)}, each trained alone for {epochs} epochs of CIFAR-10 (JPEG), one seed. "
        f"Milliseconds of one image in ONNX Runtime {figures['onnxruntime']}, float32, one thread, {device()}.", "",
        "| rank correlation (Kendall's tau, 95 % bootstrap interval) | tau |", "| --- | --- |",
        *(f"| {name} | {middle:.2f} [{low:.2f}, {high:.2f}] |" for name, (middle, low, high) in figures["tau"].items()),
        "", f"In {len(pairs)} of {every} pairs the network with fewer MACs takes longer. The widest apart:", "",
        "| fewer MACs | | | more MACs | | |", "| --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for pair in pairs[:LISTED]:
        told = (f"{r['cell']} | {format_quantity(r['macs'], 'macs')} | {r['ms']:.3f} ms" for r in pair)
        lines.append(f"| {' | '.join(told)} |")
    by_cell = {row["cell"]: row for row in rows}
    for by, other, title in (("macs", "ms", "MACs"), ("ms", "macs", "milliseconds")):
        lines += ["", f"Accuracy against {title}: networks that no smaller one equals. "
                      f"{len(set(fronts[by]) & set(fronts[other]))} of {len(fronts[by])} also lie on the other front.",
                  "", *head, *(row_of(by_cell[cell]) for cell in fronts[by])]  # fmt: skip
    write("macs_or_ms", "MACs or milliseconds: what ranks networks", lines, figures)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("root", type=Path)
    parser.add_argument("--count", type=int, default=12, help="networks of each space")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--train", action="store_true", help="train only; time later, on an idle machine")
    o = parser.parse_args()
    o.root.mkdir(parents=True, exist_ok=True)
    results = run(o.root, cells(o.folder, o.root, o.count, o.epochs), o.jobs)
    if o.train:
        return
    plans = [archfile.read(str(o.root / f"{cell}.json")).plan for cell in results]
    page(
        [
            {"cell": cell, "val": result["val_top1"], "ms": ms, "resolution": p.resolution, **cost(p).known}
            for (cell, result), p, ms in zip(results.items(), plans, timed(plans), strict=True)
        ],
        o.epochs,
    )


if __name__ == "__main__":
    main()
