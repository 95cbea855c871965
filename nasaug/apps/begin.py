"""How every long command begins and ends: a new run or a resumed one, and what a signal does."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from .. import files
from ..errors import BadInput, RunFault
from ..kernels import choice
from ..progress import say
from ..rundir import RunDir, check_new
from ..stops import Stopped
from ..streams import command_line, mute_unheard, tell

JOB, JOB_FILE = "nasaug-job/1", "job.json"


def run_to_resume(verb: str, run: Path | None) -> Path:
    """The run named by --run, else the verb's last unfinished one."""
    if run is not None:
        return run
    begun = [p.parent for p in Path("runs").glob(f"{verb}-*/{JOB_FILE}")]
    left = [p for p in begun if not RunDir(p).finished and p.name.rpartition("-")[2].isdecimal()]
    if not left:
        raise BadInput(f"no unfinished run of {verb} in ./runs; name one with --run PATH")
    return max(left, key=lambda p: int(p.name.rpartition("-")[2]))


def refuse_existing(run: Path | None) -> None:
    """An explicit --run that exists is refused before anything is loaded."""
    if run is not None and os.path.exists(run):
        if not run.is_dir():
            raise BadInput(f"--run {run} exists and is no folder; give another --run")
        check_new(run)


def write_job(run: RunDir, verb: str, **what: Any) -> None:
    """What the command was asked beside its recipe, for --resume; written last: with it a run has begun.

    The environment's record is told which kernels it runs with, so that it goes on with the same."""
    choice.adopt({})
    run.note(kernels=choice.record())
    files.write_json(run.path / JOB_FILE, {"format": JOB, "verb": verb, **what})


def read_job(path: Path, verb: str) -> dict:
    """What `write_job` wrote; the kernels are chosen as they were then. Raises BadInput for a run of another verb."""
    if not (path / JOB_FILE).is_file():
        raise BadInput(f"{path} was cut off before it had begun; remove it and start anew, without --resume")
    job = files.read_json(path / JOB_FILE, JOB)
    if job["verb"] != verb:
        remedy = f"resume it with: nasaug {job['verb']} --resume --run {path}"
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
            raise RunFault("out of memory; start anew with a lower batch, like --set batch=64") from error
        raise
