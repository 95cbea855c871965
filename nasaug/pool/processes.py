"""A pool of nasaug subprocesses: starts or resumes runs, a limited number at a time, and stops them together."""

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
from ..core.progress import Progress, say
from ..core.signals import LEFT, deferred_stop
from ..core.units import format_duration
from ..rundirs.folder import LOCK, RunDir

KILL_AFTER_S = 120.0
FAILED = "nasaug: "  # prefix of a command's error line


@dataclass(frozen=True, eq=False)
class Work:
    """One run: `python -m nasaug` with the arguments from `begin`, or from `go_on` if the run exists already.

    `about` identifies it to the caller, `seconds` is its expected duration, `told` returns its outcome as text."""

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
        """The file for the process's output, next to the run directory."""
        return self.path.with_suffix(self.path.suffix + ".log")


class Watch:
    """Observes the pool and can end works early. The default never does."""

    def hopeless(self, about: Any) -> str | None:
        """The reason to skip or end a waiting or running work; None to continue it."""
        return None

    def ended(self, about: Any) -> None:
        """Called when a work's process has ended, for whatever reason."""


@dataclass(frozen=True, eq=False)
class _Running:
    """A work's process, its start on the monotonic clock in seconds, and its log's size in bytes at that time."""

    work: Work
    process: subprocess.Popen
    begun: float
    said: int


def together(seconds: Sequence[float], jobs: int) -> float:
    """Total time of tasks with these durations, run `jobs` at a time in order."""
    ends = [0.0] * jobs
    for each in seconds:
        ends[ends.index(min(ends))] += each
    return max(ends)


class Queue:
    """Works that are waiting, in order. Here they are this process's alone."""

    def __init__(self, works: Sequence[Work]):
        self._waiting = list(works)
        self.failed: list[tuple[Work, str]] = []

    @property
    def waiting(self) -> list[Work]:
        return list(self._waiting)

    @property
    def over(self) -> bool:
        """Whether no work is left to begin or to wait for, apart from those that this process runs."""
        return not self.waiting

    def take(self) -> Work | None:
        """The work to start now; None if there is none yet."""
        return self._waiting.pop(0) if self._waiting else None

    def leave_out(self, work: Work) -> None:
        """Do not run a waiting work."""
        self._waiting.remove(work)

    def lost(self, work: Work) -> str | None:
        """Why this process must not go on with a work that it runs; None if it may."""
        return None

    def end(self, work: Work, failed: str | None, given_up: bool = False) -> None:
        """A work's process has ended: by itself, with the reason if it has `failed`, or because it was `given_up`."""
        if failed:
            self.failed.append((work, failed))

    def give_back(self, work: Work) -> None:
        """A work was stopped, and this process takes no other one."""


def run_all(
    works: Sequence[Work] | Queue, jobs: int, environment: Mapping[str, str], watch: Watch | None = None
) -> list[tuple[Work, str]]:
    """Run all works, `jobs` at a time (each with one thread if `jobs` > 1, unless `environment` says how many). Returns
    the failed ones with the reasons.

    A stop signal is forwarded to all running processes, which save their state; then Stopped is raised. `watch` may
    end a work in the same way, which does not count as a failure."""
    queue = works if isinstance(works, Queue) else Queue(works)
    pool = _Pool(queue, jobs, environment, watch or Watch())
    try:
        total = len(queue.waiting)
        with Progress("trainings", total, unit="trainings") as bar:
            while pool.running or not queue.over:
                pool.start()
                time.sleep(0.1)
                pool.end()
                bar.update(max(0, total - len(queue.waiting) - len(pool.running)), left=pool.left())
    finally:
        with deferred_stop():  # a second signal kills this process; the children have been asked to stop by then
            pool.stop()
    return queue.failed


