"""Starts or resumes every long job (`create_or_resume`), with the checks that are specific to resumed runs."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ..core import files
from ..core.errors import BadInput, RunFault, arg
from ..core.launch import restarts
from ..core.progress import also_heard_by, say
from ..core.signals import Stopped
from ..data import Record
from ..kernels import choice
from ..rundirs import job as jobs
from ..rundirs.folder import RunDir
from ..rundirs.live import Progressed
from .device import out_of_memory
from .options import Options
from .ranks import Ranks, joined, of_process
from .recipe import Recipe

PARENT = "NASAUG_DATA_OF"  # environment variable naming the parent run whose data splits a cell must use
Result = TypeVar("Result", covariant=True)


class Prepared(Protocol):
    """A job whose inputs have all been validated."""

    @property
    def recipe(self) -> Recipe: ...

    @property
    def record(self) -> Record:
        """Which image is in which split."""
        ...


class Verb(Protocol[Result]):
    """The arguments of one verb, as a frozen dataclass of plain values, and the steps `create_or_resume` calls."""

    @property
    def verb(self) -> str: ...

    @property
    def options(self) -> Options: ...

    @property
    def together(self) -> bool:
        """Whether several processes can do it together."""
        ...

    @property
    def extends(self) -> bool:
        """Whether a finished run may be resumed too."""
        ...

    def prepare(self) -> Prepared:
        """Validate everything before anything is written. Raises BadInput."""
        ...

    def write(self, run: RunDir, ready: Any) -> dict[str, Any]:
        """Write what resuming needs besides the recipe into the new run directory; returns what job.json stores."""
        ...

    def restore(self, run: RunDir, kept: dict[str, Any]) -> Any | None:
        """Like `prepare`, for a resumed run; None if it is finished. Raises BadInput if the arguments contradict those
        that the run was started with."""
        ...

    def carry_out(self, run: RunDir, ready: Any) -> None:
        """Do the remaining work."""
        ...

    def result(self, run: RunDir) -> Result:
        """The result of a finished run, read from its files."""
        ...


def create_or_resume(job: Verb[Result]) -> Result:
    """Start a new run of the job, or resume the run it names; returns the result.

    The run directory is only created after all checks have passed. Raises BadInput, RunFault, or Stopped on a
    signal."""
    ranks = joined()
    if not ranks.alone:
        return _together(job, ranks)
    return _alone(job)


def _alone(job: Verb[Result]) -> Result:
    if job.options.resume:
        return _resume(job)
    jobs.refuse_existing(job.options.run)
    ready = job.prepare()
    with RunDir.create(job.verb, ready.recipe, job.options.run) as run, stopping(job.verb, run):
        kept = job.write(run, ready)
        choice.adopt({})
        run.note(kernels=choice.record())  # resuming must use the same kernels
        ready.record.save(run.path)
        jobs.write_job(run, job.verb, kept)
        return _finished(job, run, ready)


def _together(job: Verb[Result], ranks: Ranks) -> Result:
    """The same in one of several processes. The run is the first one's; each other works in a folder of its own, which
    is deleted at the end, on a copy of what there is to resume."""
    if not job.together:
        rule = f"is one process, but {ranks.count} were started"
        raise BadInput(f"nasaug {job.verb} {rule}; start it without torchrun")
    options = job.options
    with tempfile.TemporaryDirectory(prefix="nasaug-") as own:
        begun: dict[str, bytes] | None = None
        if ranks.first:
            path = _begun(job)
            begun = None if path is None else _content(path)
            resume = begun is not None
            options = dataclasses.replace(options, run=path if resume else options.run, resume=resume)
        kept = ranks.of_first(begun)
        if not ranks.first:
            for name, content in (kept or {}).items():
                (Path(own) / name).write_bytes(content)
            options = dataclasses.replace(options, run=Path(own), resume=kept is not None)
        result = _alone(dataclasses.replace(job, options=options))  # type: ignore[type-var]
        ranks.sums(0)  # waits for all
        return result


def _content(run: Path) -> dict[str, bytes]:
    """The files of a run by name, except hidden ones like its lock."""
    return {file.name: file.read_bytes() for file in run.iterdir() if file.is_file() and file.name[0] != "."}


def _begun(job: Verb[Any]) -> Path | None:
    """The run that several processes go on with: the one to resume, or the one named that they had begun when one of
    them ended and torchrun started all of them again; None if there is none."""
    run = job.options.run
    if job.options.resume:
        return jobs.run_to_resume(job.verb, run, extend=job.extends)
    return run if restarts() and run is not None and RunDir(run).job_file.is_file() else None


def _resume(job: Verb[Result]) -> Result:
    path = jobs.run_to_resume(job.verb, job.options.run, extend=job.extends)
    with RunDir.resume(path) as run, stopping(job.verb, run):
        kept = jobs.read_job(run, job.verb)
        other = choice.adopt(run.environment().get("kernels", {}))
        if other:
            say(f"warning: {path}: {other}")
        there = jobs.absolute(job)
        with jobs.where_begun(run, kept) as elsewhere:
            job = there if elsewhere else job
            return _finished(job, run, job.restore(run, kept))


@contextlib.contextmanager
def joining(run: RunDir, again: str) -> Iterator[dict[str, Any]]:
    """For a further process of a run that another one leads: yields its job.json. Inside the block, the kernels are the
    run's and relative paths mean what they mean there. `again` is the command that a stopped process told to give."""
    kept = files.read_json(run.job_file, jobs.FORMAT)
    if other := choice.adopt(run.environment().get("kernels", {})):
        say(f"warning: {run.path}: {other}")
    with jobs.where_begun(run, kept):
        try:
            yield kept
        except Stopped as stop:
            stop.resume = again
            raise


