"""`verify`: a run that is run again gives the same bits, and a difference is found and explained."""

import json
import shutil
from pathlib import Path

import torch

from nasaug.core import tensorfile
from support.commands import SEARCH, TRAIN, call, done, faulty, refused, tree


def test_runs_give_the_same_again_and_leave_everything_as_it_is(here):
    done(*TRAIN, "--run", "t")
    before = tree()
    for run in ("t", "runs/search-1"):
        said = done("verify", run).out.splitlines()[-1]
        assert said.startswith(f"{run} gives the same result again, bit for bit") and "result.json" in said
    told = json.loads(done("verify", "t", "--json").out)
    assert (told["run"], told["same"], told["differing"]) == ("t", True, []) and "model.safetensors" in told["compared"]
    assert tree() == before


def test_a_changed_weight_and_another_environment_are_found(here):
    done(*TRAIN, "--run", "t")
    path = Path("t/model.safetensors")
    tensors, state = tensorfile.read(path)
    name = next(name for name, t in tensors.items() if t.dtype == torch.float32)
    tensors[name].view(-1)[0] += 1e-6
    tensorfile.write(path, tensors, state)
    assert "t gives another result now, in model.safetensors; no difference" in faulty(call("verify", "t"))
    env = json.loads(Path("t/env.json").read_text())
    assert env["processor"] and env["kernels"]["threads"]
    env["versions"]["torch"] = "1.0"
    Path("t/env.json").write_text(json.dumps(env))
    assert "in model.safetensors; torch 1.0, now " in faulty(call("verify", "t"))


def test_what_cannot_be_verified_is_refused(here):
    assert "nowhere holds no finished run" in refused("verify", "nowhere")
    done(*TRAIN, "--run", "timed", "--set", "stop=seconds", "--set", "max_seconds=0.3")
    assert "was limited by seconds" in refused("verify", "timed")
    done(*SEARCH, "--timeout", "1h", "--run", "s")
    assert "was limited by a timeout" in refused("verify", "s")
    shutil.copytree("timed", "other")
    job = json.loads(Path("other/job.json").read_text())
    Path("other/job.json").write_text(json.dumps(job | {"verb": "prune"}))
    assert "is a run of prune" in refused("verify", "other")
    shutil.copytree("runs/netaug-train-1", "together")
    env = json.loads(Path("together/env.json").read_text())
    Path("together/env.json").write_text(json.dumps(env | {"ranks": 2}))
    assert "was run by several processes" in refused("verify", "together")
    Path("together/env.json").write_text(json.dumps(env | {"joined": True}))
    assert "was judged by other processes too" in refused("verify", "together")
