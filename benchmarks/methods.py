"""What helps which network: runs the comparisons of docs/results, each one `nasaug compare`, and writes their pages.

    python benchmarks/methods.py FOLDER FOUND [--root runs/methods] [--only methods_tiny,methods_large] [--jobs 2]

FOLDER is an image folder with train/ and test/ (CIFAR-10 as JPEG), FOUND the found.json of
`nasaug search --mac-budget 1M`. Resumable; cells that comparisons share are trained once.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

from cells import Cell, train, write
from cells import run as run_cells

from nasaug.comparison import stats
from nasaug.reporting import wording
from nasaug.rundirs.folder import RunDir

FLIPS_ALONE = "views.train.crop=0"
TEACHER = "mobilenetv2"  # 5.71M MACs at 28 px


@dataclass(frozen=True)
class Comparison:
    """`nasaug compare` with these options; the arch and data are those of FOUND, or FOLDER at 28 px or its own size."""

    title: str
    question: str
    arch: str
    methods: str
    seeds: int
    sets: tuple[str, ...]
    resolution: int | None = None
    match: str = "epochs"
    against: str = ""  # a second reference arm for the page, beside plain training
    fractions: str = ""  # of the training images, as `compare --data-fraction` takes them; all if empty


def comparisons(found: str, root: Path, mean_magnitude: float = math.nan) -> dict[str, Comparison]:
    """The comparisons by name. `mean_magnitude` comes from `driven`; only guided_drive uses it."""
    teacher = str(root / "teacher")
    tiny, on_folder = "mobilenetv2-tiny", (FLIPS_ALONE,)
    distill = f"distill:source={teacher}"
    claim_b = "baseline,aug-constant,strong-wide,netaug+aug-constant,netaug,shrink,shrink:wide_view=train"
    judged = f"difficulty-keep:source={teacher},difficulty-weight:source={teacher}"
    drives = f"difficulty-drive:source={teacher}"
    return {
        "methods_found": Comparison(
            "Six ways to train the net found for 1M MACs", "Fashion-MNIST, starting from the weights that FOUND names.",
            found, "baseline,netaug,gradaug,aug-constant,aug-rising,aug-falling", 3, ("train_macs=1e12",)),
        "methods_tiny": Comparison(
            "What helps a tiny net, which under-fits", "CIFAR-10 (JPEG), 45,000 images, 8 epochs.", tiny,
            f"baseline,netaug,gradaug,{distill},netaug+{distill},randaugment,longer", 5, (*on_folder, "epochs=8"), 28),
        "methods_large": Comparison(
            "What helps a large net, which over-fits", "CIFAR-10 (JPEG), 1,000 images, 40 epochs, batch 32.",
            "resnet20-cifar", "baseline,netaug:aug_compute=1.0,gradaug,gradaug+cutmix,randaugment", 3,
            (*on_folder, "data.train_images=1000", "epochs=40", "batch=32"), 32),
        "netaug_cap": Comparison(
            "NetAug's accuracy against its extra training compute", "CIFAR-10 (JPEG), 8 epochs; also plain "
            "training with about the same MACs.", tiny,
            "baseline,netaug:aug_compute=0.17,netaug:aug_compute=0.5,netaug:aug_compute=1.0,netaug,"
            "longer:times=1.17,longer:times=1.5,longer:times=2.0,longer:times=5.0", 3, (*on_folder, "epochs=8"), 28),
        "netaug_ablations": Comparison(
            "NetAug's parts", "CIFAR-10 (JPEG), 4 epochs.", tiny,
            "netaug,netaug:sort=false,netaug:sort_momentum=false,netaug:round=8,netaug:width_until=0,"
            "netaug:width_until=1,netaug:zero_init_residual=false,baseline", 2, (*on_folder, "epochs=4"), 28),
        "netaug_ladders": Comparison(
            "Ladders and initial weights of the net found for 1M MACs",
            "Fashion-MNIST; inherited weights unless stated otherwise.",
            found, "baseline,netaug,netaug:ladder=factors,netaug:init=scratch,baseline:init=scratch", 3,
            ("train_macs=1e12",)),
        "strong_wide_epochs": Comparison(
            "Strong augmentation for parameters that are discarded, at equal epochs",
            "CIFAR-10 (JPEG), 8 epochs. Strong: RandAugment, magnitude 9 (Yu, Zhang, Ma 2023, claim B).",
            tiny, claim_b, 3, (*on_folder, "epochs=8"), 28),
        "strong_wide_compute": Comparison(
            "Strong augmentation for parameters that are discarded, at equal compute",
            "CIFAR-10 (JPEG), each arm with the forward MACs of 4 epochs of NetAug.", tiny, claim_b, 3,
            (*on_folder, "train_macs=8.3e11"), 28, "compute"),
        "guided": Comparison(
            "Teacher-guided augmentation against the same magnitude without a teacher",
            "CIFAR-10 (JPEG), 8 epochs (Yu, Zhang, Ma 2023, claim C). `keep`: two versions of an image, magnitude 9.",
            tiny, f"aug-constant,baseline,{judged},{drives}", 3, (*on_folder, "epochs=8"), 28, against="aug-constant"),
        "guided_drive": Comparison(
            "A teacher-driven magnitude against a constant one of the same mean",
            "CIFAR-10 (JPEG), 8 epochs (Yu, Zhang, Ma 2023, claim C). "
            "The constant is the mean over the teacher-driven trainings.",
            tiny, f"aug-constant:magnitude={mean_magnitude:.2f},{drives}", 3,
            (*on_folder, "epochs=8"), 28),
        "little_data": Comparison(
            "Little data, at equal compute", "CIFAR-10 (JPEG), shares of 45,000 images; crops and flips.", tiny,
            "baseline,netaug,gradaug", 3, ("train_macs=2e11", "data.workers=0"), 32, "compute",
            fractions="0.05,0.1,0.25,1"),
        "little_data_epochs": Comparison(
            "Little data, at equal epochs", "CIFAR-10 (JPEG), 5 % of 45,000 images, 84 epochs; crops and flips. "
            "`longer` has as many training MACs as NetAug.", tiny,
            "baseline,netaug,gradaug,longer:times=4.57", 3, ("epochs=84", "data.workers=0"), 32, fractions="0.05"),
    }  # fmt: skip


def driven(cells: Path) -> float:
    """Mean magnitude, over steps and trainings, of the trainings of `guided` with a teacher-driven magnitude. Exits if
    there are none, or only means of an older version, which left out the start of training."""
    runs = [run for run in map(RunDir, sorted(cells.glob("difficulty-drive*"))) if run.finished]
    last = {run.path: run.result()["val"][-1] for run in runs}
    if not last:
        raise SystemExit("guided_drive needs the trainings of guided: run that first")
    old = [str(path) for path, row in last.items() if "mean_magnitude" not in row]
    if old:
        anew = f"remove them and {cells.parent / 'guided'}, and train guided again"
        raise SystemExit(f"an older version kept no mean_magnitude in {', '.join(old)}; {anew}")
    return mean(row["mean_magnitude"] for row in last.values())


def cell(name: str, c: Comparison, folder: str, cells: Path, jobs: int) -> Cell:
    """The comparison as one resumable run."""
    options = ["--arch", c.arch, "--methods", c.methods, "--seeds", str(c.seeds), "--cells", str(cells)]
    options += ["--match", c.match, "--jobs", str(jobs)]
    options += ["--data-fraction", c.fractions] if c.fractions else []
    options += [] if c.resolution is None else ["--resolution", str(c.resolution), "--data", folder]
    return Cell(name, "compare", (*options, *(word for item in c.sets for word in ("--set", item))))


def over(run: Path, arm: str, other: str) -> str:
    """The difference of test top-1 between two arms, paired over seeds, with the interval of this one comparison."""
    with open(run / "comparison.csv") as file:
        rows = [(row["arm"].replace(f"{run.parent}/", ""), row) for row in csv.DictReader(file)]
    one, two = ({row["seed"]: float(row["test_top1"]) for name, row in rows if name == which} for which in (arm, other))
    if arm == other or len(seeds := sorted(one.keys() & two.keys())) < 2:
        return "-"
    p = stats.paired([one[seed] for seed in seeds], [two[seed] for seed in seeds])
    return f"{p.difference:+.2f} [{p.low:+.2f}, {p.high:+.2f}]"


def page(name: str, c: Comparison, run: Path) -> None:
    """Write docs/results/NAME.md and .json from the comparison's output."""
    text = RunDir(run).comparison_file.read_text()
    summary = json.loads(text.replace(f"{run.parent}/", ""))  # a teacher's path is meaningless elsewhere
    head, *rows = wording.cells(summary)
    fits = [(wording.percent(a["train_top1"]), wording.percent(a["val_top1"])) for a in summary["arms"]]
    head += ["train top-1", "validation top-1"]
    if "epochs" not in head:
        head.append("epochs")
        fits = [(*fit, f"{a['epochs']:.3g}") for fit, a in zip(fits, summary["arms"], strict=True)]
    if c.against:
        head.append(f"over {c.against}")
        fits = [(*fit, over(run, a["arm"], c.against)) for fit, a in zip(fits, summary["arms"], strict=True)]
    lines = [
        f"`python benchmarks/methods.py FOLDER FOUND --only {name}`", "",
        f"{c.question}{' Flips, no crops.' * (FLIPS_ALONE in c.sets)} `{'`, `'.join(summary['archs'])}`; "
        f"seeds {', '.join(map(str, summary['seeds']))}; "
        f"{summary['test_images']:,} test images. Mean and 95 % t interval; train accuracy is measured on clean "
        "training images at the epoch that is best on validation.", "",
        f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}",
        *(f"| {' | '.join([*row, *fit])} |" for row, fit in zip(rows, fits, strict=True)),
    ]  # fmt: skip
    if summary["failed"]:
        lines += ["", *(f"Failed: {told}" for told in wording.failures(summary))]
    kept = {key: summary[key] for key in ("data", "data_key", "match", "seeds", "cost", "arms")}
    write(name, c.title, lines, kept)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("found")
    parser.add_argument("--root", type=Path, default=Path("runs/methods"))
    parser.add_argument("--only", default="")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seeds", type=int, help="fewer than the comparison's own, for a first look")
    parser.add_argument("--pages", action="store_true", help="write the pages of finished comparisons, train nothing")
    o = parser.parse_args()
    root = o.root.resolve()
    root.mkdir(parents=True, exist_ok=True)
    folder, told = str(Path(o.folder).resolve()), (str(Path(o.found).resolve()), root)
    for name in o.only.split(",") if o.only else comparisons(*told):
        if name not in comparisons(*told):
            raise SystemExit(f"unknown comparison {name}; choices: {', '.join(comparisons(*told))}")
        follows = name == "guided_drive" and not o.pages  # depends on another comparison's result
        c = comparisons(*told, *([driven(root / "cells")] if follows else []))[name]
        c = replace(c, seeds=o.seeds or c.seeds)
        if not o.pages:
            if str(root / "teacher") in c.methods:
                how = ("--data", folder, "--resolution", "28", "--set", "epochs=12")
                run_cells(root, [train("teacher", TEACHER, *how)], 1)
            run_cells(root, [cell(name, c, folder, root / "cells", o.jobs)], 1)
        if RunDir(root / name).comparison_file.is_file():
            page(name, c, root / name)


if __name__ == "__main__":
    main()
