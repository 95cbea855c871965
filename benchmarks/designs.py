"""Which design should the space tiny-images begin from? Nets drawn by hand near 1M MACs, after what the best nets of
searches have in common, trained from scratch.

    python benchmarks/designs.py FOLDER ROOT [--only G,E] [--seeds 1] [--epochs 40] [--jobs 2] [--page]

FOLDER is CIFAR-10 as JPEG files. Resumable: each training is a cell in ROOT. --page trains nothing and writes the page
of what is finished.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from cells import interval, run, train, write
from space_quality import described

from nasaug.arch.archfile import ArchFile
from nasaug.arch.blocks import BLOCKS
from nasaug.arch.cost import cost
from nasaug.arch.plan import plan
from nasaug.arch.space import Arch, Space
from nasaug.arch.spacefile import load
from nasaug.core.units import format_quantity
from nasaug.rundirs.folder import RunDir

SPACE, CLASSES = "tiny-images", 10
# resolution; then stride, width and blocks (expand ratio and kernel) of the stem and of s1 to s5
DESIGNS = {
    "E": "24: 1 8, 2 12 3k3, 2 16 6k5, 1 24 3k3, 2 24 6k5 3k5, 2 24 6k5 6k3 3k3",
    "G": "32: 1 4, 2 12 3k3, 2 16 3k3 3k5, 2 24 4k5 3k5, 2 32 6k5 4k5, 1 48 4k5",
    "H": "32: 1 4, 2 8 3k3 3k3, 2 12 4k5 3k5, 2 24 4k5 3k5, 2 32 6k5 4k5, 1 48 4k3",
}


def arch(space: Space, design: str) -> Arch:
    """The architecture that a line of DESIGNS describes."""
    px, _, stages = design.partition(": ")
    choices: dict = {"resolution": int(px)}
    for i, stage in enumerate(stages.split(", ")):
        name = f"s{i}" if i else "stem"
        stride, width, *blocks = stage.split()
        choices |= {f"{name}.stride": int(stride), f"{name}.width": int(width)}
        if not blocks:
            continue
        choices[f"{name}.depth"] = len(blocks)
        for place in range(1, 4):  # blocks that are not there have choices too
            expand, kernel = blocks[min(place, len(blocks)) - 1].split("k")
            choices |= {f"{name}.b{place}.expand": int(expand), f"{name}.b{place}.kernel": int(kernel)}
    return space.canonical(space.arch(choices))


def page(root: Path, seeds: int, epochs: int) -> None:
    """docs/results/designs.md and .json, from the finished cells."""
    space, rows, figures = load(SPACE, BLOCKS), [], {}
    for name, design in DESIGNS.items():
        runs = [RunDir(root / f"{name}-s{seed}") for seed in range(seeds)]
        results = [run.result() for run in runs if run.finished]
        net = arch(space, design)
        sizes = cost(plan(space, net, CLASSES))
        figures[name] = {"design": design, **sizes.known, "results": results}
        shown = [interval([r[key] for r in results]) if results else "not run" for key in ("val_top1", "test_top1")]
        rows.append(
            f"| {name} | {described(space, net)} | {design.partition(': ')[2]} | {format_quantity(sizes.macs, 'macs')} "
            f"| {format_quantity(sizes.params, 'params')} | {' | '.join(shown)} |"
        )
    lines = [
        "`python benchmarks/designs.py FOLDER ROOT`", "",
        f"CIFAR-10 (JPEG), {epochs} epochs from scratch. G became the design of `{SPACE}`: one seed each does not "
        "tell the three apart, and it is the plainest. With more seeds and its widths times 1.083 it is (d) in "
        "[search_wins_1M](search_wins_1M.md). The design before, (d) in "
        "[search_wins_1M_annealed](search_wins_1M_annealed.md), has 75.2 and 75.6 %. Three more drawings (F, J and K "
        "of commit 28a416b) were stopped after 24 to 34 epochs, because their losses were 0.01 to 0.04 higher. Blocks: "
        "stride and width of the stem and of each stage, then expand ratio and kernel of each block.", "",
        "| net | resolution, and stride, width and blocks of each stage | blocks | MACs | parameters "
        "| validation top-1 | test top-1 |",
        "| --- | --- | --- | --- | --- | --- | --- |", *rows,
    ]  # fmt: skip
    write("designs", "Designs for tiny-images, drawn by hand", lines, {"epochs": epochs, "designs": figures})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("root", type=Path)
    parser.add_argument("--only", default=",".join(DESIGNS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--page", action="store_true")
    o = parser.parse_args()
    root, space = o.root.resolve(), load(SPACE, BLOCKS)
    if unknown := {*o.only.split(",")} - {*DESIGNS}:
        parser.error(f"--only: no design is called {', '.join(sorted(unknown))}; choose from {', '.join(DESIGNS)}")
    root.mkdir(parents=True, exist_ok=True)
    more = ("--from-scratch", "--data", str(o.folder.resolve()), "--set", f"epochs={o.epochs}")
    cells = []
    for name in o.only.split(",") if not o.page else ():
        path, net = root / f"{name}.json", arch(space, DESIGNS[name])
        if not path.is_file():
            ArchFile(plan(space, net, CLASSES), f"design-{name}", space, net).save(path)
        cells += [train(f"{name}-s{seed}", path, *more, seed=seed) for seed in range(o.seeds)]
    if cells:
        run(root, cells, o.jobs)
    page(root, o.seeds, o.epochs)


if __name__ == "__main__":
    main()
