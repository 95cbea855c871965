"""Steps are timed on a copy, the twin: the trainer that then trains is never touched."""

from pathlib import Path

import pytest
import torch

from nasaug.arch.archfile import ArchFile
from nasaug.arch.blocks import BLOCKS
from nasaug.arch.plan import plan
from nasaug.arch.spacefile import load as load_space
from nasaug.config.layers import load
from nasaug.training.device import open_runtime
from nasaug.training.job import job_for, load_data, make_scorer, make_trainer
from nasaug.training.loop import Trainer
from nasaug.training.recipe import Recipe
from nasaug.training.timing import time_steps

SPACE = load_space(str(Path(__file__).parents[1] / "support" / "tiny_space.toml"), BLOCKS)
SMALL = "data.name=digits data.train_images=48 data.val_images=20 batch=16 epochs=2 calibration_images=32".split()


@pytest.fixture
def trainer():
    recipe = load("small", Recipe, SMALL, ("netaug:ladder=factors+ema",))
    runtime, data = open_runtime("cpu"), load_data(recipe, 8)
    job = job_for(ArchFile(plan(SPACE, SPACE.smallest, 10), "tiny"), recipe, runtime, 48)
    trainer = make_trainer(job, data, runtime, make_scorer(recipe, data, runtime))
    for images, labels, _ in data.train.batches(16, seed=0, epoch=0):
        trainer.train_step(images, labels)
    trainer.end_epoch()
    return trainer


def test_timed_steps_are_those_of_another_object(trainer, monkeypatch):
    stepped, original = [], Trainer.train_step

    def noted(self, *batch):
        stepped.append(self)
        original(self, *batch)

    monkeypatch.setattr(Trainer, "train_step", noted)
    versions = {name: p._version for name, p in trainer.net.named_parameters()}  # incremented by any in-place write
    tensors, state = {name: t.clone() for name, t in trainer.tensors().items()}, trainer.state()
    assert time_steps(trainer) > 0
    assert len(stepped) == 5 and trainer not in stepped
    assert versions == {name: p._version for name, p in trainer.net.named_parameters()}
    assert trainer.state() == state and trainer.stages.seconds == {}
    assert all(torch.equal(t, tensors[name]) for name, t in trainer.tensors().items())


def test_a_twin_goes_on_as_its_original_would(trainer):
    twin = trainer.twin()
    for each in (twin, trainer):
        for images, labels, _ in each.data.train.batches(16, seed=0, epoch=1):
            each.train_step(images, labels)
    one, two = twin.tensors(), trainer.tensors()
    assert any(name.startswith("average.") for name in one) and one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one) and twin.losses() == trainer.losses()
    assert not {p.data_ptr() for p in twin.net.parameters()} & {p.data_ptr() for p in trainer.net.parameters()}
