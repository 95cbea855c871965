"""Searches with synthetic scores by several processes, which are forked, killed and frozen."""

import multiprocessing
import os
import signal
import time
from collections import Counter
from pathlib import Path

import optuna

from nasaug.core.signals import Pending
from nasaug.pool.storage import open_storage
from support.searches import MadeUp, search_of

SECONDS = 0.02  # that a candidate takes
STUCK = 3600.0


class Slow(MadeUp):
    """Notes each candidate in a file when it is begun. `stuck_at`: the count at which it takes an hour. `together`:
    none ends before so many processes have begun one."""

    notes = Path()
    stuck_at = together = 0

    def _judge(self, arch, split):
        judged = super()._judge(arch, split)
        with open(self.notes, "a") as file:
            file.write(f"{os.getpid()} {self.space.id(arch)}\n")
        end = time.monotonic() + (STUCK if len(self.judged) == self.stuck_at else SECONDS)
        while time.monotonic() < end and not (self.notes.parent / "go on").exists():
            time.sleep(SECONDS)
        wait_until(lambda: len({process for process, _ in begun(self.notes.parent)}) >= self.together)
        return judged


def slow(folder, url, *, helps=False, stuck_at=0, together=0, **settings):
    search = search_of(folder / "unused", **settings)
    search.__class__, search.storage, search.helps = Slow, url, helps
    search.notes, search.stuck_at, search.together = folder / "judged", stuck_at, together
    return search


def begun(folder):
    """(process, architecture) of each candidate that any process has begun to judge, in order."""
    path = folder / "judged"
    return [tuple(line.split()) for line in path.read_text().splitlines()] if path.is_file() else []


def lead(search):
    """What a search that leads finds."""
    return search.run(Pending(), lambda *_: None)


def fork(search):
    """A process that runs the search."""
    process = multiprocessing.get_context("fork").Process(target=lead, args=(search,))
    process.start()
    return process


def wait_until(there, seconds=60.0):
    end = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < end, "too late"
        time.sleep(0.02)


def stuck_worker(folder, url, **settings):
    """A worker that is in the midst of its second candidate, and that candidate."""
    worker = fork(slow(folder, url, helps=True, stuck_at=2, **settings))
    wait_until(lambda: len([at for at, _ in begun(folder) if at == str(worker.pid)]) == 2)
    return worker, next(arch for at, arch in reversed(begun(folder)) if at == str(worker.pid))


def open_study(folder, url, **settings):
    """Begin the search's study, as the process that leads does before it judges."""
    search = slow(folder, url, **settings)
    search._open()
    return search


def trials(url):
    return optuna.load_study(storage=open_storage(url), study_name="nasaug").get_trials(deepcopy=False)


def assert_counted_once(url, search, found, retried=0):
    """Every candidate has one score, the one that it has in any search; `retried` were begun twice."""
    ended = trials(url)
    assert {trial.state.name for trial in ended} <= {"COMPLETE", "FAIL"}
    scored = Counter(search._arch(t.params) for t in ended if t.state.name == "COMPLETE" and "owner" in t.user_attrs)
    assert set(scored.values()) == {1} and scored.keys() == {c.arch for c in found}
    alone = search_of(search.notes.parent / "alone")
    assert {c.arch: c.score for c in found} == {c.arch: alone._judge(c.arch, None).score for c in found}
    counts = Counter(arch for _, arch in begun(search.notes.parent))
    assert sum(counts.values()) == len(found) + retried and len(counts) == len(found)


def assert_shared(folder, url, others, **settings):
    """Several processes do a search, none of them alone."""
    open_study(folder, url, **settings)
    workers = [fork(slow(folder, url, helps=True, together=1 + others, **settings)) for _ in range(others)]
    search = slow(folder, url, together=1 + others, **settings)
    found = lead(search)
    for worker in workers:
        worker.join()
    assert len(found) == settings["trials"] and all(worker.exitcode == 0 for worker in workers)
    assert_counted_once(url, search, found)
    assert len({process for process, _ in begun(folder)}) == 1 + others


def kill(worker, number=signal.SIGKILL):
    os.kill(worker.pid, number)
    worker.join()
