"""What NetAug costs and when it pays: accuracy against training compute for a net that under-fits however long it is
trained, in several ways and at several lengths.

    python benchmarks/netaug_curves.py FOLDER ROOT [--jobs 2] [--only 10,30] [--page]

FOLDER is CIFAR-10 as JPEG files. Resumable: each training is a cell in ROOT/cells. --only trains at these lengths;
--page trains nothing and writes the page of what is finished.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from cells import Cell, run, train, write

from nasaug.comparison import report
from nasaug.comparison.sweep import _of_size, _scaled
from nasaug.data import DataConfig
from nasaug.reporting import wording
from nasaug.rundirs.folder import RunDir
from nasaug.training.recipe import Recipe
from nasaug.training.train import fitted

NET, SIZE, PX = "mobilenetv2-tiny", "0.1M", 32
TEACHER, TEACHER_EPOCHS = "mobilenetv2-w0.35", 40
SET = ("lr=0.025", "weight_decay=4e-5", "netaug.width_until=0.52")  # as published, per 128 images
SHRINK = "shrink:wide_view=train"  # its wide nets see what the base sees
PLAN = {  # epochs: arms
    10: ("baseline", "netaug", SHRINK),
    30: ("baseline", "netaug", SHRINK),
    90: ("baseline", "netaug", SHRINK, "distill", "netaug+distill"),
    270: ("baseline", "netaug"),
}
SEEDS = {10: 3, 30: 3, 90: 5, 270: 5}  # by epochs: five where it is decided


def arms_of(epochs: int, teacher: Path) -> str:
    """The arms trained for so many epochs, as `compare` takes them."""
    return ",".join(f"{arm}:source={teacher}" if arm.endswith("distill") else arm for arm in PLAN[epochs])


def cell(epochs: int, arch: Path, folder: Path, root: Path, jobs: int) -> Cell:
    options = [
        "--arch", str(arch), "--data", str(folder), "--methods", arms_of(epochs, root / "teacher"),
        "--seeds", str(SEEDS[epochs]), "--lengths", str(epochs), "--cells", str(root / "cells"), "--jobs", str(jobs),
    ]  # fmt: skip
    sets = (word for item in SET for word in ("--set", item))
    return Cell(f"epochs-{epochs}-seeds-{SEEDS[epochs]}", "compare", (*options, *sets))


def page(root: Path) -> None:
    """docs/results/netaug_curves.md and .json, from the finished cells."""
    done = [path for path in sorted((root / "cells").iterdir()) if path.is_dir() and RunDir(path).finished]
    if not done:
        raise SystemExit(f"no training in {root / 'cells'} is finished yet")
    measured = json.dumps(report.summarise(report.read_runs(done)))
    summary = json.loads(measured.replace(str(root), "ROOT"))  # commands and teachers name this machine's folder
    wanted = {(arm, epochs) for epochs, arms in PLAN.items() for arm in arms}
    there = {(row["arm"].partition(":source=")[0], round(row["epochs"])): row["n"] for row in summary["arms"]}
    missing = [
        f"{arm} at {epochs} epochs: {there.get((arm, epochs), 0)} of {SEEDS[epochs]} seeds"
        for arm, epochs in sorted(wanted, key=lambda pair: pair[::-1]) if there.get((arm, epochs), 0) < SEEDS[epochs]
    ]  # fmt: skip
    lines = [
        "`python benchmarks/netaug_curves.py FOLDER ROOT`", "",
        f"`{NET}` with its widths scaled to {SIZE} MACs at {PX} px, CIFAR-10 (JPEG), crops and flips; "
        f"{', '.join(SET)}; teacher: `{TEACHER}` after {TEACHER_EPOCHS} epochs. The runs shared the machine with other "
        "work, so compare their MACs, not their times.", "",
        *([f"Not finished: {'; '.join(missing)}.", ""] if missing else []),
        "```text", wording.table(summary), "```",
    ]  # fmt: skip
    write("netaug_curves", "What NetAug costs, and when it pays", lines, summary | {"missing": missing})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("root", type=Path)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", default=",".join(map(str, PLAN)))
    parser.add_argument("--page", action="store_true")
    o = parser.parse_args()
    root, folder = o.root.resolve(), o.folder.resolve()
    if o.page:
        page(root)
        return
    root.mkdir(parents=True, exist_ok=True)
    arch = root / f"{NET}-{SIZE}.json"
    if not arch.is_file():
        base = fitted(NET, PX, Recipe(data=DataConfig(name=str(folder))))
        _of_size(SIZE, _scaled(base.plan), base).save(arch)
    for epochs in map(int, o.only.split(",")):
        if any(arm.endswith("distill") for arm in PLAN[epochs]):
            teacher = ("--data", str(folder), "--resolution", str(PX), "--set", f"epochs={TEACHER_EPOCHS}")
            run(root, [train("teacher", TEACHER, *teacher)], 1)
        run(root, [cell(epochs, arch, folder, root, o.jobs)], 1)
    page(root)


if __name__ == "__main__":
    main()
