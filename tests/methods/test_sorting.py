"""Channels are sorted by importance, with their momentum, if a method asks for it."""

import pytest
import torch

from nasaug.arch.channels import channel_groups
from nasaug.arch.plan import plan
from nasaug.methods import Base, NetAug, Sandwich
from nasaug.methods.netaug import sort_channels
from nasaug.nets.net import Net
from support.nets import same
from support.spaces import SPACES
from support.trainers import SPACE, batch_of, train, trainer_of, weights


@pytest.mark.parametrize("name", SPACES)
def test_sorting_puts_the_most_important_inner_channels_first_and_changes_no_output(name):
    space = SPACES[name]
    net = Net(plan(space, space.largest, 10), seed=2).double().train()
    p = net.plan
    x = torch.linspace(-2, 2, 8 * 3 * p.resolution**2, dtype=torch.float64).sin()
    x = x.view(8, 3, p.resolution, p.resolution)
    before, streams, out = weights(net), {block.name for block in p.blocks}, net(x)
    momentum = weights(net)  # the same values, so they must be permuted alike
    sort_channels(net, net.plan, momentum)
    assert torch.allclose(net(x), out, rtol=1e-9, atol=1e-12)
    assert same(momentum, weights(net)) and not same(momentum, before)
    inner = {name: group for name, group in channel_groups(p).items() if name not in streams}
    assert inner
    for group in inner.values():
        importance = net.importance(group)
        assert torch.equal(importance, importance.sort(descending=True).values)


def test_residual_streams_keep_their_order():
    net = Net(plan(SPACE, SPACE.largest, 4), seed=2)
    groups = channel_groups(net.plan)
    importance = {name: net.importance(groups[name]) for name in ("stem", "s1.b1", "s2", "final", "mix")}
    for values in importance.values():
        assert not torch.equal(values, values.sort(descending=True).values)  # not yet sorted
    stem = net.stem.weight.clone()
    sort_channels(net, net.plan, {})
    assert torch.equal(net.stem.weight, stem)
    for name, before in importance.items():
        assert torch.allclose(net.importance(groups[name]), before)


@pytest.mark.parametrize(
    ("sort", "inherited", "progress", "sorts"),
    [
        ("auto", False, 0.0, True),
        ("auto", False, 0.5, False),
        ("auto", True, 0.0, False),
        (True, True, 0.0, True),
        (False, False, 0.0, False),
    ],
)
def test_channels_are_sorted_while_widths_vary_and_weights_are_fresh(sort, inherited, progress, sorts):
    trainer = train(trainer_of(NetAug(ladder="factors", sort=sort), inherited=inherited))
    trainer.step = round(progress * trainer.length.steps)
    before, order = weights(trainer.net), {name: t.clone() for name, t in trainer.companions()[0].items()}
    trainer.method.on_epoch(trainer)
    assert same(weights(trainer.net), before) != sorts
    assert same(trainer.companions()[0], order) != sorts


def test_a_supernet_keeps_its_order():
    """If it were sorted every epoch, its subnets would hold different channels each time."""
    base = Base(plan(SPACE, SPACE.largest, 4), SPACE, SPACE.largest)
    trainer = trainer_of(Sandwich(samples=1, low=1e4, high=1e6), base)
    trainer.train_step(*batch_of(trainer))
    before, momentum = weights(trainer.net), {name: t.clone() for name, t in trainer.companions()[0].items()}
    trainer.method.on_epoch(trainer)
    assert same(weights(trainer.net), before) and same(trainer.companions()[0], momentum)


def test_momentum_is_sorted_or_left_as_told():
    lying, sorted_ = (trainer_of(NetAug(ladder="factors", sort_momentum=flag)) for flag in (False, True))
    for trainer in (lying, sorted_):
        trainer.train_step(*batch_of(trainer))
        before = {name: t.clone() for name, t in trainer.companions()[0].items()}
        trainer.method.on_epoch(trainer)
        assert same(before, trainer.companions()[0]) == (trainer is lying)
