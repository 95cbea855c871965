"""The gradients of a slice are those of the narrowed net."""

import copy
from random import Random
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from nasaug.arch.plan import plan
from nasaug.kernels.fused import conv_norm_act
from nasaug.nets.net import Net
from support.nets import far, holder, images, largest, place, shaken, with_buffers
from support.spaces import SPACES, archs_of, every_space


@every_space
@pytest.mark.parametrize("prepare", [lambda net: net, with_buffers], ids=["fresh", "into buffers"])
@given(data=st.data())
@settings(max_examples=5)
def test_gradients_are_those_of_the_narrowed_net_and_zero_outside_the_slice(space, prepare, data):
    p = plan(space, data.draw(archs_of(space)), 10)
    net, x = prepare(shaken(holder(space))), images(p)
    small = net.narrow(p)
    labels = torch.arange(len(x)) % 10
    F.cross_entropy(net(x, p), labels).backward()
    F.cross_entropy(small(x), labels).backward()
    wanted = {name: parameter.grad for name, parameter in small.named_parameters()}
    for name, parameter in net.named_parameters():
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        if name in wanted:
            inside = gradient[place(parameter.shape, wanted[name].shape)]
            assert torch.allclose(inside, wanted[name], rtol=1e-9, atol=1e-12), name
            inside.zero_()
        assert not gradient.any(), name


@every_space
def test_several_passes_add_up_in_the_buffers(space):
    net = with_buffers(shaken(holder(space)))
    plans = [plan(space, space.sample(Random(seed)), 10) for seed in range(3)]
    for p in plans:
        net(images(p), p).square().mean().backward()
    summed = {name: t.grad.clone() for name, t in net.named_parameters()}
    for p in plans:
        alone = with_buffers(copy.deepcopy(net))
        alone(images(p), p).square().mean().backward()
        for name, parameter in alone.named_parameters():
            summed[name] -= parameter.grad
    assert max(t.abs().max().item() for t in summed.values()) < 1e-9


def test_gradients_may_be_dropped_between_the_two_passes():
    """As in the common loop: out = net(x); optimizer.zero_grad(); loss.backward()."""
    space = SPACES["squeeze"]
    net, p = shaken(largest(space)), plan(space, space.smallest, 10)
    x = images(p)
    net(x, p).square().mean().backward()
    first = {name: t.grad.clone() for name, t in net.named_parameters() if t.grad is not None}
    loss = net(x, p).square().mean()
    net.zero_grad(set_to_none=True)
    loss.backward()
    for name, gradient in first.items():
        assert torch.allclose(net.get_parameter(name).grad, gradient), name


@every_space
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-3)])
@given(data=st.data())
@settings(max_examples=6)
def test_a_step_with_gradient_buffers_equals_one_without(space, dtype, tolerance, data):
    """With them a convolution, its norm and its activation are one operation, without them three of torch's."""
    net = shaken(holder(space), dtype)
    p = plan(space, data.draw(st.just(space.largest) | archs_of(space)), 10)
    x = images(p, dtype=dtype).requires_grad_()
    twin = copy.deepcopy(net)
    for parameter in twin.parameters():
        parameter.grad = torch.zeros_like(parameter)
    plain = net(x, p)
    with patch("nasaug.nets.layers.conv_norm_act", wraps=conv_norm_act) as one_operation:
        fused = twin(x, p)
    assert one_operation.called or space.name == "preactivation"  # except where a norm precedes its convolution
    assert far(fused, plain) < tolerance
    target = torch.randn(plain.shape, generator=torch.Generator().manual_seed(5)).to(dtype)
    (to_plain,) = torch.autograd.grad((plain * target).sum(), x, retain_graph=True)
    (plain * target).sum().backward()
    x.grad = None
    (fused * target).sum().backward()
    # relative to the whole gradient: in single precision a value may fall on the other side of a kink in either
    assert (x.grad - to_plain).norm() < tolerance * to_plain.norm()
    scale = max(t.grad.abs().max() for t in net.parameters() if t.grad is not None)
    for (name, one), two in zip(net.named_parameters(), twin.parameters(), strict=True):
        expected = torch.zeros_like(two) if one.grad is None else one.grad
        assert (two.grad - expected).abs().max() < tolerance * scale, name
    for one, two in zip(net.buffers(), twin.buffers(), strict=True):  # relative to the largest, as means can be near 0
        assert (one - two).abs().max() <= tolerance / 10 * two.abs().max()


@every_space
def test_blocks_that_begin_as_identities_still_learn(space):
    """A net of pre-activation blocks is left unchanged: a scale of zero would pass no gradient back."""
    net, x = Net(largest(space)), images(largest(space), dtype=torch.float32)
    fresh = [t.clone() for t in net.parameters()]
    net.start_as_identities()
    silent = [name for name, t in net.named_parameters() if t.dim() == 1 and not t.any() and "norm.weight" in name]
    assert len(silent) == sum(b.shortcut == "identity" and not b.layers[-1].pre for b in net.plan.blocks)
    assert silent or all(torch.equal(a, b) for a, b in zip(fresh, net.parameters(), strict=True))
    net(x).square().mean().backward()
    assert all(net.get_parameter(name).grad.any() for name in silent)
