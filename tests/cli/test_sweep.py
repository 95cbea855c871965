"""`sweep`: a grid of sizes and magnitudes, its table, curve and pictures; what it refuses; how it resumes."""

import json
import math
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from nasaug.arch import archfile
from nasaug.arch.cost import cost
from nasaug.cli.terminal import Terminal
from nasaug.comparison import cells, pruners, sweep, trainings
from nasaug.comparison import sweep_results as swept
from nasaug.config.schedule import Constant, Curve, Linear, Schedule
from nasaug.core.progress import heard_by
from nasaug.pool import processes
from nasaug.pool.processes import Watch
from nasaug.tasks import Classify
from nasaug.training.recipe import Recipe
from support.commands import QUICK, call, done, lay_out, refused
from support.forked import FORKING

RUN, METRIC = Path("runs/sweep-1"), Classify.metric
SWEEP = ("sweep", *QUICK, "--arch", "mobilenetv2", "--sizes", "0.02M,0.1M", "--set", "epochs=1", "--jobs", "2")
ONE_SIZE = ("sweep", *QUICK, "--sizes", "0.02M", "--policies", "0,9,14", "--jobs", "2")


@pytest.fixture(scope="module")
def once_swept(tmp_path_factory):
    """A folder with a finished sweep, and its output."""
    folder = tmp_path_factory.mktemp("swept")
    lay_out(folder)
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        patched.setattr(processes, "subprocess", FORKING)
        return folder, done(*SWEEP, "--policies", "0,9,0:9", "--seeds", "2").out


@pytest.fixture
def finished(once_swept, tmp_path, monkeypatch):
    """A copy of it as the working directory."""
    monkeypatch.chdir(shutil.copytree(once_swept[0], tmp_path / "swept"))
    return once_swept[1]


