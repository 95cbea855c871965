"""Every speed that nasaug claims, as ratios taken in one run: a table, and what this processor gave, kept in
docs/results/speed.json.

    python benchmarks/bench.py [--threads 2] [--rounds 5] [--only steps,supernet,…]      (make bench)
    python benchmarks/bench.py --quick           the ratios kept for this processor still hold, within 20 %

Rounds of the things compared alternate, so that a drift of the machine's speed meets them alike.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as `python -m nasaug` does
sys.path.insert(0, str(Path(__file__).parent))

import speed_augment  # noqa: E402
import speed_process  # noqa: E402
import speed_search  # noqa: E402
import speed_steps  # noqa: E402
import torch  # noqa: E402
from timing import Row  # noqa: E402

KEPT = Path(__file__).resolve().parent.parent / "docs" / "results" / "speed.json"
SECTIONS = {
    "steps": speed_steps.steps, "gradaug": speed_steps.gradaug, "supernet": speed_steps.supernet,
    "kernels": speed_steps.kernels_by_shape, "candidates": speed_search.candidates,
    "candidate": speed_search.candidate, "cost": speed_search.cost_model, "start": speed_process.start,
    "memory": speed_process.memory, "augmentation": speed_augment.augmentation,
}  # fmt: skip
QUICK = ("steps", "supernet", "candidates", "cost")
TOLERANCE = 0.8


def processor() -> str:
    """Its name and widest vectors: ratios are compared on one kind alone."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    return f"{name}, {'AVX-512' if any('avx512f' in line for line in lines) else 'no AVX-512'}"


def table(rows: list[Row]) -> str:
    lines = [f"{'':86s}{'measured':>24s}{'reach':>10s}{'goal':>10s}"]
    for row in rows:
        bounds = (f"{bound:g} {row.meets(bound)}" if bound is not None else "" for bound in (row.reach, row.goal))
        lines.append(f"{row.path:86s}{row.shown():>24s}" + "".join(f"{b:>10s}" for b in bounds))
    return "\n".join(lines)


def kept() -> dict:
    return json.loads(KEPT.read_text()) if KEPT.is_file() else {}


def slower(rows: list[Row], before: dict[str, float]) -> list[str]:
    """Ratios of these rows that are worse than before by more than a fifth."""
    found = []
    for row in rows:
        if row.unit != "x" or row.path not in before:
            continue
        share = before[row.path] / row.value if row.most else row.value / before[row.path]
        if share < TOLERANCE:
            found.append(f"{row.path}: {row.value:.2f}, kept {before[row.path]:.2f}")
    return found


def guarded(names: list[str], before: dict[str, float]) -> tuple[list[Row], list[str]]:
    """Two rounds of these sections, and what of them is slower than before. A section that looks slower is measured
    once more, longer: on a shared machine most of what looks so is noise, and a regression stays."""
    rows, worse = [], []
    for name in names:
        section = SECTIONS[name](2)
        if slower(section, before):
            section = SECTIONS[name](5)
        rows += section
        worse += slower(section, before)
    return rows, worse


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--keep", action="store_true", help=f"write the figures to {KEPT.name}")
    o = parser.parse_args()
    torch.set_num_threads(o.threads)
    begun, names = time.monotonic(), o.only.split(",") if o.only else QUICK if o.quick else list(SECTIONS)
    where = f"{processor()}, {o.threads} threads"
    before = kept().get(where, {})
    if o.quick:
        rows, worse = guarded(names, before)
    else:
        rows, worse = [row for name in names for row in SECTIONS[name](o.rounds)], []
    print(f"{where}\n{table(rows)}\ntook {(time.monotonic() - begun) / 60:.1f} minutes")
    if o.keep:
        figures = kept()
        figures[where] = figures.get(where, {}) | {row.path: round(row.value, 4) for row in rows}
        KEPT.write_text(json.dumps(figures, indent=1) + "\n")
    if o.quick and not before:
        print("no ratios are kept for this processor and number of threads: nothing to compare with")
    if worse:
        sys.exit("slower by more than 20 %, measured twice:\n" + "\n".join(worse))


if __name__ == "__main__":
    main()
