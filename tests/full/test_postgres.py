"""Searches by several processes that share a PostgreSQL server, which are killed, frozen and cut off."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial

import pytest

from nasaug.pool import storage
from nasaug.pool.shared import is_begun
from support.commands import lay_out, timeless
from support.postgres import PASSWORD, programs, server
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

pytestmark = pytest.mark.skipif(
    programs() is None or importlib.util.find_spec("psycopg") is None, reason="needs PostgreSQL and psycopg"
)
SEARCH = (
    "--mac-budget", "1M", "--data", "digits", "--trials", "40", "--set", "train_macs=2e9", "--set",
    "search.finalists=2", "--set", "search.least_epochs=0",
)  # fmt: skip


@pytest.fixture(scope="module")
def postgres():
    with server() as started:
        yield started


@pytest.fixture
def url(postgres, request, monkeypatch):
    monkeypatch.setenv(storage.HEARTBEAT, "1")
    return postgres.url(f"test{abs(hash(request.node.nodeid))}")


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random", "tpe+predictor"])
@pytest.mark.parametrize("others", [1, 3])
def test_processes_share_the_candidates_and_score_none_twice(tmp_path, url, sampler, others, monkeypatch):
    monkeypatch.setenv(storage.HEARTBEAT, "15")
    assert_shared(tmp_path, url, others, sampler=sampler, trials=40)


def test_what_a_killed_one_was_at_is_judged_by_another(tmp_path, url):
    open_study(tmp_path, url, trials=6)
    worker, at = stuck_worker(tmp_path, url, trials=6)
    kill(worker)
    search = slow(tmp_path, url, trials=6)
    found = lead(search)
    assert at in {search.space.id(c.arch) for c in found}
    assert_counted_once(url, search, found, retried=1)


def test_one_killed_on_another_machine_is_missed_by_its_heartbeat(tmp_path, url, monkeypatch):
    open_study(tmp_path, url, trials=6)
    worker, at = stuck_worker(tmp_path, url, trials=6)
    kill(worker)
    monkeypatch.setattr("nasaug.pool.shared._machine", lambda: "another")
    monkeypatch.setattr("nasaug.pool.shared.this_process", lambda: "another 1 1")
    search = slow(tmp_path, url, trials=6)
    begun_at = time.monotonic()
    found = lead(search)
    assert 2 < time.monotonic() - begun_at < 60 and at in {search.space.id(c.arch) for c in found}
    assert_counted_once(url, search, found, retried=1)


def test_the_late_result_of_a_frozen_one_counts_nowhere(tmp_path, url):
    open_study(tmp_path, url, trials=6)
    worker, _ = stuck_worker(tmp_path, url, trials=6)
    os.kill(worker.pid, signal.SIGSTOP)
    search = slow(tmp_path, url, trials=6)
    found = lead(search)
    before = [(t.number, t.state, t.values) for t in trials(url)]
    (tmp_path / "go on").touch()
    os.kill(worker.pid, signal.SIGCONT)
    worker.join()
    assert worker.exitcode == 0 and [(t.number, t.state, t.values) for t in trials(url)] == before
    assert_counted_once(url, search, found, retried=1)


@pytest.mark.parametrize("hours", [-1000, 1000])
def test_a_clock_that_jumps_corrupts_nothing(tmp_path, postgres, url, hours):
    """The server's clock alone counts: the heartbeats seem to be of another time. One that seems to be of the future is
    recorded anew by whoever sees the trial for the first time."""
    open_study(tmp_path, url, trials=6)
    worker, _ = stuck_worker(tmp_path, url, trials=6)
    os.kill(worker.pid, signal.SIGSTOP)  # else it would record another heartbeat
    postgres.sql(
        url.rpartition("/")[2], f"update trial_heartbeats set heartbeat = heartbeat + interval '{hours} hours'"
    )
    search = slow(tmp_path, url, trials=6)
    found = lead(search)
    (tmp_path / "go on").touch()
    os.kill(worker.pid, signal.SIGCONT)
    worker.join()
    assert len(found) == 6
    assert_counted_once(url, search, found, retried=1)


def test_a_server_that_restarts_is_waited_for(tmp_path, postgres, url):
    settings = {"trials": 60, "sampler": "random"}
    open_study(tmp_path, url, **settings)
    worker = fork(slow(tmp_path, url, helps=True, **settings))
    wait_until(lambda: len(begun(tmp_path)) > 3)
    search, found = slow(tmp_path, url, **settings), []
    leader = threading.Thread(target=lambda: found.extend(lead(search)))
    leader.start()
    for mode in ("fast", "immediate"):
        count = len(begun(tmp_path))
        wait_until(lambda count=count: len(begun(tmp_path)) > count + 4)
        postgres.stop(mode)
        time.sleep(3)
        postgres.start()
    leader.join(120)
    worker.join()
    assert len(found) == 60 and worker.exitcode == 0
    assert_counted_once(url, search, found, retried=0)


# --- the commands, as processes --------------------------------------------------------------------------------


def nasaug(folder, *args, **env):
    return subprocess.Popen(
        [sys.executable, "-m", "nasaug", *args], cwd=folder, text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=os.environ | {"OMP_NUM_THREADS": "1"} | env,
    )  # fmt: skip


def ended(process, code=0):
    out, _ = process.communicate(timeout=600)
    assert process.returncode == code, out
    assert PASSWORD not in out and "Traceback" not in out
    return out


def candidates(run):
    rows = json.loads((run / "candidates.json").read_text())["candidates"]
    return {row["id"]: (row["val_top1"], row["val_loss"]) for row in rows}


@pytest.mark.timeout(900)
def test_a_search_on_digits_by_three_processes_one_of_which_is_killed(tmp_path, postgres, url):
    """Every architecture has the same score as in a search by one process."""
    led = nasaug(tmp_path, "search", *SEARCH, "--storage", url, "--run", "run")
    wait_until(lambda: (tmp_path / "run" / "job.json").is_file(), 300)
    # on a busy machine they would start too late if they waited for the supernet here
    workers = [nasaug(tmp_path, "search-worker", "--study", url, "--run", "run", "--wait", "5m") for _ in range(2)]

    wait_until(partial(is_begun, url), 300)

    def running(worker):
        with_owner = [t for t in trials(url) if t.user_attrs.get("owner", "").split(" ")[-2:-1] == [str(worker.pid)]]
        return [t for t in with_owner if t.state.name == "RUNNING"]

    wait_until(lambda: running(workers[0]), 120)
    workers[0].send_signal(signal.SIGSTOP)  # in the midst of a candidate
    at = running(workers[0])
    workers[0].kill()
    ended(led)
    out = ended(workers[1])
    assert "candidates of" in out
    shared = candidates(tmp_path / "run")
    assert len(shared) == 40
    scored = [t for t in trials(url) if t.state.name == "COMPLETE" and "owner" in t.user_attrs]
    assert len(scored) == 40 == len({tuple(sorted(t.params.items())) for t in scored})
    assert len({t.user_attrs["owner"] for t in scored}) >= 2
    for trial in at:  # what it was at was tried again
        assert any(t.params == trial.params for t in scored)
    for path in (tmp_path / "run").rglob("*.json*"):
        assert PASSWORD not in path.read_text()
    alone = tmp_path / "alone"
    alone.mkdir()
    ended(nasaug(alone, "search", *SEARCH, "--run", "run"))
    both = candidates(alone / "run")
    common = shared.keys() & both.keys()
    assert len(common) >= 10 and [name for name in common if shared[name] != both[name]] == []


COMPARE = (
    "compare", "--recipe", "quick.toml", "--arch", "mobilenetv2-tiny", "--methods", "baseline,netaug", "--seeds", "3",
    "--jobs", "1", "--set", "epochs=40",
)  # fmt: skip


@pytest.mark.timeout(900)
def test_a_comparison_by_three_processes_one_of_which_is_killed(tmp_path, postgres, url):
    """Every cell is trained once, but for the killed one's, which another goes on with; the results are those of one
    process alone."""
    lay_out(tmp_path)
    led = nasaug(tmp_path, *COMPARE, "--storage", url, "--run", "run")
    wait_until(partial(is_begun, url), 300)
    join = ("cell-worker", "--study", url, "--run", "run", "--jobs", "1")
    workers = [nasaug(tmp_path, *join) for _ in range(2)]

    def at(worker):
        owned = [t for t in trials(url) if t.user_attrs.get("owner", "").split(" ")[-2:-1] == [str(worker.pid)]]
        return [t.user_attrs["cell"] for t in owned if t.state.name == "RUNNING"]

    wait_until(lambda: any((tmp_path / "run/cells" / cell / "log.jsonl").is_file() for cell in at(workers[0])), 300)
    (cell,) = at(workers[0])
    workers[0].kill()
    assert "by another process" in ended(led)
    assert "no cell of" in ended(workers[1])
    done = [t for t in trials(url) if t.state.name == "COMPLETE"]
    assert len(done) == 6 == len({t.user_attrs["cell"] for t in done}) and cell in {t.user_attrs["cell"] for t in done}
    assert len({t.user_attrs["owner"] for t in done}) >= 2
    assert [t.user_attrs["cell"] for t in trials(url) if t.state.name == "FAIL"] == [cell]
    for path in (tmp_path / "run").rglob("*.json*"):
        assert PASSWORD not in path.read_text()

    ended(nasaug(tmp_path, *COMPARE, "--run", "alone"))
    found = ((tmp_path / run).glob("cells/*/result.json") for run in ("run", "alone"))
    shared, alone = ({path.parent.name: timeless(json.loads(path.read_text())) for path in paths} for paths in found)
    assert len(shared) == 6 and shared == alone


def test_what_cannot_be_used_is_told_in_one_line_without_the_password(tmp_path, postgres, url):
    search = ("search", *SEARCH, "--storage")
    wrong = postgres.url("other", password="a@wrong:word")
    out = ended(nasaug(tmp_path, *search, wrong), 2)
    assert "wrong" not in out and "word@" not in out  # an @ or : in it must be written as %40 or %3A
    out = ended(nasaug(tmp_path, *search, postgres.url("other", password="mistaken")), 2)
    assert "password authentication failed" in out and "mistaken" not in out
    assert "does not exist" in ended(nasaug(tmp_path, *search, url + "nowhere"), 2)
    assert "refused" in ended(nasaug(tmp_path, *search, f"postgresql://me:{PASSWORD}@127.0.0.1:1/x"), 2)
    hides = tmp_path / "hides"
    hides.mkdir()
    (hides / "sitecustomize.py").write_text("import sys; sys.modules['psycopg'] = None\n")
    path = f"{hides}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    assert "pip install 'nasaug[postgres]'" in ended(nasaug(tmp_path, *search, url, PYTHONPATH=path), 2)
    assert not (tmp_path / "runs").exists()


@pytest.mark.timeout(900)
def test_a_search_whose_server_stays_away_ends_in_one_line_and_goes_on(tmp_path, postgres, url):
    led = nasaug(tmp_path, "search", *SEARCH, "--storage", url, "--run", "run")
    log = tmp_path / "run" / "log.jsonl"
    wait_until(lambda: log.is_file() and log.read_text().count('"candidate"') > 4, 300)
    postgres.stop()
    try:
        out = ended(led, 1)
    finally:
        postgres.start()
    assert "cannot be read or written" in out.splitlines()[-1] and "--resume" in out.splitlines()[-1]
    ended(nasaug(tmp_path, "search", "--resume", "--run", "run", "--storage", url))
    assert len(candidates(tmp_path / "run")) == 40
