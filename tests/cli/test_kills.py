"""Law 5 for whole commands: killed or stopped at any moment and resumed, they end bit-identical."""

import contextlib
import json
import os
import pty
import re
import shlex
import shutil
import signal
import time
from pathlib import Path
from random import Random

import pytest
import torch

from nasaug.core import tensorfile
from nasaug.core.signals import Stopped, deferred_stop
from nasaug.nas.study import Search
from nasaug.rundirs.folder import RunDir
from nasaug.training.begin import stopping
from support.commands import SEARCH, TRAIN, Child, call, done, lay_out, timeless, tree, wait_for

# --- a kill at any moment, in the state that it leaves on the disk ------------------------------------------


def finished_run(folder: Path, verb: str) -> dict:
    """The files of a finished run, without what differs between any two runs: times, and the study's own file."""
    run = folder / "runs" / f"{verb}-1"
    left = {path.name: path.read_bytes() for path in run.glob("*.safetensors")}
    for name in ("found.json", "arch.json", "candidates.json", "pareto.json", "result.json"):
        if (run / name).is_file():
            left[name] = timeless(json.loads((run / name).read_text()))
    log = [timeless(json.loads(line)) for line in (run / "log.jsonl").read_text().splitlines()]
    left["epochs"] = [event for event in log if event["event"] == "epoch"]
    left["candidates"] = [event for event in log if event["event"] == "candidate"]
    left["files"] = {path.name for path in run.iterdir() if path.is_file()}
    # a checkpoint also stores times
    left["checkpoint.safetensors"] = tensorfile.read(run / "checkpoint.safetensors")[0]
    return left


def assert_same_run(one: dict, other: dict) -> None:
    one, other = dict(one), dict(other)
    tensors, theirs = one.pop("checkpoint.safetensors"), other.pop("checkpoint.safetensors")
    assert tensors.keys() == theirs.keys() and all(torch.equal(t, theirs[n]) for n, t in tensors.items())
    # the study is authoritative: a candidate may be in it but not yet in the log; none appears twice
    logged, there = one.pop("candidates"), other.pop("candidates")
    assert logged == [event for event in there if event in logged]
    assert [name for name in one.keys() | other.keys() if one.get(name) != other.get(name)] == []


@contextlib.contextmanager
def snapshots(monkeypatch, folder: Path, to: Path):
    """Copies of `folder` before every change that becomes visible on disk; yields their list."""
    taken: list[Path] = []

    def snap() -> None:
        taken.append(shutil.copytree(folder, to / str(len(taken))))

    def around(original, before: bool):
        def instead(*args, **kwargs):
            if before:
                snap()
            result = original(*args, **kwargs)
            if not before:
                snap()
            return result

        return instead

    with monkeypatch.context() as patched:
        # a whole file beside the one whose place it takes
        patched.setattr(os, "replace", around(os.replace, before=True))
        patched.setattr(RunDir, "log", around(RunDir.log, before=False))
        patched.setattr(Search, "_trial", around(Search._trial, before=False))
        yield taken
    snap()


@pytest.mark.parametrize("verb", ["search", "netaug-train"])
def test_every_state_that_a_kill_can_leave_ends_the_same(laid_out, tmp_path_factory, monkeypatch, verb):
    command = SEARCH if verb == "search" else TRAIN
    if verb != "search":
        done(*SEARCH)
    with snapshots(monkeypatch, laid_out, tmp_path_factory.mktemp("states")) as taken:
        done(*command)
    expected, resumed = finished_run(laid_out, verb), 0
    for state in taken:
        monkeypatch.chdir(state)
        run = Path("runs") / f"{verb}-1"
        cut_off_line(run / "log.jsonl")
        called = call(verb, "--resume", "--run", str(run))
        if not (run / "job.json").is_file():
            assert called.code == 2 and re.search("not a run that can be resumed|interrupted before", called.err)
            continue
        assert called.code == 0, (state, called.err)
        assert_same_run(finished_run(state, verb), expected)
        assert Path("found.json").read_bytes() == (laid_out / "found.json").read_bytes()
        assert not list(Path().rglob("*.tmp")) and not list(Path().rglob("*.tmp.png"))
        resumed += 1
    assert resumed >= (15 if verb == "search" else 8)


def cut_off_line(log: Path) -> None:
    """As if killed while writing another line."""
    if log.is_file():
        with open(log, "a") as file:
            file.write('{"time": 1.0, "event": "ep')


# --- real signals, to a process ----------------------------------------------------------------------------

