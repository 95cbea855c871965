"""Initial weights of a training: those that its arch file names, on other classes only their trunk, or fresh ones."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from nasaug.arch import archfile
from nasaug.arch.channels import channel_groups
from nasaug.arch.cost import cost
from nasaug.nets.net import Net
from nasaug.nets.store import load_net
from nasaug.training import job as train
from support.commands import QUICK, SEARCH, TRAIN, done, refused

START = Path("runs/search-1/start.safetensors")
TRAINED = Path("runs/netaug-train-1")
AGAIN = ("--run", "again")


@pytest.fixture
def started(monkeypatch):
    """Copies of the initial nets of all trainings."""
    nets = []

    def noted(*args):
        net = start_net(*args)
        nets.append(net.narrow(net.plan))
        return net

    start_net = train.start_net
    monkeypatch.setattr(train, "start_net", noted)
    return nets


@pytest.fixture
def pruned(here):
    macs = cost(archfile.read(str(TRAINED / "arch.json")).plan).macs // 2
    done("prune", "--from", str(TRAINED), "--steps", "1", "--target-macs", str(macs), "--run", "pruned")
    return here


def result(run="again"):
    return json.loads(Path(run, "result.json").read_text())


def same_in(net, small, but=()):
    """Whether the slice of `net` has the small net's parameters, except in the layers `but`."""
    slice_ = dict(net.narrow(small.plan).named_parameters())
    mine = {name: p for name, p in small.named_parameters() if not name.startswith(but)}
    assert len(mine) > 5
    return all(torch.equal(p, slice_[name]) for name, p in mine.items())


# --- taken ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how",
    [("netaug-train",), ("train", "--method", "baseline"), ("train", "--method", "gradaug"),
     ("netaug-train", "--resolution", "20"), ("netaug-train", "--set", "init=inherit")],
    ids=" ".join,
)  # fmt: skip
def test_a_pruned_nets_training_starts_from_its_weights(pruned, started, how):
    said = done(*how, *QUICK, "--arch", "pruned/arch.json", *AGAIN).out
    model = Path("pruned/model.safetensors")
    assert f"weights: those of the net in {model}\n" in said and result()["init"] == "inherit"
    assert same_in(started[-1], load_net(model))
    assert (cost(started[-1].plan).macs > result()["macs"]) == (how[0] == "netaug-train")  # wider nets around it


def test_a_pruned_run_that_was_moved_has_its_weights_with_it(pruned, started):
    os.makedirs("else/where")
    os.rename("pruned", "else/where/mine")
    done(*TRAIN[:-1], "else/where/mine/arch.json", *AGAIN)
    assert same_in(started[-1], load_net(Path("else/where/mine/model.safetensors")))


def test_a_trained_net_goes_on_from_its_own_weights_and_a_training_of_that_one_from_its(here, started):
    done(*TRAIN[:-1], str(TRAINED / "arch.json"), *AGAIN)
    assert same_in(started[-1], load_net(TRAINED / "model.safetensors")) and result()["init"] == "inherit"
    done(*TRAIN[:-1], "again/arch.json", "--run", "third")
    assert same_in(started[-1], load_net(Path("again/model.safetensors")))
    assert not same_in(started[-1], load_net(TRAINED / "model.safetensors"))


@pytest.mark.parametrize("arch", ["found.json", str(TRAINED / "arch.json")])
def test_fresh_weights_are_those_of_the_seed_whatever_the_arch_file_names(here, started, arch):
    said = done("train", *QUICK, "--method", "baseline", "--arch", arch, "--from-scratch", "--seed", "5", *AGAIN).out
    fresh = Net(started[-1].plan, 5)
    fresh.start_as_identities()
    assert same_in(started[-1], fresh)
    assert "weights: fresh\n" in said and result()["init"] == "scratch"


def test_an_arch_that_names_no_weights_says_so(here):
    arch = json.loads(Path("found.json").read_text())
    bare = {key: value for key, value in arch.items() if key not in ("supernet", "weights")}
    Path("bare.json").write_text(json.dumps(bare))
    assert "weights: fresh\n" in done(*TRAIN[:-1], "bare.json", *AGAIN).out and result()["init"] == "scratch"
    assert "names no weights; leave it out, or give init=scratch" in refused(
        *TRAIN[:-1], "bare.json", "--set", "init=inherit"
    )
    done(*TRAIN[:-1], "bare.json", "--set", "init=scratch", "--run", "r")


