"""Trainings that one command begins: each in a process and a folder of its own, some at a time, resumable."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..arch import archfile
from ..arch.archfile import ArchFile
from ..config.layers import differing, dump, flatten, load, to_dict
from ..core import files
from ..core.errors import BadInput, RunFault, told_by
from ..core.progress import say
from ..core.signals import deferred_stop
from ..core.streams import command_line
from ..core.units import format_duration
from ..data import Data, Record
from ..kernels import choice
from ..nets.store import teacher_digest
from ..rundirs.folder import LOCK, RunDir, cores
from ..rundirs.result import read_result
from ..training.begin import JOB, JOB_FILE, PARENT
from ..training.device import Runtime, open_runtime
from ..training.job import Job, job_for, load_data, make_scorer, make_trainer, start_of
from ..training.loop import time_steps
from ..training.provenance import curves_of, sources_of, warn_of_curves
from ..training.recipe import CHANGE_NOTHING, Recipe
from ..training.teaching import teacher_of

KILL_AFTER_S = 120.0
FAILED = "nasaug: "  # begins the line that a command fails with
LONGEST = 60  # characters of an arm in a file's name
# of a cell begun: a teacher and images may have been moved, and the key has what they hold
MAY_DIFFER = ("arm", "teacher.source", "data.name", *CHANGE_NOTHING)


@dataclass
class Sets:
    """The data read so far, by their settings: each is read once. `begun`: what a run that goes on recorded of them."""

    begun: Record | None = None
    read: dict[str, Data] = field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """One training: an arm with a seed, in a folder of its own whose name tells its settings."""

    arm: str
    seed: int
    recipe: Recipe
    arch: Path  # the network's arch file
    path: Path

    @property
    def kind(self) -> str:
        """What cells that differ in nothing but the seed have in common."""
        return self.arm if self.arch.stem == "base" else f"{self.arch.stem}, {self.arm}"

    @property
    def finished(self) -> bool:
        return RunDir(self.path).finished


def check_begun(cells: list[Cell]) -> None:
    """Raises BadInput for a folder that was begun with other settings than its cell's, as by a version of nasaug with
    other defaults, which a key leaves out."""
    for cell in cells:
        if (cell.path / JOB_FILE).is_file():
            differs = differing(load(cell.path / "recipe.toml", Recipe), cell.recipe, aside=MAY_DIFFER)
            if differs:
                remedy = "remove it, or start anew with other --cells"
                raise BadInput(f"{cell.path} was trained with {', '.join(differs)}; {remedy}")


def check_options(asked: Any, common: Any, whose: str) -> None:
    """Raises BadInput for what no command that trains cells can do with; `whose` is it, in words."""
    for option, value in (("--seeds", asked.seeds), ("--jobs", asked.jobs)):
        if value is not None and value < 1:
            raise BadInput(f"{option} {value} must be at least 1")
    if common.seed is not None:
        raise BadInput(f"--seed {common.seed}: {whose} has several, 0 and up; say how many with --seeds")
    if common.profile:
        raise BadInput(f"--profile: {whose} has many trainings, each with a log of its own; use nasaug train --profile")
    if asked.cells is not None and asked.cells.exists() and not asked.cells.is_dir():
        raise BadInput(f"--cells {asked.cells} is not a folder; give one, or a new name")


def held(sets: Sequence[str]) -> list[str]:
    """Those of --set that resuming must share with the beginning."""
    return [item for item in sets if item.partition("=")[0].strip() not in CHANGE_NOTHING]


def read_data(recipe: Recipe, found: ArchFile, sets: Sets) -> Data:
    key = repr(recipe.data)
    if key not in sets.read:
        sets.read[key] = load_data(recipe, found.plan.resolution, sets.begun, sources_of(found, recipe).values())
    return sets.read[key]


def key_of(found: ArchFile, start: str, recipe: Recipe, data: Data) -> str:
    """Hash of all that a cell's result depends on, but for its arm's name; of the weights to start from (`start`
    is their digest), of a teacher and of an image folder what they hold, since files move and change."""
    usual = flatten(to_dict(Recipe()))  # left out, so that a key which a later version adds changes nothing
    said, aside = flatten(to_dict(recipe)), ("arm", *CHANGE_NOTHING)
    table = {key: value for key, value in said.items() if key not in aside and value != usual.get(key)}
    if len(data.record.files):
        table["data.name"] = data.record.whole_key
        table.pop("data.targets", None)  # the numbers in it are in that key
    if teacher := teacher_digest(recipe.teacher.source):
        table["teacher.source"] = teacher
    if found.start is None:  # fresh weights, said or not
        table.pop("init", None)
    what = [table, found.plan.to_dict(), start, *([found.pruned] if found.pruned else [])]
    text = json.dumps(what, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def plain_name(arm: str, among: Iterable[str] = ()) -> str:
    """An arm as a part of a file's name; with a hash where it is cut short, or where another `among` these has it."""
    name = _replaced(arm)
    if len(name) <= LONGEST and all(other == arm or _replaced(other) != name for other in among):
        return name
    told_apart = hashlib.sha256(arm.encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{name[:LONGEST]}-{told_apart}"


def _replaced(arm: str) -> str:
    return re.sub(r"[^A-Za-z0-9.=_-]+", "_", arm)


def folder_name(arm: str, seed: int, key: str) -> str:
    """A cell's folder: what people look for, and a part of its key."""
    return f"{plain_name(arm)}-s{seed}-{key[:8]}"


def jobs_for(runtime: Runtime, asked: int | None) -> int:
    """How many run at a time: one a core, or one on an accelerator, unless told."""
    return asked or (1 if runtime.accelerated else cores())


def estimate(cells: list[Cell], runtime: Runtime, jobs: int, sets: Sets) -> dict[Path, float]:
    """Seconds that each cell will take, from a few timed steps of each arm, one thread where several run at once."""
    threads, timed, told = torch.get_num_threads(), {}, set()
    starting = time.process_time()  # what this process needed so far, each cell's will need
    if jobs > 1:
        torch.set_num_threads(1)
    for cell in cells:
        if cell.kind not in timed:
            found = archfile.read(str(cell.arch))
            timed[cell.kind] = starting
            try:
                data = read_data(cell.recipe, found, sets)
                job = job_for(found, cell.recipe, runtime, len(data.train))
                _, start = start_of(found, job, data)
                if start not in told:
                    told.add(start)
                    say(f"  {cell.kind}: {start}")
                timed[cell.kind] += _arm_seconds(found, job, data, runtime)
            except Exception as error:  # the cell itself will fail, and take no other along
                say(f"{cell.kind}: how long it takes cannot be told ({told_by(error)})")
    torch.set_num_threads(threads)
    return {cell.path: timed[cell.kind] for cell in cells}


def _arm_seconds(found: ArchFile, job: Job, data: Data, runtime: Runtime) -> float:
    recipe = job.recipe
    scorer = make_scorer(recipe, data, runtime)
    trainer = make_trainer(job, data, runtime, scorer, teacher=teacher_of(found, recipe, data, runtime, scorer))
    begun = time.perf_counter()
    trainer.end_epoch()
    judging = time.perf_counter() - begun
    step = time_steps(trainer)
    training = job.length.seconds or step * job.length.steps
    epochs = training / step / job.length.steps_per_epoch
    return training + judging * max(1, epochs / trainer.every)


def together(seconds: list[float], jobs: int) -> float:
    """How long all take, `jobs` at a time, each begun where one ends."""
    ends = [0.0] * jobs
    for each in seconds:
        ends[ends.index(min(ends))] += each
    return max(ends)


class Watch:
    """Looks on while cells are trained; this one has no say in it."""

    def hopeless(self, cell: Cell) -> str | None:
        """Why a cell that waits or runs is to be left out or ended; None: it goes on."""
        return None

    def ended(self, cell: Cell) -> None:
        """Told of each cell whose process has ended, however it did."""


def train_missing(
    cells: list[Cell], what: str, run: RunDir, device: str, jobs: int | None, sets: Sets, watch: Watch | None = None
) -> list[dict]:
    """Say how many cells there are and about how long those not there yet take, and train them; those that failed.

    Cells of one folder, which differ in their arms' names alone, are one training. Raises RunFault where no cell at all
    is finished then."""
    check_begun(cells)
    cells = list({cell.path: cell for cell in reversed(cells)}.values())[::-1]  # the first of each folder
    watch, runtime = watch or Watch(), open_runtime(device)
    left = [cell for cell in cells if not cell.finished and not watch.hopeless(cell)]
    there = sum(cell.finished for cell in cells)
    out = len(cells) - there - len(left)
    say(f"{what}: {len(cells)} cells, {there} there already" + (f", {out} pruned" if out else ""))
    run.log("begin", cells=len(cells), left=len(left))
    if not left:
        return []
    curves = dict.fromkeys(curve for cell in left for curve in curves_of(cell.recipe))
    warn_of_curves(curves, partial(read_data, left[0].recipe, archfile.read(str(left[0].arch)), sets))
    jobs = jobs_for(runtime, jobs)
    seconds = estimate(left, runtime, jobs, sets)
    sets.read.clear()  # each training reads its own
    say(f"about {format_duration(together(list(seconds.values()), jobs))}, {min(jobs, len(left))} at a time")
    environment = _choices(run, 1 if jobs > 1 else torch.get_num_threads()) | {PARENT: str(run.path.resolve())}
    failed = carry_out(left, device, jobs, seconds, watch, environment)
    if not any(cell.finished for cell in cells):
        said = f"no cell was finished; the first failed with: {failed[0]['error']}"
        raise RunFault(f"{said}; try again with {resume_command(run)}")
    return failed


def _choices(run: RunDir, threads: int) -> dict[str, str]:
    """The environment by which all cells with so many threads compute alike, those of a resumed command too."""
    noted = run.environment().get("cells", {})
    if str(threads) not in noted:
        run.note(cells=noted | {str(threads): choice.for_cells(threads)})
    return run.environment()["cells"][str(threads)]


def resume_command(run: RunDir) -> str:
    """The command that goes on with a run."""
    verb = files.read_json(run.path / JOB_FILE, JOB)["verb"]
    return command_line("nasaug", verb, "--resume", "--run", run.path)


def carry_out(
    cells: list[Cell], device: str, jobs: int, seconds: dict[Path, float], watch: Watch, environment: dict[str, str]
) -> list[dict]:
    """Train the cells in processes of their own, `jobs` at a time; those that failed, each with the reason.

    A stop is handed on to all that run, which save what they have; raises Stopped then. `watch` may end a cell like
    that too, which is no failure."""
    waiting, failed, pruned = list(cells), [], {}
    running: list[_Running] = []
    taken = expected = 0.0
    try:
        while waiting or running:
            waiting = _without_hopeless(waiting, watch)
            while waiting and len(running) < jobs:
                with deferred_stop():  # a process that was started is one that will be stopped
                    cell = waiting.pop(0)
                    said = _log(cell).stat().st_size if _log(cell).exists() else 0
                    running.append(_Running(cell, _start(cell, device, jobs, environment), time.monotonic(), said))
            time.sleep(0.1)
            now = time.monotonic()
            _end_hopeless(running, pruned, watch)
            for one in [one for one in running if one.process.poll() is not None]:
                running.remove(one)
                cell = one.cell
                watch.ended(cell)
                if cell.path in pruned:
                    told = pruned[cell.path]
                else:
                    taken, expected = taken + now - one.begun, expected + seconds[cell.path]
                    error = _why(one) if one.process.returncode or not cell.finished else None
                    failed += [{"arm": cell.arm, "seed": cell.seed, "error": error}] if error else []
                    told = f"failed: {error}" if error else f"validation {_val_score(cell)}"
                slower = taken / expected if expected else 1.0
                ahead = [(r.cell, now - r.begun) for r in running] + [(c, 0.0) for c in waiting]
                left = together([max(0.0, seconds[c.path] * slower - past) for c, past in ahead], jobs)
                told += f"; about {format_duration(left)} left" if ahead else ""
                say(f"{cell.kind}, seed {cell.seed}: {told}")
    finally:
        with deferred_stop():  # a second stop ends this process at once, and those that were asked to end will
            for one in running:
                one.process.send_signal(signal.SIGTERM)
            for one in running:
                try:
                    one.process.wait(KILL_AFTER_S)
                except subprocess.TimeoutExpired:
                    one.process.kill()
    return failed


def _val_score(cell: Cell) -> str:
    result = read_result(cell.path)
    return result.metric.show(result.val_score)


@dataclass(frozen=True, eq=False)
class _Running:
    """A cell's process, begun at that second of the monotonic clock, and the bytes that its log held before."""

    cell: Cell
    process: subprocess.Popen
    begun: float
    said: int


def _end_hopeless(running: list[_Running], pruned: dict[Path, str], watch: Watch) -> None:
    """Stop the processes of cells that are out, and note why."""
    for one in running:
        reason = None if one.cell.path in pruned else watch.hopeless(one.cell)
        if reason and one.process.poll() is None:
            pruned[one.cell.path] = reason
            one.process.send_signal(signal.SIGTERM)


def _without_hopeless(waiting: list[Cell], watch: Watch) -> list[Cell]:
    reasons = [(cell, watch.hopeless(cell)) for cell in waiting]
    for cell, reason in reasons:
        if reason:
            say(f"{cell.kind}, seed {cell.seed}: left out; {reason}")
    return [cell for cell, reason in reasons if not reason]


def _log(cell: Cell) -> Path:
    return cell.path.with_suffix(cell.path.suffix + ".log")


def _start(cell: Cell, device: str, jobs: int, environment: dict[str, str]) -> subprocess.Popen:
    """A session of its own: what the terminal sends is handed on once, by `carry_out`."""
    cell.path.parent.mkdir(parents=True, exist_ok=True)
    said = flatten(to_dict(cell.recipe))
    named = ("teacher.source",) if teacher_digest(cell.recipe.teacher.source) else ()
    told = ["--resume", *(f"--set={key}={json.dumps(said[key])}" for key in (*CHANGE_NOTHING, *named))]
    told += ["--data", cell.recipe.data.name]  # which may lie elsewhere now
    if not (cell.path / JOB_FILE).is_file():
        _clear(cell.path)
        recipe = cell.path.with_suffix(cell.path.suffix + ".toml")
        files.write_with_names(recipe, dump(cell.recipe))
        told = ["--arch", str(cell.arch), "--recipe", str(recipe)]
    one = {"OMP_NUM_THREADS": "1"} if jobs > 1 else {}
    with open(_log(cell), "a") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "nasaug", "train", *told, "--run", str(cell.path), "--device", device],
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=os.environ | environment | one,
            start_new_session=True,
        )  # fmt: skip


def _clear(path: Path) -> None:
    """Remove what is left of a training that was cut off before it had begun, but none that another process begins."""
    if path.is_dir():
        with contextlib.suppress(BadInput), RunDir.hold(path):
            for left in path.iterdir():
                if left.name != LOCK:  # who has just opened that must not come to hold one that is gone
                    shutil.rmtree(left) if left.is_dir() else left.unlink()


def _why(one: _Running) -> str:
    """Why a cell failed: the error that its process told, else the last line, and the signal if one ended it.

    A process that an earlier command left behind may tell of its progress in the same log."""
    told = _log(one.cell).read_bytes()[one.said :].decode(errors="replace").split("\n")
    told = [line for line in told if line.strip()] or ["it told nothing"]
    last = ([line for line in told if line.startswith(FAILED)] or told)[-1].removeprefix(FAILED)
    code = one.process.returncode
    return f"killed by {signal.Signals(-code).name}; before that: {last}" if code < 0 else last
