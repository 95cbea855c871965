"""What do search spaces hold? Nets drawn near a budget from each space, trained alone and plainly from scratch.

    python benchmarks/space_quality.py FOLDER ROOT [--count 24] [--epochs 3] [--jobs 2]

FOLDER is CIFAR-10 as JPEG files, at 32 px. The same training for every net, so the spread and the best of a space show
what a search could find in it, before any search.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from random import Random
from statistics import mean, quantiles, stdev

from cells import run, train, write
from ranking import tau

from nasaug.arch.archfile import ArchFile
from nasaug.arch.blocks import BLOCKS
from nasaug.arch.cost import cost_of, sample_near
from nasaug.arch.plan import plan
from nasaug.arch.space import Arch, Space
from nasaug.arch.spacefile import load
from nasaug.config.layers import load as load_recipe
from nasaug.core.units import format_quantity
from nasaug.nets.store import load_net
from nasaug.rundirs.folder import RunDir
from nasaug.training.device import open_runtime
from nasaug.training.job import load_data, make_scorer
from nasaug.training.recipe import Recipe

SPACES = ("mobilenetv2-small", "tiny-images")
MACS, NEAR, CLASSES = 1_000_000, 0.9, 10
BEST = 5  # nets listed by space
FEW, PX = 1000, 32  # images on which a search scores candidates; the largest resolution


def drawn(space: Space, count: int) -> list[Arch]:
    """Different networks from NEAR to 1 times the budget."""
    nets: dict = {}
    for i in range(100 * count):
        arch = sample_near(space, Random(f"{space.name}/{i}"), NEAR * MACS, MACS, CLASSES)
        if NEAR * MACS <= cost_of(space, arch, CLASSES).macs <= MACS:
            nets.setdefault(plan(space, arch, CLASSES), arch)
        if len(nets) == count:
            return list(nets.values())
    raise SystemExit(f"only {len(nets)} different nets of space {space.name} near {MACS:,} MACs were drawn")


def described(space: Space, arch: Arch) -> str:
    """Resolution, then for each stage its stride, width and number of blocks."""
    p, stages = plan(space, arch, CLASSES), {}
    for block, rule in zip(p.body, (r for r in space.rules_of(arch)), strict=True):
        stages.setdefault(rule.stage, []).append(block)
    parts = [
        f"/{blocks[0].spec.stride} {blocks[-1].out}" + (f" x{len(blocks)}" if len(blocks) > 1 else "")
        for name, blocks in stages.items() if name != "pool"
    ]  # fmt: skip
    return f"{p.resolution} px: {', '.join(parts)}"


def judged(runs: list[Path], test: list[float]) -> dict[str, tuple[float, float, float]]:
    """Kendall's tau of validation figures, and of training losses, with the test scores of finished runs."""
    figures: dict[str, list[float]] = {}
    data = None
    for path in runs:
        recipe, net = load_recipe(path / "recipe.toml", Recipe), load_net(path / "model.safetensors")
        data = data or load_data(recipe, PX)
        scorer = make_scorer(recipe, data, open_runtime("cpu"))
        history = RunDir(path).result()["val"]
        for count in (FEW, len(data.val)):
            found = scorer.measured(net, data.val.take(count, 0) if count < len(data.val) else data.val)
            figures.setdefault(f"validation top-1, {count:,} images", []).append(found.score)
            figures.setdefault(f"validation loss, {count:,} images", []).append(-found.loss)
        figures.setdefault("training loss of the last epoch", []).append(-history[-1]["loss_base"])
        figures.setdefault("sum of the training losses", []).append(-sum(row["loss_base"] for row in history))
    return {name: tau(values, test) for name, values in figures.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("root", type=Path)
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    o = parser.parse_args()
    o.root.mkdir(parents=True, exist_ok=True)
    rows, cells = [], []
    # tiny-images without its own design, which was named after these nets had been drawn
    spaces = {name: load(name, BLOCKS) for name in SPACES}
    spaces["tiny-images"] = replace(spaces["tiny-images"], archs={})
    nets = {name: drawn(space, o.count) for name, space in spaces.items()}
    for i in range(o.count):  # one net of each space in turn, so that an interrupted run has as many of each
        for name in SPACES:
            space, arch = spaces[name], nets[name][i]
            cell, total = f"{name}-{i}", cost_of(space, arch, CLASSES)
            path = o.root / f"{cell}.json"
            if not path.is_file():
                ArchFile(plan(space, arch, CLASSES), cell, space, arch).save(path)
            cells.append(train(cell, path, "--data", str(o.folder.resolve()), "--set", f"epochs={o.epochs}"))
            rows.append({"space": name, "cell": cell, "net": described(space, arch), **total.known})
    results = run(o.root, cells, o.jobs)
    for row in rows:
        row |= {"val": results[row["cell"]]["val_top1"], "test": results[row["cell"]]["test_top1"]}
    judges = judged([o.root / row["cell"] for row in rows], [row["test"] for row in rows])
    lines = [
        "`python benchmarks/space_quality.py FOLDER ROOT`", "",
        f"{o.count} nets of {format_quantity(NEAR * MACS, 'macs')} to {format_quantity(MACS, 'macs')} MACs drawn from "
        f"each space, each trained plainly from scratch for {o.epochs} epochs of CIFAR-10 (JPEG), one seed; validation "
        "top-1 (%). Network: resolution, then stride, width and blocks of each stage.", "",
        "| space | nets | mean ± deviation | median | best quarter from | best |",
        "| --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for name in SPACES:
        scores = [row["val"] for row in rows if row["space"] == name]
        _, median, upper = quantiles(scores, n=4)
        lines.append(
            f"| {name} | {len(scores)} | {mean(scores):.1f} ± {stdev(scores):.1f} | {median:.1f} | {upper:.1f} | "
            f"{max(scores):.1f} |"
        )
    lines += ["", f"The {BEST} best of each space:", "", "| space | top-1 | MACs | parameters | network |",
              "| --- | --- | --- | --- | --- |"]  # fmt: skip
    for name in SPACES:
        for row in sorted((r for r in rows if r["space"] == name), key=lambda r: -r["val"])[:BEST]:
            macs, params = format_quantity(row["macs"], "macs"), format_quantity(row["params"], "params")
            lines.append(f"| {name} | {row['val']:.1f} | {macs} | {params} | {row['net']} |")
    lines += [
        "", "Which figure ranks all these nets as their test top-1 does: Kendall's tau, 95 % bootstrap interval.",
        "", "| figure | tau |", "| --- | --- |",
        *(f"| {name} | {middle:.3f} [{low:.3f}, {high:.3f}] |" for name, (middle, low, high) in judges.items()),
    ]  # fmt: skip
    figures = {"epochs": o.epochs, "rows": rows, "tau": judges}
    write("space_quality", "What the spaces hold near 1M MACs", lines, figures)


if __name__ == "__main__":
    main()
