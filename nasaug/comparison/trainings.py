"""The trainings of a comparison's or sweep's cells: how long they take; each in its own process, several at a time, and
some of them by other processes where they share a storage."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..arch import archfile
from ..config.layers import dump, flatten, to_dict
from ..core import files
from ..core.errors import RunFault, told_by
from ..core.progress import say
from ..core.streams import nasaug_command
from ..core.units import format_duration
from ..data import Data, describe
from ..kernels import choice
from ..nets.store import teacher_digest
from ..pool.processes import Queue, Watch, Work, run_all, together
from ..pool.queue import SharedQueue
from ..pool.shared import SharedStudy
from ..pool.storage import storage_faults
from ..rundirs.folder import JOB, RunDir, cores
from ..rundirs.job import FORMAT as JOB_FORMAT
from ..rundirs.result import BY_DATA, read_result
from ..training.begin import PARENT
from ..training.device import Runtime, open_runtime
from ..training.job import Job, job_for, make_scorer, make_trainer, start_of, task_of
from ..training.provenance import curves_of, warn_of_curves
from ..training.recipe import CHANGE_NOTHING, Recipe
from ..training.timing import time_steps
from .cells import CELLS, Cell, Sets, check_begun, read_data

THREADS = "threads"  # the study's note of how many threads each training has
LONGEST_START = 10.0  # CPU seconds that starting a process takes at most


def jobs_for(runtime: Runtime, asked: int | None) -> int:
    """How many trainings run at a time: `asked`, or one per core, or one on an accelerator."""
    return asked or (1 if runtime.accelerated else cores())


def estimate(cells: list[Cell], runtime: Runtime, jobs: int, sets: Sets) -> dict[Path, float]:
    """Seconds that each cell will take, from a few timed steps of each arm; single-threaded if several run at once.

    An arm is timed at one of its lengths; its time at the others is taken to be proportional."""
    # A cell's process starts as this one did, so the CPU seconds that this one has used so far tell how long that
    # takes: on the command line. A Python session may have worked for hours before, hence the limit.
    starting = min(time.process_time(), LONGEST_START)
    threads = torch.get_num_threads()
    if jobs > 1:
        torch.set_num_threads(1)
    try:
        timed = _kinds_seconds(cells, runtime, sets)
    finally:
        torch.set_num_threads(threads)
    return {cell.path: starting + timed[cell.kind] * _times(cell, cells, sets) for cell in cells}


def _times(cell: Cell, cells: list[Cell], sets: Sets) -> float:
    """The cell's length as a multiple of that of the first cell of its kind."""
    first = next(other for other in cells if other.kind == cell.kind)
    if cell.length is not None and cell.length.unit in BY_DATA:
        steps, those = (_steps(each.recipe, sets) for each in (cell, first))
        return steps / those if steps and those else 1.0
    if cell.length is None or first.length is None or not cell.length.value or not first.length.value:
        return 1.0
    return cell.length.value / first.length.value


def _steps(recipe: Recipe, sets: Sets) -> float:
    """The steps of a training whose data were read, if its epochs are given; else 0."""
    data = sets.read.get(repr(recipe.data))
    given = recipe.stop == "epochs" and recipe.epochs != "auto"  # MACs or seconds are the same for more images
    return recipe.epochs * recipe.steps_of(len(data.train)) if data and given else 0.0


def _kinds_seconds(cells: list[Cell], runtime: Runtime, sets: Sets) -> dict[str, float]:
    """Seconds of the first cell of each kind, without the start of its process."""
    timed: dict[str, float] = {}
    told: set[str] = set()
    for cell in cells:
        if cell.kind not in timed:
            found = archfile.read(str(cell.arch))
            timed[cell.kind] = 0.0
            try:
                data = read_data(cell.recipe, found, sets)
                job = job_for(found, cell.recipe, runtime, len(data.train))
                _, start = start_of(found, job, data)
                if start not in told:
                    told.add(start)
                    say(f"  {cell.kind}: {start}")
                timed[cell.kind] += _arm_seconds(job, data, runtime)
            except Exception as error:  # the cell itself will fail without affecting the others
                say(f"{cell.kind}: how long it takes cannot be told ({told_by(error)})")
    return timed


def _arm_seconds(job: Job, data: Data, runtime: Runtime) -> float:
    trainer = make_trainer(job, data, runtime, make_scorer(job.recipe, data, runtime))
    begun = time.perf_counter()
    trainer.end_epoch()
    judging = time.perf_counter() - begun
    step = time_steps(trainer)
    training = job.length.seconds or step * job.length.steps
    epochs = training / step / job.length.steps_per_epoch
    return training + judging * max(1, epochs / trainer.every)


