"""The job of a run: what its command was asked, kept in job.json so that the run can go on with the same."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ..core import files
from ..core.errors import BadInput
from ..core.streams import command_line
from .folder import JOB, RunDir, check_new

FORMAT = "nasaug-job/1"
PATHS = ("arch", "cells", "data", "recipe", "run", "source")  # fields of jobs and options that may name a file
Asked = TypeVar("Asked")


def run_to_resume(verb: str, run: Path | None, *, extend: bool = False) -> Path:
    """`run`, else the verb's last unfinished run in ./runs; to `extend` where there is none, its last.

    Raises BadInput where there is no such run."""
    if run is not None:
        return run
    begun = [p.parent for p in Path("runs").glob(f"{verb}-*/{JOB}")]
    begun = [p for p in begun if p.name.rpartition("-")[2].isdecimal()]
    left = [p for p in begun if not RunDir(p).finished] or (begun if extend else [])
    if not left:
        raise BadInput(f"no unfinished run of {verb} in ./runs; name one with --run PATH")
    return max(left, key=lambda p: int(p.name.rpartition("-")[2]))


def refuse_existing(run: Path | None) -> None:
    """Raises BadInput for a named run that exists, before anything is loaded."""
    if run is not None and os.path.exists(run):
        if not run.is_dir():
            raise BadInput(f"--run {run} exists and is no folder; give another --run")
        check_new(run)


def write_job(run: RunDir, verb: str, asked: Mapping[str, Any]) -> None:
    """Keep what was `asked`, and from which folder. Written last: with it the run has begun."""
    where = {"folder": os.getcwd(), "run": str(run.path.resolve())}
    files.write_json(run.job_file, {"format": FORMAT, "verb": verb, "where": where, **asked})


def read_job(run: RunDir, verb: str) -> dict[str, Any]:
    """What `write_job` wrote. Raises BadInput for a run that never began, or of another verb."""
    if not run.job_file.is_file():
        raise BadInput(f"{run.path} was cut off before it had begun; remove it and start anew, without --resume")
    job = files.read_json(run.job_file, FORMAT)
    if job["verb"] != verb:
        remedy = f"resume it with: {command_line('nasaug', job['verb'], '--resume', '--run', run.path)}"
        raise BadInput(f"{run.path} is a run of {job['verb']}, not of {verb}; {remedy}")
    return job


def refuse_changed(path: Path, begun: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Raises BadInput for what is asked of a run that goes on (not None) and is not what it was begun with."""
    for name, value in asked.items():
        if value is not None and begun[name] != value:
            differs = f"was begun with --{name.replace('_', '-')} {_shown(begun[name])}, not {_shown(value)}"
            raise BadInput(f"{path} {differs}; leave it out to go on, or start anew")


def _shown(value: object) -> str:
    return (",".join(value) if isinstance(value, list) else str(value or "")) or "none"


@contextlib.contextmanager
def where_begun(run: RunDir, kept: Mapping[str, Any]) -> Iterator[bool]:
    """The folder in which the run was begun as the working folder, since its paths are relative to that; yields
    whether it is another than the present one. Where the folder is gone, the present one stays.

    Of a project that was moved or copied as a whole it is the folder in the same place."""
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
    """A dataclass of what is asked, each path in it that exists made absolute, in its own dataclasses too."""
    changed: dict[str, Any] = {}
    for field in dataclasses.fields(asked):  # type: ignore[arg-type]
        value = getattr(asked, field.name)
        if dataclasses.is_dataclass(value):
            changed[field.name] = absolute(value)
        elif field.name in PATHS and value is not None and os.path.exists(value):
            changed[field.name] = type(value)(os.path.abspath(value))
    return dataclasses.replace(asked, **changed)  # type: ignore[type-var]
