"""Several processes judge candidates for one search: they share the work, and end, freeze and come late."""

import contextlib
import os
import signal
import sqlite3
import time
from dataclasses import dataclass

import pytest
from optuna.trial import TrialState, create_trial

from nasaug.core.errors import BadInput
from nasaug.core.signals import Stopped
from nasaug.nas import study
from nasaug.pool import shared, storage
from nasaug.pool.shared import OWNER, SharedStudy, ended, this_process
from nasaug.rundirs.folder import RunDir
from nasaug.training.ranks import Ranks
from support.workers import (
    assert_counted_once,
    assert_shared,
    begun,
    fork,
    kill,
    lead,
    open_study,
    slow,
    stuck_worker,
    trials,
    wait_until,
)


@pytest.fixture
def url(tmp_path, monkeypatch):
    monkeypatch.setenv(storage.HEARTBEAT, "1")
    monkeypatch.setattr(storage, "GRACE", 1)
    return f"sqlite:///{tmp_path}/study.db"


def test_they_share_the_candidates_and_score_none_twice(tmp_path):
    assert_shared(tmp_path, f"sqlite:///{tmp_path}/study.db", others=2, sampler="tpe+predictor", trials=24)


def test_what_a_killed_one_was_at_is_judged_by_another(tmp_path, url):
    open_study(tmp_path, url, trials=6)
    worker, at = stuck_worker(tmp_path, url, trials=6)
    kill(worker)
    search = slow(tmp_path, url, trials=6)
    search.of, search.run_path = {"budget": 1}, tmp_path
    found = lead(search)
    assert at in {search.space.id(c.arch) for c in found} and RunDir(tmp_path).environment()["joined"]
    assert_counted_once(url, search, found, retried=1)


def test_the_late_result_of_a_frozen_one_counts_nowhere(tmp_path, url):
    open_study(tmp_path, url, trials=6)
    worker, at = stuck_worker(tmp_path, url, trials=6)
    os.kill(worker.pid, signal.SIGSTOP)
    search = slow(tmp_path, url, trials=6)
    found = lead(search)
    (tmp_path / "go on").touch()
    before = [(t.number, t.state, t.values) for t in trials(url)]
    os.kill(worker.pid, signal.SIGCONT)
    worker.join()
    assert worker.exitcode == 0 and [(t.number, t.state, t.values) for t in trials(url)] == before
    assert_counted_once(url, search, found, retried=1)


def test_a_clock_that_jumps_makes_work_be_done_twice_but_counted_once(tmp_path, url):
    open_study(tmp_path, url, trials=6)
    worker, _ = stuck_worker(tmp_path, url, trials=6)
    os.kill(worker.pid, signal.SIGSTOP)  # else it would record another heartbeat
    with sqlite3.connect(tmp_path / "study.db", timeout=30) as database:
        database.execute("update trial_heartbeats set heartbeat = '2001-01-01 00:00:00'")
    search = slow(tmp_path, url, trials=6)
    begun_at = time.monotonic()
    found = lead(search)
    assert time.monotonic() - begun_at < 30
    (tmp_path / "go on").touch()
    os.kill(worker.pid, signal.SIGCONT)
    worker.join()
    assert_counted_once(url, search, found, retried=1)


def test_when_the_time_is_over_nothing_is_begun_and_late_results_count_nowhere(tmp_path, url):
    open_study(tmp_path, url, trials=500)
    worker, _ = stuck_worker(tmp_path, url, trials=500)
    found = lead(slow(tmp_path, url, trials=500, timeout=1.0))
    (tmp_path / "go on").touch()
    worker.join()
    assert worker.exitcode == 0 and {t.state.name for t in trials(url)} == {"COMPLETE", "FAIL"}
    again = slow(tmp_path, url, trials=len(found))
    assert lead(again) == found and again.judged == []
    assert len(lead(slow(tmp_path, url, trials=len(found) + 2))) == len(found) + 2  # it is open again


