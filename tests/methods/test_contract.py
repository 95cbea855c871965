"""The contract of every method, including those in users' modules: it runs the passes that it announced, and is a
function of (seed, step)."""

import functools
import importlib
import json
import os
import random
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

from nasaug.arch.archfile import ArchFile
from nasaug.arch.blocks import BLOCKS
from nasaug.arch.cost import cost
from nasaug.arch.plan import plan
from nasaug.arch.spacefile import load as load_space
from nasaug.cli import main as cli
from nasaug.config.layers import dump, load
from nasaug.core.errors import BadInput
from nasaug.methods import METHODS, Base, Baseline, Method, Pass, Sandwich, drawn, register
from nasaug.training.device import open_runtime
from nasaug.training.job import job_for, load_data, make_job, make_scorer, make_trainer
from nasaug.training.recipe import Recipe
from nasaug.training.step import Step

HERE = Path(__file__).parent
SMALL = "data.name=digits data.train_images=48 data.val_images=20 batch=16 epochs=3 calibration_images=32".split()
VARIED = {  # variants of each method, beside its defaults
    "netaug": [
        "netaug:ladder=supernet", "netaug:share=0.4,every=2,augmented=2", "netaug:teach=0.5", "netaug:aug_compute=0.3",
        "netaug:depth_more=[0,1],kernel_more=[0,2]", "strong-wide", "shrink", "netaug+ema",
    ],
    "gradaug": ["gradaug:depth=0.5,width=0.5,num_subnet=2+mixup"],
    "halves": ["halves:every=3,part=0.3"],
}  # fmt: skip
NAMES = [*METHODS, "halves"]
ARMS = [*NAMES, "sandwich", *(arm for arms in VARIED.values() for arm in arms)]


@pytest.fixture(autouse=True)
def outside(monkeypatch):
    """Registers the method of `own_method.py` for the duration of a test."""
    before = dict(METHODS)
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.delitem(sys.modules, "own_method", raising=False)
    yield importlib.import_module("own_method")
    METHODS.clear()
    METHODS.update(before)


@functools.cache
def trainers(arm):
    """A function that makes new trainers of 9 steps for an arm, with a tiny network on digits."""
    recipe = load("small", Recipe, SMALL, ("baseline" if arm == "sandwich" else arm,))
    space = load_space(str(HERE.parent / "support/tiny_space.toml"), BLOCKS)
    runtime, data = open_runtime("cpu"), load_data(recipe, 8)
    arch = space.canonical(space.arch(space.choices(space.smallest) | {"s1.depth": 2}))
    found = ArchFile(plan(space, arch, 10), "tiny", space, arch)
    if arm == "sandwich":
        base, method = Base(plan(space, space.largest, 10), space, space.largest), Sandwich(samples=2, every=2)
        job = make_job(recipe, method, base, images=48, runtime=runtime)
    elif arm == "qat":  # of fresh weights, which a command refuses
        job = make_job(recipe, recipe.qat, Base(found.plan, space, arch), images=48, runtime=runtime)
    else:
        job = job_for(found, recipe, runtime, 48)
    scorer = make_scorer(recipe, data, runtime)
    return lambda: make_trainer(job, data, runtime, scorer)


def batches_of(trainer):
    return [batch[:2] for epoch in range(3) for batch in trainer.data.train.batches(16, seed=0, epoch=epoch)]


def generators():
    return random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()


@pytest.mark.parametrize("arm", ARMS)
def test_a_method_runs_the_passes_that_it_said_and_nothing_else(arm):
    """Also: losses are finite, global generators are untouched, and only whole-net passes update statistics."""
    trainer = trainers(arm)()
    run, tracked = [], trainer.net.stem.norm.num_batches_tracked
    trainer.net.register_forward_hook(lambda net, given, out: run.append((given[1], len(given[0]))))
    for images, labels in batches_of(trainer):
        run.clear()
        step, macs, before = Step(trainer, images, labels), trainer.macs, int(tracked)
        said = [(plan(trainer.space, each.arch, 10), each.images(16)) for each in step.passes]
        assert step.passes is step.passes and Step(trainer, images, labels).passes == step.passes
        assert {each.view for each in step.passes} <= trainer.views.keys()
        others = generators()
        losses = [loss for _, loss in trainer.method.losses(step)]
        assert generators() == others
        assert losses and all(torch.isfinite(loss) and loss.requires_grad for loss in losses)
        assert sorted(run, key=repr) == sorted(said, key=repr)
        assert trainer.macs - macs == sum(cost(p).macs * n for p, n in said)
        whole = sum(p == trainer.net.plan for p, _ in said)
        # qat's are constants; the sandwich rule may sample the largest net
        assert int(tracked) - before == whole * (arm != "qat") and (whole <= 1 or arm == "sandwich")
        trainer.train_step(images, labels)


