"""Law 6: permuting channels together with their momentum changes nothing."""

import torch
import torch.nn.functional as F

from nasaug.arch.channels import channel_groups
from nasaug.nets.net import Net
from support.nets import calibrated, far, images, largest, same, shaken
from support.spaces import SPACES, every_space


def orders(net, seed=0):
    """A random order for every group of channels."""
    generator = torch.Generator().manual_seed(seed)
    groups = channel_groups(net.plan).values()
    return [(group, torch.randperm(group.size, generator=generator)) for group in groups]


@every_space
def test_a_groups_size_is_that_of_each_of_its_members(space):
    net = Net(largest(space))
    tensors = net.state_dict()
    for name, group in channel_groups(net.plan).items():
        assert {tensors[member].shape[dim] for member, dim in group.members} == {group.size}, name
        assert set(group.readers) <= set(group.members)


@every_space
def test_any_order_of_any_channels_leaves_the_outputs_as_they_are(space):
    net = calibrated(shaken(largest(space)))
    x = images(net.plan)
    evaluated, trained = net(x), net.train()(x)
    net.calibrate([images(net.plan, seed=7)])
    for group, order in orders(net):
        weights = {name: t.clone() for name, t in net.named_parameters()}
        net.permute(group, order)
        assert not same(dict(net.named_parameters()), weights)
        assert far(net.eval()(x), evaluated) < 1e-12
    assert far(net.train()(x), trained) < 1e-12


def test_channel_i_becomes_the_old_order_i():
    net = shaken(largest(SPACES["squeeze"]))
    group = channel_groups(net.plan)["s1.b1.expand"]
    before = {name: t.clone() for name, t in net.named_parameters()}
    order = torch.arange(group.size).roll(1)
    net.permute(group, order)
    weight, bias = "s1.b1.expand.weight", "s1.b1.dw.norm.bias"
    assert torch.equal(net.get_parameter(weight)[1:], before[weight][:-1])
    assert torch.equal(net.get_parameter(bias), before[bias][order])


def step(net, optimizer, x):
    optimizer.zero_grad()
    F.cross_entropy(net(x), torch.arange(len(x)) % 10).backward()
    optimizer.step()


def momentum(net, optimizer):
    return {name: optimizer.state[p]["momentum_buffer"] for name, p in net.named_parameters()}


def after_a_permuted_step(space, carry):
    """(net, twin): permuted after two steps; permuted between them, with the momentum if `carry`."""
    nets = [shaken(largest(space)) for _ in range(2)]
    x = images(nets[0].plan)
    for i, net in enumerate(nets):
        optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, nesterov=True, weight_decay=1e-3)
        step(net, optimizer, x)
        for group, order in orders(net) if i else ():
            net.permute(group, order, *([momentum(net, optimizer)] if carry else []))
        step(net, optimizer, images(net.plan, seed=4))
    for group, order in orders(nets[0]):
        nets[0].permute(group, order)
    return nets


@every_space
def test_the_next_step_is_the_permuted_step(space):
    net, twin = after_a_permuted_step(space, carry=True)
    for name, tensor in net.state_dict().items():
        assert torch.allclose(tensor.double(), twin.state_dict()[name].double(), rtol=1e-9, atol=1e-12), name


@every_space
def test_without_its_momentum_the_next_step_is_another(space):
    net, twin = after_a_permuted_step(space, carry=False)
    pairs = zip(net.parameters(), twin.parameters(), strict=True)
    assert max(far(one, two) for one, two in pairs) > 1e-2


def test_importance_is_the_l1_norm_of_the_weights_that_read_a_channel():
    net = shaken(largest(SPACES["residual"]))
    groups = channel_groups(net.plan)
    conv3 = net.get_parameter("s2.b1.conv3.weight").detach()
    assert torch.allclose(net.importance(groups["s2.b1.conv2"]).double(), conv3.abs().sum((0, 2, 3)))
    readers = [net.get_parameter(f"{n}.weight") for n in ("s2.b2.conv1", "s2.b3.conv1", "classifier")]
    wanted = sum(weight.detach().flatten(1).abs().sum(0) for weight in readers)  # 1x1 kernels: [out, in]
    assert torch.allclose(net.importance(groups["s2.b1"]).double(), wanted)


def test_a_squeeze_excites_channels_weigh_what_the_next_convolution_and_its_own_expansion_read():
    net = shaken(largest(SPACES["squeeze"]))
    groups = channel_groups(net.plan)
    project, expand = (net.get_parameter(f"s1.b2.{n}.weight").detach() for n in ("project", "se.expand"))
    assert torch.allclose(net.importance(groups["s1.b2.expand"]).double(), project.abs().sum((0, 2, 3)))
    assert torch.allclose(net.importance(groups["s1.b2.se"]).double(), expand.abs().sum(0))