@dataclass(frozen=True)
class OneOfTwo(Ranks):
    """One of two processes that search together, as far as it can tell alone."""

    count: int = 2

    def most(self, *values):
        return values


@pytest.mark.parametrize(
    "storage, alone", [("journal:{}/study.log", True), ("sqlite:///{}/study.db", False)], ids=["restarted", "torchrun"]
)
def test_what_cannot_be_at_work_any_more_is_judged_at_once(tmp_path, monkeypatch, storage, alone):
    """Without heartbeats, of a machine that was restarted; of the first of several processes, on another machine."""
    url = storage.format(tmp_path)
    monkeypatch.setattr(study, "of_process", Ranks if alone else OneOfTwo)
    search = open_study(tmp_path, url, trials=3)
    claim = create_trial(
        state=TrialState.RUNNING, params=search._params(search.space.smallest), distributions=search._distributions()
    )
    with monkeypatch.context() as patched:
        patched.setattr(shared, "this_process", lambda: "an earlier boot 7 100")
        SharedStudy(url).claim(claim)
    found = lead(slow(tmp_path, url, trials=3, timeout=10.0))
    assert len(found) == 3 and search.space.smallest in {c.arch for c in found}


@pytest.mark.parametrize("signum", [0, signal.SIGTERM])
def test_processes_that_search_together_end_together(tmp_path, monkeypatch, signum):
    def most(self, *values):
        """The third time, the other one's time is over, or it was stopped."""
        asked.append(values)
        return [signum, 1.0] if len(asked) == 3 else values

    asked, search = [], slow(tmp_path, f"sqlite:///{tmp_path}/study.db", trials=500)
    monkeypatch.setattr(OneOfTwo, "most", most)
    monkeypatch.setattr(study, "of_process", OneOfTwo)
    with pytest.raises(Stopped) if signum else contextlib.nullcontext():
        lead(search)
    assert len(search.scores) == 2


def test_a_worker_leaves_when_the_rest_is_begun(tmp_path, url):
    open_study(tmp_path, url, trials=2)
    worker, _ = stuck_worker(tmp_path, url, trials=2)
    other = fork(slow(tmp_path, url, helps=True, trials=2))
    other.join(20)
    assert other.exitcode == 0 and len(begun(tmp_path)) == 2
    kill(worker)


def test_a_study_of_another_job_or_version_is_refused(tmp_path, url):
    study = SharedStudy(url, ["maximize"])
    study.belong({"budget": {"macs": 1}, "data": "a"}, tmp_path)
    SharedStudy(url).belong({"budget": {"macs": 1}, "data": "a"}, tmp_path)
    with pytest.raises(BadInput, match="the study of another run: its budget and data differ") as refused:
        SharedStudy(url).belong({"budget": {"macs": 2}, "data": "b"}, tmp_path)
    assert refused.value.field == "storage"
    study.note("format", "nasaug-study/9")
    with pytest.raises(BadInput, match="of format nasaug-study/9, and this version of nasaug reads nasaug-study/1"):
        SharedStudy(url).belong({}, tmp_path)


def test_a_study_must_exist_for_those_that_join(tmp_path, url):
    with pytest.raises(BadInput, match="holds no study") as refused:
        SharedStudy(url)
    assert refused.value.field == "study"


def test_processes_of_this_machine_are_known_to_have_ended(tmp_path):
    worker = fork(slow(tmp_path, f"sqlite:///{tmp_path}/study.db", stuck_at=1))
    machine, pid, _ = this_process().rsplit(" ", 2)
    wait_until(lambda: begun(tmp_path))
    owner = next(t.user_attrs[OWNER] for t in trials(f"sqlite:///{tmp_path}/study.db"))
    assert not ended(this_process()) and not ended(owner)
    assert ended(f"{machine} {pid} 0") and not ended(f"other machine {pid} 0")  # a number that was given again
    os.kill(worker.pid, signal.SIGKILL)
    wait_until(lambda: ended(owner))  # also before its parent has waited for it
    worker.join()