# --- other classes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [(), ("--set", "netaug.ladder=factors"), ("--set", "init=inherit")], ids=" ".join)
def test_on_other_classes_a_found_net_starts_from_the_searchs_trunk(photos, started, how):
    said = done(*TRAIN, *photos, *how, *AGAIN).out
    fresh = "classifier: fresh weights, since the net has 10 classes and the data 3"
    assert f"weights: those of the net in {START}; {fresh}\n" in said
    assert (result()["init"], result()["classes"]) == ("inherit trunk", ["a", "b", "c"])
    base = load_net(Path("again/model.safetensors")).plan
    trunk = load_net(START).with_fresh_classifier(3, seed=0).narrow(base)
    assert same_in(started[-1], trunk)
    assert started[-1].get_parameter("classifier.weight").std() < 0.1  # fresh, from a narrow normal distribution


def test_as_many_classes_of_other_names_are_other_classes(photos, started):
    done("train", *QUICK, "--method", "baseline", "--arch", "found.json", *photos, "--run", "abc")
    for name in "abc":
        os.rename(f"photos/{name}", f"photos/{name.upper()}")
    said = done("train", *QUICK, "--method", "baseline", "--arch", "abc/arch.json", *photos, *AGAIN).out
    assert "classifier: fresh weights, since the classes of the net are a, b, c and those of the data A, B, C\n" in said
    assert result()["init"] == "inherit trunk"
    assert same_in(started[-1], load_net(Path("abc/model.safetensors")), but="classifier")
    assert not same_in(started[-1], load_net(Path("abc/model.safetensors")))


def test_a_supernet_that_tells_other_classes_apart_teaches_none(photos):
    taught = (*TRAIN, "--set", "teacher.source=supernet")
    said = refused(*taught, *photos)
    assert "teacher.source = supernet: the supernet has 10 classes and the data 3; give the folder of a run" in said
    done(*TRAIN, *photos, "--run", "abc")
    done(*TRAIN, *photos, "--set", "teacher.source=abc", *AGAIN)  # the remedy in the message
    done(*SEARCH, *photos, "--run", "mine")
    for name in "abc":
        os.rename(f"photos/{name}", f"photos/{name.upper()}")
    said = refused(*taught, *photos)
    assert "teacher.source = supernet was trained on the classes a, b, c, but photos has A, B, C; give a" in said


def test_a_pruned_nets_arch_has_no_supernet_to_teach(pruned):
    taught = (*TRAIN[:-1], "pruned/arch.json", "--set")
    assert "names no supernet; give a finished run's folder" in refused(*taught, "teacher.source=supernet")
    done(*taught, f"teacher.source={TRAINED}", *AGAIN)


# --- what is fresh beside them --------------------------------------------------------------------------------


@pytest.mark.parametrize("zero", [True, False])
def test_what_has_grown_around_weights_begins_as_nothing_where_fresh_blocks_do(pruned, started, zero):
    more = ("--set", "netaug.depth_more=[0, 1]", "--set", f"zero_init_residual={str(zero).lower()}")
    done(*TRAIN[:-1], "pruned/arch.json", *more, *AGAIN)
    net, small = started[-1], load_net(Path("pruned/model.safetensors"))
    assert same_in(net, small)
    added = [b for b in net.plan.blocks if b.shortcut == "identity" and b.layers[-1].name not in small.plan.by_name]
    scales = [net.get_parameter(f"{block.layers[-1].name}.norm.weight") for block in added]
    assert scales and all(bool(scale.any()) != zero for scale in scales)


def test_sorted_channels_are_no_other_net(here, started):
    """NetAug's sort reorders channels within a run's own file, which remains self-contained."""
    sort = ("--set", "netaug.sort=true", "--set", "netaug.ladder=factors", "--from-scratch")
    done(*TRAIN, *sort, "--run", "sorted")
    done(*TRAIN[:-1], "sorted/arch.json", *AGAIN)
    net, model = started[-1], load_net(Path("sorted/model.safetensors"))
    assert same_in(net, model)
    x = torch.rand(4, 3, model.plan.resolution, model.plan.resolution)
    group = next(iter(channel_groups(net.plan).values()))
    assert group.size > 1 and torch.allclose(net.train()(x, model.plan), net.narrow(model.plan).train()(x), atol=1e-5)


# --- a file that is gone --------------------------------------------------------------------------------------


def test_an_arch_file_taken_from_its_run_is_refused_with_what_helps(here):
    shutil.copy(TRAINED / "arch.json", "mine.json")
    said = refused(*TRAIN[:-1], "mine.json")
    assert "the model model.safetensors that the arch file names is missing; restore it, or use --from-scratch" in said
    done(*TRAIN[:-1], "mine.json", "--from-scratch", *AGAIN)
    shutil.copy(TRAINED / "model.safetensors", "model.safetensors")
    done(*TRAIN[:-1], "mine.json", "--run", "restored")
