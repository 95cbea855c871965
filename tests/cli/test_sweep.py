"""`sweep`: a grid of sizes and magnitudes, its table, curve and pictures; what it refuses; how it goes on."""

import json
import math
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from test_compare import FORKING
from tiny import QUICK, call, done, lay_out, refused

from nasaug.arch import archfile
from nasaug.arch.cost import cost
from nasaug.comparison import cells, pruners, sweep
from nasaug.comparison import sweep_results as swept
from nasaug.comparison.cells import Cell, Watch
from nasaug.comparison.pruners import Pruning
from nasaug.config.schedule import Constant, Curve, Linear, Schedule
from nasaug.rundirs.folder import RunDir
from nasaug.tasks import Classify
from nasaug.training.recipe import Recipe

RUN, METRIC = Path("runs/sweep-1"), Classify.metric
SWEEP = ("sweep", *QUICK, "--arch", "mobilenetv2", "--sizes", "0.02M,0.1M", "--set", "epochs=1", "--jobs", "2")
ONE_SIZE = ("sweep", *QUICK, "--sizes", "0.02M", "--policies", "0,9,14", "--jobs", "2")


@pytest.fixture(scope="module")
def once_swept(tmp_path_factory):
    """A folder with a finished sweep, and what it said."""
    folder = tmp_path_factory.mktemp("swept")
    lay_out(folder)
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        patched.setattr(cells, "subprocess", FORKING)
        return folder, done(*SWEEP, "--policies", "0,9,0:9", "--seeds", "2").out


@pytest.fixture
def finished(once_swept, tmp_path, monkeypatch):
    """In a copy of it, the working folder."""
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


def test_resuming_may_change_how_images_are_read(finished):
    os.remove(RUN / "result.json")
    assert "12 there already" in done("sweep", "--resume", "--set", "data.workers=0").out


def test_it_says_that_it_leaves_the_weights_of_its_nets_aside(laid_out, monkeypatch):
    done("search", *QUICK, "--mac-budget", "100k")
    caught = []
    monkeypatch.setattr(sweep, "_finish", lambda nets, *_: caught.extend(nets))
    said = done("sweep", *QUICK, "--sizes", "found.json", "--policies", "0", "--seeds", "1").out
    assert re.search(r"fresh weights, as all nets of a sweep have; those in \S*supernet.safetensors are left", said)
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
    monkeypatch.setattr(sweep, "_finish", lambda *given: caught.append(given[:3]))
    line = {"intercept": -7.0, "slope": 3.0, "low": 0.0, "high": 30.0, "data": "d", "data_key": "k"}
    Path("by-size.json").write_text(json.dumps({"format": "nasaug-curve/1", **line}))
    done(*SWEEP, "--policies", "0,9,0:9,by-size.json", "--methods", "baseline,netaug", "--seeds", "1")
    ((nets, setting, common),) = caught
    made = sweep.make_cells(nets, setting, common, Path("."), cells.Sets())
    views = {(cell.arch.stem, cell.arm): cell.recipe.views["train"] for cell in made}
    assert len(views) == len(made) == 2 * 2 * 4
    assert views["mobilenetv2-0.1M", "netaug@0"].policy == "none"
    assert views["mobilenetv2-0.1M", "netaug@9"].magnitude == Constant(9.0)
    assert views["mobilenetv2-0.1M", "baseline@0:9"].magnitude == Linear(0.0, 9.0)
    small, large = (views[f"mobilenetv2-{size}M", "baseline@by-size.json"].magnitude.value for size in ("0.02", "0.1"))
    assert 5 < small < large < 9
    assert {cell.recipe.method for cell in made} == {"baseline", "netaug"}


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
    assert swept.fit(rows, METRIC)["seeds"] == 1  # as many as all sizes have
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
    half = 4.302653 * math.sqrt(13) / math.sqrt(3)  # t of two degrees; 1, 3 and 8 apart
    assert (over["low"], over["high"]) == pytest.approx((4 - half, 4 + half), abs=1e-4)
    assert "over_none" not in swept._best({"9": nine, "0": plain})  # one seed in common
    assert swept._shown({"policies": {"9": nine, "4": four}, "best": best}, "9") == "60.00 (1)"


def test_names_of_arch_files_that_are_no_names_of_files_are_made_such(laid_out):
    sizes = []
    for i, name in enumerate(("", "mine/net")):
        replace(archfile.read("mobilenetv2-tiny", resolution=8 + 2 * i, classes=10), name=name).save(f"{i}.json")
        sizes.append(f"{i}.json")
    setting = sweep.DEFAULTS | {"sizes": ",".join(sizes), "resolution": None}
    recipe = Recipe(data=replace(Recipe().data, name="digits"))
    assert [net.name for net in sweep.nets_of(setting, recipe)] == ["net", "mine_net"]


