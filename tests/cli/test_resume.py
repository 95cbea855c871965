"""--resume: what it continues, what it refuses, and what it leaves alone."""

import errno
import json
import os
import shlex
import shutil
import tomllib
from pathlib import Path

import pytest
import torch

from nasaug.core import tensorfile
from nasaug.kernels import build, choice
from nasaug.nas.finalists import PlayOff
from nasaug.nas.study import Search
from nasaug.training.loop import Trainer
from support.commands import (
    QUICK,
    SEARCH,
    TRAIN,
    call,
    done,
    faulty,
    lay_out,
    refused,
    stop,
    stop_in_the_second,
    timeless,
    tree,
)


@pytest.fixture(scope="module")
def stopped_runs(tmp_path_factory):
    """A folder with a search stopped while training its supernet, one stopped after that, and two trainings stopped
    half-way."""
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


def test_a_search_whose_finalists_were_begun_judges_no_more_candidates_unless_told_to(stopped_here, monkeypatch):
    long = ("search", *QUICK, "--mac-budget", "100k", "--trials", "500", "--run", "r")
    with monkeypatch.context() as patched:
        patched.setattr(PlayOff, "_train", stop)
        assert call(*long, "--timeout", "1s").code == 143
    before = json.loads(Path("r/finalists.json").read_text())
    assert 1 <= before["candidates"] < 500 and before["rounds"] == [{}]
    shutil.copytree("r", "more")
    done("search", "--resume", "--run", "r", "--timeout", "1s")  # the option that it was started with
    assert json.loads(Path("r/result.json").read_text())["candidates"] == before["candidates"]
    assert [len(each) for each in json.loads(Path("r/finalists.json").read_text())["rounds"]] == [2]
    more = before["candidates"] + 3
    done("search", "--resume", "--run", "more", "--timeout", "1h", "--trials", str(more))
    assert json.loads(Path("more/result.json").read_text())["candidates"] == more
    assert json.loads(Path("more/finalists.json").read_text())["candidates"] == more


def test_a_run_of_an_older_version_that_lacks_a_recipe_key_is_resumed(stopped_here):
    for run in ("runs/search-1", "runs/netaug-train-1"):
        recipe = Path(run, "recipe.toml")
        lines = recipe.read_text().splitlines(keepends=True)
        kept = [line for line in lines if not line.startswith(("every =", "share =", "finalists ="))]
        assert len(kept) < len(lines)
        recipe.write_text("".join(kept))
    assert "was begun with other settings: search.finalists" in refused(*SEARCH, "--resume")
    done("netaug-train", "--resume")


# --- what changes no result, and what is needed no more -----------------------------------------------------------

FEWER = ("--set", "data.workers=0", "--set", "data.keep_decoded=false")


def key(run, name):
    return tomllib.loads(Path(run, "recipe.toml").read_text())["data"][name]


@pytest.mark.parametrize("verb", ["train", "netaug-train", "search"])
def test_how_images_are_read_may_change_on_resume_and_stays(stopped_here, verb):
    run = f"runs/{verb}-1"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Trainer, "end_epoch", stop)
        assert call(verb, "--resume", *FEWER).code == 143
    assert (key(run, "workers"), key(run, "keep_decoded")) == (0, False)
    assert "epochs (begun with 2, asked 3)" in refused(verb, "--resume", *FEWER, "--set", "epochs=3")
    done(verb, "--resume")
    assert key(run, "workers") == 0


def test_a_stopped_training_that_was_moved_goes_on_without_its_supernet(stopped_here):
    shutil.copytree("runs/netaug-train-1", "copy")
    done("netaug-train", "--resume")
    for gone in ("whole", "found.json"):
        os.rename(gone, f"away {gone}")
    Path("else").mkdir()
    os.rename("copy", "else/my run")
    said = done("netaug-train", "--resume", "--run", "else/my run").out
    assert "resumed netaug-train at step 3 of 6" in said
    one, other = (tensorfile.read(Path(run, "model.safetensors")) for run in ("runs/netaug-train-1", "else/my run"))
    assert one[1] == other[1] and all(torch.equal(t, other[0][name]) for name, t in one[0].items())
    results = [json.loads(Path(run, "result.json").read_text()) for run in ("runs/netaug-train-1", "else/my run")]
    assert timeless(results[0]) == timeless(results[1]) and results[1]["init"] == "inherit"


def test_what_is_known_of_the_start_is_told_though_its_file_is_gone(stopped_here):
    other = ("--set", "data.split_seed=1", "--run", "r")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Trainer, "end_epoch", stop_in_the_second(Trainer.end_epoch))
        assert call(*TRAIN, *other).code == 143
    shutil.rmtree("whole")
    said = done("netaug-train", "--resume", "--run", "r").out
    assert "whole/start.safetensors had other validation images" in said
    assert tensorfile.facts("r/model.safetensors")["val_key"] == "several"


@pytest.mark.parametrize("remedy", ["restored", "fresh"])
def test_before_a_checkpoint_a_missing_supernet_is_asked_for_or_done_without(stopped_here, remedy):
    os.remove(CHECKPOINT)
    os.rename("whole", "away")
    said = refused("netaug-train", "--resume")
    assert "whole/start.safetensors that the arch file names is missing; restore it, or use --from-scratch" in said
    if remedy == "restored":
        os.rename("away", "whole")
        done("netaug-train", "--resume")
    else:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(Trainer, "end_epoch", stop_in_the_second(Trainer.end_epoch))
            assert call("netaug-train", "--resume", "--from-scratch").code == 143
        done("netaug-train", "--resume")  # remembered
    init = json.loads(Path("runs/netaug-train-1/result.json").read_text())["init"]
    assert init == {"restored": "inherit", "fresh": "scratch"}[remedy]


def test_once_there_is_a_checkpoint_fresh_weights_are_another_training(stopped_here):
    assert "init (begun with auto, asked scratch)" in refused("netaug-train", "--resume", "--from-scratch")


def test_a_teacher_that_was_moved_is_named_anew_and_another_is_not(stopped_here):
    shutil.copytree("whole", "teacher")
    done("train", *QUICK, "--method", "baseline", "--arch", "whole/found.json", "--run", "teaches")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Trainer, "end_epoch", stop_in_the_second(Trainer.end_epoch))
        assert call(*TRAIN, "--set", "teacher.source=teaches", "--run", "taught").code == 143
    os.rename("teaches", "moved")
    resumed = ("netaug-train", "--resume", "--run", "taught")
    assert "teacher.source = teaches: teaches does not exist" in refused(*resumed)
    done("train", *QUICK, "--method", "baseline", "--arch", "whole/found.json", "--seed", "1", "--run", "other")
    assert "teacher.source (begun with teaches, asked other)" in refused(*resumed, "--set", "teacher.source=other")
    done(*resumed, "--set", "teacher.source=moved")


def test_the_command_that_resumes_a_run_of_another_verb_can_be_pasted(stopped_here):
    os.rename("runs/netaug-train-1", "my run")
    said = refused("train", "--resume", "--run", "my run")
    done(*shlex.split(said.partition("resume it with: nasaug ")[2]))


# --- what is damaged ----------------------------------------------------------------------------------------------

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
    tensors, state = tensorfile.read(CHECKPOINT)
    for missing in ("history", "sums", "best_top1"):
        tensorfile.write(CHECKPOINT, tensors, {k: v for k, v in state.items() if k != missing})
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
    assert "interrupted before it started; remove it and start anew" in said


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
