"""Cells of an experiment: each is one resumable `nasaug` run in its own folder; several run in parallel.

A finished cell is read, an interrupted one resumed, one started with other options refused. Cells run in parallel with
one torch thread each: on two cores that gives more throughput than one cell with two threads.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from nasaug.core.files import DATA_SETS
from nasaug.core.progress import Advance, heard_by
from nasaug.pool.processes import Work, run_all
from nasaug.rundirs.folder import RunDir

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"
FOLDER = "CIFAR-10 (JPEG)"  # contents of the image folder that the benchmarks take


@dataclass(frozen=True)
class Cell:
    """`nasaug VERB *options --run ROOT/name`."""

    name: str
    verb: str
    options: tuple[str, ...]


class Failed(SystemExit):
    """Cells failed; all others have finished."""


def train(name: str, arch: str | Path, *options: str, method: str = "baseline", seed: int = 0) -> Cell:
    return Cell(name, "train", ("--arch", str(arch), "--method", method, "--seed", str(seed), *options))


def run(root: Path, cells: list[Cell], jobs: int = 2, threads: int | None = 1) -> dict[str, dict]:
    """result.json of every cell by name; `threads` for each, None: as many as it takes by itself. Raises Failed for
    failed cells after the others have finished."""
    root.mkdir(parents=True, exist_ok=True)
    for cell in cells:
        _keep_options(root, cell)
    works = [work for work in (_work(root, cell) for cell in cells) if not work.finished]
    os.nice(max(0, 10 - os.nice(0)))  # the runs inherit it; a script may call this several times
    with heard_by(_Changes()):
        failed = run_all(works, jobs, {} if threads is None else {"OMP_NUM_THREADS": str(threads)})
    if failed:
        raise Failed("\n".join(f"{work.title}: {error}; see {work.log}" for work, error in failed))
    return {cell.name: RunDir(root / cell.name).result() for cell in cells}


class _Changes:
    """Prints what is heard with the time: of progress, which is told several times a second, each new number done."""

    def __init__(self) -> None:
        self._last: object = None

    def __call__(self, event: object) -> None:
        told = (event.title, event.done) if isinstance(event, Advance) else str(event)
        if told != self._last:
            self._last = told
            print(time.strftime("%H:%M"), event, file=sys.stderr, flush=True)


def _work(root: Path, cell: Cell) -> Work:
    where = (cell.verb, "--run", str(root / cell.name))
    at = [place for place, word in enumerate(cell.options) if word == "--jobs"]  # not on record in the run
    jobs = [word for place in at for word in cell.options[place : place + 2]]
    return Work(cell.name, root / cell.name, lambda: (*where, *cell.options), lambda: (*where, "--resume", *jobs))


def _keep_options(root: Path, cell: Cell) -> None:
    """Record the options that a cell is started with; exits if other options are on record for it."""
    path, note = root / cell.name, root / f"{cell.name}.options"
    options = re.split(r" (?=--)", shlex.join(cell.options))
    asked = [option for option in options if not option.startswith("--jobs ")]  # parallelism does not change results
    if not (RunDir(path).job_file.is_file() or RunDir(path).finished):
        note.write_text("".join(f"{option}\n" for option in asked))
    elif note.is_file():
        begun = note.read_text().splitlines()
        was, now = (" ".join(o for o in a if o not in b) or "none" for a, b in ((begun, asked), (asked, begun)))
        if was != now:
            differs = f"was started with {was}, and now {now} is asked for"
            raise SystemExit(f"{path} {differs}; remove that folder to start over")


def interval(values: list[float]) -> str:
    """Mean ± half width of the 95 % t interval (n). It says nothing about the difference between two means."""
    from scipy.stats import t

    n = len(values)
    if n < 2:
        return f"{mean(values):.2f} (n = {n}, no interval)"
    half = t.ppf(0.975, n - 1) * stdev(values) / n**0.5
    return f"{mean(values):.2f} ± {half:.2f} (n = {n})"


def write(name: str, title: str, lines: list[str], figures: dict) -> None:
    """Write docs/results/NAME.md and .json, and print the same lines."""
    text = "\n".join([f"# {title}", "", *lines, ""])
    (RESULTS / f"{name}.md").write_text(text)
    named = json.loads(json.dumps(figures), object_hook=_with_its_data_named)
    (RESULTS / f"{name}.json").write_text(json.dumps(named, indent=1) + "\n")
    print(text)


def data_name(data: str) -> str:
    """FOLDER in place of the image folder's path, which is meaningless on another machine."""
    return data if data in DATA_SETS else FOLDER


def _with_its_data_named(result: dict) -> dict:
    return result | {"data": data_name(result["data"])} if "data" in result else result
