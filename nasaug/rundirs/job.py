"""A run's job: the arguments of its command, stored in job.json so that the run can be resumed with the same ones."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ..core import files
from ..core.errors import BadInput, arg, with_value
from .folder import JOB, RunDir, check_new

FORMAT = "nasaug-job/1"
# fields of jobs and options that may hold a path
PATHS = ("arch", "cells", "data", "device_table", "recipe", "run", "source")
Asked = TypeVar("Asked")
Kept = TypeVar("Kept")


def run_to_resume(verb: str, run: Path | None, *, extend: bool = False) -> Path:
    """The run to resume: `run` if given, else the verb's last unfinished run in ./runs, or with `extend` its last run
    if all are finished.

    Raises BadInput if there is no such run."""
    if run is not None:
        return run
    begun = [p.parent for p in Path("runs").glob(f"{verb}-*/{JOB}")]
    begun = [p for p in begun if p.name.rpartition("-")[2].isdecimal()]
    left = [p for p in begun if not RunDir(p).finished] or (begun if extend else [])
    if not left:
        raise BadInput(f"no unfinished run of {verb} in ./runs; name one with {arg.run} PATH")
    return max(left, key=lambda p: int(p.name.rpartition("-")[2]))


def refuse_existing(run: Path | None) -> None:
    """Raises BadInput if the run directory given for a new run is already in use."""
    if run is not None and os.path.exists(run):
        if not run.is_dir():
            rule, remedy = "exists and is not a folder", f"give another {arg.run}"
            raise BadInput.of(argument="run", value=run, rule=rule, remedy=remedy, apart=True)
        check_new(run)


def write_job(run: RunDir, verb: str, asked: Mapping[str, Any]) -> None:
    """Store the arguments and the working directory. This is written last: it marks the run as started."""
    where = {"folder": os.getcwd(), "run": str(run.path.resolve())}
    files.write_json(run.job_file, {"format": FORMAT, "verb": verb, "where": where, **asked})


def read_job(run: RunDir, verb: str) -> dict[str, Any]:
    """Read what `write_job` wrote. Raises BadInput if the run never started or belongs to another verb."""
    if not run.job_file.is_file():
        raise BadInput(f"{run.path} was interrupted before it started; remove it and start anew, without {arg.resume}")
    job = _Kept(run.job_file, files.read_json(run.job_file, FORMAT))
    if job["verb"] != verb:
        remedy = f"resume it as one of {job['verb']}, with {arg.resume} and {with_value('run')} {run.path}"
        raise BadInput(f"{run.path} is a run of {job['verb']}, not of {verb}; {remedy}")
    return job


def kept_as(kind: type[Kept], kept: Mapping[str, Any]) -> Kept:
    """The dataclass whose fields a job.json holds. Fields that an older version did not store have their defaults."""
    return kind(**{field.name: kept[field.name] for field in dataclasses.fields(kind) if field.name in kept})  # type: ignore[arg-type]


def verb_of(run: Path) -> str | None:
    """The verb of a run; None if it never started or is no run."""
    path = RunDir(run).job_file
    if not path.is_file():
        return None
    verb = _Kept(path, files.read_json(path, FORMAT))["verb"]
    return verb if isinstance(verb, str) else None


class _Kept(dict[str, Any]):
    """The entries of a job.json. Raises BadInput for one that it lacks."""

    def __init__(self, path: Path, content: Mapping[str, Any]):
        super().__init__(content)
        self._path = path

    def __missing__(self, key: str) -> Any:
        raise BadInput(f"{self._path} has no {key}, so it was altered; restore it, or start a new run")


def refuse_changed(path: Path, begun: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Raises BadInput if an argument of a resumed run is given (not None) and differs from the original one."""
    for name, value in asked.items():
        if value is not None and begun[name] != value:
            differs = f"was begun with {getattr(arg, name)} {_shown(begun[name])}, not {_shown(value)}"
            raise BadInput(f"{path} {differs}; leave it out to go on, or start anew")


def _shown(value: object) -> str:
    if value is None or value == []:
        return "none"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


@contextlib.contextmanager
def where_begun(run: RunDir, kept: Mapping[str, Any]) -> Iterator[bool]:
    """Within the block, change to the working directory that the run was started in, because its paths are relative to
    it; yields whether that differs from the current one. If the directory is gone, the current one is kept.

    If a project was moved or copied as a whole, the directory at the same place within it is used."""
    here = Path.cwd()
    begun = _begun_in(kept.get("where", {}), run.path.resolve(), here)
    if begun == here:
        yield False
        return
    run.path = run.path.resolve()
    try:
        os.chdir(begun)
        yield True
    finally:
        os.chdir(here)


def _begun_in(where: Mapping[str, str], run: Path, here: Path) -> Path:
    folder = where.get("folder", str(here))
    moved = Path(os.path.normpath(run / os.path.relpath(folder, where.get("run", str(run)))))
    if run != Path(where.get("run", run)) and moved == here.resolve():
        return here
    return Path(folder) if os.path.isdir(folder) and Path(folder).resolve() != here.resolve() else here


def absolute(asked: Asked) -> Asked:
    """A copy of a job in which every existing path is absolute, in nested dataclasses too."""
    changed: dict[str, Any] = {}
    for field in dataclasses.fields(asked):  # type: ignore[arg-type]
        value = getattr(asked, field.name)
        if dataclasses.is_dataclass(value):
            changed[field.name] = absolute(value)
        elif field.name in PATHS and value is not None and os.path.exists(value):
            changed[field.name] = type(value)(os.path.abspath(value))
    return dataclasses.replace(asked, **changed)  # type: ignore[type-var]
