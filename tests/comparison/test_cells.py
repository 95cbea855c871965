"""The cells of a comparison: parsing of arms, their settings and files, and the estimate of their time."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
import torch

import nasaug
from nasaug.arch import archfile
from nasaug.comparison import arguments, cells, compare, sweep, trainings
from nasaug.core.errors import BadInput
from nasaug.core.signals import Stopped
from nasaug.data import DataConfig, Record
from nasaug.methods import METHODS, Baseline
from nasaug.rundirs.job import kept_as
from nasaug.rundirs.result import Length
from nasaug.training.recipe import Recipe


def test_commas_between_arms_are_told_from_those_within(empty_folder):
    Path("mine.toml").write_text("lr = 0.01")
    lines = {
        "baseline, netaug": ["baseline", "netaug"],
        "netaug:share=0.5,sort=false,mixup": ["netaug:share=0.5,sort=false", "mixup"],
        "netaug:width_factors=[1.0,2.0],share=0.5,baseline": ["netaug:width_factors=[1.0,2.0],share=0.5", "baseline"],
        "mine.toml,mine.toml+mixup": ["mine.toml", "mine.toml+mixup"],
        "netaug:sort=false+mixup:mixup=0.4,ema:ema=0.5": ["netaug:sort=false+mixup:mixup=0.4", "ema:ema=0.5"],
    }
    for line, arms in lines.items():
        assert arguments.arms_of(line) == arms
    with pytest.raises(BadInput, match="names 'mixup' twice"):
        arguments.arms_of("mixup,baseline,mixup")


def test_arms_with_long_names_or_names_alike_get_file_names_of_their_own():
    """All other names are unchanged, so that existing cells are still found."""
    assert cells.plain_name("netaug:sort=false+distill:source=runs/x") == "netaug_sort=false_distill_source=runs_x"
    assert cells.folder_name("a" * 60, 1, "0123456789abcdef") == f"{'a' * 60}-s1-01234567"
    one, other = f"distill:source={'x' * 60}/1", f"distill:source={'x' * 60}/2"
    assert len({cells.plain_name(arm) for arm in (one, other, one[:60])}) == 3
    assert len(cells.plain_name(one + other)) < 70
    alike = ["netaug+x.toml", "netaug_x.toml"]
    assert len({cells.plain_name(arm, alike) for arm in alike}) == 2
    assert cells.plain_name(alike[0], [alike[0], "baseline"]) == "netaug_x.toml"


def test_a_cells_key_tells_a_pruned_net_from_its_like():
    found = archfile.read("mobilenetv2-tiny")
    pruned = [replace(found, facts={"pruned": share}) for share in (0.0, 0.5, 0.6)]
    data = SimpleNamespace(record=Record("digits", ("0", "1")))
    keys = [cells.key_of(net, "", Recipe(), data) for net in (found, *pruned)]
    assert keys[0] == keys[1] and len(set(keys)) == 3


def test_a_cells_key_is_of_what_its_training_reads():
    """A new default of `search` does not begin every comparison anew."""
    found, data = archfile.read("mobilenetv2-tiny"), SimpleNamespace(record=Record("digits", ("0", "1")))
    usual = Recipe()
    recipes = (
        usual, replace(usual, search=replace(usual.search, finalists=24)),
        replace(usual, sandwich=replace(usual.sandwich, samples=5)), replace(usual, lr=0.3),
    )  # fmt: skip
    keys = [cells.key_of(found, "", recipe, data) for recipe in recipes]
    assert keys[0] == keys[1] == keys[2] != keys[3]


def test_several_values_from_python_are_what_the_command_line_takes(empty_folder, monkeypatch):
    asked = []
    for module in (compare, sweep):
        monkeypatch.setattr(module, "create_or_resume", asked.append)
    nasaug.sweep(policies=[0, 4.5, "0:9"], sizes=[1_000_000, Path("a.json")], methods=["netaug"])
    nasaug.sweep(policies="0,4")
    nasaug.compare("found.json", methods=[Path("mine.toml"), "mixup"])
    assert [(job.sizes, job.policies, job.methods) for job in asked[:2]] == [
        ("1000000,a.json", "0,4.5,0:9", "netaug"), (None, "0,4", None),
    ]  # fmt: skip
    nasaug.compare("found.json", lengths=[10, "30"])
    assert asked[2].methods == "mine.toml,mixup" and asked[2].lengths is None and asked[3].lengths == "10,30"


def test_a_setting_is_read_from_the_job_files_of_older_versions():
    """These lacked keys; keys of later versions are left aside."""
    kept = {"format": "nasaug-job/1", "verb": "sweep", "arch": "mcunet", "set": ["epochs=1"], "nets": ["a.json"]}
    setting = kept_as(sweep.SweepSetting, kept | {"cells": None, "recipe": None, "data": "digits"})
    assert setting == sweep.SweepSetting(arch="mcunet", set=["epochs=1"], nets=["a.json"], data="digits")
    assert (setting.pruner, setting.seeds, setting.curves, setting.nets_data) == ("none", 3, {}, None)
    assert kept_as(sweep.SweepSetting, asdict(setting)) == setting
    begun = {"arms": ["baseline"], "seeds": 2, "match": "compute", "from_scratch": True}
    assert kept_as(compare.CompareSetting, begun) == compare.CompareSetting(**begun, arch_data=None)


def test_the_keys_of_job_json_are_those_that_runs_have():
    common = {"seeds", "cells", "set", "recipe", "data", "storage"}
    assert asdict(compare.CompareSetting(arms=[])).keys() == common | {
        "arms", "match", "from_scratch", "arch_data", "lengths", "data_fraction", "shots",
    }  # fmt: skip
    assert asdict(sweep.SweepSetting()).keys() == common | {
        "arch", "sizes", "policies", "methods", "resolution", "pruner", "nets_data", "curves", "nets",
    }  # fmt: skip


@pytest.fixture
def timed(monkeypatch):
    """The seconds that `estimate` tells for a cell whose own training takes 5 s, with this action in between."""
    found = archfile.read("mobilenetv2-tiny")
    monkeypatch.setattr(trainings.archfile, "read", lambda path: found)
    monkeypatch.setattr(trainings, "read_data", lambda *_: SimpleNamespace(train=[]))
    monkeypatch.setattr(trainings, "job_for", lambda *_: None)
    monkeypatch.setattr(trainings, "start_of", lambda *_: (None, "weights: fresh"))
    cell = cells.Cell("baseline", 0, Recipe(), Path("base.json"), Path("cells/a"))

    def estimate(during, jobs=2):
        monkeypatch.setattr(trainings, "_arm_seconds", lambda *_: during() or 5.0)
        longer = replace(cell, length=Length("epochs", 20), path=Path("cells/b"))
        told = trainings.estimate([replace(cell, length=Length("epochs", 10)), longer], None, jobs, cells.Sets())
        assert told[longer.path] - told[cell.path] == 5.0  # twice as long, without a second start
        return told[cell.path]

    return estimate


def test_the_start_of_a_process_is_no_hours_in_a_session_that_has_worked_for_hours(timed, monkeypatch):
    for worked, seconds in ((2.0, 7.0), (7200.0, 15.0)):
        monkeypatch.setattr(trainings.time, "process_time", lambda worked=worked: worked)
        assert timed(lambda: None) == seconds


@pytest.mark.parametrize(("stop", "times"), [("epochs", 20.0), ("macs", 1.0), ("seconds", 1.0)])
def test_more_images_take_longer_only_if_the_epochs_are_given(stop, times):
    sets, lot = cells.Sets(), []
    for share, images in ((0.05, 100), (1.0, 2000)):
        recipe = Recipe(stop=stop, epochs=3, batch=10, train_macs=1e9, data=DataConfig(fraction=share))
        sets.read[repr(recipe.data)] = SimpleNamespace(train=range(images))
        lot.append(cells.Cell("baseline", 0, recipe, Path("base.json"), Path("cells/a"), Length("fraction", share)))
    assert trainings._times(lot[1], lot, sets) == times


def test_torch_has_its_threads_again_after_an_estimate_that_was_stopped(timed):
    def stopped():
        assert torch.get_num_threads() == 1
        raise Stopped(15)

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with pytest.raises(Stopped):
            timed(stopped)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("module", ["__main__", "mine.methods"])
@pytest.mark.parametrize("function", [nasaug.compare, nasaug.sweep])
def test_a_method_that_the_cells_processes_do_not_know_is_refused(empty_folder, monkeypatch, module, function):
    own = dataclass(frozen=True)(type("Own", (Baseline,), {"__module__": module}))
    monkeypatch.setitem(METHODS, "own", own)
    arch = {} if function is nasaug.sweep else {"arch": "mobilenetv2-tiny"}
    given = {"methods": "own", "seeds": 1, "data": "digits", "device": "cpu", **arch}
    monkeypatch.setenv("NASAUG_IMPORT", "other, another.mine")
    told = "a script.*put it into a module.*=MODULE" if module == "__main__" else "mine.methods.*=mine.methods"
    with pytest.raises(BadInput, match=f"method = own is registered in {told}") as refused:
        function(**given)
    assert refused.value.field == "method" and not Path("runs").exists()
    if module != "__main__":
        monkeypatch.setenv("NASAUG_IMPORT", "other, mine")
        monkeypatch.setattr("nasaug.training.begin.RunDir.create", mock.Mock(side_effect=InterruptedError))
        with pytest.raises(InterruptedError):
            function(**given)
