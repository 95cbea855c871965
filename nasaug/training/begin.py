"""How every long job begins, goes on and ends: `create_or_resume`, and what is checked of a run that goes on."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch

from ..core import files
from ..core.errors import BadInput, RunFault
from ..core.progress import say
from ..core.signals import Stopped
from ..data import Record
from ..kernels import choice
from ..rundirs import job as jobs
from ..rundirs.folder import RunDir
from .options import Options
from .recipe import Recipe

PARENT = "NASAUG_DATA_OF"  # the environment's variable by which cells are told whose images they train on
Result = TypeVar("Result", covariant=True)


class Ready(Protocol):
    """A job of which everything that can be refused was checked."""

    @property
    def recipe(self) -> Recipe: ...

    @property
    def record(self) -> Record:
        """Which image is in which split."""
        ...


class Job(Protocol[Result]):
    """What one verb was asked: a frozen dataclass of plain values, and the steps that `create_or_resume` takes."""

    @property
    def verb(self) -> str: ...

    @property
    def options(self) -> Options: ...

    @property
    def extends(self) -> bool:
        """Whether resuming may also take up a finished run."""
        ...

    def prepare(self) -> Ready:
        """Check all that can be checked before anything is written. Raises BadInput."""
        ...

    def write(self, run: RunDir, ready: Any) -> dict[str, Any]:
        """Put into the new run what resuming it needs beside its recipe; returns what job.json keeps."""
        ...

    def restore(self, run: RunDir, kept: dict[str, Any]) -> Any | None:
        """The counterpart of `prepare` for a run that goes on; None where it is finished. Raises BadInput for what is
        asked and differs from what it was begun with."""
        ...

    def carry_out(self, run: RunDir, ready: Any) -> Result:
        """Do what is left to do."""
        ...

    def result(self, run: RunDir) -> Result:
        """That of a finished run."""
        ...


def create_or_resume(job: Job[Result]) -> Result:
    """Begin a new run of the job, or go on with the one that it names; its result.

    A new run's folder is made once all checks have passed. Raises BadInput, RunFault, or Stopped on a signal."""
    if job.options.resume:
        return _resume(job)
    jobs.refuse_existing(job.options.run)
    ready = job.prepare()
    with RunDir.create(job.verb, ready.recipe, job.options.run) as run, stopping(job.verb, run):
        kept = job.write(run, ready)
        choice.adopt({})
        run.note(kernels=choice.record())  # so that it goes on with the same
        ready.record.save(run.path)
        jobs.write_job(run, job.verb, kept)
        return job.carry_out(run, ready)


def _resume(job: Job[Result]) -> Result:
    path = jobs.run_to_resume(job.verb, job.options.run, extend=job.extends)
    with RunDir.resume(path) as run, stopping(job.verb, run):
        kept = jobs.read_job(run, job.verb)
        other = choice.adopt(run.environment().get("kernels", {}))
        if other:
            say(f"warning: {path}: {other}")
        there = jobs.absolute(job)
        with jobs.where_begun(run, kept) as elsewhere:
            job = there if elsewhere else job
            ready = job.restore(run, kept)
            return job.result(run) if ready is None else job.carry_out(run, ready)


def begun_record(run: RunDir, recipe: Recipe) -> Record | None:
    """What a run that goes on recorded of its data. Raises BadInput for an image folder of which it did not."""
    record = Record.of_run(run.path)
    if record is None and recipe.data.name not in files.DATA_SETS:
        rule = "was begun by a version of nasaug that did not write down which image is in which split"
        raise BadInput(f"{run.path} {rule}, so it cannot go on with the same; start a new run")
    return record


def of_parent() -> Record | None:
    """What the job that this training is a cell of recorded of its data; None where it is no cell."""
    return Record.of_run(Path(os.environ[PARENT])) if PARENT in os.environ else None


def at_path(recipe: Recipe, data: str | None) -> Recipe:
    """The recipe of a run that goes on, its data at another path if one is given. Loading them checks that they are
    the images that the run began with. Raises BadInput where they left their path and no other is given."""
    name = recipe.data.name
    if data is None and name not in files.DATA_SETS and not os.path.isdir(os.path.expanduser(name)):
        raise BadInput(f"the images of {name!r} that the run began with are not there; say with --data where they are")
    return recipe if data is None else dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, name=data))


def other_data(data: str | None, begun: Recipe) -> str | None:
    """The data asked of a run that goes on where they are to be refused by name: another set, not a folder's other
    path."""
    moved = data not in files.DATA_SETS and begun.data.name not in files.DATA_SETS
    return None if moved or data == begun.data.name else data


@contextlib.contextmanager
def stopping(verb: str, run: RunDir) -> Iterator[None]:
    """Tells a stop signal's Stopped which run can be resumed. Raises RunFault where memory runs out, which torch tells
    by its own kinds of error."""
    try:
        yield
    except Stopped as stop:
        traceback.clear_frames(stop.__traceback__)  # ends the decoding processes of batches that nobody will ask for
        stop.verb, stop.run = verb, run.path
        raise
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            half = max(2, files.read_toml(run.recipe_file)["batch"] // 2)
            raise RunFault(f"out of memory; start anew with a lower batch, like --set batch={half}") from error
        raise
