"""Does the supernet rank resolutions as stand-alone training does? One search per resolution, on the same supernet.

    python benchmarks/resolution.py runs/search-1 runs/resolution [--epochs 10] [--seeds 1] [--jobs 2]

Each found net is trained plainly on its own from scratch. Also reported: the mean score of a dozen subnets
(the best three with more than 0.4M MACs that each search judged), each at every resolution.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from statistics import mean

from cells import interval, run, train, write
from reopen import reopen

from nasaug.arch.archfile import ArchFile
from nasaug.arch.plan import plan
from nasaug.core.signals import Pending


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("root", type=Path)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    o = parser.parse_args()
    o.root.mkdir(parents=True, exist_ok=True)
    finished = reopen(o.run)
    whole, supernet = finished.found.space, finished.supernet.resolve()
    axis = next(a for a in whole.axes if a.kind == "resolution")
    found, dozen = {}, []
    for r in axis.choices:
        fixed = replace(finished, found=replace(finished.found, space=whole.trimmed({axis.name: (r,)})))
        search = fixed.search("sqlite://")
        ranked = search.run(Pending(), lambda *_: None)
        found[r] = search.finalists(ranked, finished.data.val)[0]
        dozen += [c.arch for c in ranked if c.cost.macs > 4e5][:3]
        p = plan(whole, found[r].arch, 10)
        ArchFile(p, f"found at {r} px", whole, found[r].arch, supernet).save(o.root / f"{r}px.json")

    def score(arch, r: int) -> float:
        p = plan(whole, whole.arch(whole.choices(arch) | {axis.name: r}), 10)
        return search.scorer.score(search.scorer.calibrated(search.net, p), finished.data.val)

    sets = ("--from-scratch", "--set", f"epochs={o.epochs}")
    cells = [train(f"{r}px-s{s}", o.root / f"{r}px.json", *sets, seed=s) for s in range(o.seeds) for r in found]
    results = run(o.root, cells, o.jobs)
    lines = [
        "`python benchmarks/resolution.py runs/search-1 runs/resolution`", "",
        f"Supernet of `search --mac-budget 1M`; {o.epochs} epochs of plain training from scratch, {o.seeds} seed(s). "
        "All scores are validation top-1.", "",
        "| resolution | found: MACs | supernet's score | trained alone | mean score here of a dozen subnets |",
        "| --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    figures = {"cells": results, "supernet": {}, "dozen": {}}
    for r, candidate in found.items():
        alone = interval([results[f"{r}px-s{s}"]["val_top1"] for s in range(o.seeds)])
        figures["supernet"][r], figures["dozen"][r] = candidate.full_score, mean(score(a, r) for a in dozen)
        ours = f"{candidate.cost.macs:,} | {candidate.full_score:.2f} %"
        lines.append(f"| {r} px | {ours} | {alone} | {figures['dozen'][r]:.2f} % |")
    write("resolution", "Does the supernet rank resolutions as stand-alone training does?", lines, figures)


if __name__ == "__main__":
    main()
