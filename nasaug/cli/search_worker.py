"""`search-worker`."""

from __future__ import annotations

from pathlib import Path

from .names import DataName, Device


def search_worker(
    *,
    run: Path | None = None,
    study: str | None = None,
    wait: str | None = None,
    data: DataName = None,
    device: Device = "auto",
):
    """Judge candidates for a search that another process leads, on this machine or another one.

    Examples:

      nasaug search-worker --run runs/search-1

      nasaug search-worker --study postgresql://me@server/s1

      nasaug search-worker --run runs/search-1 --wait 2h

    It leaves when no candidate is left to begin, and writes into the study alone. Start and stop as many as you like:
    the candidate that a stopped one was at is judged by another one.

    :param run: The search's run folder, on this machine or a shared disk; default: the one that --study notes.
    :param study: The storage that the search was begun with, with its password if it has one; default: the run's.
    :param wait: How long to wait for the search to have trained its supernet, like 2h; default: not at all.
    :param data: Where the image folder is on this machine, if it is elsewhere.
    :param device: auto, cpu or cuda.
    """
    from ..rundirs.job import absolute
    from ..training.options import Options
    from .joined import joined

    options = absolute(Options(data=data, device=device))  # the run may have another working directory
    with joined("search-worker", ("search",), run, study, wait, {"data": data, "device": device}) as led:
        from ..nas.worker import judge_for

        judge_for(led.run, led.kept, led.study, options, led.wait_s)
