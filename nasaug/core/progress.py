"""How far a long job is: one live bar on a terminal, plain lines now and then elsewhere; always to stderr.
And where its time goes, for whoever asks."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from .streams import tell
from .units import format_duration

_LINE_EVERY_S = 10.0
Item = TypeVar("Item")


def say(text: str) -> None:
    """A line for whoever reads along: to stdout, at once. What cannot be written there is lost, and costs no result."""
    tell(text, sys.stdout)


class Progress:
    """A context manager around a job of `total` steps; `update` tells of it, with figures to show.

    `begun` is how many steps a resumed job had done before, which count neither in the rate nor in the time
    left. The rate is in `unit` a second, of which a step has `per_step`: 128 images, say.
    """

    def __init__(self, title: str, total: int, *, begun=0, unit="steps", per_step=1, quiet=False):
        self._title, self._total, self._begun = title, total, begun
        self._unit, self._per_step, self._quiet = unit, per_step, quiet
        self._done, self._figures = begun, {}
        self._live: Any = None

    def __enter__(self) -> Progress:
        self._start = self._told = time.monotonic()
        if not self._quiet and sys.stderr.isatty():
            self._live = _bar(self._title, self._total, self._begun)
            self._live.start()
        return self

    def update(self, done: int, **figures: float) -> None:
        """`done` of the steps are done; `figures`, such as losses, replace those told before."""
        self._done, self._figures = done, figures
        if self._live:
            self._live.update(self._live.task_ids[0], completed=done, told=self._told_now())
        elif time.monotonic() - self._told >= _LINE_EVERY_S:
            self._say()

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()
        else:
            self._say()

    def _say(self) -> None:
        self._told = time.monotonic()
        if not self._quiet:
            tell(f"{self._title} {self._done}/{self._total} {self._told_now()}", sys.stderr)

    def _told_now(self) -> str:
        """Rate, figures and time left (time taken, when done) in words."""
        taken, steps = time.monotonic() - self._start, self._done - self._begun
        parts = [f"{name} {value:.4g}" for name, value in self._figures.items()]
        if steps > 0:
            parts.insert(0, f"{steps * self._per_step / max(taken, 1e-9):.3g} {self._unit}/s")
        if self._done >= self._total:
            parts.append(f"took {format_duration(taken)}")
        elif steps > 0:
            parts.append(f"{format_duration(taken / steps * (self._total - self._done))} left")
        return ", ".join(parts)


class Stages:
    """Seconds by stage of a job; nothing is measured unless `on`. `settle` waits for an accelerator's pending work.

    Use as `with stages("forward"): …`; stages do not nest."""

    def __init__(self, on: bool = False, settle: Callable[[], None] = lambda: None):
        self.on, self.seconds, self._settle = on, {}, settle

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        if self.on:
            self._settle()
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begun

    def waiting(self, name: str, items: Iterable[Item]) -> Iterator[Item]:
        """The items, the time until each is there counted as a stage."""
        items = iter(items)
        while True:
            with self(name):
                item = next(items, None)
            if item is None:
                return
            yield item

    def table(self, images: float, total: float) -> str:
        """A line a stage: seconds, its share of the `total`, and images a second of that stage alone.

        `images` are those that all stages but "evaluate" worked on; "other" is what belongs to none."""
        total = max(total, sum(self.seconds.values()))
        stages = self.seconds | {"other": total - sum(self.seconds.values())}
        rows = [f"{'stage':12s}{'seconds':>10s}{'share':>8s}{'images/s':>12s}"]
        for name, s in stages.items():
            rate = "" if name in ("evaluate", "other") else f"{images / max(s, 1e-9):,.0f}"
            rows.append(f"{name:12s}{s:10.2f}{s / max(total, 1e-9):8.0%}{rate:>12s}")
        return "\n".join(rows)


def _bar(title: str, total: int, begun: int) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    title_text, told = TextColumn("{task.description}"), TextColumn("{task.fields[told]}")
    console = Console(stderr=True)
    bar = Bar(title_text, BarColumn(20), MofNCompleteColumn(), told, console=console, refresh_per_second=4)
    bar.add_task(title, total=total, completed=begun, told="")
    return bar
