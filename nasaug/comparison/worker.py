"""A further process of a comparison or sweep: it trains cells for the process that leads the run."""

from __future__ import annotations

from functools import partial
from typing import Any

from ..core.errors import BadInput, RunFault, arg
from ..core.progress import say
from ..pool.processes import run_all
from ..pool.queue import SharedQueue
from ..pool.shared import SharedStudy, is_begun, wait_for
from ..pool.storage import storage_faults
from ..rundirs.folder import RunDir, cores
from ..training.device import open_runtime
from ..training.options import Options
from .cells import placed
from .compare import CompareJob
from .sweep import SweepJob
from .trainings import THREADS, environment_of, score_of, work_of

JOBS = {"compare": CompareJob, "sweep": SweepJob}


def train_for(
    run: RunDir, kept: dict[str, Any], storage: str | None, options: Options, jobs: int | None, wait_s: float
) -> None:
    """Train cells until none is waiting. `kept` is the run's job.json, `storage` its URL if that is given, `wait_s` how
    long the study is waited for.

    Writes into the folders of its cells and the storage alone. Raises BadInput, Stopped, or RunFault, also if a cell
    failed."""
    if run.finished:
        say(f"{run.path} is finished already")
        return
    begun = kept.get("storage")
    if not begun:
        rule, remedy = "shares no storage", f"resume it alone, or begin another one with {arg.storage}"
        raise BadInput.of(argument="run", value=run.path, rule=rule, remedy=remedy)
    ready = JOBS[kept["verb"]](storage=storage, jobs=jobs, options=options).restore(run, kept)
    url = storage or begun
    wait_for(partial(is_begun, url), f"the study of {run.path}", wait_s)
    runtime = open_runtime(options.device)
    with storage_faults(url):
        study = SharedStudy(url)
        threads = study.facts[THREADS]
        works = [work_of(cell, options.device, 0.0) for cell in placed(ready.cells, run)]
        most = jobs or (1 if runtime.accelerated else max(1, cores() // threads))
        say(f"cells of {run.path}: up to {most} at a time, {threads} threads each")
        queue = SharedQueue(study, works, score_of)
        if queue.unknown:  # lengths that are left to nasaug depend on the kind of device
            rule = f"has cells that this process would train differently, such as {queue.unknown[0]}"
            remedy = f"give the {arg.device} of the process that leads, and use the same version of nasaug"
            raise BadInput.of(argument="run", value=run.path, rule=rule, remedy=remedy, apart=True)
        failed = run_all(queue, most, environment_of(run, threads, leads=False))
    say(f"no cell of {run.path} is left to begin")
    if failed:
        names = ", ".join(f"{work.title}: {why}" for work, why in failed)
        raise RunFault(f"{len(failed)} of the cells failed here: {names}; resume {run.path} to try them again")
