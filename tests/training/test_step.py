"""A training step: what it draws, its gradients and updates, and its learning rate."""

import math
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from nasaug.arch.cost import cost
from nasaug.augment import View
from nasaug.config.schedule import Linear
from nasaug.core.errors import BadInput, RunFault
from nasaug.methods import Base, Baseline, NetAug, Sandwich
from nasaug.nets.net import Net
from nasaug.nets.regularisers import Noise
from nasaug.training.length import Training
from nasaug.training.step import Step
from support.trainers import SPACE, Only, at_12_px, base_of, batch_of, run_to_the_end, train, trainer_of, weights


def test_views_come_from_the_seed_and_the_step_alone():
    trainer = trainer_of(Baseline())
    batch = batch_of(trainer)
    x, y = Step(trainer, *batch).view("train")
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    again, _ = Step(trainer, *batch).view("train")
    assert torch.equal(x, again) and torch.equal(y.labels, batch[1]) and x.shape == (16, 3, 16, 16)
    trainer.step = 1
    assert not torch.equal(Step(trainer, *batch).view("train")[0], x)
    assert not torch.equal(Step(trainer_of(Baseline(), seed=1), *batch).view("train")[0], x)
    with pytest.raises(BadInput, match="views.thin"):
        Step(trainer, *batch).view("thin")


def test_architectures_come_from_the_seed_and_the_step_alone():
    def drawn(seed, number):
        trainer = trainer_of(NetAug(), seed=seed)
        trainer.step = number
        return [Step(trainer, *batch_of(trainer)).sample(trainer.base) for _ in range(2)]

    assert drawn(0, 0) == drawn(0, 0)
    assert len({tuple(drawn(seed, number)) for seed in range(3) for number in range(3)}) == 9


def test_every_pass_is_resized_to_its_nets_resolution_and_counted():
    trainer = trainer_of(Sandwich(2, 1, 30_000, 80_000), Base(base_of().plan, SPACE, SPACE.largest))
    passes = []
    trainer.net.register_forward_hook(lambda net, given, out: passes.append((given[0].shape, given[1])))
    train(trainer, 3)
    assert len(passes) == 3 * 4
    assert all(shape == (16, 3, p.resolution, p.resolution) for shape, p in passes)
    assert {p.resolution for _, p in passes} == {12, 16}
    assert trainer.macs == sum(16 * cost(p).macs for _, p in passes)


def test_every_parameter_has_a_gradient_each_step_zero_where_unused():
    trainer = train(trainer_of(Only(NetAug(ladder="factors"))), 2)
    used = trainer.plan.by_name
    inside, beyond = trainer.net.stem.weight.grad.split([8, trainer.net.plan.by_name["stem"].out - 8])
    assert inside.any() and not beyond.any()
    assert all(p.grad is not None and p.grad.stride() == p.stride() for p in trainer.net.parameters())
    assert used["stem"].out == 8


def test_decay_shrinks_weights_even_where_unused_but_never_norms_and_biases():
    nothing = Only(NetAug(ladder="factors"), loss=lambda step, out, y: out.sum() * 0)
    trainer = trainer_of(nothing)
    before = weights(trainer.net)
    rate = trainer.learning_rate()
    train(trainer)
    for name, parameter in trainer.net.named_parameters():
        shrunk = before[name] * (1 - rate * 0.01 * 1.9)  # Nesterov: the gradient and 0.9 of the new momentum
        if parameter.dim() == 1:
            assert torch.equal(parameter, before[name]), name
        else:
            assert torch.allclose(parameter, shrunk, rtol=1e-5, atol=1e-9), name


def test_a_step_is_torchs_nesterov_step():
    trainer = trainer_of(Baseline())
    twin = Net(trainer.net.plan, 0).train()
    groups = [{"params": [p for p in twin.parameters() if p.dim() > 1], "weight_decay": 0.01},
              {"params": [p for p in twin.parameters() if p.dim() == 1], "weight_decay": 0.0}]  # fmt: skip
    plain = torch.optim.SGD(groups, 0.05, momentum=0.9, nesterov=True)
    for number in range(3):
        x, y = Step(trainer, *batch_of(trainer, number)).view("train")
        plain.zero_grad()
        F.cross_entropy(twin(at_12_px(x)), y.labels, label_smoothing=0.1).backward()
        for group in plain.param_groups:
            group["lr"] = trainer.learning_rate()
        plain.step()
        trainer.train_step(*batch_of(trainer, number))
    for one, two in zip(trainer.net.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(one, two, rtol=1e-3, atol=1e-5)


def test_the_learning_rate_warms_up_and_then_falls_as_a_cosine_to_nothing():
    trainer = trainer_of(Baseline(), training=Training(epochs=50, batch=16, lr=0.2, warmup=0.1))
    steps, rates = trainer.length.steps, []
    for trainer.step in range(steps):
        rates.append(trainer.learning_rate())
    warm = steps // 10
    assert rates[:warm] == pytest.approx([0.2 * (i + 1) / (warm + 1) for i in range(warm)])
    assert rates[warm] == max(rates) == pytest.approx(0.2)
    assert all(a > b for a, b in zip(rates[warm:], rates[warm + 1 :], strict=False))
    assert rates[warm + (steps - warm) // 2] == pytest.approx(0.1) and rates[-1] < 1e-3 * 0.2
    trainer.step = 7
    train(trainer)
    assert {group["lr"] for group in trainer.optimizer.param_groups} == {rates[7]}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_a_number_is_a_fault_of_the_run_with_its_remedy(value):
    trainer = trainer_of(Only(Baseline(), loss=lambda step, out, y: out.sum() * value))
    with pytest.raises(RunFault, match="lr=0.025"):
        run_to_the_end(trainer)
    assert trainer.history == [] and trainer.best == {}


def test_a_step_leaves_the_generators_of_others_alone():
    """Global generators influence neither the images nor the nets of a step, and a step does not draw from them."""
    views = {"train": View(policy="randaugment", mixup=0.4, erase=0.5)}
    method = NetAug(ladder="factors")
    trainer = trainer_of(method, noise=Noise(dropout=0.2, stochastic_depth=0.2))
    trainer.views = views
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    trainer.train_step(*batch_of(trainer))
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before


def test_views_mix_and_change_with_progress():
    trainer = trainer_of(Baseline())
    trainer.views = {"train": View(mixup=1.0)}
    _, y = Step(trainer, *batch_of(trainer)).view("train")
    assert y.labels.shape == (16, 4) and torch.allclose(y.labels.sum(1), torch.ones(16))
    trainer.views = {"train": View(policy="randaugment", magnitude=Linear(0.0, 30.0), crop=0.0, flip=False)}
    strong = []
    for step in (0, trainer.length.steps - 1):
        trainer.step = step
        x, _ = Step(trainer, *batch_of(trainer)).view("train")
        trainer.views["plain"] = View(crop=0.0, flip=False)
        plain, _ = Step(trainer, *batch_of(trainer)).view("plain")
        strong.append((x - plain).abs().mean().item())
    assert strong[1] > strong[0]
