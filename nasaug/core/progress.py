"""Progress of long jobs as events for a listener (nothing here prints), and an optional profile of their stages.

`heard_by` sets the listener: the command line's shows lines and a live block (cli/terminal.py), from Python it is any
function of one event. Without a listener, events are dropped.

A command of several stages names them by `stages_of`, says by `expect` how long each takes, and works inside `stage`:
each `Advance` then says how far the whole command is.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import TypeVar

from .course import Course, Stage
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

    `figures` are the latest values, such as losses; `best` says the best score so far, as in "best mae 3.2". A
    step processes `per_step` of the `unit`, for example 128 images. `left` are the seconds left, where they do not
    follow from the steps. `over` marks the last event of the job. `stage` is the command's stage that the job is part
    of; None for a command of one stage."""

    title: str
    total: int
    done: int
    begun: int = 0
    seconds: float = 0.0
    unit: str = "steps"
    per_step: int = 1
    figures: Mapping[str, float] = field(default_factory=dict)
    over: bool = False
    best: str = ""
    left: float | None = None
    stage: Stage | None = None

    @property
    def rate(self) -> str:
        """What is done in a second, as text; empty at the start, and where it is too little to say something."""
        steps = self.done - self.begun
        done = steps * self.per_step / max(self.seconds, 1e-9)
        if steps <= 0 or done < 0.1:
            return ""
        return f"{done:,.0f} {self.unit}/s" if done >= 100 else f"{done:.2g} {self.unit}/s"

    @property
    def seconds_left(self) -> float | None:
        """The seconds that the job takes from here, without what follows it; None: not known."""
        steps = self.done - self.begun
        if self.done >= self.total:
            return 0.0
        if self.left is not None:
            return self.left
        return self.seconds / steps * (self.total - self.done) if steps > 0 else None

    @property
    def told(self) -> str:
        """Rate, best score (else figures) and time left (time taken, when done) as text."""
        shown = [self.best] if self.best else [f"{name} {value:.4g}" for name, value in self.figures.items()]
        parts, left = [self.rate, *shown], self.seconds_left
        if self.done >= self.total:
            parts.append(f"took {format_duration(self.seconds)}")
        elif left is not None:
            parts.append(f"{format_duration(left)} left")
        return ", ".join(filter(None, parts))

    def __str__(self) -> str:
        return f"{self.title} {self.done}/{self.total} {self.told}"


@dataclass(frozen=True, slots=True)
class Ended:
    """A stage of the command has ended."""

    stage: Stage

    def __str__(self) -> str:
        stage = self.stage
        left = "" if not stage.whole else f"; {whole_left(stage)}"
        return f"{stage.titled} took {format_duration(stage.seconds)}{left}"


def whole_left(stage: Stage) -> str:
    """The time left in all stages as text; empty if nothing is known."""
    if stage.whole is None:
        return ""
    return f"{'about' if stage.known else 'more than'} {format_duration(stage.whole)} left in all"


Event = Line | Advance | Ended
Listener = Callable[[Event], None]
_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)
_course: ContextVar[Course | None] = ContextVar("course", default=None)
_span: ContextVar[tuple[float, float] | None] = ContextVar("span", default=None)  # of the stage, None: in no stage


@contextlib.contextmanager
def heard_by(listener: Listener | None) -> Iterator[None]:
    """Send events inside the block to `listener`; None keeps the current listener."""
    before = _listener.get()
    token = _listener.set(before if listener is None else listener)
    try:
        yield
    finally:
        _listener.reset(token)


@contextlib.contextmanager
def also_heard_by(listener: Listener) -> Iterator[None]:
    """Send events inside the block to `listener` too, after the one that there is."""
    first = _listener.get()

    def both(event: Event) -> None:
        if first is not None:
            first(event)
        listener(event)

    with heard_by(both):
        yield


@contextlib.contextmanager
def stages_of(*names: str) -> Iterator[None]:
    """The command consists of these stages, which the block enters in this order; it may leave some out."""
    token = _course.set(Course(names))
    try:
        yield
    finally:
        _course.reset(token)


def expect(stage: str, seconds: float) -> None:
    """Expect a stage of the command to take so many seconds. Ignored if the command has no such stage."""
    course = _course.get()
    if course is not None:
        course.expect(stage, seconds)


@contextlib.contextmanager
def stage(name: str) -> Iterator[None]:
    """The block is a stage of the command that `stages_of` names. Outside of it, it is nothing."""
    course = _course.get()
    if course is None or name not in course.names:
        yield
        return
    course.enter(name)
    token = _span.set((0.0, 1.0))
    try:
        yield
    finally:
        _span.reset(token)
    _tell(Ended(course.leave()))


@contextlib.contextmanager
def share_of_stage(low: float, high: float) -> Iterator[None]:
    """The jobs inside the block are the part of the stage from one share of its work, 0 to 1, to another."""
    token = _span.set((low, high) if _span.get() is not None else None)
    try:
        yield
    finally:
        _span.reset(token)


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
        self._best: tuple[float, str] | None = None

    def __enter__(self) -> Progress:
        self._start = time.monotonic()
        self._tell(self._event)
        return self

    def update(
        self, done: int, *, best: tuple[float, str] | None = None, left: float | None = None, **figures: float
    ) -> None:  # fmt: skip
        """Report that `done` steps are done; `figures`, such as losses, and the others replace the previous ones.
        `best` is the best score so far as (`Metric.rank`, text)."""
        now = time.monotonic() - self._start
        said, self._best = best[1] if best else "", best
        self._event = replace(self._event, done=done, figures=figures, seconds=now, best=said, left=left)
        self._tell(self._event)

    def __exit__(self, *_: object) -> None:
        self._tell(replace(self._event, seconds=time.monotonic() - self._start, over=True))

    def _tell(self, event: Advance) -> None:
        if self._quiet:
            return
        course, span = _course.get(), _span.get()
        if course is not None and span is not None:
            share = span[0] + (span[1] - span[0]) * min(1.0, event.done / max(1, event.total))
            left = event.left if span == (0.0, 1.0) else None
            event = replace(event, stage=course.reach(share, left, self._best))
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
