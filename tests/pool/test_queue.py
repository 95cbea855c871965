"""Works that several processes share through a storage: claimed once, tried again after a kill, left when lost.

Works are forks that hold their folder's lock, as trainings do, and write a result."""

import contextlib
import json
import multiprocessing
import os
import signal
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from nasaug.core.errors import BadInput
from nasaug.core.progress import heard_by
from nasaug.core.signals import Stopped, raised_stop
from nasaug.pool import processes, queue, shared, storage
from nasaug.pool.processes import Watch, Work, run_all
from nasaug.pool.queue import SharedQueue
from nasaug.pool.shared import ERROR, OWNER, SharedStudy
from nasaug.rundirs.folder import RunDir
from support.workers import kill, trials, wait_until

WORKERS = []  # the workers of a test
FORK, TERM = multiprocessing.get_context("fork"), {signal.SIGTERM}


class Process:
    """The part of subprocess.Popen that the pool uses."""

    def __init__(self, path):
        self._fork = FORK.Process(target=_train, args=(path,))
        signal.pthread_sigmask(signal.SIG_BLOCK, TERM)  # which the fork would answer as this process does, at first
        self._fork.start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, TERM)

    def poll(self):
        return self._fork.exitcode

    returncode = property(poll)

    def send_signal(self, number):
        os.kill(self._fork.pid, number)

    def wait(self, seconds=None):
        self._fork.join(seconds)