def test_a_sweep_shows_the_grid_and_keeps_its_figures_curve_and_pictures(finished):
    assert "2 sizes x 3 policies x 1 methods x 2 seeds: 12 cells, 0 there already" in finished
    told = json.loads((RUN / "sweep.json").read_text())
    assert [row["size"] for row in told["rows"]] == ["mobilenetv2-0.02M", "mobilenetv2-0.1M"]
    for row in told["rows"]:
        assert list(row["policies"]) == ["0", "9", "0:9"]
        best = max(row["policies"].values(), key=lambda cell: cell["val_top1"]["mean"])
        assert row["policies"][row["best"]["policy"]]["val_top1"]["mean"] == best["val_top1"]["mean"]
        net = archfile.read(str(RUN / "sizes" / f"{row['size']}.json"))
        asked = float(row["size"].rpartition("-")[2].rstrip("M")) * 1e6
        assert row["macs"] == cost(net.plan).macs and abs(row["macs"] - asked) <= 0.1 * asked
    assert (RUN / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert len((RUN / "sweep.csv").read_text().splitlines()) == 13
    curve = Schedule.parse(str(RUN / "curve-baseline.json"))
    assert isinstance(curve, Curve) and curve.data_key == told["data_key"]
    again = done("sweep", "--resume", "--run", str(RUN))
    assert "is finished" in again.out or "12 there already" in again.out
    printed = json.loads(done("sweep", "--resume", "--run", str(RUN), "--json").out)
    told = json.loads((RUN / "sweep.json").read_text())
    assert printed == {"run": str(RUN.resolve()), **told} and told["command"].startswith("nasaug sweep --resume")
    assert "digits  12 trainings: 2 sizes x 1 method" in done("runs").out


def test_resuming_may_change_how_images_are_read(finished):
    os.remove(RUN / "result.json")
    assert "12 there already" in done("sweep", "--resume", "--set", "data.workers=0").out


def test_a_sweep_of_an_older_version_goes_on_though_its_job_lacks_keys(finished):
    job = json.loads((RUN / "job.json").read_text())
    for key in ("pruner", "nets_data", "curves"):
        del job[key]
    (RUN / "job.json").write_text(json.dumps(job))
    assert "12 there already" in done("sweep", "--resume", "--run", str(RUN), "--pruner", "none").out
    assert "with --pruner none, not median" in refused("sweep", "--resume", "--run", str(RUN), "--pruner", "median")


def test_it_says_that_it_leaves_the_weights_of_its_nets_aside(laid_out, monkeypatch):
    done("search", *QUICK, "--mac-budget", "100k")
    caught = []
    monkeypatch.setattr(sweep.SweepJob, "carry_out", lambda job, run, ready: caught.extend(ready.nets))
    monkeypatch.setattr(sweep.SweepJob, "result", lambda *_: None)
    said = done("sweep", *QUICK, "--sizes", "found.json", "--policies", "0", "--seeds", "1").out
    assert re.search(r"fresh weights, as all nets of a sweep have; those in \S*start.safetensors are left", said)
    assert [net.start for net in caught] == [None]


def test_a_report_finds_the_trainings_of_a_sweep_that_lie_elsewhere(finished):
    RUN.joinpath("cells").rename("cells")
    assert "12 there already" in done(*SWEEP, "--policies", "0,9,0:9", "--seeds", "2", "--cells", "cells").out
    done("report", "runs/sweep-2")
    assert [arm["n"] for arm in json.loads(Path("report.json").read_text())["arms"]] == [2] * 6
    shutil.rmtree("cells")
    assert "the trainings of runs/sweep-2 are gone, " in refused("report", "runs/sweep-2")


def test_a_cell_is_trained_at_its_magnitude_and_at_0_without_a_policy(laid_out, monkeypatch):
    caught = []
    monkeypatch.setattr(sweep.SweepJob, "carry_out", lambda _, run, r: caught.extend(cells.placed(r.cells, run)))
    monkeypatch.setattr(sweep.SweepJob, "result", lambda *_: None)
    line = {"intercept": -7.0, "slope": 3.0, "low": 0.0, "high": 30.0, "data": "d", "data_key": "k"}
    Path("by-size.json").write_text(json.dumps({"format": "nasaug-curve/1", **line}))
    done(*SWEEP, "--policies", "0,9,0:9,by-size.json", "--methods", "baseline,netaug", "--seeds", "1")
    views = {(cell.arch.stem, cell.arm): cell.recipe.views["train"] for cell in caught}
    assert len(views) == len(caught) == 2 * 2 * 4
    assert views["mobilenetv2-0.1M", "netaug@0"].policy == "none"
    assert views["mobilenetv2-0.1M", "netaug@9"].magnitude == Constant(9.0)
    assert views["mobilenetv2-0.1M", "baseline@0:9"].magnitude == Linear(0.0, 9.0)
    small, large = (views[f"mobilenetv2-{size}M", "baseline@by-size.json"].magnitude.value for size in ("0.02", "0.1"))
    assert 5 < small < large < 9
    assert {cell.recipe.method for cell in caught} == {"baseline", "netaug"}


def test_a_curve_that_is_there_is_found_and_told_from_a_constant():
    def row(macs, best):
        policies = {}
        for magnitude in (0, 4, 9, 14):
            values = [50.0 - abs(magnitude - best), 51.0 - abs(magnitude - best)]
            policies[str(magnitude)] = {"seeds": [0, 1], "val_top1": {"values": values}}
        return {"macs": macs, "policies": policies}

    curve = swept.fit([row(1e5, 0), row(3e5, 4), row(1e6, 9), row(3e6, 14)], METRIC)
    assert "not enough seeds (5) to tell it from a constant" in swept.verdict(curve)  # two
    assert "it differs from a constant" in swept.verdict(curve | {"seeds": 5})
    assert curve["distinct"] and 8 < curve["slope"] < 11 and curve["p"] < 1e-3
    flat = swept.fit([row(1e5, 4), row(3e5, 9), row(1e6, 9), row(3e6, 4)], METRIC)
    assert "cannot be told from" in swept.verdict(flat | {"seeds": 5})
    assert not flat["distinct"] and abs(flat["slope"]) < 1
    alike = swept.fit([row(1e5, 9), row(3e5, 9), row(1e6, 9)], METRIC)
    assert not alike["distinct"] and (alike["slope"], alike["intercept"], alike["low"], alike["high"]) == (0, 9, 9, 9)
    assert all(math.isfinite(alike[key]) for key in ("p", "slope_half", "constant"))
    rows = [row(1e5, 0), row(3e5, 4), row(1e6, 9)]
    for cell in rows[0]["policies"].values():
        cell["seeds"], cell["val_top1"]["values"] = [0], cell["val_top1"]["values"][:1]
    assert swept.fit(rows, METRIC)["seeds"] == 1  # the seeds that all sizes have
    assert swept.fit([row(1e5, 4)], METRIC) is None


def test_a_constant_is_one_however_it_is_written_and_a_tie_goes_to_the_lowest():
    assert swept.constants(["9", "+4", "1e1", "0:0", "9:9", "0:9", "x.json"]) == {
        "9": 9.0, "+4": 4.0, "1e1": 10.0, "0:0": 0.0, "9:9": 9.0,
    }  # fmt: skip

    def row(macs, top1s):
        cells = {p: {"seeds": [0, 1], "val_top1": {"values": [top1, top1]}} for p, top1 in top1s.items()}
        return {"macs": macs, "policies": cells}

    both = [row(macs, {"4": 55.0, "1e1": 60.0, "0.0": 50.0}) for macs in (1e5, 1e6)]
    assert swept.fit(both, METRIC)["constant"] == 10.0
    for order in (("9", "4", "0"), ("0", "4", "9")):
        assert swept.fit([row(macs, dict.fromkeys(order, 50.0)) for macs in (1e5, 1e6)], METRIC)["constant"] == 0.0


def test_the_best_policy_is_judged_and_compared_by_the_seeds_that_are_shared():
    def cell(seeds, val, test):
        told = {"val_top1": val, "test_top1": test}
        return {"seeds": seeds, **{k: {"values": v, "mean": sum(v) / len(v)} for k, v in told.items()}}

    four, nine = cell([0, 1, 2], [50, 61, 51], [40.0, 42.0, 47.0]), cell([1], [60], [50.0])
    plain = cell([0, 1, 2], [40, 40, 40], [39.0, 39.0, 39.0])
    best = swept._best({"9": nine, "4": four, "0.0": plain}, METRIC)
    assert best["policy"] == "4"
    over = best["over_none"]
    assert over["difference"] == 4.0
    half = 4.302653 * math.sqrt(13) / math.sqrt(3)  # t with two degrees of freedom; differences 1, 3 and 8
    assert (over["low"], over["high"]) == pytest.approx((4 - half, 4 + half), abs=1e-4)
    assert "over_none" not in swept._best({"9": nine, "0": plain}, METRIC)  # one seed in common
    assert swept._shown({"policies": {"9": nine, "4": four}, "best": best}, "9", METRIC) == "60.00 (1)"


def test_names_of_arch_files_that_are_no_names_of_files_are_made_such(laid_out):
    sizes = []
    for i, name in enumerate(("", "mine/net")):
        replace(archfile.read("mobilenetv2-tiny", resolution=8 + 2 * i, classes=10), name=name).save(f"{i}.json")
        sizes.append(f"{i}.json")
    setting = sweep.SweepSetting(sizes=",".join(sizes))
    recipe = Recipe(data=replace(Recipe().data, name="digits"))
    assert [net.name for net in sweep.nets_of(setting, recipe)] == ["net", "mine_net"]


def test_cells_of_other_images_are_told_apart(finished):
    (cell,) = RUN.glob("cells/mobilenetv2-0.1M_baseline_9-s1-*/result.json")
    cell.write_text(json.dumps(json.loads(cell.read_text()) | {"data_key": "another"}))
    called = call("sweep", "--resume", "--run", str(RUN))
    assert called.code == 2 and re.search("has other images of digits than .* remove the older", called.err)


def test_a_curve_must_stay_as_it_was_when_the_sweep_began(laid_out, monkeypatch):
    monkeypatch.setattr(sweep.SweepJob, "carry_out", lambda *given: None)
    monkeypatch.setattr(sweep.SweepJob, "result", lambda *_: None)
    line = {"intercept": 9.0, "slope": 0.0, "low": 9.0, "high": 9.0, "data": "d", "data_key": "k"}
    Path("by-size.json").write_text(json.dumps({"format": "nasaug-curve/1", **line}))
    done(*SWEEP, "--policies", "0,by-size.json")
    done("sweep", "--resume", "--run", str(RUN))
    Path("by-size.json").write_text(json.dumps({"format": "nasaug-curve/1", **line, "low": 8.0}))
    assert "by-size.json is another than when" in refused("sweep", "--resume", "--run", str(RUN))


OTHERS = {
    "--arch mcunet": "with --arch mobilenetv2, not mcunet; leave it out to go on, or start", "--seeds 3": "2, not 3",
    "--resolution 16": "with --resolution none, not 16", "--cells elsewhere": "with --cells none, not .*elsewhere",
    "--pruner median": "with --pruner none, not median", "--sizes 1M": "with --sizes 0.02M,0.1M, not 1M",
    "--policies 0": "with --policies 0,9,0:9, not 0", "--data cifar10": "with --data none, not cifar10",
    "--methods netaug": "with --methods baseline, not netaug", "--set lr=0.2": "with --set epochs=1, not lr=0.2",
    "--recipe small": "with --recipe quick.toml, not small", "--profile": "give it for a single training",
}  # fmt: skip


def test_resuming_under_other_options_is_refused_and_the_option_named(finished):
    for line, said in OTHERS.items():
        assert re.search(said, refused("sweep", "--resume", "--run", str(RUN), *line.split())), line
    given = ("--arch", "mobilenetv2", "--data", "digits", "--pruner", "none")
    assert "12 there already" in done("sweep", "--resume", "--run", str(RUN), *given).out
    Path("quick.toml").write_text(Path("quick.toml").read_text().replace("batch = 16", "batch = 8"))
    assert "batch (begun with 16, asked 8)" in refused("sweep", "--resume", "--run", str(RUN))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--policies 31", "0 to 30"), ("--policies strong", "0 to 30"), ("--policies 4,4", "each once"),
        ("--policies 4,4.0", "each once"), ("--policies 9:9,9", "each once"),
        ("--policies 1:2:3", "0 to 30"), ("--policies none.json", "cannot read"), ("--seeds 0", "--seeds 0"),
        ("--sizes 900M", "give that by --sizes, or another --arch"), ("--sizes 1", "size 1: no width of"),
        ("--sizes x", "--sizes: 'x'"),
        ("--sizes 0.1M,0.1M", "each once"), ("--methods nothing", "unknown arm"), ("--jobs 0", "--jobs 0"),
        ("--seed 3", "say how many with --seeds"), ("--profile", "give it for a single training"),
        ("--pruner medain", "unknown --pruner 'medain'; did you mean median? choices: halving, median, none, wilcoxon"),
        ("--cells quick.toml", "--cells quick.toml is not a folder"),
        ("--methods trivialaugment", "trivialaugment@0: a magnitude is RandAugment's"),
        ("--set views.train.policy=augmix", "has policy augmix: leave one out"),
        ("--methods baseline,aug-rising", "--methods aug-rising: the training view has magnitude {'kind': 'linear'"),
        ("--methods randaugment:magnitude=5", "magnitude 5.0, and a sweep's policies set it"),
        ("--methods netaug,baseline,randaugment", "baseline and randaugment are the same training at magnitude 0"),
        ("--methods difficulty-drive:source=x", "its teacher decides on the magnitude; use compare"),
        ("--methods baseline,fewer.toml", "--methods fewer.toml: it changes the data; do that for all"),
        ("--sizes 0.1M,100k", "--sizes 100k: that is the same net as mobilenetv2-0.1M"),
        ("--sizes tiny.json,again/tiny.json", "two nets are named tiny"), ("--policies a@b/c.json", "has no @"),
        ("--pruner median --policies 0,9", "when 2 others have ended, and this sweep has 2; give more by --policies"),
        ("--sizes tiny.json", "--arch mobilenetv2: all --sizes are arch files"),
        ("--policies 0,high.json", "baseline@high.json: magnitude = 31 reaches 31"),
    ],
)  # fmt: skip
def test_what_no_sweep_can_be_is_refused_before_anything_is_written(laid_out, words, said):
    Path("fewer.toml").write_text("data.train_images = 40")
    Path("again").mkdir()
    for path, px in (("tiny.json", 8), ("again/tiny.json", 12)):
        replace(archfile.read("mobilenetv2-tiny", resolution=px, classes=10), name="tiny").save(path)
    line = {"intercept": 31.0, "slope": 0.0, "low": 31.0, "high": 31.0, "data": "", "data_key": ""}
    Path("high.json").write_text(json.dumps({"format": "nasaug-curve/1", **line}))
    assert said in refused("sweep", *QUICK, "--arch", "mobilenetv2", *words.split())


