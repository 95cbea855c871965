"""Training images that could not be read and whose places others took: noted in the log, counted in the result."""

from __future__ import annotations

from typing import Any

from ..data import Data
from ..rundirs.folder import RunDir
from .ranks import Ranks

EVENT = "bad image"


def note_skipped(data: Data, run: RunDir, ranks: Ranks) -> dict[str, Any]:
    """Log the images that were not logged before, on any rank; returns the number of all, for result.json, or nothing
    if there are none."""
    bad = {path for each in ranks.gathered(sorted(data.bad)) for path in each}
    known = {event["image"] for event in run.read_log() if event["event"] == EVENT}
    for path in sorted(bad - known):
        run.log(EVENT, image=path)
    return {"bad_images": len(bad | known)} if bad | known else {}