def _finished(job: Verb[Result], run: RunDir, ready: Any | None) -> Result:
    """The result, whose paths stay valid in any working directory."""
    live = Progressed(run.path)
    if ready is None:
        live.remove()  # left behind if it was killed right after its result was written
        say(f"{run.path} is finished already")
    else:
        if not (ranks := of_process()).alone:
            run.note(ranks=ranks.count)
        with also_heard_by(live):
            job.carry_out(run, ready)
        live.remove()
    return job.result(RunDir(os.path.abspath(run.path)))


def begun_record(run: RunDir, recipe: Recipe) -> Record | None:
    """The record of a resumed run's data splits, None for a data set that needs none. Raises BadInput for an image
    folder without a record."""
    record = Record.of_run(run.path)
    if record is None and recipe.data.name not in files.DATA_SETS:
        rule = "was started by a version of nasaug that did not record which image is in which split"
        raise BadInput(f"{run.path} {rule}, so it cannot continue with the same splits; start a new run")
    return record


def of_parent() -> Record | None:
    """The record of the parent job's data splits; None if this training is not a cell of one."""
    return Record.of_run(Path(os.environ[PARENT])) if PARENT in os.environ else None


def at_path(recipe: Recipe, data: str | None) -> Recipe:
    """A resumed run's recipe, with `data` as the new path of its image folder if given. Loading the data later checks
    that the images are the same. Raises BadInput if the folder is gone and no new path is given."""
    name = recipe.data.name
    if data is None and name not in files.DATA_SETS and not os.path.isdir(os.path.expanduser(name)):
        raise BadInput(
            f"the images of {name!r} that the run began with are missing; "
            f"give their location with {arg.data}"
        )
    return recipe if data is None else dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, name=data))


def other_data(data: str | None, begun: Recipe) -> str | None:
    """`data` if it names a different data set from the run's; None if it is the same, or a folder that may have
    moved."""
    moved = data not in files.DATA_SETS and begun.data.name not in files.DATA_SETS
    return None if moved or data == begun.data.name else data


@contextlib.contextmanager
def stopping(verb: str, run: RunDir) -> Iterator[None]:
    """Adds to a Stopped which run can be resumed, and turns torch's various out-of-memory errors into RunFault."""
    try:
        yield
    except Stopped as stop:
        traceback.clear_frames(stop.__traceback__)  # drops the batch iterator, which ends its decoding processes
        stop.verb, stop.run = verb, run.path
        raise
    except RuntimeError as error:
        if out_of_memory(error):
            batch = files.read_toml(run.recipe_file)["batch"]
            half = max(2, batch // 2)
            lower = f"with a lower batch, like {arg.set} batch={half}" if half < batch else "where more memory is free"
            raise RunFault(f"out of memory; start anew {lower}") from error
        raise
