"""Reports on synthetic run folders."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from nasaug.cli.terminal import Terminal
from nasaug.comparison import report
from nasaug.core.errors import BadInput
from nasaug.core.progress import heard_by
from nasaug.reporting import page, wording
from support.reports import IMAGES, make_comparison, make_run, summary_of


def versus(summary):
    return {arm["arm"]: arm["versus"] for arm in summary["arms"]}


# --- reading ---


def test_what_a_run_holds(tmp_path):
    (run,) = report.read_runs([make_run(tmp_path / "a", 71.5, seed=3)])
    assert (run.arm, run.seed, run.test_score, run.macs) == ("baseline", 3, 71.5, 23_500_000)
    assert run.on_cpu and run.command == "nasaug train --seed 3" and [row["epoch"] for row in run.history] == [1, 2, 3]
    assert run.judged().sum() == 1430


def test_what_older_runs_do_not_hold(tmp_path):
    folder = make_run(tmp_path / "a", arm=..., train_top1=..., peak_memory=..., val=..., method="netaug", correct=False)
    (folder / "env.json").unlink()
    runs = report.read_runs([folder])
    assert (runs[0].arm, runs[0].train_score, runs[0].judged(), runs[0].history) == ("netaug", None, None, ())
    summary = report.summarise(runs)
    assert summary["arms"][0]["train_top1"] is summary["arms"][0]["peak_memory"] is None and summary["commands"] == []
    assert "train_top1" not in page.page(summary, runs)


def test_a_folder_of_runs_stands_for_the_finished_ones_below(tmp_path):
    make_comparison(tmp_path / "cells", range(2), a=70, b=71)
    (tmp_path / "cells" / "b-7").mkdir()
    (tmp_path / "cells" / "b-7" / "recipe.toml").write_text("seed = 7")
    (tmp_path / "search-1").mkdir()
    (tmp_path / "search-1" / "result.json").write_text('{"format": "nasaug-result/1", "found": "x"}')
    runs = report.read_runs([tmp_path, tmp_path / "cells" / "a-0"])  # named twice, read once
    assert [run.path.name for run in runs] == ["a-0", "a-1", "b-0", "b-1"]


@pytest.mark.parametrize(
    "prepare, said",
    [
        (lambda folder: None, "r is not the folder of a run"),
        (lambda folder: folder.mkdir(), "r holds no finished training run"),
        (lambda folder: (folder.mkdir(), (folder / "recipe.toml").touch()), "r is not finished .* resume"),
        (lambda folder: make_run(folder, test_top1=...), "no test score: no training run"),
        (lambda folder: make_run(folder, macs=...), "macs is None"),
        (lambda folder: make_run(folder, seed=True), "seed is True"),
        (lambda folder: make_run(folder, seconds=float("nan")), "seconds is nan"),
        (lambda folder: make_run(folder, data_key=7), "data_key is 7"),
        (lambda folder: make_run(folder, peak_memory="much"), "peak_memory is 'much'"),
    ],
)
def test_paths_that_hold_no_finished_run(tmp_path, prepare, said):
    prepare(tmp_path / "r")
    with pytest.raises(BadInput, match=said):
        report.read_runs([tmp_path / "r"])


def test_the_same_arm_and_seed_twice_is_refused(tmp_path):
    runs = report.read_runs([make_run(tmp_path / name, seed=4) for name in "ab"])
    with pytest.raises(BadInput, match="a and .*b are both baseline with seed 4"):
        report.summarise(runs)


def test_an_arm_on_several_networks_is_an_arm_for_each(tmp_path):
    paths = [make_run(tmp_path / name, arch=name) for name in ("small", "large")]
    assert [run.arm for run in report.read_runs(paths)] == ["baseline, small", "baseline, large"]


@pytest.mark.parametrize(
    "changed, said",
    [
        ({"data_key": "f" * 16, "data": "cifar10"}, r"a and .*b .*fashion-mnist \(0123456789abcdef\) and cifar10"),
        ({"images": 1000}, "a and .*b .*tested on 2000 and 1000 images"),
    ],
)
def test_runs_that_cannot_be_compared(tmp_path, changed, said):
    runs = report.read_runs([make_run(tmp_path / "a"), make_run(tmp_path / "b", arm="netaug", **changed)])
    with pytest.raises(BadInput, match=said):
        report.summarise(runs)
    with pytest.raises(BadInput, match="no finished run"):
        report.summarise([])


@pytest.mark.parametrize("broken", ["other", "short", "wrong", "torn"])
def test_per_image_results_that_are_not_of_the_run(tmp_path, broken):
    folder = make_run(tmp_path / "a", correct=False)
    right = np.ones(3 if broken == "short" else IMAGES, np.uint8)  # all right, unlike the result's 70 %
    save_file({"other" if broken == "other" else "correct": right}, folder / "test.safetensors")
    if broken == "torn":
        (folder / "test.safetensors").write_bytes(b"\xff" * 20)
    (run,) = report.read_runs([folder])
    with pytest.raises(BadInput, match="test.safetensors"):
        run.judged()


# --- figures ---


def test_figures_of_an_arm(tmp_path):
    top1 = [70, 71, 72]
    paths = [make_run(tmp_path / str(i), t, seed=i, seconds=3600 * (i + 1)) for i, t in enumerate(top1)]
    (arm,) = report.summarise(report.read_runs(paths))["arms"]
    assert arm["n"] == 3 and arm["seeds"] == [0, 1, 2] and arm["versus"] is None
    assert arm["test_top1"]["mean"] == pytest.approx(71)
    assert arm["test_top1"]["half"] == pytest.approx(4.302653 / 3**0.5, rel=1e-5)  # t table: 2 degrees, 95 %
    assert arm["val_top1"]["mean"] == pytest.approx(72) and arm["train_top1"]["mean"] == pytest.approx(75)
    assert arm["seconds"] == 7200 and arm["train_macs"] == 3e12
    assert arm["cost"] == {"runs": 3, "cpu_hours": 6, "gpu_hours": 0, "hours": 6, "train_macs": 9e12}


def test_better_worse_and_no_difference(tmp_path):
    found = versus(summary_of(tmp_path, baseline=70, up=73, down=67, same=70))
    assert {arm: v and v["verdict"] for arm, v in found.items()} == {
        "baseline": None, "up": "better", "down": "worse", "same": "no difference shown",
    }  # fmt: skip
    for v in (found["up"], found["down"], found["same"]):
        assert v["low"] < v["difference"] < v["high"] and (v["p"] < v["p_holm"] or v["p_holm"] in (v["p"], 1))


def test_under_five_seeds_there_is_no_verdict(tmp_path):
    found = versus(summary_of(tmp_path, range(4), baseline=50, up=90))
    assert found["up"]["p_holm"] < 0.001 and found["up"]["verdict"] == "not enough seeds"
    assert wording.p_value(found["up"]) == "-"


def test_more_comparisons_widen_the_intervals(tmp_path):
    one = summary_of(tmp_path / "1", baseline=70, up=70.6)
    many = summary_of(tmp_path / "2", baseline=70, up=70.6, b=70, c=70, d=70)
    assert (one["comparisons"], many["comparisons"]) == (1, 4)
    one, many = versus(one)["up"], versus(many)["up"]
    assert many["p"] == one["p"] == one["p_holm"] < many["p_holm"]
    assert many["high"] - many["low"] > 1.3 * (one["high"] - one["low"])


def test_only_seeds_in_common_are_compared(tmp_path):
    runs = report.read_runs([*make_comparison(tmp_path / "a", range(6), base=70),
                             *make_comparison(tmp_path / "b", range(2, 9), other=71),
                             make_run(tmp_path / "c", seed=99, arm="alone")])  # fmt: skip
    summary = report.summarise(runs)
    found = versus(summary)
    assert summary["reference"] == "base" and summary["seeds"] == [*range(9), 99]
    assert found["other"]["seeds"] == [2, 3, 4, 5] == [b["seed"] for b in found["other"]["bootstrap"]]
    top1 = {(run.arm, run.seed): run.test_score for run in runs}
    by_hand = np.mean([top1["other", seed] - top1["base", seed] for seed in (2, 3, 4, 5)])
    assert found["other"]["difference"] == pytest.approx(by_hand) and found["other"]["verdict"] == "not enough seeds"
    assert found["alone"]["n"] == 0 and found["alone"]["difference"] is None and summary["comparisons"] == 1
    assert "alone" in wording.table(summary) and "alone" in page.page(summary, runs)


def test_the_reference(tmp_path):
    runs = report.read_runs(make_comparison(tmp_path, range(2), a=70, baseline=70, b=71))
    assert report.summarise(runs)["reference"] == "baseline"
    assert report.summarise(runs[:2])["reference"] == "a"
    assert report.summarise(runs, "b")["arms"][0]["versus"]["difference"] < 0
    with pytest.raises(BadInput, match="unknown reference arm 'basline'; did you mean baseline"):
        report.summarise(runs, "basline")


def test_the_bootstrap_of_each_seed(tmp_path):
    paths = [make_run(tmp_path / "a", 70), make_run(tmp_path / "b", 73, arm="up"),
             make_run(tmp_path / "c", 73, arm="unkept", correct=False)]  # fmt: skip
    found = versus(report.summarise(report.read_runs(paths)))
    (seed,) = found["up"]["bootstrap"]
    assert seed["difference"] == pytest.approx(3) and 2 < seed["low"] < 3 < seed["high"] < 4
    assert found["unkept"]["bootstrap"] == []


def test_effect_per_percent_of_compute(tmp_path):
    arms = {"baseline": (70, 1e12), "more": (72, 1.5e12), "less": (69, 0.8e12), "equal": (71, 1.004e12)}
    paths = [make_run(tmp_path / arm, top1, arm=arm, train_macs=macs) for arm, (top1, macs) in arms.items()]
    found = versus(report.summarise(report.read_runs(paths)))
    assert found["more"]["per_percent"] == pytest.approx(2 / 50)
    assert found["less"]["per_percent"] == pytest.approx(1 / 20)  # points lost for each 1 % saved
    assert found["equal"]["per_percent"] is None and found["equal"]["compute"] == pytest.approx(1.004)
    matched = report.summarise(report.read_runs(paths), match="compute")["arms"]
    assert all(arm["versus"]["per_percent"] is None for arm in matched if arm["versus"])


def test_hours_on_processors_and_accelerators(tmp_path):
    devices = [("a", "CPU, 1 thread", 1800), ("b", "NVIDIA H100 80GB HBM3", 5400)]
    paths = [make_run(tmp_path / arm, arm=arm, device=device, seconds=s) for arm, device, s in devices]
    cost = report.summarise(report.read_runs(paths))["cost"]
    assert cost == {"runs": 2, "cpu_hours": 0.5, "gpu_hours": 1.5, "hours": 2, "train_macs": 6e12}


# --- what is written ---


def test_written_files(tmp_path):
    runs = report.read_runs(make_comparison(tmp_path / "cells", range(2), baseline=70, up=71))
    failed = [{"arm": "up", "seed": 5, "error": "diverged"}]
    facts = {"failed": failed, "commands": ["nasaug compare x"], "epochs": 3}
    summary = report.summarise(runs, match="epochs", facts=facts)
    assert report.write(tmp_path, summary, runs) == tmp_path / "comparison.html"
    again = json.loads((tmp_path / "comparison.json").read_text())
    assert again == summary and again["format"] == "nasaug-comparison/1" and again["facts"] == {"epochs": 3}
    assert (again["failed"], again["commands"], again["match"]) == (failed, ["nasaug compare x"], "epochs")
    rows = list(csv.DictReader((tmp_path / "comparison.csv").open()))
    assert [row["arm"] + row["seed"] for row in rows] == ["baseline0", "baseline1", "up0", "up1"]
    assert [float(row["test_top1"]) for row in rows] == [run.test_score for run in runs]
    report.write(tmp_path / "cells", summary, runs)
    name = "comparison.html"
    assert (tmp_path / name).read_bytes() == (tmp_path / "cells" / name).read_bytes()


def test_the_command(empty_folder, capsys):
    make_comparison(empty_folder / "cells", range(2), a=70, b=71)
    with heard_by(Terminal()):
        summary = report.report([Path("cells")])
    out = capsys.readouterr().out.splitlines()
    assert out[-1] == "page: report.html" and out[:-1] == wording.table(summary).splitlines()
    assert sorted(path.name for path in empty_folder.glob("report.*")) == ["report.csv", "report.html", "report.json"]


@pytest.mark.parametrize("finished", [True, False])
def test_a_comparison_is_a_run_with_its_cells_below(tmp_path, finished):
    make_comparison(tmp_path / "cells", range(2), a=70, b=71)
    (tmp_path / "recipe.toml").touch()
    if finished:
        (tmp_path / "result.json").write_text('{"format": "nasaug-result/1", "cells": 4}')
    assert len(report.read_runs([tmp_path])) == 4


def test_the_command_keeps_what_a_comparison_told_of_itself(empty_folder, capsys):
    runs = report.read_runs(make_comparison(empty_folder / "c" / "cells", range(2), a=70, b=71))
    told = {"failed": [{"arm": "b", "seed": 2, "error": "no memory"}], "commands": ["nasaug compare"], "note": "x"}
    summary = report.summarise(runs[::-1], "b", "compute", told)
    report.write(empty_folder / "c", summary, runs)
    with heard_by(Terminal()):
        assert report.report([Path("c")], Path("again.html")) == summary
    assert "failed: b, seed 2: no memory" in capsys.readouterr().out


@pytest.mark.parametrize(
    "paths, out, said",
    [
        (["a"], "report.json", "out report.json: give the path of a page"),
        ([], None, "report needs run folders"),
        (["a"], "none/report.html", "create its folder first"),
        (["a", "b"], None, "different data"),
    ],
)
def test_the_command_refuses(empty_folder, paths, out, said):
    make_run(empty_folder / "a")
    make_run(empty_folder / "b", data_key="other")
    with pytest.raises(BadInput, match=said):
        report.report([Path(path) for path in paths], out and Path(out))
    assert not list(empty_folder.glob("report.*"))


def test_reading_reports_loads_nothing_slow():
    slow = ["torch", "scipy", "matplotlib", "pydantic", "jinja2", "rich"]
    modules = "nasaug.comparison.report, nasaug.reporting.page"
    code = f"import {modules}, sys; print(*(m for m in {slow} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
