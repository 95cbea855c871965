"""The two commands with default options: accuracy as the budget rises, and how long they take.

    python benchmarks/two_commands.py ROOT [--budgets 1M,5M,25M] [--seeds 3] [--jobs 1] [--page] [--set KEY=VALUE …]
                                      [--data fashion-mnist] [--name two_commands]

Resumable: each command is a cell in ROOT. By default one runs at a time, with all cores, as a user would run it; with
--jobs N so many run at a time with one thread each, which takes less time for all of them. The page gives the minutes
of those that had all cores and were not interrupted: run nothing beside them. --page writes the page of what is
finished. --data is a data set, or CIFAR-10 as JPEG files; --set gives both commands recipe keys. For a page of another
--name:

    python benchmarks/two_commands.py ROOT --budgets 1M,1.4M,2M,5M --seeds 1 \
        --set train_macs=3e12 --set search.least_epochs=0 --name two_commands_3T

tells which size of net the same compute trains best.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from cells import Cell, data_name, interval, run, write

from nasaug.core.files import write_json
from nasaug.core.units import format_quantity
from nasaug.rundirs.folder import RunDir

MINUTES, NAME, DATA = "minutes.json", "two_commands", "fashion-mnist"


def cells(root: Path, budget: str, seed: int, o: argparse.Namespace) -> tuple[Cell, Cell]:
    found = root / f"search-{budget}-{seed}"
    both = ["--seed", str(seed), *(("--data", o.data) if o.data != DATA else ())]
    both += [word for key in o.set for word in ("--set", key)]
    search = Cell(found.name, "search", ("--mac-budget", budget, *both))
    return search, Cell(f"netaug-{budget}-{seed}", "netaug-train", ("--arch", str(found / "found.json"), *both))


def timed(root: Path, cell: Cell) -> None:
    """Run it with all cores; if it had not begun before, add its minutes to ROOT/minutes.json."""
    begun, start = RunDir(root / cell.name).job_file.is_file(), time.monotonic()
    run(root, [cell], 1, threads=None)
    if not begun:
        write_json(root / MINUTES, minutes(root) | {cell.name: (time.monotonic() - start) / 60})


def minutes(root: Path) -> dict[str, float]:
    """By cell, of those that ran at one go with all cores."""
    return json.loads((root / MINUTES).read_text()) if (root / MINUTES).is_file() else {}


def page(root: Path, o: argparse.Namespace) -> None:
    """docs/results/NAME.md and .json."""
    taken, budgets, seeds = minutes(root), o.budgets.split(","), o.seeds
    data, sets = data_name(o.data), "".join(f" --set {key}" for key in o.set)
    of = f" --data {data}" if o.data != DATA else ""
    said = f" --budgets {o.budgets} --seeds {seeds}{of}{sets} --name {o.name}" if o.name != NAME else ""
    lines = [
        f"`python benchmarks/two_commands.py ROOT{said}`", "",
        f"`nasaug search --mac-budget BUDGET{sets}`, then `nasaug netaug-train --arch found.json{sets}`, with "
        f"{'otherwise ' if sets else ''}default options on {data}; mean and 95 % t interval over seeds. "
        "Minutes: both commands together, of the seeds that ran alone, with all cores; "
        "the others had one thread each.", "",
        "| budget | seeds | MACs found | validation top-1 | test top-1 | minutes |",
        "| --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    figures: dict = {"rows": [], "missing": []}
    for budget in budgets:
        rows = []
        for seed in range(seeds):
            search, train = (RunDir(root / cell.name) for cell in cells(root, budget, seed, o))
            if not (search.finished and train.finished):
                figures["missing"].append(f"{budget}, seed {seed}")
                continue
            found, trained = search.result(), train.result()
            rows.append({
                "budget": budget, "seed": seed, "macs": found["macs"], "little_used": found["little_used"],
                "val": trained["val_top1"], "test": trained["test_top1"],
                "augmented_over_base": trained["augmented_over_base"],
                "ladder": trained["ladder"],
                "minutes": sum(taken[each.path.name] for each in (search, train))
                if all(each.path.name in taken for each in (search, train)) else None,
            })  # fmt: skip
        figures["rows"] += rows
        if rows:
            macs = ", ".join(format_quantity(row["macs"], "macs") for row in rows)
            shown = [interval([row[key] for row in rows]) for key in ("val", "test")]
            alone = [row["minutes"] for row in rows if row["minutes"] is not None]
            shown.append(interval(alone) if alone else "-")
            lines.append(f"| {budget} | {len(rows)} | {macs} | {' | '.join(shown)} |")
    if asked := set(o.set):
        for name in (cell.name for budget in budgets for seed in range(seeds) for cell in cells(root, budget, seed, o)):
            note = root / f"{name}.options"
            kept = note.read_text().split() if note.is_file() else []
            if lacking := sorted(asked - set(kept)):
                lines += ["", f"{name} was started without `{', '.join(lacking)}`: its defaults then came to the same."]
    told = {row["little_used"] for row in figures["rows"] if row["little_used"]}
    lines += ["", *(f"- {line}" for line in sorted(told))]
    if figures["missing"]:
        lines += ["", f"Not finished: {'; '.join(figures['missing'])}."]
    title = "The two commands with default options" if o.name == NAME else "The two commands at several budgets"
    write(o.name, title, lines, figures)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--budgets", default="1M,5M,25M")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--page", action="store_true")
    parser.add_argument("--data", default=DATA)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--name", default=NAME)
    o = parser.parse_args()
    root, budgets = o.root.resolve(), o.budgets.split(",")
    o.data = o.data if o.data == DATA else str(Path(o.data).resolve())
    pairs = [cells(root, budget, seed, o) for seed in range(o.seeds) for budget in budgets]
    if not o.page and o.jobs > 1:
        for verb in zip(*pairs, strict=True):  # every search, then every training
            run(root, list(verb), o.jobs)
    elif not o.page:
        for pair in pairs:
            for cell in pair:
                timed(root, cell)
    page(root, o)


if __name__ == "__main__":
    main()
