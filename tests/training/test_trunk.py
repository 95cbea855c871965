"""What is trained of the trunk: everything, at a rate of its own, the norms alone, or nothing."""

import pytest
import torch

from nasaug.methods import Baseline, GradAug
from nasaug.nets.net import Net
from nasaug.training.length import Training
from support.trainers import base_of, batch_of, run_to_the_end, train, trainer_of


def settings(**more):
    return Training(epochs=2, batch=16, lr=0.05, weight_decay=0.01, **more)


def trained_net():
    """A net whose norms have statistics of images."""
    net = Net(base_of().plan, 1)
    px = net.plan.resolution
    return net.train().calibrate([torch.randn(16, 3, px, px, generator=torch.Generator().manual_seed(0))])


def changed(net, before):
    return {name for name, t in net.state_dict().items() if not torch.equal(t, before[name])}


def state(net):
    return {name: t.clone() for name, t in net.state_dict().items()}


@pytest.mark.parametrize("method", [Baseline(), GradAug(num_subnet=1)], ids=["baseline", "gradaug"])
@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_frozen_trunk_is_unchanged_to_its_statistics(method, ema):
    net = trained_net()
    before = state(net)
    trainer = run_to_the_end(trainer_of(method, net=net, training=settings(trunk="frozen", ema=ema)))
    head = {"classifier.weight", "classifier.bias"}
    assert changed(trainer.net, before) == head == changed(trainer.product(), before)
    assert {name for name, p in trainer.net.named_parameters() if p.requires_grad} == head
    assert set(trainer.weights.trained) == head


def test_a_frozen_trunk_computes_what_the_net_does_in_evaluation():
    """And the head's gradient is that of the same features, so that training and evaluation see the same net."""
    trainer = trainer_of(Baseline(), net=trained_net(), training=settings(trunk="frozen"))
    x = torch.randn(8, 3, trainer.plan.resolution, trainer.plan.resolution)
    out = trainer.net(x, frozen=True)
    with torch.no_grad():
        torch.testing.assert_close(out, trainer.net.eval()(x), rtol=1e-4, atol=1e-5)
    assert out.requires_grad
    trainer.net.train()
    with pytest.raises(AssertionError):  # the batch's own statistics give something else
        torch.testing.assert_close(trainer.net(x), out, rtol=1e-4, atol=1e-5)


def test_a_frozen_trunk_without_statistics_is_refused():
    with pytest.raises(RuntimeError, match="calibrate"):
        train(trainer_of(Baseline(), training=settings(trunk="frozen")))


def test_norms_alone_are_trained_with_the_head():
    net = trained_net()
    before = state(net)
    trainer = train(trainer_of(Baseline(), net=net, training=settings(trunk="norms")), 3)
    parameters = {name for name in changed(trainer.net, before) if name in trainer.weights.trained}
    assert parameters == set(trainer.weights.trained)
    assert all(".norm." in name or name.startswith("classifier.") for name in parameters) and len(parameters) > 6
    frozen = {name for name, _ in trainer.net.named_parameters()} - parameters
    assert frozen and not frozen & changed(trainer.net, before)


def test_the_trunk_has_its_own_learning_rate():
    """After one step each parameter of the trunk has moved by the factor of what it moves at the usual rate."""
    moves = {}
    for factor in (1.0, 0.25):
        net = trained_net()
        before = state(net)
        trainer = trainer_of(Baseline(), net=net, training=settings(trunk_lr=factor))
        trainer.train_step(*batch_of(trainer))
        moves[factor] = {name: p.detach() - before[name] for name, p in trainer.net.named_parameters()}
    for name, move in moves[1.0].items():
        factor = 1.0 if name.startswith("classifier.") else 0.25
        torch.testing.assert_close(moves[0.25][name], factor * move, rtol=1e-3, atol=1e-7)
        assert move.dim() == 1 or move.abs().max() > 0


@pytest.mark.parametrize("trunk", ["norms", "frozen"])
def test_a_resumed_training_of_a_part_ends_alike(trunk, tmp_path):
    def made():
        return trainer_of(Baseline(), net=trained_net(), training=settings(trunk=trunk, trunk_lr=0.5))

    whole, half = train(made(), 4), train(made(), 2)
    half.save(tmp_path / "checkpoint")
    resumed = made()
    resumed.load(tmp_path / "checkpoint")
    for number in (2, 3):
        resumed.train_step(*batch_of(resumed, number))
    for name, t in whole.net.state_dict().items():
        assert torch.equal(t, resumed.net.state_dict()[name]), name