def test_cells_of_other_images_are_told_apart(finished):
    (cell,) = RUN.glob("cells/mobilenetv2-0.1M_baseline_9-s1-*/result.json")
    cell.write_text(json.dumps(json.loads(cell.read_text()) | {"data_key": "another"}))
    called = call("sweep", "--resume", "--run", str(RUN))
    assert called.code == 2 and re.search("has other images of digits than .* remove the older", called.err)


def test_a_curve_must_stay_as_it_was_when_the_sweep_began(laid_out, monkeypatch):
    monkeypatch.setattr(sweep, "_finish", lambda *given: None)
    line = {"intercept": 9.0, "slope": 0.0, "low": 9.0, "high": 9.0, "data": "d", "data_key": "k"}
    Path("by-size.json").write_text(json.dumps({"format": "nasaug-curve/1", **line}))
    done(*SWEEP, "--policies", "0,by-size.json")
    done("sweep", "--resume", "--run", str(RUN))
    Path("by-size.json").write_text(json.dumps({"format": "nasaug-curve/1", **line, "low": 8.0}))
    assert "by-size.json is another than when" in refused("sweep", "--resume", "--run", str(RUN))


OTHERS = {
    "--arch mcunet": "with --arch mobilenetv2, not mcunet; leave it out to go on, or start", "--seeds 3": "2, not 3",
    "--resolution 16": "with --resolution None, not 16", "--cells elsewhere": "with --cells None, not .*elsewhere",
    "--pruner median": "with --pruner none, not median", "--sizes 1M": "with --sizes 0.02M,0.1M, not 1M",
    "--policies 0": "with --policies 0,9,0:9, not 0", "--data cifar10": "with --data None, not cifar10",
    "--methods netaug": "with --methods baseline, not netaug", "--set lr=0.2": "with --set epochs=1, not lr=0.2",
    "--recipe small": "with --recipe quick.toml, not small", "--profile": "use nasaug train --profile",
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
        ("--seed 3", "say how many with --seeds"), ("--profile", "use nasaug train --profile"),
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
        ("--policies 0,high.json", "baseline@high.json: magnitude = 31.0 reaches 31"),
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


# --- policies that are ended early -------------------------------------------------------------------------


RISING = [10, 20, 30, 40, 50, 60, 65, 70, 72, 74]  # of one policy, epoch by epoch


def cell_of(policy, seed=0, size="small"):
    return Cell(f"baseline@{policy}", seed, Recipe(), Path(f"sizes/{size}.json"), Path(f"cells/{size}-{policy}-{seed}"))


def rows_of(top1s):
    return [{"epoch": i + 1, "step": 3 * i, "val_top1": float(v), "seconds": i + 1.0} for i, v in enumerate(top1s)]


def log(cell, top1s):
    """What a cell that is at work has logged so far."""
    cell.path.mkdir(parents=True, exist_ok=True)
    (cell.path / "log.jsonl").unlink(missing_ok=True)
    for row in rows_of(top1s):
        RunDir(cell.path).log("epoch", stage="train", **row)


def finish(cell, top1s):
    log(cell, top1s)
    said = {"arm": cell.arm, "seed": cell.seed, "method": "baseline", "arch": "a", "data": "d", "data_key": "k"}
    counts = {"macs": 1, "params": 1, "test_images": 1, "epochs": len(top1s), "train_macs": 1.0, "device": "CPU"}
    scores = {"val": rows_of(top1s), "val_top1": float(max(top1s)), "test_top1": 0.0, "seconds": float(len(top1s))}
    RunDir(cell.path).finish(said | counts | scores)


def below(points):
    return [top1 - points for top1 in RISING]


@pytest.fixture
def raced(empty_folder, monkeypatch):
    """A pruner by name, with two policies of one size that have ended with seed 0, and one at work or to come, 9."""
    monkeypatch.setattr(pruners, "POLL_S", 0.0)
    finish(cell_of("0"), RISING)
    finish(cell_of("4"), below(4))

    def make(pruner, seeds=2):
        made = [cell_of(policy, seed) for seed in range(seeds) for policy in ("0", "4", "9")]
        return Pruning(pruner, made, Path("."), METRIC)

    return make


@pytest.mark.parametrize(
    ("pruner", "top1s", "epoch"),
    [
        ("median", below(9)[:4], None), ("median", below(9)[:5], 5), ("median", below(9)[:9], 9),
        ("median", below(9), None),  # at its end there is nothing to save
        ("median", [0, 0, 0, 0, 49], None),  # the first half does not count
        ("median", [0, 0, 0, 0, 0, 0, 71], None),  # nor what has been caught up with
        ("median", below(1)[:7], None),
        ("wilcoxon", below(9)[:7], None), ("wilcoxon", below(9)[:8], 8), ("wilcoxon", below(-1)[:8], None),
        ("halving", below(9)[:4], None), ("halving", below(9)[:5], 5), ("halving", below(-1)[:5], None),
        ("halving", [0, 0, 0, 0, 0, 0, 71], 5),  # a rung is passed once
    ],
)  # fmt: skip
def test_a_policy_is_pruned_by_the_second_half_of_its_training(raced, pruner, top1s, epoch):
    log(cell_of("9"), top1s)
    pruning = raced(pruner)
    why = pruning.hopeless(cell_of("9"))
    assert (pruning.out["small", "baseline", "9"]["epoch"] if why else None) == epoch
    assert pruning.hopeless(cell_of("0", 1)) is None and Path("pruned.json").exists() == bool(why)


def test_a_cell_at_work_is_judged_as_its_log_grows_and_no_sooner_than_two_have_ended(raced):
    (cell_of("4").path / "result.json").unlink()
    pruning = raced("median")
    log(cell_of("9"), below(9)[:6])
    assert pruning.hopeless(cell_of("9")) is None
    finish(cell_of("4"), below(4))
    pruning.ended(cell_of("4"))
    log(cell_of("9"), below(9)[:4])
    assert pruning.hopeless(cell_of("9")) is None
    log(cell_of("9"), below(9)[:6])
    assert pruning.hopeless(cell_of("9")).startswith("pruned at epoch 6 of 10, seed 0: validation 51.00 %, the others")


def test_a_pruned_policy_is_out_with_all_seeds_and_stays_out(raced):
    log(cell_of("9"), below(9)[:6])
    pruning = raced("median")
    assert pruning.hopeless(cell_of("9", 1)) is None
    pruning.hopeless(cell_of("9"))
    told = json.loads(Path("pruned.json").read_text())
    assert told["pruned"] == [{
        "size": "small", "method": "baseline", "policy": "9", "seed": 0, "pruner": "median", "epoch": 6, "epochs": 10,
        "val_top1": 51.0, "rivals": {"0": 60.0, "4": 56.0},
    }]  # fmt: skip
    log(cell_of("9"), below(-9)[:9])
    for again in (pruning, raced("median")):
        assert again.hopeless(cell_of("9")) == again.hopeless(cell_of("9", 1)) != again.hopeless(cell_of("4", 1))
    assert again.hopeless(cell_of("9", size="large")) is None


def test_the_last_policy_of_a_size_is_never_pruned(raced):
    pruning = raced("median")
    pruning.out = {("small", "baseline", policy): {} for policy in ("0", "4")}
    log(cell_of("9"), below(9)[:6])
    assert pruning.hopeless(cell_of("9")) is None


def test_what_was_saved_is_told_from_the_trainings_of_the_same_size(raced):
    log(cell_of("9"), below(9)[:6])
    pruning = raced("median")
    pruning.hopeless(cell_of("9"))
    made = [cell_of(policy, seed) for seed in range(2) for policy in ("0", "4", "9")]
    assert pruners.saved(made, pruning.out) == {"policies": 1, "cells": 2, "of": 6, "seconds": 4.0 + 10.0}


def test_a_pruned_policy_is_neither_best_nor_on_the_curve_but_shown(empty_folder):
    def row(macs, best):
        policies = {}
        for magnitude in (0, 9):
            values = [50.0 - abs(magnitude - best), 51.0 - abs(magnitude - best)]
            spread = {"values": values, "mean": values[0], "half": 1.0}
            policies[str(magnitude)] = {"seeds": [0, 1], "val_top1": spread, "test_top1": spread}
        policies["14"] = {"seeds": [], "pruned": {"val_top1": 99.25, "epoch": 6}}
        found = {"method": "baseline", "size": f"{macs:g}", "macs": macs, "policies": policies}
        return found | {"best": swept._best(swept._running(policies))}

    rows = [row(1e5, 0), row(1e6, 9), row(3e6, 9)]
    assert [row["best"]["policy"] for row in rows] == ["0", "9", "9"]
    assert len(swept.fit(rows, METRIC)["points"]) == 6
    alone = {"9": rows[0]["policies"]["9"], "14": rows[0]["policies"]["14"]}
    assert swept.fit([rows[1], rows[0] | {"policies": alone}], METRIC)["points"] == [(6.0, 9.0)] * 2 + [(5.0, 9.0)] * 2
    pruned = {"pruner": "median", "policies": 3, "cells": 6, "of": 18, "seconds": 90.0}
    curves = {"baseline": swept.fit(rows, METRIC)}
    summary = {"rows": rows, "policies": ["0", "9", "14"], "curves": curves, "pruned": pruned}
    told = swept.table(summary, METRIC)
    assert told.count("99.25 pruned") == 3 and "6 of 18 trainings were left out or cut short" in told
    swept.plot(Path("sweep.png"), summary)


class Ending(Watch):
    """Ends one cell by its arm once it has logged an epoch, and others that wait."""

    def __init__(self, *arms):
        self.arms, self.told = arms, []

    def hopeless(self, cell):
        begun = cell.arm == self.arms[-1] or pruners.epochs_of(cell)
        return "of no use" if cell.arm in self.arms and begun else None

    def ended(self, cell):
        self.told.append(cell.arm)


def test_a_hopeless_cell_is_ended_with_its_checkpoint_saved_and_is_no_failure(laid_out, monkeypatch, capsys):
    caught = []
    monkeypatch.setattr(cells, "subprocess", FORKING)
    monkeypatch.setattr(sweep, "_finish", lambda *given: caught.append(given[:3]))
    done(*ONE_SIZE, "--seeds", "1")
    made = sweep.make_cells(*caught[0], RUN, cells.Sets())
    made[1] = replace(made[1], recipe=replace(made[1].recipe, epochs=20000))
    watch = Ending("baseline@9", "baseline@14")
    assert cells.carry_out(made, "cpu", 2, {cell.path: 1.0 for cell in made}, watch, {}) == []
    assert sorted(watch.told) == ["baseline@0", "baseline@9"] and [cell.finished for cell in made] == [
        True,
        False,
        False,
    ]
    assert (made[1].path / "checkpoint.safetensors").exists() and not made[2].path.exists()
    said = capsys.readouterr().out
    assert "baseline@9, seed 0: of no use" in said and "baseline@14, seed 0: left out; of no use" in said


def test_policies_that_are_alike_for_a_net_are_one_training(laid_out, monkeypatch):
    start, started = cells._start, []
    monkeypatch.setattr(cells, "subprocess", FORKING)
    monkeypatch.setattr(cells, "_start", lambda *args: started.append(args[0].arm) or start(*args))
    line = {"intercept": 9.0, "slope": 0.0, "low": 9.0, "high": 9.0, "data": "d", "data_key": "k"}
    Path("nine.json").write_text(json.dumps({"format": "nasaug-curve/1", **line}))
    assert "2 cells, 0 there already" in done(*SWEEP, "--policies", "9,nine.json", "--seeds", "1").out
    assert started == ["baseline@9"] * 2  # sizes
    for row in json.loads((RUN / "sweep.json").read_text())["rows"]:
        assert row["policies"]["9"] == row["policies"]["nine.json"]


def test_a_sweep_prunes_leaves_out_the_other_seeds_and_keeps_to_it(laid_out, monkeypatch):
    """A policy that is behind when the sweep goes on."""
    monkeypatch.setattr(cells, "subprocess", FORKING)
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


def test_a_method_of_which_nothing_is_there_and_one_with_a_slash_in_its_name_can_be_written(tmp_path):
    odd, rows = "distill:source=runs/x", []
    for macs, best in ((1e5, 0), (3e5, 4), (1e6, 9)):
        tops = {m: [50.0 - abs(m - best), 51.0 - abs(m - best)] for m in (0, 4, 9)}
        cells = {str(m): {"seeds": [0, 1], "val_top1": {"values": v, "mean": v[0]}} for m, v in tops.items()}
        line = {"method": odd, "size": f"net-{macs:g}", "macs": macs, "policies": cells}
        rows.append(line | {"best": {"policy": str(best)}})
    curves = {"baseline": None, odd: swept.fit(rows, METRIC)}
    summary = {"rows": rows, "curves": curves, "policies": ["0", "4", "9"], "data": "d", "data_key": "k"}
    swept.write(tmp_path, summary, [], METRIC)
    there = {"curve-distill_source=runs_x.json", "sweep.json", "sweep.png", "sweep.csv"}
    assert {path.name for path in tmp_path.iterdir()} == there
    swept.write(tmp_path, summary | {"curves": curves | {"distill_source=runs:x": curves[odd]}}, [], METRIC)
    assert len(set(tmp_path.glob("curve-distill_source=runs_x-*.json"))) == 2