EACH = ("--set", "evaluate_every=1")  # a line of the log for every epoch
LONG_SEARCH = (*SEARCH, *EACH, "--set", "epochs=20", "--trials", "20")
LONG_TRAIN = (*TRAIN, *EACH, "--set", "epochs=40")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """A folder in which both commands ran to completion."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    lay_out(folder)
    for command in (LONG_SEARCH, LONG_TRAIN):
        ended = Child(folder, *command).end()
        assert ended.code == 0, ended.err
    return folder


@pytest.fixture
def begun(uninterrupted, tmp_path):
    """A folder in which a search has finished and no training has started."""
    folder = shutil.copytree(uninterrupted, tmp_path / "begun")
    shutil.rmtree(folder / "runs" / "netaug-train-1")
    return folder


@pytest.mark.parametrize(("verb", "events"), [("search", 40), ("netaug-train", 40)])
def test_killed_at_random_moments_and_resumed_it_ends_the_same(uninterrupted, begun, tmp_path, verb, events):
    folder, command = (tmp_path, LONG_SEARCH) if verb == "search" else (begun, LONG_TRAIN)
    lay_out(folder)
    rng = Random(f"kill/{verb}")
    for logged in sorted(rng.sample(range(1, events - 4), 4)):
        child = Child(folder, *command, save_every=0.0)
        wait_for(folder / "runs" / f"{verb}-1" / "log.jsonl", "\n", child, times=logged)
        time.sleep(rng.uniform(0, 0.05))
        child.signal(signal.SIGKILL)
        assert child.end().code == -signal.SIGKILL
        command = (verb, "--resume")
    ended = Child(folder, *command).end()
    assert ended.code == 0, ended.err
    assert_same_run(finished_run(folder, verb), finished_run(uninterrupted, verb))


SIGNALS = {
    "supernet, Ctrl-C": ("search", signal.SIGINT, "checkpoint.safetensors", "net"),
    "search, SIGTERM": ("search", signal.SIGTERM, "log.jsonl", "candidate"),
    "training, Ctrl-C": ("netaug-train", signal.SIGINT, "log.jsonl", '"epoch": 3'),
    "training, SIGTERM": ("netaug-train", signal.SIGTERM, "checkpoint.safetensors", "net"),
    "training, hang-up": ("netaug-train", signal.SIGHUP, "checkpoint.safetensors", "net"),
}


@pytest.mark.parametrize("case", SIGNALS)
def test_a_signal_ends_it_with_a_line_that_resumes_it(uninterrupted, begun, tmp_path, case):
    verb, number, file, said = SIGNALS[case]
    folder, command = (tmp_path, LONG_SEARCH) if verb == "search" else (begun, LONG_TRAIN)
    lay_out(folder)
    run = folder / "runs" / f"{verb}-1"
    child = Child(folder, *command)
    wait_for(run / file, said, child)
    child.signal(number)
    ended = child.end()
    assert ended.code == 128 + number, ended.err
    line = ended.err.splitlines()[-1]
    resume = f"python -m nasaug {verb} --resume --run runs/{verb}-1"
    assert line == f"stopped; go on with: {resume}" and "Traceback" not in ended.err
    assert (run / "checkpoint.safetensors").is_file() and not (run / "result.json").exists()
    resumed = Child(folder, *shlex.split(resume)[3:]).end()
    assert resumed.code == 0, resumed.err
    assert_same_run(finished_run(folder, verb), finished_run(uninterrupted, verb))


@pytest.mark.parametrize(
    ("where", "number"),
    [("nas.stages.announce", signal.SIGTERM), ("nas.stages.write_results", signal.SIGHUP),
     ("training.train.run_training", signal.SIGHUP)],
)  # fmt: skip
def test_a_signal_between_the_long_parts_ends_it_too(laid_out, monkeypatch, no_nohup, where, number):
    done(*SEARCH)
    verb, command = ("search", SEARCH) if where.startswith("nas") else ("netaug-train", TRAIN)
    with monkeypatch.context() as patched:
        patched.setattr(f"nasaug.{where}", lambda *args, **kwargs: os.kill(os.getpid(), number))
        called = call(*command, "--run", "my run")
    assert called.code == 128 + number
    assert f"stopped; go on with: python -m nasaug {verb} --resume --run 'my run'\n" in called.err
    done(verb, "--resume", "--run", "my run")


def test_a_signal_that_comes_last_is_not_forgotten():
    with pytest.raises(Stopped) as stopped:
        with deferred_stop():
            os.kill(os.getpid(), signal.SIGTERM)
    assert stopped.value.signum == signal.SIGTERM


def test_a_second_hang_up_cuts_no_saving_off(no_nohup):
    """The shell and the kernel may each send one."""
    saved = False
    with pytest.raises(Stopped, match="SIGTERM"):
        with deferred_stop():
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGHUP):
                os.kill(os.getpid(), number)
            saved = True
    assert saved


def test_under_nohup_a_hang_up_goes_unheard(tmp_path, no_nohup):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with stopping("train", RunDir(tmp_path)), deferred_stop():
        os.kill(os.getpid(), signal.SIGHUP)


@pytest.mark.parametrize("gone", ["a terminal", "a pipe"])
def test_last_words_to_a_reader_that_is_gone_are_no_fault(tmp_path, no_nohup, gone):
    reader, writer = pty.openpty() if gone == "a terminal" else os.pipe()
    kept = os.dup(2)
    os.dup2(writer, 2)
    os.close(writer)
    try:
        with pytest.raises(Stopped) as ended, stopping("train", RunDir(tmp_path)), deferred_stop():
            os.close(reader)
            os.kill(os.getpid(), signal.SIGHUP)
            os.write(2, b"step 5\n")
        os.write(2, b"the end\n")
    finally:
        os.dup2(kept, 2)
        os.close(kept)
    assert ended.value.signum == signal.SIGHUP and ended.value.run == tmp_path


def test_a_signal_before_the_run_has_begun_leaves_nothing(laid_out, monkeypatch):
    def ctrl_c(*args, **kwargs):
        raise KeyboardInterrupt

    before = tree()
    monkeypatch.setattr("nasaug.nas.stages.load_data", ctrl_c)
    called = call(*SEARCH)
    assert called.code == 130 and called.err == "nasaug: stopped before there was anything to save\n"
    assert tree() == before
