"""`worker`, also called `search-worker`."""

from __future__ import annotations

from pathlib import Path

from ..core.errors import BadInput, arg
from .options import Whole


def worker(
    *,
    run: Path | None = None,
    study: str | None = None,
    jobs: Whole = None,
    wait: str | None = None,
    data: str | None = None,
    device: str = "auto",
):
    """Help with a search, comparison or sweep that another process leads, on this machine or another one.

    Examples:

      nasaug search-worker --run runs/search-1

      nasaug search-worker --study postgresql://me@server/search1

      nasaug worker --run /shared/runs/compare-1 --study postgresql://me@server/compare1 --wait 1h

    It judges candidates, or trains, until none is left to begin, and writes nothing of the run but its trainings. Start
    and stop as many as you like: what a stopped one was at is done by another one.

    :param run: The run's folder, on this machine or a shared disk; default: the one that --study notes.
    :param study: The storage that the run was begun with, with its password if it has one; default: the run's.
    :param jobs: Number of concurrent trainings of a comparison or sweep; default: one per core.
    :param wait: How long to wait for the run to be ready (a search: for its supernet), like 2h; default: not at all.
    :param data: Where the image folder is on this machine, if it is elsewhere.
    :param device: auto, cpu or cuda.
    """
    from ..core.launch import launched
    from ..core.streams import command_line
    from ..core.units import parse_quantity
    from ..rundirs.folder import RunDir
    from ..rundirs.job import verb_of

    if launched()[1] > 1:
        raise BadInput(f"nasaug worker is one process, but {launched()[1]} were started; start each without torchrun")
    if run is None and study is None:
        raise BadInput(f"worker needs {arg.run}, the folder of the run to help with, or {arg.study}, its storage")
    if jobs is not None and jobs < 1:
        raise BadInput.of(argument="jobs", value=jobs, rule="must be at least 1")
    wait_s = 0.0 if wait is None else parse_quantity(wait, "seconds", argument="wait")
    from ..pool.shared import run_of, wait_for
    from ..training.begin import joining
    from ..training.options import Options

    led = RunDir(run if run is not None else run_of(str(study)))
    if not wait_s and not led.path.is_dir():
        raise BadInput.of(argument="run", value=led.path, rule="is no folder", remedy="give that of a run in progress")
    wait_for(led.job_file.is_file, f"a run in {led.path}", wait_s)
    verb = verb_of(led.path)
    if verb not in ("search", "compare", "sweep"):
        rule = f"is a run of {verb}, which one process does"
        raise BadInput.of(argument="run", value=led.path, rule=rule, remedy="give one of search, compare or sweep")
    again = command_line("python", "-m", "nasaug", "worker", "--run", led.path)
    options = Options(data=data, device=device, run=led.path.resolve())
    with joining(led, again) as kept:
        if verb == "search":
            from ..nas.worker import judge_for

            judge_for(led, kept, study, options, wait_s)
