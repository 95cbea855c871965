"""Law 5: stopped anywhere and resumed, a run ends with the same weights, bit for bit, as an uninterrupted one."""

import contextlib
import errno
import json
import os
import shlex
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import torch
from tiny import QUICK, SEARCH, TRAIN, Child, call, done, lay_out, tree

from nasaug import checkpoint
from nasaug.archfile import ArchFile
from nasaug.engine import Trainer, fit, time_steps
from nasaug.methods import Base
from nasaug.net import Net
from nasaug.plan import BLOCKS, plan
from nasaug.recipe import load as load_recipe
from nasaug.rundir import RunDir
from nasaug.runtime import Pending, Stopped, deferred_stop, open_runtime
from nasaug.search import Search
from nasaug.settings import Recipe
from nasaug.spacefile import load
from nasaug.train import job_for, load_data, make_job, make_scorer, make_trainer, save_net

# --- at every step of a training -----------------------------------------------------------------------------------

METHODS = {
    "baseline": ("method=baseline",),
    "netaug, sorted": ("method=netaug", "netaug.ladder=factors"),
    "netaug, inherited": ("method=netaug", "init=inherit"),
    "sandwich": (),
}


@pytest.fixture
def laid_out(empty_folder):
    lay_out(empty_folder)
    return empty_folder


def trainers(name: str) -> Callable[[], Trainer]:
    """What makes a new trainer of 9 steps in 3 epochs, as the commands do."""
    recipe = load_recipe("quick.toml", Recipe, ("epochs=3", *METHODS[name]))
    space, runtime, data = load("tiny.toml", BLOCKS), open_runtime("cpu"), load_data(recipe, 12)
    scorer = make_scorer(recipe, data, runtime)
    largest, middle = plan(space, space.largest, 10), space.sample(Random("middle"))
    found = ArchFile(plan(space, middle, 10), "middle", space, middle)
    if name == "sandwich":
        base, method = Base(largest, space, space.largest), replace(recipe.sandwich, low=2e4, high=1e5)
        job = make_job(recipe, method, base, images=48, runtime=runtime)
    elif name == "netaug, inherited":
        save_net(Path("supernet"), Net(largest, seed=3))
        job = job_for(replace(found, supernet=Path("supernet")), recipe, runtime, 48)
    else:
        job = job_for(found, recipe, runtime, 48)
    return lambda: make_trainer(job, data, runtime, scorer, keep_best=name != "sandwich")


def train_on(trainer: Trainer, stop: int | None) -> bool:
    """Train to the end, or to `stop`, where a signal comes; whether it came to the end."""
    pending = Pending()

    def tick(t: Trainer) -> None:
        if t.step == stop:
            pending.signum = signal.SIGTERM

    try:
        fit(trainer, pending, save=lambda: trainer.save("c"), on_epoch=lambda row: None, tick=tick)
    except Stopped:
        assert trainer.step == stop
        return False
    return True


def timeless(value):
    """Figures without seconds, which no two runs share."""
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k not in ("seconds", "search_seconds", "time")}
    return [timeless(v) for v in value] if isinstance(value, list) else value


def assert_same(one: Trainer, other: Trainer) -> None:
    mine, theirs = one.tensors(), other.tensors()
    assert mine.keys() == theirs.keys()
    assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []
    assert timeless(one.state()) == timeless(other.state())


@pytest.mark.parametrize("name", METHODS)
def test_stopped_at_any_step_and_resumed_is_bit_for_bit_the_same(laid_out, name):
    new = trainers(name)
    whole = new()
    train_on(whole, None)
    for stops in ((4,), (6,), tuple(range(1, whole.length.steps))):  # within an epoch, at its end, after every step
        Path("c").unlink(missing_ok=True)
        for stop in (*stops, None):
            trainer = new()
            time_steps(trainer)  # which every command does before it goes on
            if stop != stops[0]:
                trainer.load("c")
            assert train_on(trainer, stop) == (stop is None)
        assert_same(whole, trainer)


def test_the_epochs_differ_so_that_the_test_above_can_fail(laid_out):
    """Weights, the sorted order and the best epoch change from epoch to epoch."""
    seen = []
    trainer = trainers("netaug, sorted")()
    for stop in (3, 6, None):
        train_on(trainer, stop)
        seen.append({name: t.clone() for name, t in trainer.tensors().items()})
    assert len({round(row["loss_base"], 6) for row in trainer.history}) == 3
    for one, two in zip(seen, seen[1:], strict=False):
        assert all(not torch.equal(one[n], two[n]) for n in one if n.endswith(".weight") and not n.startswith("best"))


