"""An anchor outside: the best net that two commands give on CIFAR-10 within 1M MACs and 64 KB of flash, beside what
others published.

    python benchmarks/anchor.py FOLDER ROOT [--train-macs 6e12] [--epochs 300] [--page]

FOLDER is CIFAR-10 as JPEG files. A search under both budgets with all cores, then the net found is trained on from its
own weights for long, all with seed 0. The defaults are meant to take more than two hours of two cores; the page tells
how long they took. Resumable; --page trains nothing.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from cells import Cell, run, train, write

from nasaug.core.units import format_duration, format_quantity
from nasaug.rundirs.folder import RunDir

MACS, FLASH = "1M", "64KB"
PUBLISHED = (  # name, test top-1, MACs, flash, RAM; "-": not known here
    ("µNAS (Liberis et al., 2021; quoted second hand): 130 epochs, 6,000 rounds of search", "86.49", "384k", "11.4 KB",
     "15.4 KB"),
    ("ResNet-8 of MLPerf Tiny (Banbury et al., 2021)", "86.5", "-", "96 KB", "-"),
)  # fmt: skip


def cells(folder: Path, root: Path, train_macs: float, epochs: int) -> tuple[Cell, Cell]:
    data = ("--data", str(folder))
    asked = ("--mac-budget", MACS, "--flash-budget", FLASH, "--set", f"train_macs={train_macs:g}")
    found = root / "search" / "found.json"
    # [search]'s least_epochs asks for a net that is trained for long enough afterwards, which --epochs sees to
    search = Cell("search", "search", (*asked, *data, "--set", "search.least_epochs=0"))
    return search, train("train", found, *data, "--set", f"epochs={epochs}")


def page(root: Path, epochs: int) -> None:
    """docs/results/anchor.md and .json."""
    search, trained = RunDir(root / "search"), RunDir(root / "train")
    if not (search.finished and trained.finished):
        raise SystemExit(f"{root}: the {'training' if search.finished else 'search'} is not finished")
    found, result = search.result(), trained.result()
    ends = {event["stage"]: event["seconds"] for event in search.read_log() if event["event"] == "epoch"}
    seconds = [sum(ends.values()), result["seconds"]]  # of trainings, so that a stop in between does not count
    sizes = [format_quantity(result[key], "bytes") for key in ("flash", "peak")]
    lines = [
        "`python benchmarks/anchor.py FOLDER ROOT`", "",
        f"`search --mac-budget {MACS} --flash-budget {FLASH}`, then the net found is trained for {epochs} epochs from "
        "its own weights. nasaug on CIFAR-10 as JPEG files, one seed, int8 sizes by its cost model; the others on "
        "CIFAR-10 itself, as published.", "",
        "| net | test top-1 | MACs | flash | RAM |", "| --- | --- | --- | --- | --- |",
        f"| nasaug: search {format_duration(seconds[0])}, then {format_duration(seconds[1])} "
        f"| {result['test_top1']:.2f} | {format_quantity(result['macs'], 'macs')} | {' | '.join(sizes)} |",
        *(f"| {' | '.join(row)} |" for row in PUBLISHED),
    ]  # fmt: skip
    write("anchor", "Beside published nets of this size", lines, {"search": found, "train": result, "seconds": seconds})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("root", type=Path)
    parser.add_argument("--train-macs", type=float, default=6e12)
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--page", action="store_true")
    o = parser.parse_args()
    root = o.root.resolve()
    if not o.page:
        for cell in cells(o.folder.resolve(), root, o.train_macs, o.epochs):
            run(root, [cell], 1, threads=None)
    page(root, o.epochs)


if __name__ == "__main__":
    main()
