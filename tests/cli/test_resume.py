"""--resume: what it goes on with, what it refuses, and what it leaves alone."""

import errno
import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from tiny import QUICK, SEARCH, TRAIN, call, done, faulty, lay_out, refused, tree

from nasaug import checkpoint
from nasaug.apps.finalists import PlayOff
from nasaug.engine import Trainer
from nasaug.kernels import build, choice
from nasaug.search import Search
from nasaug.stops import Stopped


@pytest.fixture(scope="module")
def stopped_runs(tmp_path_factory):
    """A folder with a search stopped in its supernet, one stopped after it, and two trainings, half way."""
    folder = tmp_path_factory.mktemp("stopped")
    lay_out(folder)
    before = os.getcwd()
    os.chdir(folder)
    done(*SEARCH, "--run", "whole")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Search, "run", stop)
        assert call(*SEARCH, "--run", "searching").code == 143
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Trainer, "end_epoch", stop_in_the_second(Trainer.end_epoch))
        assert call(*SEARCH).code == 143
        assert call(*TRAIN).code == 143
        assert call("train", *QUICK, "--method", "baseline", "--arch", "found.json").code == 143
    os.chdir(before)
    return folder


def stop(*args, **kwargs):
    raise Stopped(signal.SIGTERM)


def stop_in_the_second(end_epoch):
    return lambda trainer: stop() if trainer.history else end_epoch(trainer)


@pytest.fixture
def stopped_here(stopped_runs, tmp_path, monkeypatch):
    monkeypatch.chdir(shutil.copytree(stopped_runs, tmp_path / "here"))


def test_without_a_name_the_last_unfinished_run_of_the_verb_is_resumed(stopped_here):
    assert done("search", "--resume").out.count("resumed supernet at step 3 of 6") == 1
    assert done("netaug-train", "--resume").out.count("resumed netaug-train at step 3 of 6") == 1
    assert done("train", "--resume").out.count("resumed train at step 3 of 6") == 1
    for verb in ("search", "netaug-train", "train"):
        assert f"no unfinished run of {verb}" in refused(verb, "--resume")


def test_resuming_under_the_same_options_is_no_difference(stopped_here):
    done(*TRAIN, "--resume", "--seed", "0", "--data", "digits")
    done(*SEARCH, "--resume", "--trials", "4", "--timeout", "1h")


def test_a_run_goes_on_with_the_kernels_that_it_was_begun_with(stopped_here):
    path = Path("runs/train-1/env.json")
    env = json.loads(path.read_text())
    assert env["kernels"]["threads"] == torch.get_num_threads() and "compiled" in env["kernels"]
    env["kernels"]["compiled"] = []
    path.write_text(json.dumps(env))
    said = done("train", "--resume", "--run", "runs/train-1", "--profile").out
    assert build.library() is None or f"; by torch: {', '.join(choice.KINDS)}" in said
    assert "the machine differs" not in said
    env["kernels"]["unit"] = "another"
    Path("runs/netaug-train-1/env.json").write_text(json.dumps(env))
    assert "the machine differs (kernels for another then" in done("netaug-train", "--resume").out


def test_a_finished_run_says_so_and_stays_as_it_is(stopped_here):
    done("netaug-train", "--resume")
    for verb, run in (("netaug-train", "runs/netaug-train-1"), ("search", "whole")):
        before = tree()
        assert "is finished already" in done(verb, "--resume", "--run", run).out
        after = tree()
        assert {p for p in after if after[p] != before.get(p)} <= {f"{run}/.lock"}


def test_a_search_whose_finalists_were_begun_judges_no_more_candidates(stopped_here, monkeypatch):
    """Not with more time either: the finalists would be others."""
    long = ("search", *QUICK, "--mac-budget", "100k", "--trials", "500", "--run", "r")
    with monkeypatch.context() as patched:
        patched.setattr(PlayOff, "_train", stop)
        assert call(*long, "--timeout", "0.3s").code == 143
    before = json.loads(Path("r/finalists.json").read_text())
    assert 1 <= before["candidates"] < 500 and before["top1"] == {}
    done("search", "--resume", "--run", "r", "--timeout", "1h")
    assert json.loads(Path("r/result.json").read_text())["candidates"] == before["candidates"]
    assert len(json.loads(Path("r/finalists.json").read_text())["top1"]) == 2


def test_a_run_of_an_older_version_that_lacks_a_recipe_key_is_resumed(stopped_here):
    for run in ("runs/search-1", "runs/netaug-train-1"):
        recipe = Path(run, "recipe.toml")
        lines = recipe.read_text().splitlines(keepends=True)
        kept = [line for line in lines if not line.startswith(("every =", "share =", "finalists ="))]
        assert len(kept) < len(lines)
        recipe.write_text("".join(kept))
    assert "was begun with other settings: search.finalists" in refused(*SEARCH, "--resume")
    done("netaug-train", "--resume")


CHECKPOINT = Path("runs/netaug-train-1/checkpoint.safetensors")


def test_a_damaged_checkpoint_is_refused(stopped_here):
    whole = CHECKPOINT.read_bytes()
    CHECKPOINT.write_bytes(whole[:-100])
    assert f"{CHECKPOINT} is truncated" in refused("netaug-train", "--resume")
    CHECKPOINT.write_bytes(b"")
    assert f"{CHECKPOINT} is truncated" in refused("netaug-train", "--resume")


@pytest.mark.parametrize("foreign", ["runs/train-1/checkpoint", "runs/search-1/checkpoint", "whole/supernet"])
def test_another_runs_checkpoint_is_refused(stopped_here, foreign):
    shutil.copy(f"{foreign}.safetensors", CHECKPOINT)
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


def full_disk(descriptor):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("verb", ["search", "netaug-train"])
def test_a_disk_that_fills_up_leaves_the_last_checkpoint_to_go_on_from(stopped_here, monkeypatch, verb):
    path = Path(f"runs/{verb}-1/checkpoint.safetensors")
    before, found = path.read_bytes(), Path("found.json").read_bytes()
    save = Trainer.save
    with monkeypatch.context() as patched:

        def fill_up_and_save(trainer, path):
            patched.setattr(os, "fsync", full_disk)
            save(trainer, path)

        patched.setattr(Trainer, "save", fill_up_and_save)
        assert "No space left on device; free some space" in faulty(call(verb, "--resume"))
    assert path.read_bytes() == before and Path("found.json").read_bytes() == found
    assert not list(Path().rglob("*.tmp"))
    done(verb, "--resume")