# --- a kill at any moment, in the state that it leaves on the disk ---------------------------------------------------


def finished_run(folder: Path, verb: str) -> dict:
    """What a finished run leaves, without what differs between any two: times, and the study's own file."""
    run = folder / "runs" / f"{verb}-1"
    left = {path.name: path.read_bytes() for path in run.glob("*.safetensors")}
    for name in ("found.json", "arch.json", "candidates.json", "pareto.json", "result.json"):
        if (run / name).is_file():
            left[name] = timeless(json.loads((run / name).read_text()))
    log = [timeless(json.loads(line)) for line in (run / "log.jsonl").read_text().splitlines()]
    left["epochs"] = [event for event in log if event["event"] == "epoch"]
    left["candidates"] = [event for event in log if event["event"] == "candidate"]
    left["files"] = {path.name for path in run.iterdir() if path.is_file()}
    # a checkpoint holds the seconds too
    left["checkpoint.safetensors"] = checkpoint.read(run / "checkpoint.safetensors")[0]
    return left


def assert_same_run(one: dict, other: dict) -> None:
    one, other = dict(one), dict(other)
    tensors, theirs = one.pop("checkpoint.safetensors"), other.pop("checkpoint.safetensors")
    assert tensors.keys() == theirs.keys() and all(torch.equal(t, theirs[n]) for n, t in tensors.items())
    # the study is what counts: a candidate may be in it and not yet in the log, but none is there twice
    logged, there = one.pop("candidates"), other.pop("candidates")
    assert logged == [event for event in there if event in logged]
    assert [name for name in one.keys() | other.keys() if one.get(name) != other.get(name)] == []


@contextlib.contextmanager
def snapshots(monkeypatch, folder: Path, to: Path):
    """Copies of `folder` at each moment at which what is on the disk changes for good; yields their list."""
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
        patched.setattr(os, "replace", around(os.replace, before=True))  # a whole file beside the one it replaces
        patched.setattr(RunDir, "log", around(RunDir.log, before=False))
        patched.setattr(Search, "_trial", around(Search._trial, before=False))
        yield taken
    snap()


@pytest.mark.parametrize("verb", ["search", "netaug-train"])
def test_every_state_that_a_kill_can_leave_resumes_to_the_same_end(laid_out, tmp_path_factory, monkeypatch, verb):
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
            assert called.code == 2 and ("not a run to resume" in called.err or "cut off before" in called.err)
            continue
        assert called.code == 0, (state, called.err)
        assert_same_run(finished_run(state, verb), expected)
        assert Path("found.json").read_bytes() == (laid_out / "found.json").read_bytes()
        assert not list(Path().rglob("*.tmp")) and not list(Path().rglob("*.tmp.png"))
        resumed += 1
    assert resumed >= (15 if verb == "search" else 8)


def cut_off_line(log: Path) -> None:
    """As if the kill had come while another line was written."""
    if log.is_file():
        with open(log, "a") as file:
            file.write('{"time": 1.0, "event": "ep')


# --- real signals, to a process ---------------------------------------------------------------------------------------

