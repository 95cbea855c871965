"""The run that a further process joins, which another process leads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..core.errors import BadInput, arg
from ..rundirs.folder import RunDir


def led_run(
    worker: str, verbs: Sequence[str], run: Path | None, study: str | None, wait: str | None
) -> tuple[RunDir, str | None, float]:
    """The run named by its folder or its storage, the storage's URL if given, and the seconds to wait for what the run
    has not made yet. Raises BadInput if the run is not one of these verbs'."""
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
