"""The states that a kill can leave on the disk, and whether a run that is resumed from them ends the same."""

import contextlib
import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch

from nasaug.core import tensorfile
from nasaug.nas.study import Search
from nasaug.rundirs.folder import RunDir
from support.commands import SEARCH, TRAIN, call, done, timeless


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


def resumed_from(verb: str, here: Path, states: Path, every: int) -> int:
    """How many runs of the verb were resumed, from every `every`-th state that a kill can leave in the working
    directory `here`. Asserts that each of them ends like the run that nothing interrupted."""
    command = SEARCH if verb == "search" else TRAIN
    if verb != "search":
        done(*SEARCH)
    with pytest.MonkeyPatch.context() as patched:
        with snapshots(patched, here, states) as taken:
            done(*command)
        expected, resumed = finished_run(here, verb), 0
        for state in taken[::every]:
            patched.chdir(state)
            run = Path("runs") / f"{verb}-1"
            cut_off_line(run / "log.jsonl")
            called = call(verb, "--resume", "--run", str(run))
            if not (run / "job.json").is_file():
                assert called.code == 2 and re.search("not a run that can be resumed|interrupted before", called.err)
                continue
            assert called.code == 0, (state, called.err)
            assert_same_run(finished_run(state, verb), expected)
            assert Path("found.json").read_bytes() == (here / "found.json").read_bytes()
            assert not list(Path().rglob("*.tmp")) and not list(Path().rglob("*.tmp.png"))
            resumed += 1
    return resumed


def cut_off_line(log: Path) -> None:
    """As if killed while writing another line."""
    if log.is_file():
        with open(log, "a") as file:
            file.write('{"time": 1.0, "event": "ep')