class Ending(Watch):
    """Ends a cell, chosen by its arm, once it has logged an epoch, and others that are waiting."""

    def __init__(self, *arms):
        self.arms, self.told = arms, []

    def hopeless(self, cell):
        begun = cell.arm == self.arms[-1] or pruners.epochs_of(cell)
        return "of no use" if cell.arm in self.arms and begun else None

    def ended(self, cell):
        self.told.append(cell.arm)


def test_a_hopeless_cell_is_ended_with_its_checkpoint_saved_and_is_no_failure(laid_out, monkeypatch, capsys):
    caught = []
    monkeypatch.setattr(processes, "subprocess", FORKING)
    monkeypatch.setattr(sweep.SweepJob, "carry_out", lambda _, run, r: caught.extend(cells.placed(r.cells, run)))
    monkeypatch.setattr(sweep.SweepJob, "result", lambda *_: None)
    done(*ONE_SIZE, "--seeds", "1")
    made = [caught[0], replace(caught[1], recipe=replace(caught[1].recipe, epochs=20000)), caught[2]]
    watch = Ending("baseline@9", "baseline@14")
    works = [trainings.work_of(cell, "cpu", 1.0) for cell in made]
    with heard_by(Terminal()):
        assert processes.run_all(works, 2, {}, watch) == []
    assert sorted(watch.told) == ["baseline@0", "baseline@9"] and [cell.finished for cell in made] == [
        True,
        False,
        False,
    ]
    assert (made[1].path / "checkpoint.safetensors").exists() and not made[2].path.exists()
    said = capsys.readouterr().out
    assert "baseline@9, seed 0: of no use" in said and "baseline@14, seed 0: left out; of no use" in said


