"""Every speed that nasaug claims, as ratios measured in one run: prints a table and stores this processor's results in
docs/results/speed.json.

    python benchmarks/bench.py [--threads 2] [--rounds 5] [--only steps,supernet,…]      (make bench)
    python benchmarks/bench.py --quick           checks that the ratios stored for this processor hold, within 20 %,
                                                 and that no compiled step is slower than torch's operations
    python benchmarks/bench.py --levels          steps with torch and the kernels restricted to AVX2, and to AVX-512 if
                                                 this processor has it, side by side

Rounds of the things compared alternate, so that drift in the machine's speed affects all of them equally.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "3000")  # as `python -m nasaug` does
sys.path.insert(0, str(Path(__file__).parent))

import speed_augment  # noqa: E402
import speed_process  # noqa: E402
import speed_search  # noqa: E402
import speed_steps  # noqa: E402
import torch  # noqa: E402
from speed_steps import AS_TORCH  # noqa: E402
from timing import Row  # noqa: E402

from nasaug.kernels import build, choice  # noqa: E402

KEPT = Path(__file__).resolve().parent.parent / "docs" / "results" / "speed.json"
SECTIONS = {
    "steps": speed_steps.steps, "gradaug": speed_steps.gradaug, "supernet": speed_steps.supernet,
    "chains": speed_steps.chained, "kernels": speed_steps.kernels_by_shape, "candidates": speed_search.candidates,
    "candidate": speed_search.candidate, "cost": speed_search.cost_model, "start": speed_process.start,
    "memory": speed_process.memory, "augmentation": speed_augment.augmentation,
}  # fmt: skip
QUICK = ("steps", "supernet", "candidates", "cost")
TOLERANCE = 0.8


def processor() -> str:
    """The processor's name and widest vector unit: ratios are only compared within one such kind."""
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
    """The ratios of `rows` that are worse than the stored ones by more than a fifth."""
    found = []
    for row in rows:
        if row.unit != "x" or row.path not in before:
            continue
        share = before[row.path] / row.value if row.most else row.value / before[row.path]
        if share < TOLERANCE:
            found.append(f"{row.path}: {row.value:.2f}, kept {before[row.path]:.2f}")
    return found


def lost(rows: list[Row]) -> list[str]:
    """Steps that are slower with compiled kernels than with torch's operations."""
    return [f"{row.path}: {row.value:.2f}, by torch 1" for row in rows if row.path.endswith(AS_TORCH) and row.value < 1]


def guarded(names: list[str], before: dict[str, float]) -> tuple[list[Row], list[str]]:
    """Two rounds of these sections; returns what is slower than before, or than with torch's operations.

    A section that looks slower is measured again for longer: on a shared machine most apparent slow-downs are noise,
    while a real regression persists."""
    rows, worse = [], []
    for name in names:
        section = SECTIONS[name](2)
        if slower(section, before) + lost(section):
            section = SECTIONS[name](5)
        rows += section
        worse += slower(section, before) + lost(section)
    return rows, worse


def levels(o: argparse.Namespace) -> None:
    """One process per level, all kernels on; prints their ratios side by side."""
    found: dict[str, dict[str, float]] = {}
    for level, held in build.HELD_TO.items():
        if build.has(level):
            with tempfile.NamedTemporaryFile(suffix=".json") as file:
                command = [sys.executable, __file__, "--only", "steps", "--force", "--json", file.name]
                command += ["--threads", str(o.threads), "--rounds", str(o.rounds)]
                subprocess.run(command, check=True, env=os.environ | held, stdout=subprocess.DEVNULL)
                found[level] = json.loads(Path(file.name).read_text())
    print(f"{'':86s}" + "".join(f"{level:>12s}" for level in found))
    for path in next(iter(found.values())):
        print(f"{path:86s}" + "".join(f"{rows[path]:12.2f}" for rows in found.values()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--keep", action="store_true", help=f"write the figures to {KEPT.name}")
    parser.add_argument("--levels", action="store_true", help="steps restricted to each vector unit, side by side")
    parser.add_argument("--force", action="store_true", help="all kernels, whatever the self-test found")
    parser.add_argument("--json", default="", help="a file for the figures")
    o = parser.parse_args()
    if o.levels:
        return levels(o)
    torch.set_num_threads(o.threads)
    begun, names = time.monotonic(), o.only.split(",") if o.only else QUICK if o.quick else list(SECTIONS)
    where = f"{processor()}, {o.threads} threads"
    before = kept().get(where, {})
    if o.quick:
        rows, worse = guarded(names, before)
    else:
        with choice.forced(True) if o.force else contextlib.nullcontext():
            rows, worse = [row for name in names for row in SECTIONS[name](o.rounds)], []
    if o.json:
        Path(o.json).write_text(json.dumps({row.path: row.value for row in rows}))
    print(f"{where}\n{table(rows)}\ntook {(time.monotonic() - begun) / 60:.1f} minutes")
    if o.keep:
        figures = kept()
        figures[where] = figures.get(where, {}) | {row.path: round(row.value, 4) for row in rows}
        KEPT.write_text(json.dumps(figures, indent=1) + "\n")
    if o.quick and not before:
        print("no ratios are stored for this processor and number of threads: nothing to compare with")
    if worse:
        sys.exit("slower by more than 20 %, measured twice, or than torch's operations:\n" + "\n".join(worse))


if __name__ == "__main__":
    main()