LONG_SEARCH = (*SEARCH, "--set", "epochs=20", "--trials", "20")
LONG_TRAIN = (*TRAIN, "--set", "epochs=40")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """A folder in which both commands ran to their end, and the seconds that each took."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    lay_out(folder)
    seconds = {}
    for verb, command in (("search", LONG_SEARCH), ("netaug-train", LONG_TRAIN)):
        begun = time.monotonic()
        ended = Child(folder, *command).end()
        assert ended.code == 0, ended.err
        seconds[verb] = time.monotonic() - begun
    return folder, seconds


@pytest.fixture
def begun(uninterrupted, tmp_path):
    """A folder in which a search has ended and no training has begun."""
    folder = shutil.copytree(uninterrupted[0], tmp_path / "begun")
    shutil.rmtree(folder / "runs" / "netaug-train-1")
    return folder


@pytest.mark.parametrize("verb", ["search", "netaug-train"])
def test_killed_at_random_moments_and_resumed_it_ends_the_same(uninterrupted, begun, tmp_path, verb):
    folder, command = (tmp_path, LONG_SEARCH) if verb == "search" else (begun, LONG_TRAIN)
    lay_out(folder)
    rng, killed = Random(f"kill/{verb}"), 0
    for _ in range(4):
        child = Child(folder, *((verb, "--resume") if begun_in(folder, verb) else command), save_every=0.0)
        if child.running(rng.uniform(0.2, 0.8) * uninterrupted[1][verb]):
            child.signal(signal.SIGKILL)
        ended = child.end()
        assert ended.code in (0, -signal.SIGKILL), ended.err
        killed += ended.code != 0
        if ended.code == 0:
            break
        if not begun_in(folder, verb):
            shutil.rmtree(folder / "runs" / f"{verb}-1", ignore_errors=True)
    else:
        ended = Child(folder, *((verb, "--resume") if begun_in(folder, verb) else command)).end()
    assert ended.code == 0 and killed >= 1, ended.err
    assert_same_run(finished_run(folder, verb), finished_run(uninterrupted[0], verb))


def begun_in(folder: Path, verb: str) -> bool:
    return (folder / "runs" / f"{verb}-1" / "job.json").is_file()


def wait_for(path: Path, said: str, child: Child) -> None:
    """Until the file is there and holds the text."""
    while not (path.is_file() and said in path.read_text(errors="replace")):
        assert child.running(0.002), child.end().err


SIGNALS = {
    "supernet, Ctrl-C": ("search", signal.SIGINT, "checkpoint.safetensors", "net"),
    "search, SIGTERM": ("search", signal.SIGTERM, "log.jsonl", "candidate"),
    "training, Ctrl-C": ("netaug-train", signal.SIGINT, "log.jsonl", '"epoch": 3'),
    "training, SIGTERM": ("netaug-train", signal.SIGTERM, "checkpoint.safetensors", "net"),
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
    assert_same_run(finished_run(folder, verb), finished_run(uninterrupted[0], verb))


def test_a_signal_that_comes_last_is_not_forgotten():
    with pytest.raises(Stopped) as stopped:
        with deferred_stop():
            os.kill(os.getpid(), signal.SIGTERM)
    assert stopped.value.signum == signal.SIGTERM


def test_a_signal_before_the_run_has_begun_leaves_nothing(laid_out, monkeypatch):
    def ctrl_c(*args, **kwargs):
        raise KeyboardInterrupt

    before = tree()
    monkeypatch.setattr("nasaug.apps.search.load_data", ctrl_c)
    called = call(*SEARCH)
    assert called.code == 130 and called.err == "nasaug: stopped before anything was to be saved\n"
    assert tree() == before


# --- what resuming refuses, and what it leaves alone ------------------------------------------------------------------


@pytest.fixture(scope="module")
def stopped_runs(tmp_path_factory):
    """A folder with a search stopped in its supernet, one stopped after it, and a NetAug training, all half way."""
    folder = tmp_path_factory.mktemp("stopped")
    lay_out(folder)
    before = os.getcwd()
    os.chdir(folder)
    done(*SEARCH, "--run", "whole")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Search, "run", stop)
        assert call(*SEARCH, "--run", "searching").code == 143
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Trainer, "end_epoch", stop_after(Trainer.end_epoch, 2))
        assert call(*SEARCH).code == 143
        assert call(*TRAIN).code == 143
        assert call("train", *QUICK, "--method", "baseline", "--arch", "found.json").code == 143
    os.chdir(before)
    return folder


def stop(*args, **kwargs):
    raise Stopped(signal.SIGTERM)


def stop_after(original, step: int):
    """`end_epoch`, but stopped where the epoch that ends is not the first."""

    def instead(trainer):
        if len(trainer.history) == 1:
            stop()
        return original(trainer)

    return instead


@pytest.fixture
def stopped_here(stopped_runs, tmp_path, monkeypatch):
    monkeypatch.chdir(shutil.copytree(stopped_runs, tmp_path / "here"))


def refused(*args) -> str:
    """What a command says that is refused; nothing may have changed."""
    before = tree()
    called = call(*args)
    assert called.code == 2 and called.err.startswith("nasaug: ") and called.err.count("\n") == 1, called.err
    changed = {path for path, held in tree().items() if before.get(path) != held} ^ (before.keys() - tree().keys())
    assert {path for path in changed if not path.endswith(".lock")} == set()
    return called.err


def test_without_a_name_the_last_unfinished_run_of_the_verb_is_resumed(stopped_here):
    assert done("search", "--resume").out.count("resumed supernet at step 3 of 6") == 1
    assert done("netaug-train", "--resume").out.count("resumed netaug-train at step 3 of 6") == 1
    assert done("train", "--resume").out.count("resumed train at step 3 of 6") == 1
    for verb in ("search", "netaug-train", "train"):
        assert f"no unfinished run of {verb}" in refused(verb, "--resume")


def test_resuming_under_the_same_options_is_no_difference(stopped_here):
    done(*TRAIN, "--resume", "--seed", "0", "--data", "digits")
    done(*SEARCH, "--resume", "--trials", "4", "--timeout", "1h")


def test_a_finished_run_says_so_and_stays_as_it_is(stopped_here):
    done("netaug-train", "--resume")
    for verb, run in (("netaug-train", "runs/netaug-train-1"), ("search", "whole")):
        before = tree()
        assert "is finished already" in done(verb, "--resume", "--run", run).out
        after = tree()
        assert {p for p in after if after[p] != before.get(p)} <= {f"{run}/.lock"}


CHECKPOINT = Path("runs/netaug-train-1/checkpoint.safetensors")


def test_a_damaged_checkpoint_is_refused(stopped_here):
    whole = CHECKPOINT.read_bytes()
    CHECKPOINT.write_bytes(whole[:-100])
    assert f"{CHECKPOINT} is truncated" in refused("netaug-train", "--resume")
    CHECKPOINT.write_bytes(b"")
    assert f"{CHECKPOINT} is truncated" in refused("netaug-train", "--resume")


@pytest.mark.parametrize(
    "foreign",
    ["runs/train-1/checkpoint.safetensors", "runs/search-1/checkpoint.safetensors", "whole/supernet.safetensors"],
)
def test_another_runs_checkpoint_is_refused(stopped_here, foreign):
    shutil.copy(foreign, CHECKPOINT)
    assert str(CHECKPOINT) in refused("netaug-train", "--resume")


def test_a_checkpoint_without_part_of_its_state_is_refused(stopped_here):
    tensors, state = checkpoint.read(CHECKPOINT)
    for missing in ("history", "sums", "best_top1"):
        checkpoint.write(CHECKPOINT, tensors, {k: v for k, v in state.items() if k != missing})
        assert str(CHECKPOINT) in refused("netaug-train", "--resume")


def test_another_searchs_supernet_is_refused(stopped_here):
    done("train", *QUICK, "--method", "baseline", "--arch", "whole/found.json", "--run", "r")
    shutil.copy("r/model.safetensors", "searching/supernet.safetensors")
    said = refused("search", "--resume", "--run", "searching")
    assert "searching/supernet.safetensors is the supernet of another search" in said


def test_a_run_cut_off_before_it_began_is_refused_and_passed_over(stopped_here):
    os.remove("runs/netaug-train-1/job.json")
    assert "no unfinished run of netaug-train" in refused("netaug-train", "--resume")
    said = refused("netaug-train", "--resume", "--run", "runs/netaug-train-1")
    assert "cut off before it had begun; remove it and start anew" in said


def test_a_disk_that_fills_up_leaves_the_last_checkpoint_from_which_it_goes_on(stopped_here, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before, found = CHECKPOINT.read_bytes(), Path("found.json").read_bytes()
    for verb in ("netaug-train", "search"):
        with monkeypatch.context() as patched:
            # after the log was cleared of what a kill cut off
            patched.setattr(Trainer, "save", lambda trainer, path: save_full(trainer, path, patched, full))
            called = call(verb, "--resume")
        lines = called.err.splitlines()
        assert called.code == 1 and [x for x in lines if x.startswith("nasaug:")] == lines[-1:]
        assert "No space left on device; free some space" in lines[-1]
    assert CHECKPOINT.read_bytes() == before and Path("found.json").read_bytes() == found
    assert not list(Path().rglob("*.tmp"))
    done("netaug-train", "--resume")


def save_full(trainer, path, patched, full) -> None:
    patched.setattr(os, "fsync", full)
    checkpoint.write(path, trainer.tensors(), trainer.state())
