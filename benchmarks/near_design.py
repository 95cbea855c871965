"""Does a space hold better nets than its own design, near it, and which short training shows them?

    python benchmarks/near_design.py FOLDER ROOT SEARCH [--nets 5] [--epochs 12] [--long n0] [--jobs 2]

FOLDER is CIFAR-10 as JPEG files, SEARCH a finished `search` under a MAC budget. Nets of 0.93 to 1 times the budget that
differ from the space's named design by one rung on some axes are trained plainly from scratch for `--epochs` epochs,
and so are the design with one width multiplier (two seeds show the noise) and the net that SEARCH found. Each is also
trained for 1, 2 and 4 epochs from scratch and for 1 and 4 from SEARCH's supernet, as finalists are. The page says how
well each of these orders the nets. The nets of `--long`, the found one and the design also have 40 epochs.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from random import Random

from cells import Cell, run, train, write
from ranking import tau
from reopen import reopen
from search_wins import default_net

from nasaug.arch import archfile
from nasaug.arch.archfile import ArchFile
from nasaug.arch.blocks import BLOCKS
from nasaug.arch.cost import cost
from nasaug.arch.plan import plan
from nasaug.arch.space import Arch, Space
from nasaug.arch.spacefile import load
from nasaug.core.units import format_quantity
from nasaug.rundirs.folder import RunDir

SHORT, LONG = {"scratch": (1, 2, 4), "supernet": (1, 4)}, 40
KEPT = ("val_top1", "test_top1", "macs", "params")
HALTED = 2, 3, 4, 6, 8  # epochs
MOST = 10_000  # draws for each net
NEAR, MOVED, SELDOM = 0.93, 0.4, 0.15  # least part of the budget; chances that an axis moves, and one of the shape
BEGUN = {"scratch": "scratch", "supernet": "the supernet"}
CLASSES = 10


def near(space: Space, macs: int, count: int) -> list[Arch]:
    """Different nets near the design, within the budget. Exits if the space has not so many."""
    (design,) = space.archs.values()
    rng, found = Random(0), []
    for _ in range(MOST * count):
        if len(found) == count:
            break
        values = []
        for axis, own in zip(space.axes, design.arch.values, strict=True):
            at = min(range(len(axis.choices)), key=lambda i: abs(axis.choices[i] - own))
            if rng.random() < (SELDOM if axis.kind in ("stride", "resolution") else MOVED):
                at = min(max(at + rng.choice((-1, 1)), 0), len(axis.choices) - 1)
            values.append(axis.choices[at])
        arch = space.canonical(Arch(space.name, tuple(values)))
        if NEAR * macs <= cost(plan(space, arch, CLASSES)).macs <= macs and arch not in found:
            found.append(arch)
    if len(found) < count:
        raise SystemExit(f"{MOST * count:,} draws gave only {len(found)} nets of the budget; ask for fewer with --nets")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("root", type=Path)
    parser.add_argument("search", type=Path)
    parser.add_argument("--nets", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--long", default="n0")
    parser.add_argument("--jobs", type=int, default=2)
    o = parser.parse_args()
    o.root.mkdir(parents=True, exist_ok=True)
    found = archfile.read(str(RunDir(o.search).found_file))
    cropped, macs, supernet = found.space, found.facts["budget"]["macs"], RunDir(o.search).supernet_file.resolve()
    assert cropped is not None and found.arch is not None
    space = load(cropped.name, BLOCKS)
    nets = {f"n{i}": arch for i, arch in enumerate(near(space, macs, o.nets))} | {"found": found.arch}
    cells: dict[tuple[str, str, int], Cell] = {}  # by net, start and epochs

    def cell(name: str, start: str, epochs: int, arch: Path, seed: int = 0) -> None:
        options = ("--data", str(o.folder), "--set", f"epochs={epochs}")
        fresh = ("--from-scratch",) if start == "scratch" else ()
        cells[name, start, epochs] = train(f"{name}-{start}-{epochs}", arch, *fresh, *options, seed=seed)

    design = o.root / "design.json"
    if not design.is_file():
        default_net(space, macs).save(design)
    for name, seed, epochs in (("design", 0, o.epochs), ("design again", 1, o.epochs), ("design", 0, LONG)):
        cell(name, "scratch", epochs, design, seed)
    for name, arch in nets.items():
        alone, inside = (o.root / f"{name}{more}.json" for more in ("", "-in-supernet"))
        if not inside.is_file():
            ArchFile(plan(space, arch, CLASSES), name).save(alone)
            held = cropped.canonical(Arch(cropped.name, arch.values))
            ArchFile(plan(space, arch, CLASSES), name, cropped, held, supernet).save(inside)
        lengths = (LONG,) if name in (*o.long.split(","), "found") else ()
        for epochs in (*SHORT["scratch"], o.epochs, *lengths):
            cell(name, "scratch", epochs, alone)
        for epochs in (*SHORT["supernet"], *lengths):
            cell(name, "supernet", epochs, inside)
    run(o.root, list(cells.values()), o.jobs)
    results = {key: RunDir(o.root / each.name).result() for key, each in cells.items()}
    rows = [
        {"net": name, "start": start, "epochs": epochs, **{key: result[key] for key in KEPT}}
        for (name, start, epochs), result in results.items()
    ]  # fmt: skip
    orders = ordered(o, {name: arch for name, arch in nets.items() if name != "found"}, cropped, results)
    write("near_design", "Nets near the space's own design", page(o, results, orders), {"cells": rows, "tau": orders})


def ordered(
    o: argparse.Namespace, nets: dict[str, Arch], cropped: Space, results: dict[tuple[str, str, int], dict]
) -> dict[str, tuple[float, float, float]]:
    """Kendall's tau of what a search may know of the nets with their validation top-1 after `o.epochs`; the nets alone
    that were drawn, since the found one was chosen by such figures."""
    finished = reopen(o.search)
    search = finished.search("sqlite://")
    known: dict[str, list[float]] = {}
    for name, arch in nets.items():
        p = plan(cropped, cropped.canonical(Arch(cropped.name, arch.values)), CLASSES)
        judged = search.scorer.measured(search.scorer.calibrated(search.net, p), finished.data.val)
        known.setdefault("MACs", []).append(cost(p).macs)
        known.setdefault("parameters", []).append(cost(p).params)
        known.setdefault("in the supernet: loss", []).append(-judged.loss)
        for start, lengths in SHORT.items():
            for epochs in lengths:
                rows = results[name, start, epochs]["val"]
                title = f"{epochs} {'epoch' if epochs == 1 else 'epochs'} from {BEGUN[start]}"
                known.setdefault(f"{title}: top-1", []).append(rows[-1]["val_top1"])
                known.setdefault(f"{title}: loss", []).append(-rows[-1]["val_loss"])
                known.setdefault(f"{title}: sum of training losses", []).append(-sum(r["loss_base"] for r in rows))
        for epochs in HALTED:
            row = results[name, "scratch", o.epochs]["val"][epochs - 1]
            title, val, training = f"after {epochs} of these {o.epochs} epochs", row["val_loss"], row["loss_base"]
            known.setdefault(f"{title}: top-1", []).append(row["val_top1"])
            known.setdefault(f"{title}: loss", []).append(-val)
            known.setdefault(f"{title}: training loss of the last epoch", []).append(-training)
            known.setdefault(f"{title}: mean of both losses", []).append(-(val + training) / 2)
    whole = [results[name, "scratch", o.epochs]["val_top1"] for name in nets]
    return {title: tau(values, whole) for title, values in known.items()}


def page(o: argparse.Namespace, results: dict[tuple[str, str, int], dict], orders: dict) -> list[str]:
    short = [(start, n) for start, lengths in SHORT.items() for n in lengths]
    columns = [("scratch", o.epochs), *short, ("scratch", LONG), ("supernet", LONG)]
    titles = [f"from {BEGUN[start]}, {n} epoch{'s' * (n > 1)}" for start, n in columns]
    lines = [
        f"`python benchmarks/near_design.py FOLDER ROOT SEARCH --nets {o.nets} --epochs {o.epochs} --long {o.long}`",
        "",
        "CIFAR-10 (JPEG), at most 1M MACs, validation top-1 (%), one seed each, every training annealed to its end. "
        "`design`: the space's own with one width multiplier (`again`: another seed); `n…`: drawn near it, in order of "
        "drawing; `found`: by the search. SEARCH is seed 0 of search_wins_1M, of commit 90e7c58.", "",
        f"| net | MACs | parameters | {' | '.join(titles)} |", "| --- " * (len(titles) + 3) + "|",
    ]  # fmt: skip
    for name in dict.fromkeys(name for name, *_ in results):
        own = {key[1:]: result for key, result in results.items() if key[0] == name}
        first = next(iter(own.values()))
        cost = [format_quantity(first["macs"], "macs"), format_quantity(first["params"], "params")]
        shown = [f"{own[c]['val_top1']:.2f}" if c in own else "-" for c in columns]
        lines.append(f"| {' | '.join([name, *cost, *shown])} |")
    lines += [
        "", f"How what a search may know orders the {o.nets} nets that were drawn: Kendall's tau with validation top-1 "
        f"after {o.epochs} epochs from scratch, and its 95 % bootstrap interval over the nets.", "",
        "| known | tau |", "| --- | --- |",
        *(f"| {title} | {value:+.2f} [{low:+.2f}, {high:+.2f}] |" for title, (value, low, high) in orders.items()),
    ]  # fmt: skip
    return lines


if __name__ == "__main__":
    main()
