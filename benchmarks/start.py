"""From which weights should the net that a search found be trained, plainly and with NetAug?

    python benchmarks/start.py ROOT [--data fashion-mnist] [--budget 100k] [--macs 60G] [--seeds 3] [--page]

Each seed is a search and the trainings of its net with as many MACs (--macs): from fresh weights, from its slice of the
supernet, from the weights that its short training among the finalists ended with, and from these placed in the
supernet, as found.json says. The last two differ for NetAug alone, whose wider nets are fresh in the one and the
supernet's in the other. Resumable: each run is a cell in ROOT. --page trains nothing and writes the page of what is
finished, docs/results/start.md.
"""

from __future__ import annotations

import argparse
import contextlib
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from cells import Cell, data_name, interval, run, write

from nasaug.arch import archfile
from nasaug.comparison import stats
from nasaug.core.files import DATA_SETS
from nasaug.core.units import format_quantity, parse_quantity
from nasaug.reporting.wording import signed
from nasaug.rundirs.folder import RunDir

STARTS = {
    "scratch": "fresh", "supernet": "its slice of the supernet", "alone": "its own, wider nets fresh",
    "own": "its own, placed in the supernet",
}  # fmt: skip
VERBS = {"train": "plain", "netaug-train": "NetAug"}
WAYS = [(verb, start) for verb in VERBS for start in STARTS if (verb, start) != ("train", "alone")]  # the same as own


def search(seed: int, o: argparse.Namespace) -> Cell:
    return Cell(f"search-s{seed}", "search", ("--mac-budget", o.budget, "--seed", str(seed), *o.common))


def arch_of(start: str, seed: int, o: argparse.Namespace) -> Path:
    """An arch file of the net found that names these weights."""
    found = RunDir(o.root / search(seed, o).name)
    path = o.root / f"{start}-s{seed}.json"
    if not path.is_file():
        net = archfile.read(str(found.found_file))
        alone = found.front_folder / f"{net.name.partition(':')[2]}.safetensors"
        weights = {"supernet": None, "alone": alone}.get(start, found.start_file)
        replace(net, weights=weights and weights.resolve()).save(path)
    return path


def cell(verb: str, start: str, seed: int, o: argparse.Namespace) -> Cell:
    options = ("--arch", str(arch_of(start, seed, o)), "--seed", str(seed), *o.common)
    method = ("--method", "baseline") if verb == "train" else ()
    fresh = ("--from-scratch",) if start == "scratch" else ()
    return Cell(f"{start}-{verb}-s{seed}", verb, (*options, *method, *fresh))


def carry_out(o: argparse.Namespace) -> None:
    with contextlib.chdir(o.root):  # searches also write found.json to their working directory
        for seed in range(o.seeds):
            run(o.root, [search(seed, o)], o.jobs)
            run(o.root, [cell(*way, seed, o) for way in WAYS], o.jobs)


def page(o: argparse.Namespace) -> None:
    done: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
    for verb, start in WAYS:
        runs = {seed: RunDir(o.root / f"{start}-{verb}-s{seed}") for seed in range(o.seeds)}
        done[verb, start] = {seed: each.result() for seed, each in runs.items() if each.finished}
    named, macs = o.data if o.data in DATA_SETS else "FOLDER", format_quantity(o.macs, "macs")
    lines = [
        f"`python benchmarks/start.py ROOT --data {named} --budget {o.budget} --macs {macs} --seeds {o.seeds}`", "",
        f"{data_name(o.data)}, nets found by `search --mac-budget {o.budget}`, {macs} forward MACs in each "
        "training, so NetAug has fewer epochs; a seed repeats search and trainings. Mean and 95 % t interval; beside "
        "them validation top-1 minus that from its slice of the supernet, in percentage points, paired by seed, with "
        "the interval of this one comparison. The net's own weights have had the finalists' training, which the search "
        "pays for anyway.", "",
        "| training | initial weights | validation top-1 | test top-1 | over the supernet's slice |",
        "| --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    kept, known = ("val_top1", "test_top1", "macs", "epochs", "train_macs"), []
    figures: dict[str, Any] = {"data": o.data, "budget": o.budget, "train_macs": o.macs, "ways": {}}
    for (verb, start), rows in done.items():
        known += [row["macs"] for row in rows.values()]
        val, test = (interval([row[key] for row in rows.values()]) if rows else "not run" for key in kept[:2])
        lines.append(f"| {VERBS[verb]} | {STARTS[start]} | {val} | {test} | {_over(rows, done[verb, 'supernet'])} |")
        figures["ways"][f"{verb}, {start}"] = {seed: {key: row[key] for key in kept} for seed, row in rows.items()}
    lines += ["", f"The nets have {min(known):,} to {max(known):,} MACs." if known else ""]
    if left := [f"{VERBS[verb]}, {STARTS[start]}: {len(rows)}" for (verb, start), rows in done.items()
                if len(rows) < o.seeds]:  # fmt: skip
        lines += ["", f"**Not finished**, of {o.seeds} seeds: {'; '.join(left)}."]
    write("start", "From which weights should a found net be trained?", lines, figures)


def _over(ours: dict[int, dict], theirs: dict[int, dict]) -> str:
    seeds = sorted(ours.keys() & theirs.keys())
    if ours is theirs or not seeds:
        return "-"
    pair = stats.paired(*([rows[seed]["val_top1"] for seed in seeds] for rows in (ours, theirs)))
    ends = "" if pair.low is None else f" [{signed(pair.low)}, {signed(pair.high)}]"
    return f"{signed(pair.difference)}{ends}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=lambda text: Path(text).resolve())
    parser.add_argument("--data", default="fashion-mnist", help="a data set's name or an image folder")
    parser.add_argument("--budget", default="100k", help="MACs of the search")
    parser.add_argument("--macs", type=partial(parse_quantity, kind="macs"), default="60G", help="of each training")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--page", action="store_true", help="write the page of what is finished")
    o = parser.parse_args()
    data = o.data if o.data in DATA_SETS else str(Path(o.data).resolve())
    o.common = ("--data", data, "--set", f"train_macs={o.macs:g}")
    o.root.mkdir(parents=True, exist_ok=True)
    if not o.page:
        carry_out(o)
    page(o)


if __name__ == "__main__":
    main()
