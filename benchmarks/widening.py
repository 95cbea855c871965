"""How far should NetAug widen a net of which size? The same net at several sizes, inside nets that are wider by little
or by much.

    python benchmarks/widening.py FOLDER ROOT [--sizes 0.1M,0.3M,1M] [--epochs 20] [--seeds 3] [--jobs 2] [--page]

FOLDER is CIFAR-10 as JPEG files. Resumable: each training is a cell in ROOT/cells. --page trains nothing and writes the
page of what is finished.
"""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path

from cells import Cell, run, write

from nasaug.comparison import report
from nasaug.comparison.sweep import _of_size, _scaled
from nasaug.data import DataConfig
from nasaug.reporting.wording import signed
from nasaug.rundirs.folder import RunDir
from nasaug.training.recipe import Recipe
from nasaug.training.train import fitted

NET, PX, PLAIN = "mobilenetv2-tiny", 32, "baseline"
FACTORS = {  # arm: of widths, and of expand ratios
    "mild": ((1.0, 1.25), (1.0, 1.25)),
    "medium": ((1.0, 1.5), (1.0, 1.5)),
    "published": ((1.0, 1.8, 2.6), (1.0, 1.6, 2.2, 2.8)),  # NetAug's own: Cai et al., ICLR 2022
}


def arms(root: Path) -> list[str]:
    """The arms as `compare` takes them; writes those that have a file."""
    paths = []
    for name, (widths, expands) in FACTORS.items():
        path = Path(f"{name}.toml")  # relative, since it names the arm
        (root / path).write_text(
            'method = "netaug"\n\n[netaug]\nladder = "factors"\n'
            f"width_factors = {list(widths)}\nexpand_factors = {list(expands)}\n"
        )
        paths.append(str(path))
    return [PLAIN, *paths]


def page(root: Path, sizes: list[str], epochs: int, seeds: int) -> None:
    """docs/results/widening.md and .json, from the finished cells."""
    done = [path for path in sorted(root.glob("cells/*")) if path.is_dir() and RunDir(path).finished]
    rows, missing, figures = [], [], {}
    for size in sizes:
        paths = [path for path in done if RunDir(path).result()["arch"] == f"{NET}-{size}"]
        found = {arm["arm"]: arm for arm in report.summarise(report.read_runs(paths))["arms"]} if paths else {}
        figures[size] = found
        for arm in (PLAIN, *FACTORS):
            one = found.get(arm if arm == PLAIN else f"{arm}.toml")
            if one is None or one["n"] < seeds:
                missing.append(f"{arm} at {size}: {one['n'] if one else 0} of {seeds} seeds")
            if one is None:
                continue
            plain, versus = found.get(PLAIN), one.get("versus") or {}
            compute = f"{one['train_macs'] / plain['train_macs']:.1f}" if plain else "-"
            gain = "-"
            if versus:
                low, high = versus.get("low"), versus.get("high")
                gain = signed(versus["difference"]) + (f" [{signed(low)}, {signed(high)}]" if low is not None else "")
            rows.append(
                f"| {size} | {arm} | {one['n']} | {one['val_top1']['mean']:.2f} | {one['test_top1']['mean']:.2f} "
                f"| {gain} | {compute} |"
            )
    lines = [
        "`python benchmarks/widening.py FOLDER ROOT`", "",
        f"`{NET}` with its widths scaled to each size, CIFAR-10 (JPEG) at {PX} px, crops and flips, {epochs} epochs "
        "from scratch. Wider nets: " + "; ".join(
            f"{name} widths × {', '.join(map(str, widths[1:]))}, expand ratios × {', '.join(map(str, expands[1:]))}"
            for name, (widths, expands) in FACTORS.items()
        ) + ". The gain is over plain training on test images, in points, paired by seed, with the interval of "
        "`compare`; compute is in plain trainings.", "",
        *([f"Not finished: {'; '.join(missing)}.", ""] if missing else []),
        "| size | arm | seeds | validation top-1 | test top-1 | gain | compute |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *rows,
    ]  # fmt: skip
    write("widening", "How far should NetAug widen, by size?", lines, {"epochs": epochs, "sizes": figures})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("root", type=Path)
    parser.add_argument("--sizes", default="0.1M,0.3M,1M")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--page", action="store_true")
    o = parser.parse_args()
    root, sizes = o.root.resolve(), o.sizes.split(",")
    if o.page:
        page(root, sizes, o.epochs, o.seeds)
        return
    root.mkdir(parents=True, exist_ok=True)
    folder = str(o.folder.resolve())
    base = fitted(NET, PX, Recipe(data=DataConfig(name=folder)))
    nets = _scaled(base.plan)
    for size in sizes:
        path = root / f"{NET}-{size}.json"
        if not path.is_file():
            _of_size(size, nets, base).save(path)
        options = [
            "--arch", str(path), "--data", folder, "--methods", ",".join(arms(root)),
            "--seeds", str(o.seeds), "--cells", str(root / "cells"), "--jobs", str(o.jobs),
            "--set", f"epochs={o.epochs}",
        ]  # fmt: skip
        with contextlib.chdir(root):
            run(root, [Cell(f"size-{size}", "compare", tuple(options))], 1)
    page(root, sizes, o.epochs, o.seeds)


if __name__ == "__main__":
    main()
