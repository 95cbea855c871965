"""Progress of long jobs as events for a listener (nothing here prints), and an optional profile of their stages.

`heard_by` sets the listener: the command line's shows lines and a bar (cli/terminal.py), from Python it is any
function of one event. Without a listener, events are dropped.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import TypeVar

from .errors import written
from .units import format_duration

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text for whoever reads along, in which `arg.NAME` (core.errors) stands for a function's argument. A
    `detail` says what a live bar beside it shows too."""

    text: str
    detail: bool = False

    def __str__(self) -> str:
        return written(self.text)


@dataclass(frozen=True, slots=True)
class Advance:
    """`done` of `total` steps of the job `title` are done, `begun` of them before it was resumed, `seconds` ago.

    `figures` are the latest values, such as losses. A step processes `per_step` of the `unit`, for example 128 images.
    `over` marks the last event of the job."""

    title: str
    total: int
    done: int
    begun: int = 0
    seconds: float = 0.0
    unit: str = "steps"
    per_step: int = 1
    figures: Mapping[str, float] = field(default_factory=dict)
    over: bool = False

    @property
    def told(self) -> str:
        """Rate, figures and time left (time taken, when done) as text."""
        steps = self.done - self.begun
        parts = [f"{name} {value:.4g}" for name, value in self.figures.items()]
        if steps > 0:
            parts.insert(0, f"{steps * self.per_step / max(self.seconds, 1e-9):.3g} {self.unit}/s")
        if self.done >= self.total:
            parts.append(f"took {format_duration(self.seconds)}")
        elif steps > 0:
            parts.append(f"{format_duration(self.seconds / steps * (self.total - self.done))} left")
        return ", ".join(parts)

    def __str__(self) -> str:
        return f"{self.title} {self.done}/{self.total} {self.told}"


Event = Line | Advance
Listener = Callable[[Event], None]
_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextlib.contextmanager
def heard_by(listener: Listener | None) -> Iterator[None]:
    """Send events inside the block to `listener`; None keeps the current listener."""
    before = _listener.get()
    token = _listener.set(before if listener is None else listener)
    try:
        yield
    finally:
        _listener.reset(token)


def _tell(event: Event) -> None:
    listener = _listener.get()
    if listener is not None:
        listener(event)


def say(text: str, *, detail: bool = False) -> None:
    """Send a line of text to the listener."""
    _tell(Line(text, detail))


class Progress:
    """A context manager around a job of `total` steps, `begun` of which were done before it was resumed. `update`
    reports progress. `quiet` suppresses all events, for very short jobs."""

    def __init__(self, title: str, total: int, *, begun=0, unit="steps", per_step=1, quiet=False):
        self._event = Advance(title, total, begun, begun, unit=unit, per_step=per_step)
        self._quiet = quiet

    def __enter__(self) -> Progress:
        self._start = time.monotonic()
        self._tell(self._event)
        return self

    def update(self, done: int, **figures: float) -> None:
        """Report that `done` steps are done; `figures`, such as losses, replace the previous ones."""
        self._event = replace(self._event, done=done, figures=figures, seconds=time.monotonic() - self._start)
        self._tell(self._event)

    def __exit__(self, *_: object) -> None:
        self._tell(replace(self._event, seconds=time.monotonic() - self._start, over=True))

    def _tell(self, event: Advance) -> None:
        if not self._quiet:
            _tell(event)


class Stages:
    """Seconds per stage of a job, measured only if `on`. `settle` waits for an accelerator's pending work.

    Use as `with stages("forward"): …`; stages do not nest."""

    def __init__(self, on: bool = False, settle: Callable[[], None] = lambda: None):
        self.on, self._settle = on, settle
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        if self.on:
            self._settle()
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begun

    def waiting(self, name: str, items: Iterable[Item]) -> Iterator[Item]:
        """Yield the items, counting the time spent waiting for each as a stage."""
        items = iter(items)
        while True:
            with self(name):
                item = next(items, None)
            if item is None:
                return
            yield item

    def table(self, images: float, total: float) -> str:
        """One line per stage: seconds, share of the `total`, and images per second of that stage alone.

        `images` is the number processed by every stage except "evaluate"; "other" is time outside all stages."""
        total = max(total, sum(self.seconds.values()))
        stages = self.seconds | {"other": total - sum(self.seconds.values())}
        rows = [f"{'stage':12s}{'seconds':>10s}{'share':>8s}{'images/s':>12s}"]
        for name, s in stages.items():
            rate = "" if name in ("evaluate", "other") else f"{images / max(s, 1e-9):,.0f}"
            rows.append(f"{name:12s}{s:10.2f}{s / max(total, 1e-9):8.0%}{rate:>12s}")
        return "\n".join(rows)
