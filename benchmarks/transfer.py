"""Does NetAug pre-training transfer? Six classes of CIFAR-10 (JPEG) to the other four, at 1, 10, 100 % of their images.

    python benchmarks/transfer.py FOLDER runs/transfer [--seeds 3] [--jobs 2]

FOLDER is an image folder with train/ and test/. For each seed one net is trained on six classes with NetAug and one
plainly, for as many epochs. `nasaug transfer` trains each of them further on the other four, and one is trained there
from fresh weights: plainly, by the same recipe, with as many training MACs whatever the number of images. One seed
takes about 23 core-minutes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from cells import Cell, interval, run, train, write

STARTS = {"scratch": "from scratch", "plain": "plainly pre-trained", "netaug": "NetAug-pre-trained"}
METHODS = {"plain": "baseline", "netaug": "netaug"}  # of the pre-training
SIX = 6  # of the classes, in alphabetical order


def halves(folder: Path, root: Path) -> tuple[Path, Path]:
    """Two image folders with links to the first six classes of FOLDER and to the others."""
    classes = sorted(place.name for place in (folder / "train").iterdir() if place.is_dir())
    parts = {"six": classes[:SIX], "four": classes[SIX:]}
    if not parts["four"]:
        raise SystemExit(f"{folder} has {len(classes)} classes in train/, but more than {SIX} are needed")
    for part, names in parts.items():
        for split in ("train", "test"):
            (root / part / split).mkdir(parents=True, exist_ok=True)
            for name in names:
                link = root / part / split / name
                if not link.is_symlink():
                    link.symlink_to((folder / split / name).resolve(), target_is_directory=True)
    return root / "six", root / "four"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("root", type=Path)
    parser.add_argument("--arch", default="mobilenetv2-tiny")
    parser.add_argument("--resolution", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=8, help="of the pre-training")
    parser.add_argument("--train-macs", type=float, default=7e10, help="of each training on the four classes")
    parser.add_argument("--shares", type=float, nargs="+", default=(0.01, 0.1, 1.0))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--page", default="transfer", help="name of the page in docs/results")
    o = parser.parse_args()
    six, four = halves(o.folder, o.root)
    px, workers = ("--resolution", str(o.resolution)), ("--set", "data.workers=0")
    run(o.root, [
        train(f"pre-{how}-s{seed}", o.arch, "--data", str(six), *px, *workers, "--set", f"epochs={o.epochs}",
              method=method, seed=seed)
        for seed in range(o.seeds) for how, method in METHODS.items()
    ], o.jobs)  # fmt: skip
    length = ("--set", "stop=macs", "--set", f"train_macs={o.train_macs:g}", "--set", "batch=128")
    cells = {
        (how, share, seed): _further(o, how, share, seed, ("--data", str(four), *px, *workers, *length))
        for seed in range(o.seeds) for share in o.shares for how in STARTS
    }  # fmt: skip
    results = run(o.root, list(cells.values()), o.jobs)
    found = {key: results[cell.name] for key, cell in cells.items()}
    write(o.page, "Six classes of CIFAR-10 to the other four", _lines(o, found), {
        " ".join(map(str, key)): {k: v for k, v in result.items() if k != "val"} for key, result in found.items()
    })  # fmt: skip


def _further(o: argparse.Namespace, how: str, share: float, seed: int, common: tuple[str, ...]) -> Cell:
    name, few = f"{how}-{share:g}-s{seed}", ("--data-fraction", f"{share:g}")
    if how == "scratch":
        return train(name, o.arch, *common, *few, "--recipe", "transfer", seed=seed)
    start = str(o.root / f"pre-{how}-s{seed}")
    return Cell(name, "transfer", ("--from", start, "--seed", str(seed), *common, *few))


def _lines(o: argparse.Namespace, found: dict[tuple[str, float, int], dict]) -> list[str]:
    first = next(iter(found.values()))
    lines = [
        f"`python benchmarks/transfer.py FOLDER runs/transfer --seeds {o.seeds}`", "",
        f"{o.arch} at {o.resolution} px, CIFAR-10 as JPEG: {o.epochs} epochs on six classes, then {o.train_macs:.3g} "
        f"training MACs on the other four, {first['test_images']:,} test images. Test top-1 in percent, mean and 95 % "
        "t interval over the seeds; the last column is NetAug's minus plain pre-training, paired by seed.", "",
        f"| share of the images | {' | '.join(STARTS.values())} | difference |", "| --- " * (len(STARTS) + 2) + "|",
    ]  # fmt: skip
    for share in o.shares:
        scores = {how: [found[how, share, seed]["test_top1"] for seed in range(o.seeds)] for how in STARTS}
        paired = [b - a for a, b in zip(scores["plain"], scores["netaug"], strict=True)]
        shown = " | ".join(interval(scores[how]) for how in STARTS)
        lines.append(f"| {100 * share:g} % | {shown} | {interval(paired)} |")
    return lines if o.seeds >= 5 else [*lines, "", "Fewer than five seeds: not enough for a verdict."]


if __name__ == "__main__":
    main()
