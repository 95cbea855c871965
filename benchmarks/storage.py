"""Trials a second through each storage of a search, with 1, 4 and 16 processes whose candidates take no time.

    python benchmarks/storage.py [--postgres postgresql://me:password@127.0.0.1/empty] [--seconds 5]

Writes docs/results/storage.md. A trial is what a candidate of a search takes of its storage: a claim with a heartbeat,
a look at all trials before and after it, and the result. Whatever study is in the PostgreSQL database is deleted.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from bench import processor  # noqa: E402
from cells import write  # noqa: E402

from nasaug.pool.shared import SharedStudy  # noqa: E402
from nasaug.pool.storage import STUDY, open_storage, unchecked_storage  # noqa: E402

WORKERS, AXES = (1, 4, 16), 20
DIRECTIONS = ["maximize"]


def work(url: str | None, number: int, seconds: float, ready, counts) -> None:
    """Claim and tell trials for that many seconds from when all are ready; puts their number into `counts`."""
    from optuna.distributions import IntDistribution
    from optuna.trial import TrialState, create_trial

    study, done = SharedStudy(url, DIRECTIONS), 0
    params = {f"s{i}.width": i % 4 for i in range(AXES)}
    trial = create_trial(
        state=TrialState.RUNNING, params=params, distributions={name: IntDistribution(0, 3) for name in params}
    )
    ready.wait()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        study.trials()
        claimed = study.claim(trial)
        study.trials()
        done += study.tell(claimed, [float(number)])
    counts.put(done)


def rate(url: str | None, workers: int, seconds: float) -> float:
    """Trials a second of all processes together."""
    context = multiprocessing.get_context("spawn")
    ready, counts = context.Barrier(workers), context.Queue()
    processes = [
        context.Process(target=work, args=(url, number, seconds, ready, counts)) for number in range(workers)
    ]
    if url is not None:
        SharedStudy(url, DIRECTIONS)  # makes the tables
    for process in processes:
        process.start()
    told = sum(counts.get(timeout=120 + 10 * seconds) for _ in processes)
    for process in processes:
        process.join()
    if url is not None:  # every result is in the storage, once
        assert sum(t.state.name == "COMPLETE" for t in SharedStudy(url).trials()) == told
    return told / seconds


def clear(url: str) -> None:
    import optuna

    if STUDY in optuna.get_all_study_names(open_storage(url)):
        optuna.delete_study(study_name=STUDY, storage=unchecked_storage(url))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--postgres", help="URL of a database for the benchmark alone")
    parser.add_argument("--seconds", type=float, default=5.0)
    args = parser.parse_args()
    rates: dict[str, dict[int, float]] = {"memory": {1: rate(None, 1, args.seconds)}, "journal": {}, "SQLite": {}}
    if args.postgres:
        rates["PostgreSQL"] = {}
    for workers in WORKERS:
        with tempfile.TemporaryDirectory() as folder:
            rates["journal"][workers] = rate(f"journal:{folder}/journal", workers, args.seconds)
            rates["SQLite"][workers] = rate(f"sqlite:///{folder}/study.db", workers, args.seconds)
        if args.postgres:
            clear(args.postgres)
            rates["PostgreSQL"][workers] = rate(args.postgres, workers, args.seconds)
    load = os.getloadavg()[0]
    rows = [
        f"| {name} | {' | '.join(f'{found[w]:.0f}' if w in found else '-' for w in WORKERS)} |"
        for name, found in rates.items()
    ]
    lines = [
        "`python benchmarks/storage.py --postgres URL`", "",
        "Trials a second of all processes together, by how many work at once, "
        f"{args.seconds:g} s each. {processor()}, {os.cpu_count()} cores, Python {platform.python_version()}; load "
        f"average at the end {load:.1f}, of which up to 16 is the benchmark's own. Server and processes share the "
        "machine. A "
        "journal and a study in memory have no heartbeats; a study in memory is that of one process.", "",
        f"| storage | {' | '.join(f'{w} at once' for w in WORKERS)} |", "| --- | --- | --- | --- |",
        *rows,
    ]  # fmt: skip
    write("storage", "What the storage of a search can take", lines, {"rates": rates, "load": load})


if __name__ == "__main__":
    main()