@pytest.mark.parametrize("arm", ARMS)
def test_the_cost_that_is_announced_is_that_of_these_passes(arm):
    trainer = trainers(arm)()
    of = [
        sum(each.share * cost(plan(trainer.space, each.arch, 10)).macs for each in passes)
        for passes in drawn(trainer.method, trainer.space, trainer.base, 10)
    ]
    assert trainer.length.macs_per_image == pytest.approx(sum(of) / len(of), rel=1e-12)
    cycle = trainer.method.cycle
    kinds = [len(Step(trainer, *batches_of(trainer)[0]).passes) for trainer.step in range(2 * cycle)]
    assert kinds[:cycle] == kinds[cycle:]


@pytest.mark.parametrize("arm", ARMS)
def test_a_resumed_training_ends_with_the_same_bits(arm, tmp_path):
    new = trainers(arm)
    whole, first, second = new(), new(), new()
    for i, batch in enumerate(batches_of(whole)):
        for trainer in (whole, first if i < 4 else second):
            if trainer.step % trainer.length.steps_per_epoch == 0:
                trainer.method.on_epoch(trainer)
            trainer.train_step(*batch)
        if i == 3:
            first.save(tmp_path / "c")
            second.load(tmp_path / "c")
    one, two = whole.tensors(), second.tensors()
    assert whole.step == second.step == 9 and one.keys() == two.keys()
    assert [name for name in one if not torch.equal(one[name], two[name])] == []
    start = new().tensors()
    assert any(not torch.equal(one[name], start[name]) for name in start)


# --- registration -------------------------------------------------------------------------------------------


def test_a_registered_method_has_a_name_and_a_table_in_recipes(outside, tmp_path):
    assert load("small", Recipe, ("method=halves",)).chosen_method() == outside.Halves()
    recipe = load("small", Recipe, ("halves.every=5",), ("halves:weight=0.25",))
    assert recipe.chosen_method() == outside.Halves(weight=0.25, every=5) and isinstance(recipe, Recipe)
    (tmp_path / "r.toml").write_text(dump(recipe))
    assert load(tmp_path / "r.toml", Recipe) == recipe
    with pytest.raises(BadInput, match=r"unknown key 'halves.evry'; did you mean halves.every"):
        load("small", Recipe, ("halves.evry=5",))
    with pytest.raises(BadInput, match=r"halves.every = \"x\": must be a valid integer"):
        load("small", Recipe, ('halves.every="x"',))
    with pytest.raises(BadInput, match="choices: .*halves.* or the path of a TOML file"):
        load("small", Recipe, (), ("halfs",))


def test_recipes_of_other_methods_do_not_mention_it(outside, tmp_path):
    """So a run that does not use it resumes, and a cell is found again, even if the method is not registered."""
    other = dump(load("small", Recipe, ("method=baseline",)))
    METHODS.pop("halves")
    assert other == dump(load("small", Recipe, ("method=baseline",)))
    with pytest.raises(BadInput, match="method = \"halves\": must be 'baseline', 'netaug', 'gradaug' or 'qat'"):
        load("small", Recipe, ("method=halves",))


@dataclass(frozen=True)
class Lacking(Method):
    """A method without `losses`."""

    def space(self, base):
        return Baseline().space(base)

    def passes(self, draw):
        return [Pass(draw.base)]


@dataclass
class NotFrozen(Method):
    """A method that is not frozen."""

    space = Baseline.space
    passes = Baseline.passes
    losses = Baseline.losses


@dataclass(frozen=True)
class WithoutDefault(Baseline):
    weight: float


