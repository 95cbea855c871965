"""Law 5 for whole commands: killed or stopped at any moment and resumed, they end bit-identical."""

import os
import pty
import shlex
import shutil
import signal
import time
from random import Random

import pytest

from nasaug.core.signals import Stopped, deferred_stop
from nasaug.rundirs.folder import RunDir
from nasaug.training.begin import stopping
from support.commands import SEARCH, TRAIN, Child, call, done, lay_out, tree, wait_for
from support.killed import assert_same_run, finished_run, resumed_from

# --- a kill at any moment, in the state that it leaves on the disk ------------------------------------------


@pytest.mark.parametrize(("verb", "every", "least"), [("search", 3, 15), ("netaug-train", 1, 8)])
def test_states_that_a_kill_can_leave_end_the_same(laid_out, tmp_path_factory, verb, every, least):
    """tests/full/test_killed_searches.py takes all states of a search."""
    assert resumed_from(verb, laid_out, tmp_path_factory.mktemp("states"), every) >= least


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
    resume = f"nasaug {verb} --resume --run runs/{verb}-1"
    assert line == f"stopped; go on with: {resume}" and "Traceback" not in ended.err
    assert (run / "checkpoint.safetensors").is_file() and not (run / "result.json").exists()
    resumed = Child(folder, *shlex.split(resume)[1:]).end()
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
    assert f"stopped; go on with: nasaug {verb} --resume --run 'my run'\n" in called.err
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
