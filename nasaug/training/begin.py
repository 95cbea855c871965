"""How every long command begins and ends: a new run or a resumed one, and what a signal does."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ..core import files
from ..core.errors import BadInput, RunFault
from ..core.progress import say
from ..core.signals import Stopped
from ..core.streams import command_line, mute_unheard, tell
from ..data import Record
from ..kernels import choice
from ..rundirs.folder import RunDir, check_new
from .recipe import Recipe

JOB, JOB_FILE = "nasaug-job/1", "job.json"
PARENT = "NASAUG_DATA_OF"  # the environment's variable by which cells are told whose images they train on


def run_to_resume(verb: str, run: Path | None, *, extend: bool = False) -> Path:
    """The run named by --run, else the verb's last unfinished one; to `extend` where there is none, its last."""
    if run is not None:
        return run
    begun = [p.parent for p in Path("runs").glob(f"{verb}-*/{JOB_FILE}")]
    begun = [p for p in begun if p.name.rpartition("-")[2].isdecimal()]
    left = [p for p in begun if not RunDir(p).finished] or (begun if extend else [])
    if not left:
        raise BadInput(f"no unfinished run of {verb} in ./runs; name one with --run PATH")
    return max(left, key=lambda p: int(p.name.rpartition("-")[2]))


def refuse_existing(run: Path | None) -> None:
    """An explicit --run that exists is refused before anything is loaded."""
    if run is not None and os.path.exists(run):
        if not run.is_dir():
            raise BadInput(f"--run {run} exists and is no folder; give another --run")
        check_new(run)


def write_job(run: RunDir, verb: str, record: Record, **what: Any) -> None:
    """What the command was asked beside its recipe, and where; for --resume. Written last: with it a run has begun.

    The environment's record is told which kernels it runs with, so that it goes on with the same; and which image is
    in which split is written down beside it."""
    choice.adopt({})
    run.note(kernels=choice.record())
    record.save(run.path)
    where = {"folder": os.getcwd(), "run": str(run.path.resolve())}
    files.write_json(run.path / JOB_FILE, {"format": JOB, "verb": verb, "where": where, **what})


@contextlib.contextmanager
def resumed(
    verb: str, common: Any, asked: Any, extend: bool = False
) -> Iterator[tuple[RunDir, dict, Any, Any]]:
    """The run to go on with, held; its job; and the options, whose paths are absolute where that is needed.

    What the run remembers of paths is meant from the folder that it was begun in, so that is the working folder within,
    where it is there still. Of a project that was moved or copied as a whole it is the folder in the same place."""
    path, here = run_to_resume(verb, common.run, extend=extend), Path.cwd()
    with RunDir.resume(path) as run, stopping(verb, run):
        job = read_job(path, verb)
        begun = _begun_in(job.get("where", {}), path.resolve(), here)
        if begun == here:
            yield run, job, common, asked
            return
        run.path = path.resolve()
        common, asked = absolute(common), absolute(asked)
        try:
            os.chdir(begun)
            yield run, job, common, asked
        finally:
            os.chdir(here)


def _begun_in(where: dict, run: Path, here: Path) -> Path:
    folder = where.get("folder", str(here))
    moved = Path(os.path.normpath(run / os.path.relpath(folder, where.get("run", str(run)))))
    if run != Path(where.get("run", run)) and moved == here.resolve():
        return here
    return Path(folder) if os.path.isdir(folder) and Path(folder).resolve() != here.resolve() else here


def begun_record(run: RunDir, recipe: Recipe) -> Record | None:
    """What a run that goes on recorded of its data. Raises BadInput for an image folder of which it did not."""
    record = Record.of_run(run.path)
    if record is None and recipe.data.name not in files.DATA_SETS:
        rule = "was begun by a version of nasaug that did not write down which image is in which split"
        raise BadInput(f"{run.path} {rule}, so it cannot go on with the same; start a new run")
    return record


def of_parent() -> Record | None:
    """What the command that this training is a cell of recorded of its data; None where it is no cell."""
    return Record.of_run(Path(os.environ[PARENT])) if PARENT in os.environ else None


def at_path(recipe: Recipe, data: str | None) -> Recipe:
    """The recipe of a run that goes on, its data at another path if one is given. Loading them checks that they are
    the images that the run began with. Raises BadInput where they left their path and no other is given."""
    name = recipe.data.name
    if data is None and name not in files.DATA_SETS and not os.path.isdir(os.path.expanduser(name)):
        raise BadInput(f"the images of {name!r} that the run began with are not there; say with --data where they are")
    return recipe if data is None else dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, name=data))


def other_data(data: str | None, begun: Recipe) -> str | None:
    """--data of a run that goes on where that is to be refused by its name: another set, not a folder's other path."""
    moved = data not in files.DATA_SETS and begun.data.name not in files.DATA_SETS
    return None if moved or data == begun.data.name else data


def absolute(options: Any) -> Any:
    """The options with each path that is there made absolute."""
    paths = {}
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if field.name in PATHS and value is not None and os.path.exists(value):
            paths[field.name] = type(value)(os.path.abspath(value))
    return dataclasses.replace(options, **paths)


PATHS = ("arch", "cells", "data", "recipe", "run", "source")


def read_job(path: Path, verb: str) -> dict:
    """What `write_job` wrote; the kernels are chosen as they were then. Raises BadInput for a run of another verb."""
    if not (path / JOB_FILE).is_file():
        raise BadInput(f"{path} was cut off before it had begun; remove it and start anew, without --resume")
    job = files.read_json(path / JOB_FILE, JOB)
    if job["verb"] != verb:
        remedy = f"resume it with: {command_line('nasaug', job['verb'], '--resume', '--run', path)}"
        raise BadInput(f"{path} is a run of {job['verb']}, not of {verb}; {remedy}")
    other = choice.adopt(RunDir(path).environment().get("kernels", {}))
    if other:
        say(f"warning: {path}: {other}")
    return job


def refuse_others(path: Path, begun: dict, asked: dict) -> None:
    """Raises BadInput for an option to resume with that is given (not None) and not what the run was begun with."""
    for option, value in asked.items():
        if value is not None and begun[option] != value:
            differs = f"was begun with --{option} {_told(begun[option])}, not {_told(value)}"
            raise BadInput(f"{path} {differs}; leave it out to go on, or start anew")


def _told(value: object) -> str:
    return (",".join(value) if isinstance(value, list) else str(value)) or "none"


@contextlib.contextmanager
def stopping(verb: str, run: RunDir) -> Iterator[None]:
    """A signal ends the command with 128 + its number and one line that says how to go on.

    Raises RunFault where memory runs out, which torch tells by its own kinds of error."""
    try:
        yield
    except Stopped as stop:
        mute_unheard()
        traceback.clear_frames(stop.__traceback__)  # ends the decoding processes of batches that nobody will ask for
        resume = command_line(*f"python -m nasaug {verb} --resume --run".split(), run.path)
        tell(f"stopped; go on with: {resume}", sys.stderr)
        sys.exit(128 + stop.signum)
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            half = max(2, files.read_toml(run.path / "recipe.toml")["batch"] // 2)
            raise RunFault(f"out of memory; start anew with a lower batch, like --set batch={half}") from error
        raise
