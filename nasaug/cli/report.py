"""`report`."""

from __future__ import annotations

from pathlib import Path

from .options import Flag, print_json


def report(*runs: Path, out: Path | None = None, json: Flag = False):
    """Compare finished runs, or folders of them: a table, JSON, CSV and a page that opens offline.

    Examples:

      nasaug report runs/train-1 runs/netaug-train-2

      nasaug report runs/compare-1 --out page.html

      nasaug report runs/compare-1 --json

    :param runs: Run folders, or folders that hold some.
    :param out: The page; default: report.html, with report.json and report.csv beside it.
    :param json: Print the result as JSON; all else goes to stderr.
    """
    from ..comparison.report import report as reported

    summary = reported(list(runs), out)
    if json:
        print_json({"page": str(out or "report.html"), **summary})