def train_missing(
    cells: list[Cell], what: str, run: RunDir, device: str, jobs: int | None, sets: Sets, watch: Watch | None = None,
    storage: str | None = None,
) -> list[dict]:  # fmt: skip
    """Announce the cells and the estimated time, train the unfinished ones, and return those that failed. With a
    `storage`, other processes may train some of them.

    Cells with the same folder, which differ only in their arms' names, are trained once. Raises RunFault if no cell is
    finished afterwards."""
    check_begun(cells)
    _warn_of_others(cells, run)
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
    sets.read.clear()  # each process reads its own
    say(f"about {format_duration(together(list(seconds.values()), jobs))}, {min(jobs, len(left))} at a time")
    works: list[Work] | Queue = [work_of(cell, device, seconds[cell.path]) for cell in left]
    with contextlib.ExitStack() as faults:
        threads = 1 if jobs > 1 else torch.get_num_threads()
        if storage is not None:
            faults.enter_context(storage_faults(storage))
            works, threads = _shared(works, cells, run, storage, threads, watch)
        errors = {work.path: error for work, error in run_all(works, jobs, environment_of(run, threads), watch)}
    # one that another process was given may be lost with it
    lost = [cell for cell in left if cell.path not in errors and not cell.finished and not watch.hopeless(cell)]
    errors |= {cell.path: "no process has finished it" for cell in lost}
    failed = [
        {"arm": cell.arm, **_length_of(cell), "seed": cell.seed, "error": errors[cell.path]}
        for cell in left if cell.path in errors
    ]  # fmt: skip
    if failed and not any(cell.finished for cell in cells):
        said = f"no cell was finished; the first failed with: {failed[0]['error']}"
        raise RunFault(f"{said}; try again with {resume_command(run)}")
    return failed


def _warn_of_others(cells: list[Cell], run: RunDir) -> None:
    """Warn about trainings in the run's own folder that are of none of these cells."""
    names = {cell.path.name for cell in cells}
    others = sorted(path.parent.name for path in run.path.glob(f"{CELLS}/*/{JOB}") if path.parent.name not in names)
    if others:
        told = f"{len(others)} of the trainings in {run.path / CELLS} are none of these cells, such as {others[0]}"
        say(f"warning: {told}; lengths that are left to nasaug depend on the kind of device")


def _length_of(cell: Cell) -> dict[str, Any]:
    return {} if cell.length is None else {"length": cell.length._asdict()}


def _shared(
    works: list[Work], cells: list[Cell], run: RunDir, storage: str, threads: int, watch: Watch
) -> tuple[Queue, int]:
    """The queue in the storage, and how many threads each training has; that is as many as when the run began."""
    direction = task_of(cells[0].recipe, describe(cells[0].recipe.data)).metric.direction
    study = SharedStudy(storage, [direction])
    threads = study.facts.get(THREADS, threads)
    study.note(THREADS, threads)
    environment_of(run, threads)  # noted before another process can join
    queue = SharedQueue(study, works, score_of, lambda work: watch.ended(work.about))
    names = "\n".join(sorted(cell.path.name for cell in cells))
    queue.lead({"cells": hashlib.sha256(names.encode()).hexdigest()}, run.path)
    say(f"further processes can train some of them: {nasaug_command('cell-worker', '--run', run.path)}")
    return queue, threads


def score_of(work: Work) -> float:
    return read_result(work.path).val_score


def environment_of(run: RunDir, threads: int, leads: bool = True) -> dict[str, str]:
    """The environment that makes all cells with this many threads use the same kernels, also after resuming, and the
    run's splits. Unless this process `leads`, it is only read."""
    noted = run.environment().get("cells", {})
    if leads and str(threads) not in noted:
        noted |= {str(threads): choice.for_cells(threads)}
        run.note(cells=noted)
    return {"OMP_NUM_THREADS": str(threads), PARENT: str(run.path.resolve()), **noted[str(threads)]}


def resume_command(run: RunDir) -> str:
    """The command that resumes a run."""
    verb = files.read_json(run.job_file, JOB_FORMAT)["verb"]
    return nasaug_command(verb, "--resume", "--run", run.path)


def work_of(cell: Cell, device: str, seconds: float) -> Work:
    def begin() -> list[str]:
        recipe = cell.path.with_suffix(cell.path.suffix + ".toml")
        files.write_with_names(recipe, dump(cell.recipe))
        return ["train", "--arch", str(cell.arch), "--recipe", str(recipe), *where]

    def go_on() -> list[str]:
        said = flatten(to_dict(cell.recipe))
        named = ("teacher.source",) if teacher_digest(cell.recipe.teacher.source) else ()
        held = (f"--set={key}={json.dumps(said[key])}" for key in (*CHANGE_NOTHING, *named))
        # the data may have moved
        return ["train", "--resume", *held, "--data", cell.recipe.data.name, *where]

    def told() -> str:
        result = read_result(cell.path)
        return f"validation {result.metric.show(result.val_score)}"

    where = ("--run", str(cell.path), "--device", device)
    return Work(cell.title, cell.path, begin, go_on, seconds, told, cell)
