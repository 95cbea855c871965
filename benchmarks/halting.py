"""From which epoch on does a training tell how it ends? The nets that the searches of an older commit found, trained
for 40 epochs from scratch.

    mkdir -p ROOT
    python benchmarks/keep.py FOLDER ROOT docs/results/cells/search_wins_a77b5ce.tar.xz --restore
    python benchmarks/halting.py ROOT

Trains nothing: the kept logs have the losses of every epoch. `again` are second trainings, with another seed, of two
of these nets.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import fmean, stdev

from cells import write
from scipy.stats import kendalltau, pearsonr

from nasaug.nas.finalists import begun_with
from nasaug.rundirs.folder import RunDir

EPOCHS = (2, 4, 6, 8, 10, 12, 14, 16, 20, 26, 30)
SEARCHED = ("search", "unfilled", "halving", "random")
FINAL, AGAIN = "1M-final-", "1M-again-"


def losses(run: RunDir) -> dict[int, float]:
    """By epoch, the mean of validation and training loss, by which finalists are ranked; for the end as key 0 the
    validation loss."""
    rows = [event for event in run.read_log() if event["event"] == "epoch"]
    return {round(row["epoch"]): (row["val_loss"] + row["loss_base"]) / 2 for row in rows} | {0: rows[-1]["val_loss"]}


def finished(root: Path, start: str) -> dict[str, RunDir]:
    runs = (RunDir(path) for path in sorted(root.glob(f"{start}*")) if path.is_dir())
    return {run.path.name.removeprefix(start): run for run in runs if run.finished}


def as_finalist(root: Path, name: str) -> float | None:
    """The loss of a search's winner after its two rounds as a finalist, whose schedule ended there."""
    search = RunDir(root / f"1M-{name}")
    rounds = (begun_with(search.finalists_file) or {"rounds": []})["rounds"]
    return rounds[-1][search.result()["finalists"][0]["id"]][1] if len(rounds) == 2 else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path)
    root = parser.parse_args().root.resolve()
    finals = finished(root, FINAL)
    curves = {name: losses(run) for name, run in finals.items()}
    nets = [name for name in curves if name.split("-")[0] in SEARCHED]
    if len(nets) < 3:
        remedy = "lay out docs/results/cells/search_wins_a77b5ce.tar.xz there by keep.py --restore"
        raise SystemExit(f"{root} has {len(nets)} finished trainings of found nets, fewer than 3; {remedy}")
    ends = [curves[name][0] for name in nets]
    rows = []
    for epoch in EPOCHS:
        then = [curves[name][epoch] for name in nets]
        rows.append({
            "epoch": epoch, "tau": float(kendalltau(then, ends)[0]), "r": float(pearsonr(then, ends)[0]),
        })  # fmt: skip
    short = {name: loss for name in nets if (loss := as_finalist(root, name)) is not None}
    brought = {
        "n": len(short), "tau": float(kendalltau(list(short.values()), [curves[n][0] for n in short])[0]),
        "r": float(pearsonr(list(short.values()), [curves[n][0] for n in short])[0]),
    }  # fmt: skip
    same = {
        way: stdev(curve[0] for name, curve in curves.items() if name.split("-")[0] == way)
        for way in ("default", "uniform")
    }
    again = [
        {"net": name, "seed": run.result()["seed"], "test_top1": run.result()["test_top1"], "val_loss": losses(run)[0],
         **{str(epoch): losses(run)[epoch] for epoch in EPOCHS}}
        for name, second in finished(root, AGAIN).items() for run in (finals[name], second)
    ]  # fmt: skip
    lines = [
        "`python benchmarks/halting.py ROOT`, on the kept cells of `search_wins` (commit a77b5ce)", "",
        f"{len(nets)} nets that searches, random draws and halving found for 1M MACs on CIFAR-10 (JPEG), each trained "
        "from scratch for 40 epochs with one schedule. How does the mean of validation and training loss after some of "
        "these epochs order them, against the validation loss at the end?", "",
        "| after epoch | Kendall's tau | r |", "| --- | --- | --- |",
        *(f"| {row['epoch']} | {row['tau']:+.2f} | {row['r']:+.2f} |" for row in rows), "",
        "In the searches the nets had been trained for 20 to 26 epochs with a schedule that ended there. Of "
        f"{brought['n']} winners these losses order the ends with tau {brought['tau']:+.2f} (r {brought['r']:+.2f}); "
        "they had won by them, which makes the figure lower.", "",
        f"Chance is only a part of that. The validation loss at the end differs between nets by {stdev(ends):.3f} "
        f"(standard deviation; mean {fmean(ends):.3f}), between seeds of one net by {same['default']:.3f} and "
        f"{same['uniform']:.3f}. Two nets, each with two seeds; as finalists they had ended with "
        f"{' and '.join(f'{short[name]:.3f}' for name in dict.fromkeys(row['net'] for row in again))}:", "",
        f"| net | seed | {' | '.join(f'epoch {epoch}' for epoch in EPOCHS)} | end, validation | test top-1 |",
        f"| --- | --- |{' --- |' * (len(EPOCHS) + 2)}",
        *(f"| {row['net']} | {row['seed']} | {' | '.join(f'{row[str(epoch)]:.3f}' for epoch in EPOCHS)} "
          f"| {row['val_loss']:.3f} | {row['test_top1']:.2f} |" for row in again),
    ]  # fmt: skip
    write(
        "halting", "From which epoch on does a training tell how it ends?", lines,
        {"nets": nets, "rows": rows, "brought_to_its_end": brought, "seeds": same, "again": again},
    )


if __name__ == "__main__":
    main()
