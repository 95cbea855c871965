"""How every long command begins and ends: a new run or a resumed one, and what a signal does."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .. import files
from ..errors import BadInput
from ..rundir import RunDir
from ..runtime import Stopped

JOB = "nasaug-job/1"


def run_to_resume(verb: str, run: Path | None) -> Path:
    """The run named by --run, else the verb's last unfinished one."""
    if run is not None:
        return run
    found = [p.parent for p in Path("runs").glob(f"{verb}-*/recipe.toml") if not (p.parent / "result.json").exists()]
    numbered = [p for p in found if p.name.rpartition("-")[2].isdecimal()]
    if not numbered:
        raise BadInput(f"no unfinished run of {verb} in ./runs; name one with --run PATH")
    return max(numbered, key=lambda p: int(p.name.rpartition("-")[2]))


def refuse_existing(run: Path | None) -> None:
    """An explicit --run that exists is refused before anything is loaded."""
    if run is not None and run.exists() and (not run.is_dir() or any(run.iterdir())):
        raise BadInput(f"--run {run} exists and is not empty; give --resume to go on with it, or another --run")


def write_job(run: RunDir, verb: str, **what: Any) -> None:
    """What the command was asked beside its recipe, for --resume."""
    files.write_json(run.path / "job.json", {"format": JOB, "verb": verb, **what})


def read_job(path: Path, verb: str) -> dict:
    job = files.read_json(path / "job.json", JOB)
    if job["verb"] != verb:
        raise BadInput(f"{path} is a run of {job['verb']}, not of {verb}; resume it with: nasaug {job['verb']} --resume --run {path}")
    return job


@contextlib.contextmanager
def stopping(verb: str, run: RunDir) -> Iterator[None]:
    """A signal ends the command with 128 + its number and one line that says how to go on."""
    try:
        yield
    except Stopped as stop:
        print(f"stopped; go on with: python -m nasaug {verb} --resume --run {run.path}", file=sys.stderr)
        sys.exit(128 + stop.signum)
    except KeyboardInterrupt:
        print(f"stopped; go on with: python -m nasaug {verb} --resume --run {run.path}", file=sys.stderr)
        sys.exit(130)
