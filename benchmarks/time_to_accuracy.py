"""How long plain training of a tiny net takes to reach an accuracy, against another commit of this repository.

    python benchmarks/time_to_accuracy.py [--against 7c5458d] [--target 90] [--seeds 3] [--root runs/time-to]

mobilenetv2-tiny at 28 px on Fashion-MNIST, each commit with its own defaults, its own code and one thread, in
alternation. One training per number of epochs (schedules depend on the length); the reported time is that of the
shortest training whose final validation top-1 is at or above the target. Cells are resumable.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from cells import interval, write

from nasaug.rundirs.folder import RunDir

HERE = Path(__file__).resolve().parent.parent
LENGTHS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 30)


def checkout(commit: str, root: Path) -> Path:
    """A worktree of `commit`; this one if `commit` is empty."""
    if not commit:
        return HERE
    path = (root / f"tree-{commit}").resolve()
    if not path.is_dir():
        subprocess.run(["git", "-C", str(HERE), "worktree", "add", "--detach", str(path), commit], check=True)
    return path


def result(tree: Path, run: Path, epochs: int, seed: int) -> dict:
    if not RunDir(run).finished:
        command = [sys.executable, "-m", "nasaug", "train", "--method", "baseline", "--arch", "mobilenetv2-tiny"]
        command += ["--data", "fashion-mnist", "--seed", str(seed), "--set", f"epochs={epochs}"]
        command += ["--run", str(run.resolve())]
        environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
        with open(f"{run}.log", "w") as log:
            subprocess.run(command, check=True, cwd=run.parent, env=environment, stdout=log, stderr=subprocess.STDOUT)
    return RunDir(run).result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", default="7c5458d")
    parser.add_argument("--target", type=float, default=90.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--root", type=Path, default=Path("runs/time-to"))
    o = parser.parse_args()
    o.root.mkdir(parents=True, exist_ok=True)
    trees = {"before": checkout(o.against, o.root), "now": checkout("", o.root)}
    reached: dict[str, dict] = {name: {} for name in trees}
    for seed in range(o.seeds):
        left = dict(trees)
        for epochs in LENGTHS:
            for name, tree in list(left.items()):
                r = result(tree, o.root / f"{name}-s{seed}-e{epochs}", epochs, seed)
                print(f"seed {seed}, {name}: {epochs} epochs, {r['val_top1']:.2f} %, {r['seconds']:.0f} s", flush=True)
                if r["val_top1"] >= o.target:
                    reached[name][seed] = {"epochs": epochs, "seconds": r["seconds"], "val_top1": r["val_top1"]}
                    del left[name]
    lines = [
        f"`python benchmarks/time_to_accuracy.py --against {o.against} --target {o.target:g} --seeds {o.seeds}`", "",
        "mobilenetv2-tiny at 28 px on Fashion-MNIST, plain training from scratch, one thread: the shortest training "
        f"(of 1, 2, 3, … epochs) that ends at {o.target:g} % validation top-1 or above. Seconds count training steps, "
        "not evaluation.", "", "| commit | epochs, seed by seed | seconds |", "| --- | --- | --- |",
    ]  # fmt: skip
    for name, rows in reached.items():
        shown = f"before ({o.against})" if name == "before" else "now"
        epochs = ", ".join(str(rows[seed]["epochs"]) if seed in rows else "never" for seed in range(o.seeds))
        lines.append(f"| {shown} | {epochs} | {interval([row['seconds'] for row in rows.values()])} |")
    both = sorted(reached["before"].keys() & reached["now"].keys())
    ratios = [reached["before"][seed]["seconds"] / reached["now"][seed]["seconds"] for seed in both]
    lines += ["", f"Ratio of seconds, seed by seed: {', '.join(f'{r:.2f}' for r in ratios)} (target: at least 2)."]
    write("time_to_accuracy", "Time to an accuracy", lines, reached)


if __name__ == "__main__":
    main()
