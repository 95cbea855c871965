"""The command line's progress listener: messages to stdout, a live bar or periodic lines to stderr."""

from __future__ import annotations

import sys
import time
from typing import Any

from ..core.errors import written
from ..core.progress import Advance, Event, Line
from ..core.streams import tell
from .options import option

LINE_EVERY_S = 10.0


class Terminal:
    """Shows progress as a bar if stderr is a terminal, else as a line every ten seconds and at the end of each job."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._told = time.monotonic()

    def __call__(self, event: Event) -> None:
        if isinstance(event, Advance):
            self._advance(event)
        elif not (event.detail and sys.stderr.isatty()):
            self._line(event)

    def _line(self, event: Line) -> None:
        tell(written(event.text, option), sys.stdout)

    def _advance(self, event: Advance) -> None:
        now = time.monotonic()
        if event.done == event.begun and not event.seconds:  # a job begins
            self._told = now
            if sys.stderr.isatty():
                self._bar = _bar(event)
                self._bar.start()
        elif self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=event.done, told=event.told)
        elif event.over or now - self._told >= LINE_EVERY_S:
            self._told = now
            tell(str(event), sys.stderr)
        if event.over and self._bar is not None:
            self._bar.stop()
            self._bar = None


def _bar(event: Advance) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    title_text, told = TextColumn("{task.description}"), TextColumn("{task.fields[told]}")
    console = Console(stderr=True)
    bar = Progress(
        title_text, BarColumn(20), MofNCompleteColumn(), told, console=console, refresh_per_second=4,
        redirect_stdout=sys.stdout.isatty(),  # lines go above the bar, but into a file if stdout is one
    )  # fmt: skip
    bar.add_task(event.title, total=event.total, completed=event.begun, told="")
    return bar