class Plain:
    """A class not derived from Method."""

    def losses(self, step):
        yield from ()


def test_what_cannot_be_registered_is_told_in_a_line(outside):
    taken = r"taken by nasaug.methods.netaug.NetAug; give another. Taken: baseline, gradaug, halves, netaug, qat"
    for name, method, told in [
        ("netaug", outside.Halves, taken),
        ("lacking", Lacking, r"register\('lacking', Lacking\): the class lacks losses; define it, and derive"),
        ("plain", Plain, "lacks cycle, reorders, space, passes, prepare, describe, check_views, on_epoch; .*Method"),
        ("My method", outside.Halves, "a recipe key; give lower-case letters"),
        ("mine", NotFrozen, "a frozen dataclass whose fields all have defaults"),
        ("mine", WithoutDefault, "a frozen dataclass whose fields all have defaults"),
    ]:
        with pytest.raises(BadInput, match=told):
            register(name, method)
    register("teacher", outside.Halves)
    with pytest.raises(BadInput, match="the method 'teacher' has the name of a recipe key; register it under another"):
        load("small", Recipe)


# --- for commands and the processes that they begin ----------------------------------------------------------


PATHS = os.pathsep.join([str(HERE), str(HERE.parents[1])])


def test_a_method_of_ones_own_is_compared_and_its_cells_know_it(empty_folder, monkeypatch, capsys):
    monkeypatch.setenv("NASAUG_IMPORT", "own_method")
    monkeypatch.setenv("PYTHONPATH", PATHS)
    sets = (f"--set={item.replace('epochs=3', 'epochs=1')}" for item in SMALL[1:])
    arms = ("--methods", "halves:weight=0.5", "--seeds", "1", "--run", "r")
    command = ["nasaug", "compare", "--data", "digits", "--arch", "mobilenetv2-tiny", *arms, *sets]
    with mock.patch.object(sys, "argv", command), pytest.raises(SystemExit, match="^0$"):
        cli.main()
    (cell,) = Path("r/cells").glob("halves*-s0-*/")
    result = json.loads((cell / "result.json").read_text())
    assert result["method"] == "halves" and "loss_half" in result["val"][0]
    assert "[halves]\nweight = 0.5\nevery = 2" in (cell / "recipe.toml").read_text()


@pytest.mark.parametrize(
    ("modules", "told"),
    [("own_method, not_there", r"not_there cannot be imported \(ModuleNotFoundError: No module named 'not_there'\)"),
     ("broken", r"broken cannot be imported \(ZeroDivisionError: division by zero\)")],
)  # fmt: skip
def test_a_module_that_cannot_be_imported_is_a_line_and_exit_code_2(modules, told, tmp_path, monkeypatch):
    (tmp_path / "broken.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    env = os.environ | {"NASAUG_IMPORT": modules, "PYTHONPATH": PATHS}
    done = subprocess.run([sys.executable, "-m", "nasaug", "--version"], capture_output=True, text=True, env=env)
    err = done.stderr
    assert done.returncode == 2 and done.stdout == "" and err.count("\n") == 1
    assert re.match(f"nasaug: NASAUG_IMPORT = {modules}: {told}; name modules that Python can find", err), err


@pytest.mark.parametrize(
    ("says", "code", "told"),
    [("from nasaug.core.errors import BadInput, arg\nraise BadInput(f'give {arg.run}')", 2,
      "nasaug: NASAUG_IMPORT = mine: mine cannot be imported (BadInput: give --run); name modules that Python"),
     ("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nimport time\ntime.sleep(9)", 130,
      "nasaug: stopped before there was anything to save")],
    ids=["an error of nasaug's", "stopped"],
)  # fmt: skip
def test_however_the_import_of_a_module_ends_it_is_a_line(says, code, told, tmp_path):
    (tmp_path / "mine.py").write_text(says)
    env = os.environ | {"NASAUG_IMPORT": "mine", "PYTHONPATH": os.pathsep.join([str(tmp_path), PATHS])}
    done = subprocess.run([sys.executable, "-m", "nasaug", "--version"], capture_output=True, text=True, env=env)
    assert done.returncode == code and done.stderr.startswith(told) and done.stderr.count("\n") == 1, done.stderr
