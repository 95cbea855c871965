"""Early stopping of a sweep's policies."""

import json
from pathlib import Path

import pytest

from nasaug.comparison import pruners
from nasaug.comparison.cells import Cell
from nasaug.comparison.pruners import PolicyWatch
from nasaug.rundirs.folder import RunDir
from nasaug.tasks import Classify
from nasaug.training.recipe import Recipe

RISING = [10, 20, 30, 40, 50, 60, 65, 70, 72, 74]  # of one policy, epoch by epoch


def cell_of(policy, seed=0, size="small"):
    return Cell(f"baseline@{policy}", seed, Recipe(), Path(f"sizes/{size}.json"), Path(f"cells/{size}-{policy}-{seed}"))


def rows_of(top1s):
    return [{"epoch": i + 1, "step": 3 * i, "val_top1": float(v), "seconds": i + 1.0} for i, v in enumerate(top1s)]


def log(cell, top1s):
    """The log so far of a running cell."""
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
    """A pruner by name, with two policies of one size that have finished seed 0, and one running or pending, 9."""
    monkeypatch.setattr(pruners, "POLL_S", 0.0)
    finish(cell_of("0"), RISING)
    finish(cell_of("4"), below(4))

    def make(pruner, seeds=2):
        made = [cell_of(policy, seed) for seed in range(seeds) for policy in ("0", "4", "9")]
        return PolicyWatch(pruner, made, RunDir("."), Classify.metric)

    return make


def test_a_training_that_ends_twice_counts_once(raced):
    """As where two processes were given it."""
    watch = raced("median")
    watch.ended(cell_of("0"))
    assert set(watch._races["small", "baseline", 0].done) == {"0", "4"}


@pytest.mark.parametrize(
    ("pruner", "top1s", "epoch"),
    [
        ("median", below(9)[:4], None), ("median", below(9)[:5], 5), ("median", below(9)[:9], 9),
        ("median", below(9), None),  # at its end there is nothing left to save
        ("median", [0, 0, 0, 0, 49], None),  # the first half does not count
        ("median", [0, 0, 0, 0, 0, 0, 71], None),  # nor does a deficit that was made up
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