class _Pool:
    """The state of `run_all`: running works, and those ended by the watch."""

    def __init__(self, queue: Queue, jobs: int, environment: Mapping[str, str], watch: Watch):
        self.queue, self.jobs, self.environment, self.watch = queue, jobs, environment, watch
        self.running: list[_Running] = []
        self._hopeless: dict[Work, str] = {}
        self._taken = self._expected = 0.0

    def start(self) -> None:
        """Start works while there are free slots, skipping those that the watch rejects."""
        for waiting in self.queue.waiting:
            if reason := self.watch.hopeless(waiting.about):
                say(f"{waiting.title}: left out; {reason}")
                self.queue.leave_out(waiting)
        while len(self.running) < self.jobs:
            with deferred_stop():  # a signal must not arrive between starting a process and recording it
                work = self.queue.take()
                if work is None:
                    break
                said = work.log.stat().st_size if work.log.exists() else 0
                process = start(work, self.jobs, self.environment)
                self.running.append(_Running(work, process, time.monotonic(), said))

    def end(self) -> None:
        """Stop the works that the watch rejects by now, and report those that have ended."""
        now = time.monotonic()
        for one in self.running:
            known = one.work in self._hopeless
            reason = None if known else self.watch.hopeless(one.work.about) or self.queue.lost(one.work)
            if reason and one.process.poll() is None:
                self._hopeless[one.work] = reason
                one.process.send_signal(signal.SIGTERM)
        for one in [one for one in self.running if one.process.poll() is not None]:
            self.running.remove(one)
            self.watch.ended(one.work.about)
            with deferred_stop():
                outcome = self._outcome(one, now)
            left = self.left()
            say(f"{one.work.title}: {outcome}" + (f"; about {format_duration(left)} left" if left else ""))

    def _outcome(self, one: _Running, now: float) -> str:
        given_up = self._hopeless.get(one.work)
        failed = None if given_up or (one.work.finished and not one.process.returncode) else _why(one)
        self.queue.end(one.work, failed, given_up is not None)
        if given_up:
            return given_up
        self._taken, self._expected = self._taken + now - one.begun, self._expected + one.work.seconds
        return f"failed: {failed}" if failed else one.work.told()

    def left(self) -> float | None:
        """The estimated seconds for the remaining works, scaled by how the finished ones compared to their estimates.
        None if those are not known."""
        now, slower = time.monotonic(), self._taken / self._expected if self._expected else 1.0
        ahead = [(r.work, now - r.begun) for r in self.running] + [(work, 0.0) for work in self.queue.waiting]
        if not any(work.seconds for work, _ in ahead):
            return None if ahead else 0.0
        return together([max(0.0, work.seconds * slower - past) for work, past in ahead], self.jobs)

    def stop(self) -> None:
        for one in self.running:
            one.process.send_signal(signal.SIGTERM)
        for one in self.running:
            try:
                one.process.wait(KILL_AFTER_S)
            except subprocess.TimeoutExpired:
                one.process.kill()
                one.process.wait()
            self.queue.give_back(one.work)


def start(work: Work, jobs: int, environment: Mapping[str, str]) -> subprocess.Popen:
    """Start a work's process, in its own session: `run_all` alone forwards the terminal's signals to it. It stops when
    this process has ended, even by SIGKILL."""
    work.path.parent.mkdir(parents=True, exist_ok=True)
    if RunDir(work.path).job_file.is_file():
        arguments = work.go_on()
    else:
        _clear(work.path)
        arguments = work.begin()
    one: dict[str, str] = {"OMP_NUM_THREADS": "1"} if jobs > 1 else {}
    with open(work.log, "a") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "nasaug", *arguments],
            stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            env={**os.environ, **one, **environment, LEFT: "1"},
        )  # fmt: skip


def _clear(path: Path) -> None:
    """Empty the folder of a run that was killed before it had started, unless another process holds it."""
    if path.is_dir():
        with contextlib.suppress(BadInput), RunDir.hold(path):
            for left in path.iterdir():
                if left.name != LOCK:  # another process may have it open, and would then hold a deleted lock
                    shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()


def _why(one: _Running) -> str:
    """Why a work failed: its error line, else the last line of its log, and the signal if one killed it.

    The error line is searched for because a process left behind by an earlier command may write to the same log."""
    told = one.work.log.read_bytes()[one.said :].decode(errors="replace").split("\n")
    told = [line for line in told if line.strip()] or ["it printed no message"]
    last = ([line for line in told if line.startswith(FAILED)] or told)[-1].removeprefix(FAILED)
    code = one.process.returncode
    if code >= 0:
        return last
    memory = " (by the system, if memory ran out: give fewer jobs or a lower batch)" if -code == signal.SIGKILL else ""
    return f"killed by {signal.Signals(-code).name}{memory}; before that: {last}"
