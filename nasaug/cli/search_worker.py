"""`search-worker`."""

from __future__ import annotations

from pathlib import Path

from ..core.errors import BadInput, arg
from .names import DataName, Device


def search_worker(
    *,
    run: Path | None = None,
    study: str | None = None,
    wait: str | None = None,
    data: DataName = None,
    device: Device = "auto",
):
    """Judge candidates for a search that another process leads, on this machine or another one.

    Examples:

      nasaug search-worker --run runs/search-1

      nasaug search-worker --study postgresql://me@server/s1

      nasaug search-worker --run runs/search-1 --wait 2h

    It leaves when no candidate is left to begin, and writes into the study alone. Start and stop as many as you like:
    the candidate that a stopped one was at is judged by another one.

    :param run: The search's run folder, on this machine or a shared disk; default: the one that --study notes.
    :param study: The storage that the search was begun with, with its password if it has one; default: the run's.
    :param wait: How long to wait for the search to have trained its supernet, like 2h; default: not at all.
    :param data: Where the image folder is on this machine, if it is elsewhere.
    :param device: auto, cpu or cuda.
    """
    from ..core.launch import launched
    from ..core.streams import command_line
    from ..core.units import parse_quantity
    from ..rundirs.folder import RunDir
    from ..rundirs.job import verb_of

    if launched()[1] > 1:
        rule = f"is one process, but {launched()[1]} were started"
        raise BadInput(f"nasaug search-worker {rule}; start each without torchrun")
    if run is None and study is None:
        raise BadInput(f"search-worker needs {arg.run}, the folder of a search, or {arg.study}, its storage")
    wait_s = 0.0 if wait is None else parse_quantity(wait, "seconds", argument="wait")
    from ..pool.shared import run_of, wait_for
    from ..pool.storage import absolute_storage
    from ..training.options import Options

    study = study and absolute_storage(study)
    led = RunDir(run if run is not None else run_of(str(study)))
    if not wait_s and not led.path.is_dir():
        raise BadInput.of(argument="run", value=led.path, rule="is no folder", remedy="give that of a search")
    wait_for(led.job_file.is_file, f"a search in {led.path}", wait_s)
    if verb_of(led.path) != "search":
        rule, remedy = f"is a run of {verb_of(led.path)}, not of search", "give the folder of a search"
        raise BadInput.of(argument="run", value=led.path, rule=rule, remedy=remedy)
    from ..nas.worker import judge_for
    from ..training.begin import joining

    again = command_line("python", "-m", "nasaug", "search-worker", "--run", led.path)
    with joining(led, again) as kept:
        judge_for(led, kept, study, Options(data=data, device=device), wait_s)
