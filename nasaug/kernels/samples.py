"""Small pieces of a training step on made-up numbers, for the self-test of choice.py: each does its work once a call
and gives its results."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..plan import Block, Layer, Spec, lower
from . import native
from .fused import conv_norm_act, folded_conv, inverted, inverted_eval, summed_in_place

BATCH, EPS = 16, 1e-5
NO_RUNNING = (None, None, 0.0)
Work = Callable[[], list[Tensor]]


def block(side: int, training: bool, g: torch.Generator) -> Work:
    """An inverted block of middling width, as one node or layer by layer; fewer channels on large maps."""
    cin, hidden = (12, 72) if side > 8 else (24, 144)
    made = lower(Spec("it", "inverted", cin, hidden, 3, 1, "relu6", 0, "identity"), cin, side, side)
    x, grad = (_images(BATCH, cin, side, g) for _ in range(2))
    convs = [_parameters(layer, g, training) for layer in made.layers]

    def evaluate() -> list[Tensor]:
        with torch.no_grad():
            return [_evaluated(x, made, convs)]

    def train() -> list[Tensor]:
        given = x.detach().requires_grad_()
        return _back(_trained(given, made, convs), grad, given, [p for conv in convs for p in conv[:3]])

    return train if training else evaluate


def _trained(x: Tensor, made: Block, convs: list[native.Parameters]) -> Tensor:
    from .choice import select

    if select(made, x):
        return inverted(x, made, convs, EPS)
    out = x
    for layer, conv in zip(made.layers, convs, strict=True):
        out = conv_norm_act(out, layer, *conv[:3], NO_RUNNING, EPS)
    return out + x


def _evaluated(x: Tensor, made: Block, convs: list[native.Parameters]) -> Tensor:
    from .choice import select

    if select(made, x):
        return inverted_eval(x, made, convs, EPS)
    out = x
    for layer, conv in zip(made.layers, convs, strict=True):
        out = folded_conv(out, layer, *conv, EPS)
    return out + x


def layer(kernel: int, g: torch.Generator) -> Work:
    """A convolution with its norm and activation, forward and back: depthwise where its kernel is larger than 1."""
    channels, side = 64, 8
    groups = 1 if kernel == 1 else channels
    made = Layer("it", "conv", channels, channels, side, side, kernel, 1, groups, act="relu6")
    x, grad = (_images(BATCH, channels, side, g) for _ in range(2))
    conv = _parameters(made, g, True)

    def work() -> list[Tensor]:
        given = x.detach().requires_grad_()
        return _back(conv_norm_act(given, made, *conv[:3], NO_RUNNING, EPS), grad, given, list(conv[:3]))

    return work


def _back(out: Tensor, grad: Tensor, x: Tensor, parameters: list[Tensor]) -> list[Tensor]:
    for p in parameters:
        p.grad.zero_()
    with summed_in_place(parameters):
        out.backward(grad)
    return [out.detach(), x.grad, *(p.grad.clone() for p in parameters)]


def _images(n: int, channels: int, side: int, g: torch.Generator) -> Tensor:
    return torch.randn(n, channels, side, side, generator=g).contiguous(memory_format=torch.channels_last)


def _parameters(layer: Layer, g: torch.Generator, training: bool) -> native.Parameters:
    shape = layer.out, layer.cin // layer.groups, layer.kernel, layer.kernel
    weight = torch.randn(shape, generator=g) * (shape[1] * shape[2] ** 2) ** -0.5
    weight = weight.contiguous(memory_format=torch.channels_last)
    scale, shift = torch.rand(layer.out, generator=g) + 0.5, torch.randn(layer.out, generator=g)
    for p in (weight, scale, shift) if training else ():
        p.requires_grad_().grad = torch.zeros_like(p)
    known = NO_RUNNING if training else (torch.zeros(layer.out), torch.ones(layer.out), 0.0)
    return native.Parameters(weight, scale, shift, known)
