"""`report`."""

from __future__ import annotations

from pathlib import Path


def report(*runs: Path, out: Path | None = None):
    """Compare finished runs, or folders of them: a table, JSON, CSV and a page that opens offline.

    Examples:

      nasaug report runs/train-1 runs/netaug-train-2

      nasaug report runs/compare-1 --out page.html

    :param runs: Run folders, or folders that hold some.
    :param out: The page; default: report.html, with report.json and report.csv beside it.
    """
    from ..comparison.report import report as reported

    reported(list(runs), out)
