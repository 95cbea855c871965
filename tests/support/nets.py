"""Nets in which every parameter affects the output, and what tests compare of them."""

import torch

from nasaug.arch.plan import plan, whole
from nasaug.nets.net import Net


def shaken(p, dtype=torch.float64, seed=0):
    """A net whose norms and biases are not at their initial values, so that leaving one out changes the output."""
    net = Net(p, seed).to(dtype)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.dim() == 1:
                parameter.copy_(0.5 + torch.rand(parameter.shape, generator=generator))
    return net.train()


def images(p, count=12, dtype=torch.float64, seed=1):
    """Normalised noise at the resolution of plan `p`, (count, 3, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, p.resolution, p.resolution, generator=generator).to(dtype)


def largest(space):
    """The plan of the space's largest net, ten classes."""
    return plan(space, space.largest, 10)


def holder(space):
    """The plan of the net that holds the whole space, ten classes."""
    return whole(space, 10)


def calibrated(net):
    """The net in evaluation mode, calibrated on some images."""
    return net.calibrate([images(net.plan, seed=7).to(next(net.parameters()).dtype)]).eval()


def far(a, b):
    """The largest difference relative to the largest value."""
    return ((a - b).abs().max() / b.abs().max()).item()


def statistics(net):
    """Copies of the buffers by name."""
    return {name: buffer.clone() for name, buffer in net.named_buffers()}


def same(one, two):
    """Whether two dictionaries of tensors are bit-identical."""
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def with_buffers(net):
    """As the trainer does: a gradient buffer for every parameter, to which backward adds."""
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    return net


def place(shape, part):
    """Where a slice lies in a tensor of `shape`: leading channels, the centre of kernels."""
    pairs = enumerate(zip(shape, part, strict=True))
    starts = [(whole - size) // 2 if dim > 1 else 0 for dim, (whole, size) in pairs]
    return tuple(slice(start, start + size) for start, size in zip(starts, part, strict=True))
