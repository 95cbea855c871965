"""How much slower training gets beside one busy process at nice 10, with as many threads as the machine has cores.

    python benchmarks/shared_machine.py [--threads 2] [--rounds 5]

For comparison, the same steps are measured with torch's operations, which use OpenMP threads. Nothing else may run."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from statistics import median

os.environ.setdefault("GOMP_SPINCOUNT", "3000")  # as `python -m nasaug` does

import torch  # noqa: E402
from speed_steps import by_torch, our_step  # noqa: E402
from timing import BATCH, Job, made_up  # noqa: E402

from nasaug.methods import Baseline, NetAug  # noqa: E402

SECONDS, BOUND = 1.5, 2.5
BUSY = ["nice", "-n", "10", sys.executable, "-c", "while True: pass"]


def rate(job: Job) -> float:
    """Images per second."""
    job()
    done, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < SECONDS:
        job()
        done += BATCH
    return done / (time.perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=5)
    o = parser.parse_args()
    torch.set_num_threads(o.threads)
    images = made_up(1024)
    jobs = {"plain": our_step(Baseline(), images)}
    jobs["NetAug"] = our_step(NetAug(ladder="factors", sort=False, width_until=1.0), images)
    jobs |= {f"{name}, by torch": by_torch(job) for name, job in jobs.items()}
    rates: dict[tuple[str, bool], list[float]] = {}
    for _ in range(o.rounds):
        for busy in (False, True):
            other = subprocess.Popen(BUSY) if busy else None
            try:
                for name, job in jobs.items():
                    rates.setdefault((name, busy), []).append(rate(job))
            finally:
                if other:
                    other.kill()
                    other.wait()
    print(f"{o.threads} threads; images/s, medians of {o.rounds} rounds; at most {BOUND:g} times slower is the goal")
    print(f"{'':20s}{'quiet':>10s}{'busy':>10s}{'slower':>10s}   of each round")
    for name in jobs:
        quiet, busy = rates[name, False], rates[name, True]
        slower = [a / b for a, b in zip(quiet, busy, strict=True)]
        each = " ".join(f"{s:.2f}" for s in slower)
        print(f"{name:20s}{median(quiet):10,.0f}{median(busy):10,.0f}{median(slower):10.2f}   {each}")


if __name__ == "__main__":
    main()