def _train(path):
    """Ends at once, or when its file named `go on` is there if one named `stuck` is."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, TERM)
    path.mkdir(exist_ok=True)
    if (path / "broken").exists():
        path.with_suffix(".log").write_text("nasaug: no memory\n")
        os._exit(1)
    with RunDir.hold(path):
        with open(path.parent / "begun", "a") as notes:
            notes.write(f"{os.getppid()} {path.name}\n")
        while (path / "stuck").exists() and not (path / "go on").exists():
            time.sleep(0.01)
        RunDir(path).finish({})
    os._exit(0)


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    monkeypatch.setenv(storage.HEARTBEAT, "1")
    monkeypatch.setattr(storage, "GRACE", 1)
    monkeypatch.setattr(queue, "POLL_S", 0.05)
    monkeypatch.setattr(processes, "start", lambda work, *_: Process(work.path))
    (tmp_path / "begun").touch()


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/study.db"


def works_in(folder, count):
    return [Work(f"work {i}", folder / f"w{i}", list, list) for i in range(count)]


def begun(folder):
    """(process, work) of everything that was begun."""
    return [tuple(line.split()) for line in (folder / "begun").read_text().splitlines()]


def queue_of(url, works, leads, of=None):
    study = SharedStudy(url, ["maximize"] if leads else None)
    shared = SharedQueue(study, works, lambda work: 0.5, (lambda work: None) if leads else None)
    if leads:
        shared.lead(of or {}, Path.cwd())
    return shared


def work(url, works, leads=False, jobs=1, watch=None):
    return run_all(queue_of(url, works, leads), jobs, {}, watch)


@pytest.fixture(autouse=True)
def none_left():
    yield
    for process in WORKERS:
        if process.is_alive():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError, IndexError):
                os.kill(child_of(process), signal.SIGKILL)
            kill(process)
    WORKERS.clear()


def worker(url, works):
    def target():
        with raised_stop():
            try:
                work(url, works)
            except Stopped:
                os._exit(0)

    process = FORK.Process(target=target)
    process.start()
    WORKERS.append(process)
    return process


def stuck(works, at=0):
    works[at].path.mkdir(exist_ok=True)
    (works[at].path / "stuck").touch()


def stuck_worker(folder, url, works):
    """A process that is at the first work, which never ends by itself."""
    stuck(works)
    queue_of(url, works, True)
    process = worker(url, works)
    wait_until(lambda: begun(folder), 20)
    return process


def child_of(process):
    return int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])


@pytest.mark.parametrize("kind", ["sqlite:///{}/study.db", "journal:{}/study.log"])
def test_processes_share_the_works_and_begin_none_twice(tmp_path, kind, monkeypatch):
    monkeypatch.setenv(storage.HEARTBEAT, "15")  # none is missed on a busy machine
    url, works = kind.format(tmp_path), works_in(tmp_path, 8)
    shared = queue_of(url, works, True)
    for i in range(len(works)):
        stuck(works, i)

    def go_on():
        with contextlib.suppress(AssertionError):
            wait_until(lambda: len({process for process, _ in begun(tmp_path)}) == 3)
        for each in works:
            (each.path / "go on").touch()

    others = [worker(url, works) for _ in range(2)]
    threading.Thread(target=go_on).start()
    assert run_all(shared, 1, {}) == []
    for other in others:
        other.join()
    assert sorted(name for _, name in begun(tmp_path)) == [f"w{i}" for i in range(8)]
    assert len({process for process, _ in begun(tmp_path)}) == 3 and {other.exitcode for other in others} == {0}
    assert [(t.state.name, t.values) for t in trials(url)] == 8 * [("COMPLETE", [0.5])]


@pytest.mark.parametrize("killed", [False, True])
def test_one_that_came_second_and_ended_does_not_end_the_claim_of_the_first(tmp_path, monkeypatch, killed):
    url = f"journal:{tmp_path}/study.log"
    queue_of(url, works_in(tmp_path, 1), True)
    first, second, other = (SharedStudy(url) for _ in range(3))
    gone = FORK.Process(target=time.sleep, args=(60,))
    gone.start()
    claim, lose = first._storage.set_trial_state_values, second._storage.set_trial_state_values
    name = shared._process(gone.pid)

    class Killed(Exception):
        pass

    def claim_amid_another(trial, state):
        """The second one is about to claim the trial when the first one does, and has ended before this is noted."""
        won = []

        def both(*given):
            won.append(claim(trial, state))
            if killed:
                raise Killed
            return lose(*given)

        second._storage.set_trial_state_values = both
        with monkeypatch.context() as as_second, contextlib.suppress(Killed):
            as_second.setattr(shared, "this_process", lambda: name)
            assert second.take() is None
        kill(gone)
        other.revive()
        return won[0]

    first._storage.set_trial_state_values = claim_amid_another
    taken = first.take()
    other.revive()
    assert [t.state.name for t in trials(url)] == ["RUNNING"] and first.has(taken._trial_id)


def test_a_claim_whose_process_ended_before_it_was_noted_is_given_up(tmp_path, monkeypatch):
    url = f"journal:{tmp_path}/study.log"
    queue_of(url, works_in(tmp_path, 1), True)
    study, other = SharedStudy(url), SharedStudy(url)
    gone = FORK.Process(target=time.sleep, args=(60,))
    gone.start()
    name, note = shared._process(gone.pid), study._set
    monkeypatch.setattr(study, "_set", lambda trial, key, value: key == OWNER or note(trial, key, value))
    with monkeypatch.context() as as_another:
        as_another.setattr(shared, "this_process", lambda: name)
        study.take()
    other.revive()
    assert [t.state.name for t in trials(url)] == ["RUNNING"]
    kill(gone)
    other.revive()
    assert [t.state.name for t in trials(url)] == ["FAIL", "WAITING"]
    assert not any(key.startswith(shared.CLAIM) for key in trials(url)[1].user_attrs)


def test_what_a_killed_one_was_at_is_tried_again_once_its_process_has_ended(tmp_path, url):
    works = works_in(tmp_path, 3)
    killed = stuck_worker(tmp_path, url, works)
    child = child_of(killed)
    kill(killed)
    other = worker(url, works)
    wait_until(lambda: len(begun(tmp_path)) == 3, 20)  # the two others, while the child still holds its folder
    time.sleep(0.3)
    assert [name for _, name in begun(tmp_path)] == ["w0", "w1", "w2"] and other.exitcode is None
    (works[0].path / "stuck").unlink()
    os.kill(child, signal.SIGKILL)
    assert work(url, works, leads=True) == []
    other.join()
    assert sorted(name for _, name in begun(tmp_path)) == ["w0", "w0", "w1", "w2"]
    assert all(each.finished for each in works)


def test_a_frozen_one_leaves_what_another_has_taken(tmp_path, url):
    works = works_in(tmp_path, 2)
    frozen = stuck_worker(tmp_path, url, works)
    child = child_of(frozen)
    os.kill(frozen.pid, signal.SIGSTOP)
    study = SharedStudy(url)
    wait_until(lambda: study.revive() or any(t.state.name == "FAIL" for t in study.trials()), 20)
    assert study.take(queue_of(url, works, True)._free).user_attrs["cell"] == "w1"  # w0 is still in use
    os.kill(frozen.pid, signal.SIGCONT)
    wait_until(lambda: not Path(f"/proc/{child}/stat").exists(), 20)  # it ends its process
    frozen.terminate()
    frozen.join()
    assert not works[0].finished and trials(url)[0].state.name == "FAIL"


def test_a_stopped_one_gives_back_what_it_was_at(tmp_path, url):
    works = works_in(tmp_path, 2)
    stopped = stuck_worker(tmp_path, url, works)
    stopped.terminate()
    stopped.join()
    assert stopped.exitcode == 0 and OWNER not in trials(url)[-1].user_attrs
    (works[0].path / "stuck").unlink()
    assert work(url, works, leads=True) == [] and all(each.finished for each in works)


def test_what_was_taken_from_a_silent_one_is_not_given_back_again(tmp_path, url):
    queue_of(url, works_in(tmp_path, 1), True)
    study = SharedStudy(url)
    taken = study.take()
    with sqlite3.connect(tmp_path / "study.db", timeout=30) as database:
        database.execute("update trial_heartbeats set heartbeat = '2001-01-01 00:00:00'")
    study.revive()  # as another process does
    study.give_back(taken._trial_id)
    assert [t.state.name for t in trials(url)] == ["FAIL", "WAITING"]


def test_the_leader_hears_of_what_others_have_finished_and_of_what_failed(tmp_path, url):
    works, told = works_in(tmp_path, 3), []
    for each in works:
        each.path.mkdir()
    (works[1].path / "broken").touch()
    shared = queue_of(url, works, True)
    assert [why for _, why in work(url, works)] == ["no memory"]
    with heard_by(lambda event: told.append(str(event))):
        (failed,) = run_all(shared, 1, {})
    assert failed == (works[1], "no memory") and len(begun(tmp_path)) == 2
    assert [line for line in told if line.startswith("work")] == [
        "work 0: finished; by another process", "work 1: failed: no memory; by another process",
        "work 2: finished; by another process",
    ]  # fmt: skip
    (works[1].path / "broken").unlink()
    assert work(url, works[1:2], leads=True) == [] and works[1].finished
    assert json.dumps([t.user_attrs.get(ERROR) for t in trials(url)]) == '[null, "no memory", null, null]'


def test_a_result_that_does_not_appear_is_a_failure(tmp_path, url, monkeypatch):
    works = works_in(tmp_path, 1)
    shared = queue_of(url, works, True)
    work(url, works)
    works[0].path.rename(tmp_path / "elsewhere")
    monkeypatch.setattr(queue, "APPEARS_S", 0.2)
    ((_, why),) = run_all(shared, 1, {})
    assert why == f"another process has finished it, but {works[0].path} is not there; put it on a disk that all share"


class LeavesOut(Watch):
    def hopeless(self, about):
        return "of no use"


def test_what_the_leader_leaves_out_is_ended_elsewhere(tmp_path, url):
    works = works_in(tmp_path, 2)
    other = stuck_worker(tmp_path, url, works)
    assert work(url, works, leads=True, watch=LeavesOut()) == []
    other.join()
    assert other.exitcode == 0 and not works[0].finished and len(begun(tmp_path)) == 1
    assert {t.state.name for t in trials(url)} == {"FAIL"}


def test_a_storage_of_other_works_is_refused(tmp_path, url):
    queue_of(url, works_in(tmp_path, 2), True, {"cells": 2})
    with pytest.raises(BadInput, match="the study of another run: its cells differs"):
        queue_of(url, works_in(tmp_path, 3), True, {"cells": 3})
    assert len(trials(url)) == 2
