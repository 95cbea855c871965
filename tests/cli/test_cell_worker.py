"""`cell-worker`: it trains cells of a comparison or sweep, with the results that one process finds."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from nasaug.comparison import trainings
from nasaug.comparison import worker as comparison
from nasaug.nas import worker as nas
from nasaug.pool import processes
from nasaug.pool.shared import SharedStudy
from nasaug.rundirs.folder import RunDir
from support.commands import QUICK, SEARCH, call, done, faulty, refused, stop, timeless
from support.forked import FORKING

COMPARE = ("compare", *QUICK, "--arch", "found.json", "--jobs", "1", "--methods", "baseline,netaug", "--seeds", "1")
SHARED = (*COMPARE, "--storage", "sqlite:///cells.db")


@pytest.fixture(autouse=True)
def forked(monkeypatch):
    monkeypatch.setattr(processes, "subprocess", FORKING)


def results(run):
    found = [json.loads(path.read_text()) for path in Path(run).glob("cells/*/result.json")]
    return {(r["arm"], r["seed"]): timeless(r) for r in found}


def begun(monkeypatch, *command):
    """A command that is stopped when its cells are in the storage."""
    with monkeypatch.context() as patched:
        patched.setattr(trainings, "run_all", stop)
        assert call(*command).code == 143


def test_the_cells_of_a_comparison_are_trained_by_another_process(here, monkeypatch):
    begun(monkeypatch, *SHARED, "--run", "r")
    said = done("cell-worker", "--study", "sqlite:///cells.db").out
    assert "1 at a time" in said or "2 at a time" in said
    assert "netaug, seed 0: validation" in said and "no cell of" in said and "; about" not in said
    assert not (here / "r/result.json").exists() and len(results("r")) == 2
    assert "2 cells, 2 there already" in done("compare", "--resume", "--run", "r").out
    assert "r is finished already" in done("cell-worker", "--run", "r").out
    done(*COMPARE, "--run", "alone")
    assert results("r") == results("alone")
    assert {t.user_attrs["title"] for t in SharedStudy("sqlite:///cells.db").trials()} == {
        "baseline, seed 0", "netaug, seed 0",
    }  # fmt: skip


def test_a_cell_that_fails_elsewhere_is_told_where_the_run_is_led_and_tried_again(here, monkeypatch):
    begun(monkeypatch, *SHARED, "--run", "r")
    broken = next(path for path in (here / "r").rglob("base.json"))
    whole = broken.read_text()
    with monkeypatch.context() as patched:
        start = processes.start
        patched.setattr(processes, "start", lambda work, *rest: (broken.write_text("{"), start(work, *rest))[1])
        told = faulty(call("cell-worker", "--run", "r", "--jobs", "1"))
    assert "2 of the cells failed here: baseline, seed 0: " in told and "resume r to try them again" in told
    broken.write_text(whole)
    done("compare", "--resume", "--run", "r")
    assert len(results("r")) == 2
    assert json.loads((here / "r/comparison.json").read_text())["failed"] == []


def test_what_no_process_has_finished_is_a_failure(here, monkeypatch):
    monkeypatch.setattr(trainings, "run_all", lambda *_: [])  # as if lost with the processes they were given to
    told = faulty(call(*COMPARE, "--run", "r"))
    assert "no cell was finished; the first failed with: no process has finished it; try again with" in told


@pytest.mark.parametrize("of", ["compare", "search"])
def test_a_worker_that_is_stopped_tells_its_own_command_and_what_it_needs(empty_folder, monkeypatch, of):
    verb, (place, work) = {
        "compare": ("cell-worker", (comparison, "train_for")), "search": ("search-worker", (nas, "judge_for")),
    }[of]  # fmt: skip
    for name in ("r", "begun here", "my photos"):
        Path(name).mkdir()
    where = {"folder": str(Path("begun here").resolve())}
    kept = {"format": "nasaug-job/1", "verb": of, "where": where, "storage": "postgresql://me:***@server/s"}
    RunDir("r").job_file.write_text(json.dumps(kept))
    assert "r keeps no passwords: give --study postgresql://me:***@server/s with" in refused(verb, "--run", "r")
    RunDir("r").job_file.write_text(json.dumps(kept | {"storage": "sqlite:///cells.db"}))
    seen, photos = [], str(Path("my photos").resolve())
    monkeypatch.setattr(place, work, lambda run, kept, study, options, *_: (seen.append(options.data), stop()))
    told = call(verb, "--run", "r", "--data", "my photos", "--device", "cpu")
    assert told.err == f"stopped; go on with: nasaug {verb} --run r --data 'my photos' --device cpu\n"
    assert seen == [photos]


def test_cells_of_another_kind_of_device_are_not_left_aside_in_silence(here, monkeypatch):
    begun(monkeypatch, *SHARED, "--run", "r")
    with monkeypatch.context() as patched:
        patched.setattr(comparison, "placed", lambda cells, run: [replace(c, path=c.path / "other") for c in cells])
        assert "--run r has cells that this process would train differently, such as baseline-s0-" in (
            refused("cell-worker", "--run", "r")
        )
    (Path("r/cells/netaug-s0-of-a-gpu")).mkdir(parents=True)
    Path("r/cells/netaug-s0-of-a-gpu/job.json").touch()
    monkeypatch.setattr(trainings, "run_all", stop)
    said = call("compare", "--resume", "--run", "r").out
    assert "warning: 1 of the trainings in r/cells are none of these cells, such as netaug-s0-of-a-gpu" in said


def test_a_sweep_is_shared_too(laid_out, monkeypatch):
    command = ("sweep", *QUICK, "--arch", "mobilenetv2", "--sizes", "0.1M", "--policies", "0,9", "--seeds", "1")
    begun(monkeypatch, *command, "--run", "s", "--storage", "journal:cells.log")
    assert "no cell of" in done("cell-worker", "--run", "s").out
    assert "2 cells, 2 there already" in done("sweep", "--resume", "--run", "s").out


def test_what_is_refused(here, monkeypatch):
    assert "needs --run, the folder of a compare or sweep, or --study, its storage" in refused("cell-worker")
    assert "--jobs 0 must be at least 1" in refused("cell-worker", "--run", "r", "--jobs", "0")
    assert "is a run of search, not of compare or sweep" in refused("cell-worker", "--run", "runs/search-1")
    begun(monkeypatch, *COMPARE, "--run", "alone")
    assert "--run alone shares no storage; resume it alone, or begin" in refused("cell-worker", "--run", "alone")
    begun(monkeypatch, *SHARED, "--run", "r")
    assert "holds another run's study" in refused(*SHARED, "--run", "other")
    assert "was begun with --storage sqlite:" in refused("compare", "--resume", "--run", "r", "--storage", "journal:x")
    assert "is a run of compare, not of search" in refused("search-worker", "--run", "r")
    assert "holds another run's study" in refused(*SEARCH, "--storage", "sqlite:///cells.db")
    told = refused(*COMPARE, "--storage", "nodatabase://me:hidden-word@x/y")
    assert "hidden-word" not in told and "me:***@x" in told
