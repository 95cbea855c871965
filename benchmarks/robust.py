"""What baseline, NetAug and GradAug can stand: one net trained each way on CIFAR-10 (JPEG), then `robust` on each seed.

    python benchmarks/robust.py FOLDER runs/robust [--arch mobilenetv2-tiny] [--epochs 30] [--seeds 5] [--jobs 2]

FOLDER is an image folder with train/ and test/. For each seed one evaluation of the three runs with the baseline as
reference. The page has the mean and 95 % t interval of the seeds; differences to the baseline are paired by seed.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import fmean

from cells import interval, run, train, write

import nasaug
from nasaug.robustness.constants import COMMON

LABELS = {"baseline": "baseline", "netaug": "NetAug", "gradaug": "GradAug"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("root", type=Path)
    parser.add_argument("--arch", default="mobilenetv2-tiny")
    parser.add_argument("--resolution", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--images", type=int, default=0, help="test images; 0 for all")
    parser.add_argument("--attacked", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--name", default="robust", help="the page's name in docs/results")
    o = parser.parse_args()
    options = ("--data", o.folder, "--resolution", str(o.resolution), "--set", f"epochs={o.epochs}")
    run(o.root, [
        train(f"{method}-s{seed}", o.arch, *options, "--set", "data.workers=0", method=method, seed=seed)
        for seed in range(o.seeds) for method in LABELS
    ], o.jobs)  # fmt: skip
    found = {seed: evaluated(o, seed) for seed in range(o.seeds)}
    write(o.name, "What nets trained in three ways can stand", lines(o, found), {
        f"seed {seed}": [{k: v for k, v in told.items() if k not in ("run", "model")} for told in runs.values()]
        for seed, runs in found.items()
    })  # fmt: skip


def evaluated(o: argparse.Namespace, seed: int) -> dict[str, dict]:
    """The figures by method; an evaluation that was stopped goes on."""
    from dataclasses import asdict

    runs = [o.root / f"{method}-s{seed}" for method in LABELS]
    out = o.root / f"evaluated-s{seed}"
    told = nasaug.robust(runs, reference=runs[0], images=o.images, attacked=o.attacked, out=out, on_event=print)
    named = [asdict(run) | {"cka": {Path(other).name: value for other, value in run.cka.items()}} for run in told.runs]
    return dict(zip(LABELS, named, strict=True))


def lines(o: argparse.Namespace, found: dict[int, dict[str, dict]]) -> list[str]:
    first = found[0]["baseline"]
    radii = list(first["attacks"]["fgsm"])
    columns = {
        "error %": lambda r: r["error"], "error % corrupted": lambda r: r["mean_error"], "mCE %": lambda r: r["mce"],
        "relative mCE %": lambda r: r["relative_mce"], "effective rank": lambda r: r["effective_rank"],
        **{f"FGSM {e}/255": lambda r, e=e: r["attacks"]["fgsm"][e] for e in radii},
        **{f"PGD {e}/255": lambda r, e=e: r["attacks"]["pgd"][e] for e in radii},
        **{name: lambda r, n=name: fmean(r["errors"][n].values()) for name in COMMON},
    }  # fmt: skip

    def cells(get, method: str) -> tuple[str, str]:
        values = [get(runs[method]) for runs in found.values()]
        if any(value is None for value in values):
            return "-", "-"
        differences = [get(runs[method]) - get(runs["baseline"]) for runs in found.values()]
        return interval(values), "" if method == "baseline" else interval(differences)

    shown = [
        f"`python benchmarks/robust.py FOLDER runs/robust --arch {o.arch} --resolution {o.resolution} "
        f"--epochs {o.epochs} --seeds {o.seeds} --images {o.images} --attacked {o.attacked}`", "",
        f"{o.arch} at {o.resolution} px on CIFAR-10 (JPEG), {o.epochs} epochs, {o.seeds} seeds, {first['images']:,} "
        f"test images ({first['attacked']:,} attacked). Mean and 95 % t interval over the seeds; beside it the "
        "difference to the baseline, paired by seed. mCE refers to the baseline of the same seed. Attacks: accuracy in "
        "%; corruptions: error in %, mean over five severities; frost is drawn, not the published photographs.", "",
        "| figure | baseline | NetAug | difference | GradAug | difference |", "| --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for name, get in columns.items():
        (base, _), *others = (cells(get, method) for method in LABELS)
        shown.append(f"| {name} | {base} | " + " | ".join(f"{value} | {less}" for value, less in others) + " |")
    thin = [value for runs in found.values() for value in runs["gradaug"]["thin_cka"].values()]
    shown += ["", f"Linear CKA of GradAug's base with its thin nets: {min(thin):.3f} to {max(thin):.3f}."]
    if o.seeds < 5:
        shown += ["", "Fewer than five seeds: not enough for a verdict."]
    return shown


if __name__ == "__main__":
    main()
