"""`runs`."""

from __future__ import annotations

from pathlib import Path

from .options import Flag, print_json


def runs(*folders: Path, json: Flag = False):
    """List runs: their verb, state, network, data and main figures, the latest first.

    Examples:

      nasaug runs

      nasaug runs experiments/ --json

    :param folders: Folders of runs, or runs; default: runs.
    :param json: Print JSON.
    """
    import time

    from ..core.units import format_quantity
    from ..reporting import tables
    from ..rundirs.overview import below

    usual = Path("runs")
    found = [run for folder in folders or (usual,) if folder != usual or folder.is_dir() for run in below(folder)]
    if json:
        print_json([run.to_json() for run in found])
        return
    if not found:
        print(f"no runs in {', '.join(map(str, folders or (usual,)))}")
        return
    rows = [
        (
            str(run.path), run.verb, run.state, time.strftime("%d %b %H:%M", time.localtime(run.began)), run.arch,
            "" if run.macs is None else format_quantity(run.macs, "macs"), run.data, run.figures,
        )
        for run in found
    ]  # fmt: skip
    heads = ("run", "verb", "state", "began", "network", "MACs", "data", "figures")
    print(tables.text(heads, rows, (0, 1, 2, 4, 6, 7)))
