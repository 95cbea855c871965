"""`cell-worker`."""

from __future__ import annotations

from pathlib import Path

from .names import DataName, Device
from .options import Whole


def cell_worker(
    *,
    run: Path | None = None,
    study: str | None = None,
    jobs: Whole = None,
    wait: str | None = None,
    data: DataName = None,
    device: Device = "auto",
):
    """Train cells for a compare or sweep that another process leads, on this machine or another one.

    Examples:

      nasaug cell-worker --run runs/compare-1

      nasaug cell-worker --study postgresql://me@server/c1

      nasaug cell-worker --run /shared/sweep --wait 10m --jobs 2

    It leaves when no cell is left to begin. Start and stop as many as you like: another one goes on with the cells that
    a stopped one was at, from their checkpoints.

    :param run: The run's folder, on this machine or a shared disk; default: the one that --study notes.
    :param study: The storage that the run was begun with, with its password if it has one; default: the run's.
    :param jobs: Number of concurrent trainings; default: as many as the cores allow.
    :param wait: How long to wait for the run to have begun, like 10m; default: not at all.
    :param data: Where the image folder is on this machine, if it is elsewhere.
    :param device: auto, cpu or cuda.
    """
    from ..core.errors import BadInput
    from ..rundirs.job import absolute
    from ..training.options import Options
    from .joined import joined

    if jobs is not None and jobs < 1:
        raise BadInput.of(argument="jobs", value=jobs, rule="must be at least 1")
    options = absolute(Options(data=data, device=device))  # the run may have another working directory
    given = {"jobs": jobs, "data": data, "device": device}
    with joined("cell-worker", ("compare", "sweep"), run, study, wait, given) as led:
        from ..comparison.worker import train_for

        train_for(led.run, led.kept, led.study, options, jobs, led.wait_s)
