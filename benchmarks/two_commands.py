"""The two commands with default options, on Fashion-MNIST: accuracy as the budget rises, and how long they take.

    python benchmarks/two_commands.py ROOT [--budgets 1M,5M,25M] [--seeds 3] [--page] [--busy]

Resumable: each command is a cell in ROOT. One runs at a time, with all cores, as a user would run it. The minutes of
the page hold only for commands that were not interrupted and ran alone; --busy leaves them out. --page writes the page
of what is finished.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from cells import Cell, interval, run, write

from nasaug.core.units import format_quantity
from nasaug.rundirs.folder import RunDir


def cells(root: Path, budget: str, seed: int) -> tuple[Cell, Cell]:
    found = root / f"search-{budget}-{seed}"
    search = Cell(found.name, "search", ("--mac-budget", budget, "--seed", str(seed)))
    train = Cell(
        f"netaug-{budget}-{seed}", "netaug-train", ("--arch", str(found / "found.json"), "--seed", str(seed))
    )
    return search, train


def page(root: Path, budgets: list[str], seeds: int, busy: bool) -> None:
    lines = [
        "`python benchmarks/two_commands.py ROOT`", "",
        "`nasaug search --mac-budget BUDGET`, then `nasaug netaug-train --arch found.json`, with default options on "
        "Fashion-MNIST and all cores; mean and 95 % t interval over seeds. Minutes: both commands together"
        f"{'; other work was running beside them, so they are left out' if busy else ''}.", "",
        "| budget | seeds | MACs found | validation top-1 | test top-1 | minutes |",
        "| --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    figures: dict = {"rows": [], "missing": []}
    for budget in budgets:
        rows = []
        for seed in range(seeds):
            search, train = (RunDir(root / cell.name) for cell in cells(root, budget, seed))
            if not (search.finished and train.finished):
                figures["missing"].append(f"{budget}, seed {seed}")
                continue
            found, trained = search.result(), train.result()
            seconds = sum(run.result_file.stat().st_mtime - run.env_file.stat().st_mtime for run in (search, train))
            rows.append({
                "budget": budget, "seed": seed, "macs": found["macs"], "little_used": found["little_used"],
                "val": trained["val_top1"], "test": trained["test_top1"],
                "minutes": None if busy else seconds / 60, "augmented_over_base": trained["augmented_over_base"],
                "ladder": trained["ladder"],
            })  # fmt: skip
        figures["rows"] += rows
        if rows:
            macs = ", ".join(format_quantity(row["macs"], "macs") for row in rows)
            shown = [interval([row[key] for row in rows]) for key in ("val", "test")]
            minutes = "-" if busy else interval([row["minutes"] for row in rows])
            lines.append(f"| {budget} | {len(rows)} | {macs} | {' | '.join(shown)} | {minutes} |")
    told = {row["little_used"] for row in figures["rows"] if row["little_used"]}
    lines += ["", *(f"- {line}" for line in sorted(told))]
    if figures["missing"]:
        lines += ["", f"Not finished: {'; '.join(figures['missing'])}."]
    write("two_commands", "The two commands with default options", lines, figures)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--budgets", default="1M,5M,25M")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--page", action="store_true")
    parser.add_argument("--busy", action="store_true")
    o = parser.parse_args()
    root, budgets = o.root.resolve(), o.budgets.split(",")
    if not o.page:
        for seed in range(o.seeds):
            for budget in budgets:
                for cell in cells(root, budget, seed):
                    run(root, [cell], 1, threads=None)
    page(root, budgets, o.seeds, o.busy)


if __name__ == "__main__":
    main()
