"""Overhead of a sweep over its trainings alone: the same cells by `nasaug sweep` and by `nasaug train`, one by one.

    python benchmarks/sweep_cost.py [--data fashion-mnist] [--epochs 60]

Measures CPU time of all processes, which depends little on other load; goal: 1.05 at most.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

SIZES, POLICIES = "0.25M,1M", "0,9"


def processor_seconds(*commands: list[str]) -> float:
    """CPU time of the commands and of all their child processes."""
    def spent() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    before = spent()
    for command in commands:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, "-m", "nasaug", *command], check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL, env=environment)  # fmt: skip
    return spent() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--epochs", default="60")
    o = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        run = Path(place, "sweep")
        sets = ("--set", "data.train_images=4000", "--set", f"epochs={o.epochs}")
        sweep = ["sweep", "--data", o.data, "--sizes", SIZES, "--policies", POLICIES, "--seeds", "1", "--jobs", "1",
                 "--run", str(run), *sets]  # fmt: skip
        together = processor_seconds(sweep)
        singles = [
            ["train", "--arch", f"{cell}/base.json", "--recipe", f"{cell}/recipe.toml", "--run", f"{place}/{cell.name}"]
            for cell in sorted((run / "cells").iterdir())
            if cell.is_dir()
        ]
        alone = processor_seconds(*singles)
    print(f"sweep of {len(singles)}: {together:.0f} s of CPU time")
    print(f"one by one: {alone:.0f} s; ratio of the sweep to them: {together / alone:.3f}")


if __name__ == "__main__":
    main()
