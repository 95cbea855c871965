"""`list` and `runs`: what there is, by name and by run folder."""

import json
import shutil
from pathlib import Path

import pytest

from nasaug.arch import archfile
from nasaug.arch.archfile import ArchFile
from nasaug.arch.blocks import BLOCKS
from nasaug.arch.cost import cost
from nasaug.arch.plan import plan
from nasaug.arch.spacefile import load
from nasaug.cli.list import KINDS
from nasaug.core import files
from nasaug.rundirs.folder import RESULT_FORMAT, RunDir
from nasaug.training.recipe import default_recipe
from support.commands import call, done, lay_out, refused
from support.reports import summary_of


@pytest.mark.parametrize("kind", KINDS)
def test_every_name_is_listed_with_what_it_is(kind):
    rows = json.loads(done("list", kind, "--json").out)
    shown = done("list", kind).out.splitlines()
    assert len(shown) == len(rows) + 1 and [line.split()[0] for line in shown[1:]] == [row["name"] for row in rows]
    assert [row["name"] for row in rows if "" in row.values()] == []


def test_all_names_are_listed_together():
    shown = done("list").out
    assert [kind for kind in KINDS if f"{kind}: " not in shown] == [] and ", mobilenetv2-tiny, " in shown


def test_the_figures_of_architectures_are_those_of_their_plans():
    rows = {row["name"]: row for row in json.loads(done("list", "archs", "--json").out)}
    tiny = archfile.read("mobilenetv2-tiny").plan
    assert rows["mobilenetv2-tiny"] | {"name": "", "space": ""} == {
        "name": "", "space": "", "px": tiny.resolution, **cost(tiny).known
    }  # fmt: skip
    assert {default_recipe("digits"), "small"} <= {
        row["name"] for row in json.loads(done("list", "recipes", "--json").out)
    }


def test_a_kind_that_there_is_not_is_refused_with_the_others(empty_folder):
    assert "unknown kind of names 'arch'; did you mean archs" in refused("list", "arch")


def test_runs_are_listed_with_state_and_figures(empty_folder):
    assert done("runs").out == "no runs in runs\n" and "here is not a folder" in refused("runs", "here")
    lay_out(empty_folder)
    ArchFile(plan(load("tiny.toml", BLOCKS), load("tiny.toml", BLOCKS).smallest, 10), "tiny").save(Path("tiny.json"))
    trained = done("train", "--arch", "tiny.json", "--recipe", "quick.toml", "--data", "digits", "--method", "baseline")
    run = Path("runs/train-1")
    for name in ("stopped", "unbegun", "damaged"):
        shutil.copytree(run, f"runs/{name}", ignore=shutil.ignore_patterns("result.json"))
    Path("runs/unbegun/job.json").unlink()
    Path("runs/damaged/job.json").write_text("[")
    with RunDir.hold(Path("runs/stopped")):
        assert {row["path"]: row["state"] for row in json.loads(done("runs", "--json").out)} == {
            "runs/train-1": "finished", "runs/stopped": "running", "runs/unbegun": "never started",
            "runs/damaged": "damaged",
        }  # fmt: skip
    rows = {row["path"]: row for row in json.loads(done("runs", "runs", "--json").out)}
    assert rows["runs/stopped"]["state"] == "stopped" and "val_top1" in rows["runs/stopped"]["figures"]
    result = RunDir(run).result()
    assert (
        rows["runs/train-1"]["figures"]
        == f"baseline: test top-1 {result['test_top1']:.2f} % (validation {result['val_top1']:.2f} %)"
    )
    assert rows["runs/train-1"]["macs"] == result["macs"] and rows["runs/train-1"]["data"] == "digits"
    assert rows["runs/train-1"]["figures"].partition(": ")[2].split(" (")[0] in trained.out
    assert len(call("runs").out.splitlines()) == 5


def test_a_comparison_tells_its_seeds_and_intervals(empty_folder):
    """With too few seeds for an interval, each score."""
    for name, seeds in (("many", (0, 1, 2)), ("few", (0, 1))):
        summary = summary_of(empty_folder / "cells" / name, seeds, baseline=70.0, netaug=72.0)
        run = empty_folder / "runs" / name
        run.mkdir(parents=True)
        files.write_json(run / "job.json", {"format": "nasaug-job/1", "verb": "compare"})
        files.write_json(run / "comparison.json", summary | {"data": "digits"})
        files.write_json(run / "result.json", {"format": RESULT_FORMAT})
        means = {arm["arm"]: arm["test_top1"] for arm in summary["arms"]}
        if name == "many":
            shown = [f"{each['mean']:.2f} ± {each['half']:.2f} % {arm}" for arm, each in means.items()]
        else:
            shown = [f"{each['values'][0]:.2f}, {each['values'][1]:.2f} % {arm}" for arm, each in means.items()]
        (row,) = json.loads(done("runs", f"runs/{name}", "--json").out)
        assert row["figures"] == f"test top-1 over {len(seeds)} seeds: {', '.join(shown)}"
