"""How training scales over ranks, and a search over workers, on this machine.

    python benchmarks/scaling.py [--trials 120]

Writes docs/results/scaling.md. Training: Fashion-MNIST (4,000 images) under torchrun, gradients summed by gloo, one
thread a rank; steps a second of training, without evaluation. Search: Fashion-MNIST, SQLite, one thread a process;
candidates a second while all processes are at work. Both are the real commands.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from bench import processor  # noqa: E402
from cells import write  # noqa: E402

from nasaug.pool.shared import OWNER, SharedStudy  # noqa: E402

RANKS = ((1, 1), (1, 2), (2, 1))  # (ranks, threads of each)
WORKERS = (1, 2, 4)  # processes of a search, the one that leads included
TRAIN = (
    "netaug-train", "--data", "fashion-mnist", "--arch", "mobilenetv2-tiny", "--set", "data.train_images=4000",
    "--set", "epochs=3", "--set", "evaluate_every=1", "--set", "data.val_images=500", "--device", "cpu",
)  # fmt: skip
SEARCH = (
    "search", "--mac-budget", "1M", "--data", "fashion-mnist", "--set", "train_macs=1e10",
    "--set", "search.finalists=1", "--set", "search.least_epochs=0", "--device", "cpu",
)  # fmt: skip


def start(folder: Path, *command: str, threads: int = 1) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    with open(folder / "said.txt", "ab") as said:
        return subprocess.Popen([sys.executable, *command], cwd=folder, stdout=said, stderr=said, env=environment)


def end(folder: Path, *processes: subprocess.Popen) -> None:
    for process in processes:
        if process.wait():
            raise SystemExit((folder / "said.txt").read_text()[-2000:])


def training(folder: Path, ranks: int, threads: int) -> dict[str, float]:
    """Images a second of a training by so many ranks, its first epoch left out."""
    name = f"train-{ranks}-{threads}"
    launch = ("torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks), "-m", "nasaug", "--")
    end(folder, start(folder, "-m", *launch, *TRAIN, "--run", name, threads=threads))
    log = map(json.loads, (folder / name / "log.jsonl").read_text().splitlines())
    first, *_, last = (row for row in log if row["event"] == "epoch")
    batch = json.loads((folder / name / "result.json").read_text())
    steps, seconds = last["step"] - first["step"], last["seconds"] - first["seconds"]
    print(f"{ranks} ranks: {steps / seconds:.2f} steps/s", flush=True)
    return {"ranks": ranks, "threads": threads, "steps_a_second": steps / seconds, "params": batch["params"]}


def searching(folder: Path, workers: int, trials: int) -> dict[str, float]:
    """Candidates a second of a search by so many processes, from when each has judged one until one has its last."""
    name = f"search-{workers}"
    led = start(folder, "-m", "nasaug", *SEARCH, "--trials", str(trials), "--run", name)
    join = ("-m", "nasaug", "search-worker", "--run", name, "--wait", "5m", "--device", "cpu")
    end(folder, led, *(start(folder, *join) for _ in range(workers - 1)))
    ended = defaultdict(list)
    for trial in SharedStudy(f"sqlite:///{folder}/{name}/study.db").trials():
        if trial.state.name == "COMPLETE" and OWNER in trial.user_attrs:
            ended[trial.user_attrs[OWNER]].append(trial.datetime_complete.timestamp())
    begun, over = max(map(min, ended.values())), min(map(max, ended.values()))
    within = sum(begun < at <= over for times in ended.values() for at in times)
    print(f"{workers} processes: {within} candidates in {over - begun:.1f} s", flush=True)
    return {"workers": len(ended), "candidates": within, "seconds": over - begun, "rate": within / (over - begun)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=120, help="candidates of each search")
    parser.add_argument("--only", choices=("training", "search"), help="do one of the two, and write nothing")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        trained = [] if asked.only == "search" else [training(folder, *each) for each in RANKS]
        searched = [] if asked.only == "training" else [searching(folder, each, asked.trials) for each in WORKERS]
    print(json.dumps({"training": trained, "search": searched}, indent=1))
    if asked.only:
        return
    alone, one = trained[0]["steps_a_second"], searched[0]["rate"]
    rows = [f"| {r['ranks']:.0f} | {r['threads']:.0f} | {r['steps_a_second']:.2f} | {r['steps_a_second'] / alone:.2f} |"
            for r in trained]  # fmt: skip
    found = [f"| {r['workers']} | {r['rate']:.2f} | {r['rate'] / one:.2f} | {r['candidates']} |" for r in searched]
    load = os.getloadavg()[0]
    write("scaling", "Scaling over processes", [
        "`python benchmarks/scaling.py`", "",
        f"{processor()}. Load average at the end {load:.1f}. All processes share the machine, so what is measured is "
        "what sharing costs, not what more machines bring.", "",
        "Training by NetAug on Fashion-MNIST, the same batch of 128 images shared by all ranks, gradients summed by "
        f"gloo once a step ({trained[0]['params'] * 4 / 1e6:.1f} MB for the net alone):", "",
        "| ranks | threads of each | steps/s | against one |", "| --- | --- | --- | --- |", *rows, "",
        "Search on Fashion-MNIST through SQLite, one thread a process, while all its processes judge:", "",
        "| processes | candidates/s | against one | candidates counted |", "| --- | --- | --- | --- |", *found,
    ], {"processor": processor(), "load": load, "training": trained, "search": searched})  # fmt: skip


if __name__ == "__main__":
    main()
