"""The command line's progress listener: messages to stdout; a live block, or now and then a line, to stderr."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from ..core.errors import written
from ..core.progress import Advance, Ended, Event, Line, whole_left
from ..core.streams import tell
from ..core.units import format_duration
from .options import option

# In a file: a first line after FIRST_S, then one every EVERY_S, and ever fewer in a job of hours.
FIRST_S, EVERY_S, PART = 10.0, 30.0, 20
DRAWN_EVERY_S = 0.25


class Terminal:
    """Shows progress as one block of lines, redrawn in place, if stderr is a terminal that can do that; else as a few
    lines. `quiet` keeps stdout for a result: lines of text go to stderr too."""

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        self._live: Any = None
        self._drawn = 0.0
        self._begun = self._told = time.monotonic()
        self._first = True

    def __call__(self, event: Event) -> None:
        if isinstance(event, Line):
            if not event.detail:  # the block or the lines of progress show it too
                self._line(written(event.text, option))
        elif _can_redraw():
            self._draw(event)
        else:
            self._tell(event)

    def close(self) -> None:
        """Remove the block, so that what is printed next stands where it was."""
        if self._live is not None:
            live, self._live = self._live, None
            live.stop()

    def _line(self, text: str) -> None:
        self.close()  # the next event draws it again, below the line
        tell(text, sys.stderr if self._quiet else sys.stdout)

    # --- a live block ------------------------------------------------------------------------------------------

    def _draw(self, event: Advance | Ended) -> None:
        if isinstance(event, Ended) or event.over and event.stage is None:
            self.close()
            self._end(event)
            return
        now = time.monotonic()
        if self._live is not None and now - self._drawn < DRAWN_EVERY_S and not event.over:
            return
        self._drawn = now
        if self._live is None:
            self._live = _block()
        self._live.update(_Block(event), refresh=True)

    def _end(self, event: Advance | Ended) -> None:
        if isinstance(event, Ended) or event.done > event.begun or event.done >= event.total:  # not if it did nothing
            tell(str(event), sys.stderr)

    # --- lines -------------------------------------------------------------------------------------------------

    def _tell(self, event: Advance | Ended) -> None:
        now, whole = time.monotonic(), isinstance(event, Ended) or event.stage is None
        if whole and isinstance(event, Advance) and event.done == event.begun and not event.seconds:  # a job begins
            self._begin(now)
        if isinstance(event, Ended) or whole and event.over:
            self._end(event)
            self._begin(now)
        elif now - self._told >= (FIRST_S if self._first else max(EVERY_S, (now - self._begun) / PART)):
            self._told, self._first = now, False
            tell(line_of(event), sys.stderr)

    def _begin(self, now: float) -> None:
        self._begun = self._told = now
        self._first = True


def line_of(event: Advance) -> str:
    """What a line about a job says."""
    stage = event.stage
    if stage is None:
        return str(event)
    within = f" {event.title}" if event.title != stage.name else ""
    head = f"{stage.titled}{within} {stage.share:.0%}"
    return ", ".join(filter(None, [head, event.rate, stage.best, *_times(event)]))


def _times(event: Advance) -> list[str]:
    """The time left in the stage, if there are others, and in all."""
    stage = event.stage
    if stage is None:
        return [] if event.seconds_left is None else [f"{format_duration(event.seconds_left)} left"]
    last = stage.left is None or stage.number == stage.of
    here = "" if last else f"{format_duration(stage.left or 0.0)} left in this stage"
    return [here, whole_left(stage)]


def _can_redraw() -> bool:
    return sys.stderr.isatty() and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")


def _block() -> Any:
    from rich.console import Console
    from rich.live import Live

    live = Live(console=Console(stderr=True), auto_refresh=False, transient=True, redirect_stdout=sys.stdout.isatty())
    live.start()
    live.console.show_cursor(True)  # a process that is killed would leave it hidden
    return live


class _Block:
    """The lines of the block, as wide as the terminal: where the command is, a bar, and figures."""

    def __init__(self, event: Advance):
        self._event = event

    def __rich_console__(self, console: Any, options: Any) -> Any:
        from rich.progress_bar import ProgressBar
        from rich.segment import Segment
        from rich.text import Text

        event, stage, width = self._event, self._event.stage, max(10, options.max_width - 1)
        head = event.title if stage is None else f"stage {stage.number} of {stage.of}: {stage.name}"
        here = "" if stage is None or event.title == stage.name else event.title
        share = event.done / max(1, event.total) if stage is None else stage.share
        best = event.best if stage is None else stage.best
        figures = [f"{event.done}/{event.total}", event.rate, best or _first_figure(event)]
        times = _times(event)
        for line in _flowed([head, *times[-1:]], width):
            yield Text(line, style="bold", no_wrap=True, overflow="ellipsis")
        yield ProgressBar(1.0, share, width=width)
        yield Segment.line()
        for line in _flowed([f"{share:.0%}", here, *figures, *times[:-1]], width):
            yield Text(line, no_wrap=True, overflow="ellipsis")


def _first_figure(event: Advance) -> str:
    return next((f"{name} {value:.4g}" for name, value in event.figures.items()), "")


def _flowed(texts: list[str], width: int) -> list[str]:
    """The texts in lines of this width, broken between texts only."""
    lines: list[str] = []
    for text in filter(None, texts):
        joined = f"{lines[-1]} · {text}" if lines else text
        if lines and len(joined) <= width:
            lines[-1] = joined
        else:
            lines.append(text)
    return lines