def test_policies_that_are_alike_for_a_net_are_one_training(laid_out, monkeypatch):
    start, started = processes.start, []
    monkeypatch.setattr(processes, "subprocess", FORKING)
    monkeypatch.setattr(processes, "start", lambda *args: started.append(args[0].about.arm) or start(*args))
    line = {"intercept": 9.0, "slope": 0.0, "low": 9.0, "high": 9.0, "data": "d", "data_key": "k"}
    Path("nine.json").write_text(json.dumps({"format": "nasaug-curve/1", **line}))
    assert "2 cells, 0 there already" in done(*SWEEP, "--policies", "9,nine.json", "--seeds", "1").out
    assert started == ["baseline@9"] * 2  # sizes
    for row in json.loads((RUN / "sweep.json").read_text())["rows"]:
        assert row["policies"]["9"] == row["policies"]["nine.json"]


def test_a_sweep_prunes_leaves_out_the_other_seeds_and_keeps_to_it(laid_out, monkeypatch):
    """A policy that is behind when the sweep resumes."""
    monkeypatch.setattr(processes, "subprocess", FORKING)
    with monkeypatch.context() as patched:
        patched.setattr(pruners, "RIVALS", 9)
        done(*ONE_SIZE, "--set", "epochs=4", "--seeds", "2", "--pruner", "median")
    for seed in (0, 1):
        (cut,) = RUN.glob(f"cells/*_14-s{seed}-*/result.json")
        if seed:
            shutil.rmtree(cut.parent)
            continue
        cut.unlink()
        lines = [json.loads(line) for line in (cut.parent / "log.jsonl").read_text().splitlines()]
        behind = [row | {"val_top1": 0.0} for row in lines if row["event"] == "epoch"][:3]
        (cut.parent / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in behind))
    (RUN / "result.json").unlink()
    resume = ("sweep", "--resume", "--run", str(RUN))
    said = done(*resume).out
    assert "6 cells, 4 there already, 2 pruned" in said and "0.00 pruned" in said
    assert "pruned by median: 2 of 6 trainings were left out or cut short" in said
    told, again = json.loads((RUN / "sweep.json").read_text()), done(*resume).out
    (row,) = told["rows"]
    assert row["policies"]["14"]["pruned"]["epoch"] == 3 and row["best"]["policy"] in ("0", "9")
    assert told["pruned"]["policies"] == json.loads((RUN / "result.json").read_text())["pruned"] == 1
    assert "4 there already, 2 pruned" in again and not list(RUN.glob("cells/*_14-s*/result.json"))
    assert "with --pruner median, not none" in refused(*resume, "--pruner", "none")
