"""Law 5 in one process: stopped at any step and resumed, a training ends bit-identical."""

import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import torch

from nasaug.arch.archfile import ArchFile
from nasaug.arch.blocks import BLOCKS
from nasaug.arch.plan import plan
from nasaug.arch.spacefile import load
from nasaug.config.layers import load as load_recipe
from nasaug.core.signals import Pending, Stopped
from nasaug.methods import Base
from nasaug.nets.net import Net
from nasaug.nets.store import save_net
from nasaug.training.device import open_runtime
from nasaug.training.job import job_for, load_data, make_job, make_scorer, make_trainer
from nasaug.training.loop import Trainer, fit
from nasaug.training.recipe import Recipe
from nasaug.training.timing import time_steps
from support.commands import timeless

ARMS = {
    "baseline": "baseline",
    "netaug, sorted": "netaug:ladder=factors,zero_init_residual=false",
    "netaug, inherited": "netaug:init=inherit",
    "netaug, a view and a share of its own for what is wide": "strong-wide:ladder=factors,aug_compute=0.5",
    "netaug, shrinking, until so many MACs": "shrink:stop=macs,train_macs=1.6e8",
    "gradaug with all that is drawn": "gradaug:depth=0.5+mixup+dropout+stochastic-depth+random-erasing+ema",
    "driven by a teacher": "baseline+difficulty-drive",
    "kept by a teacher": "netaug+difficulty-keep",
    "sandwich": "baseline",
}
SUPERNET = Path("supernet")


def trainers(name: str) -> Callable[[], Trainer]:
    """A function that makes a new trainer of about 9 steps in 3 epochs, as the commands do."""
    recipe = load_recipe("quick.toml", Recipe, ("epochs=3",), (ARMS[name],))
    space, runtime, data = load("tiny.toml", BLOCKS), open_runtime("cpu"), load_data(recipe, 12)
    scorer = make_scorer(recipe, data, runtime)
    largest, middle = plan(space, space.largest, 10), space.sample(Random("middle"))
    found = ArchFile(plan(space, middle, 10), "middle", space, middle)
    if recipe.init == "inherit" or recipe.teacher.source:
        save_net(SUPERNET, Net(largest, seed=3))
        found = replace(found, supernet=SUPERNET)
    if name == "sandwich":
        base, method = Base(largest, space, space.largest), replace(recipe.sandwich, low=2e4, high=1e5)
        job = make_job(recipe, method, base, images=48, runtime=runtime)
    else:
        job = job_for(found, recipe, runtime, 48)
    return lambda: make_trainer(job, data, runtime, scorer, keep_best=name != "sandwich")


def train_on(trainer: Trainer, stop: int | None) -> bool:
    """Train to the end, or to step `stop`, where a signal arrives; returns whether training finished."""
    pending = Pending()

    def tick(t: Trainer) -> None:
        if t.step == stop:
            pending.signum = signal.SIGTERM

    try:
        fit(trainer, pending, save=lambda: trainer.save("c"), on_epoch=lambda row: None, tick=tick)
    except Stopped:
        assert trainer.step == stop
        return False
    return True


def assert_same(one: Trainer, other: Trainer) -> None:
    mine, theirs = one.tensors(), other.tensors()
    assert mine.keys() == theirs.keys()
    assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []
    assert timeless(one.state()) == timeless(other.state())


@pytest.mark.parametrize("name", ARMS)
def test_stopped_at_any_step_and_resumed_is_bit_for_bit_the_same(laid_out, name):
    new = trainers(name)
    whole = new()
    train_on(whole, None)
    assert whole.step > 6
    within, at_the_end, everywhere = (4,), (6,), tuple(range(1, whole.step))
    for stops in (within, at_the_end, everywhere):
        Path("c").unlink(missing_ok=True)
        for stop in (*stops, None):
            trainer = new()
            time_steps(trainer)  # as every command does before it resumes
            if stop != stops[0]:
                trainer.load("c")
            assert train_on(trainer, stop) == (stop is None)
        assert_same(whole, trainer)


def test_the_epochs_differ_so_that_the_test_above_can_fail(laid_out):
    """Weights, the sorted order and the best epoch change from epoch to epoch."""
    seen = []
    trainer = trainers("netaug, sorted")()
    for stop in (3, 6, None):
        train_on(trainer, stop)
        seen.append({name: t.clone() for name, t in trainer.tensors().items()})
    assert len({round(row["loss_base"], 6) for row in trainer.history}) == 3
    for one, two in zip(seen, seen[1:], strict=False):
        weights = [n for n in one if n.endswith(".weight") and not n.startswith("best")]
        assert weights and all(not torch.equal(one[n], two[n]) for n in weights)
