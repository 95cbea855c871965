"""How far a run is, in a small file that whoever watches it reads: `.progress.json` in its folder while it works.

The file is written whole, at most every EVERY_S seconds, and says what `nasaug.core.progress` tells. It goes when the
run has finished. A run does not depend on it: where it cannot be written, there is none.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any

from ..core.errors import RunFault
from ..core.files import to_json
from ..core.progress import Advance, Ended, Event
from ..core.units import format_duration
from .folder import LOCK

FILE, FORMAT, EVERY_S = ".progress.json", "nasaug-progress/1", 2.0


def read(run: Path, running: bool) -> dict[str, Any]:
    """The content of a run's file; empty if there is none that can be read, or if the run is `running` and an earlier
    process left the file behind: the one that runs has written its lock since."""
    try:
        if running and (run / FILE).stat().st_mtime < (run / LOCK).stat().st_mtime:
            return {}
        content = json.loads((run / FILE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) and content.get("format") == FORMAT else {}


def told(run: Path) -> str:
    """How far a running run is, in words: candidates 57%, about 37 s left, best mae 3.2; empty if not known."""
    at = read(run, running=True)
    if not at:
        return ""
    about = "about" if at["known"] else "more than"
    left = "" if at["whole"] is None else f"{about} {format_duration(at['whole'])} left"
    return ", ".join(filter(None, (f"{at['stage']} {at['share']:.0%}", left, at["best"])))


class Progressed:
    """A listener that keeps the file in the run's folder up to date."""

    def __init__(self, run: Path):
        self._path, self._written = run / FILE, float("-inf")
        self._ended: list[dict[str, Any]] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, Ended):
            self._ended.append({"name": event.stage.name, "seconds": round(event.stage.seconds, 1)})
        elif isinstance(event, Advance):
            now = time.monotonic()
            if now - self._written >= EVERY_S or event.over:
                self._written = now
                self._write(event)

    def _write(self, event: Advance) -> None:
        stage = event.stage
        content = {
            "format": FORMAT, "time": round(time.time(), 1), "title": event.title, "done": event.done,
            "total": event.total, "rate": event.rate, "best": stage.best if stage else event.best, "ended": self._ended,
            "stage": stage.name if stage else event.title, "number": stage.number if stage else 1,
            "of": stage.of if stage else 1,
            "share": round(stage.share if stage else event.done / max(1, event.total), 4),
            "left": stage.left if stage else event.seconds_left,
            "whole": stage.whole if stage else event.seconds_left, "known": stage.known if stage else True,
        }  # fmt: skip
        # without fsync: after a crash of the machine the run does not read it
        temporary = self._path.with_name(f"{FILE}.tmp")
        with contextlib.suppress(OSError, RunFault):  # such as a full disk, or a time that is not finite
            temporary.write_text(to_json(content), "utf-8")
            os.replace(temporary, self._path)

    def remove(self) -> None:
        """Remove the file, as of a run that has its result."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
