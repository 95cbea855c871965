"""Runs of nasaug in processes of their own, some at a time: begun or resumed, watched, stopped together."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import BadInput
from ..core.progress import say
from ..core.signals import deferred_stop
from ..core.units import format_duration
from ..rundirs.folder import LOCK, RunDir

KILL_AFTER_S = 120.0
FAILED = "nasaug: "  # begins the line that a command fails with


@dataclass(frozen=True, eq=False)
class Work:
    """One run: `python -m nasaug` with the arguments that `begin` or, once it has begun, `go_on` gives.

    `about`: what the caller knows it by. `seconds`: how long it is expected to take. `told`: its outcome in words."""

    title: str
    path: Path
    begin: Callable[[], Sequence[str]]
    go_on: Callable[[], Sequence[str]]
    seconds: float = 0.0
    told: Callable[[], str] = lambda: "finished"
    about: Any = None

    @property
    def finished(self) -> bool:
        return RunDir(self.path).finished

    @property
    def log(self) -> Path:
        """What the process says, beside the run's folder."""
        return self.path.with_suffix(self.path.suffix + ".log")


class Watch:
    """Looks on while works are carried out; this one has no say in it."""

    def hopeless(self, about: Any) -> str | None:
        """Why a work that waits or runs is to be left out or ended; None: it goes on."""
        return None

    def ended(self, about: Any) -> None:
        """Told of each work whose process has ended, however it did."""


@dataclass(frozen=True, eq=False)
class _Running:
    """A work's process, begun at that second of the monotonic clock, and the bytes that its log held before."""

    work: Work
    process: subprocess.Popen
    begun: float
    said: int


def together(seconds: Sequence[float], jobs: int) -> float:
    """How long all take, `jobs` at a time, each begun where one ends."""
    ends = [0.0] * jobs
    for each in seconds:
        ends[ends.index(min(ends))] += each
    return max(ends)


def carry_out(
    works: Sequence[Work], jobs: int, environment: Mapping[str, str], watch: Watch | None = None
) -> list[tuple[Work, str]]:
    """Run all, `jobs` at a time, each with one thread where they are several; those that failed, each with the reason.

    A stop is handed on to all that run, which save what they have; raises Stopped then. `watch` may end a work like
    that too, which is no failure."""
    pool = _Pool(list(works), jobs, environment, watch or Watch())
    try:
        while pool.waiting or pool.running:
            pool.start()
            time.sleep(0.1)
            pool.end()
    finally:
        with deferred_stop():  # a second stop ends this process at once, and those that were asked to end will
            pool.stop()
    return pool.failed


class _Pool:
    """Works that wait, run, failed and were ended by the watch."""

    def __init__(self, works: list[Work], jobs: int, environment: Mapping[str, str], watch: Watch):
        self.waiting, self.jobs, self.environment, self.watch = works, jobs, environment, watch
        self.running: list[_Running] = []
        self.failed: list[tuple[Work, str]] = []
        self._hopeless: dict[Work, str] = {}
        self._taken = self._expected = 0.0

    def start(self) -> None:
        """Begin works while there is room, but those that are hopeless."""
        reasons = [(work, self.watch.hopeless(work.about)) for work in self.waiting]
        for work, reason in reasons:
            if reason:
                say(f"{work.title}: left out; {reason}")
        self.waiting = [work for work, reason in reasons if not reason]
        while self.waiting and len(self.running) < self.jobs:
            with deferred_stop():  # a process that was started is one that will be stopped
                work = self.waiting.pop(0)
                said = work.log.stat().st_size if work.log.exists() else 0
                process = start(work, self.jobs, self.environment)
                self.running.append(_Running(work, process, time.monotonic(), said))

    def end(self) -> None:
        """Ask those that became hopeless to end, and tell of those that have ended."""
        now = time.monotonic()
        for one in self.running:
            reason = None if one.work in self._hopeless else self.watch.hopeless(one.work.about)
            if reason and one.process.poll() is None:
                self._hopeless[one.work] = reason
                one.process.send_signal(signal.SIGTERM)
        for one in [one for one in self.running if one.process.poll() is not None]:
            self.running.remove(one)
            self.watch.ended(one.work.about)
            say(f"{one.work.title}: {self._outcome(one, now)}{self._left(now)}")

    def _outcome(self, one: _Running, now: float) -> str:
        if one.work in self._hopeless:
            return self._hopeless[one.work]
        self._taken, self._expected = self._taken + now - one.begun, self._expected + one.work.seconds
        if one.process.returncode or not one.work.finished:
            self.failed.append((one.work, _why(one)))
            return f"failed: {_why(one)}"
        return one.work.told()

    def _left(self, now: float) -> str:
        """How long the others will take, at the pace of those that have ended."""
        slower = self._taken / self._expected if self._expected else 1.0
        ahead = [(r.work, now - r.begun) for r in self.running] + [(work, 0.0) for work in self.waiting]
        left = together([max(0.0, work.seconds * slower - past) for work, past in ahead], self.jobs)
        return f"; about {format_duration(left)} left" if ahead else ""

    def stop(self) -> None:
        for one in self.running:
            one.process.send_signal(signal.SIGTERM)
        for one in self.running:
            try:
                one.process.wait(KILL_AFTER_S)
            except subprocess.TimeoutExpired:
                one.process.kill()


def start(work: Work, jobs: int, environment: Mapping[str, str]) -> subprocess.Popen:
    """Its process, in a session of its own: what the terminal sends is handed on once, by `carry_out`."""
    work.path.parent.mkdir(parents=True, exist_ok=True)
    if RunDir(work.path).job_file.is_file():
        arguments = work.go_on()
    else:
        _clear(work.path)
        arguments = work.begin()
    one = {"OMP_NUM_THREADS": "1"} if jobs > 1 else {}
    with open(work.log, "a") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "nasaug", *arguments],
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=os.environ | environment | one,
            start_new_session=True,
        )  # fmt: skip


def _clear(path: Path) -> None:
    """Remove what is left of a run that was cut off before it had begun, but none that another process begins."""
    if path.is_dir():
        with contextlib.suppress(BadInput), RunDir.hold(path):
            for left in path.iterdir():
                if left.name != LOCK:  # who has just opened that must not come to hold one that is gone
                    shutil.rmtree(left) if left.is_dir() else left.unlink()


def _why(one: _Running) -> str:
    """Why a work failed: the error that its process told, else the last line, and the signal if one ended it.

    A process that an earlier command left behind may tell of its progress in the same log."""
    told = one.work.log.read_bytes()[one.said :].decode(errors="replace").split("\n")
    told = [line for line in told if line.strip()] or ["it told nothing"]
    last = ([line for line in told if line.startswith(FAILED)] or told)[-1].removeprefix(FAILED)
    code = one.process.returncode
    return f"killed by {signal.Signals(-code).name}; before that: {last}" if code < 0 else last
