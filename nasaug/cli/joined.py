"""The run that a further process joins, which another process leads."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import BadInput, arg
from ..core.streams import nasaug_command
from ..rundirs.folder import HIDDEN, RunDir
from .options import option


@dataclass(frozen=True)
class Joined:
    """A run that another process leads: its folder and job.json, its storage's URL if given, and the seconds to wait
    for what it has not made yet."""

    run: RunDir
    kept: dict[str, Any]
    study: str | None
    wait_s: float


@contextlib.contextmanager
def joined(
    worker: str, verbs: Sequence[str], run: Path | None, study: str | None, wait: str | None,
    given: Mapping[str, object],
) -> Iterator[Joined]:  # fmt: skip
    """The run named by its folder or its storage, inside `training.begin.joining`. `given` are the worker's other
    arguments, which the command that a stopped worker tells repeats.

    Raises BadInput if the run is not one of these verbs', or if its storage's password is missing."""
    led, study, wait_s = _led_run(worker, verbs, run, study, wait)
    from ..training.begin import joining

    said = [(option(name), str(value)) for name, value in given.items() if value not in (None, "auto")]
    words = [word for pair in said for word in pair]
    with joining(led, nasaug_command(worker, "--run", led.path, *words)) as kept:
        storage = kept.get("storage") or ""
        if study is None and HIDDEN in storage and not led.finished:
            raise BadInput(f"{led.path} keeps no passwords: give {arg.study} {storage} with the password")
        yield Joined(led, kept, study, wait_s)


def _led_run(
    worker: str, verbs: Sequence[str], run: Path | None, study: str | None, wait: str | None
) -> tuple[RunDir, str | None, float]:
    """The run's folder, its storage's URL if given, and the seconds to wait."""
    from ..core.launch import launched
    from ..core.units import parse_quantity
    from ..rundirs.job import verb_of

    which = " or ".join(verbs)
    if launched()[1] > 1:
        rule = f"is one process, but {launched()[1]} were started"
        raise BadInput(f"nasaug {worker} {rule}; start each without torchrun")
    if run is None and study is None:
        raise BadInput(f"{worker} needs {arg.run}, the folder of a {which}, or {arg.study}, its storage")
    wait_s = 0.0 if wait is None else parse_quantity(wait, "seconds", argument="wait")
    from ..pool.shared import run_of, wait_for
    from ..pool.storage import absolute_storage

    study = study and absolute_storage(study)
    led = RunDir(run if run is not None else run_of(str(study)))
    if not wait_s and not led.path.is_dir():
        raise BadInput.of(argument="run", value=led.path, rule="is no folder", remedy=f"give that of a {which}")
    wait_for(led.job_file.is_file, f"a {which} in {led.path}", wait_s)
    if verb_of(led.path) not in verbs:
        rule, remedy = f"is a run of {verb_of(led.path)}, not of {which}", f"give the folder of a {which}"
        raise BadInput.of(argument="run", value=led.path, rule=rule, remedy=remedy)
    return led, study, wait_s
