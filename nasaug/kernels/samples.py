"""Small synthetic workloads of the kernels, for the self-test in choice.py."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from ..arch.blocks import Layer, Spec, lower
from . import native
from .choice import SAMPLES, select
from .fused import conv_norm_act, folded_conv, inverted, inverted_eval, summed_in_place

BATCH, EPS = 16, 1e-5
NO_RUNNING = (None, None, 0.0)
SIDES = {"large": 16, "middle": 6, "small": 2}  # side in px of the map that represents each size
Work = Callable[[], list[Tensor]]


def block(side: int, training: bool, g: torch.Generator) -> Work:
    """An inverted block of medium width, as one node or layer by layer; fewer channels on large maps."""
    cin, hidden = (12, 72) if side > 8 else (24, 144)
    made = lower(Spec("it", "inverted", cin, hidden, 3, 1, "relu6", 0, "identity"), cin, side, side)
    x, grad = (_images(BATCH, cin, side, g) for _ in range(2))
    convs = [_parameters(layer, g, training) for layer in made.layers]
    single = conv_norm_act if training else folded_conv

    def forward(x: Tensor) -> Tensor:
        if select((made,), x):
            return inverted(x, [made], [convs], EPS) if training else inverted_eval(x, made, convs, EPS)
        out = x
        for layer, conv in zip(made.layers, convs, strict=True):
            out = single(out, layer, *conv, EPS)
        return out + x

    def evaluate() -> list[Tensor]:
        with torch.no_grad():
            return [forward(x)]

    def train() -> list[Tensor]:
        given = x.detach().requires_grad_()
        return _back(forward(given), grad, given, [p for conv in convs for p in conv[:3]])

    return train if training else evaluate


def layer(kernel: int, g: torch.Generator) -> Work:
    """Forward and backward of a convolution with norm and activation: depthwise if its kernel is larger than 1."""
    channels, side = 64, 8
    groups = 1 if kernel == 1 else channels
    made = Layer("it", "conv", channels, channels, side, side, kernel, 1, groups, act="relu6")
    x, grad = (_images(BATCH, channels, side, g) for _ in range(2))
    conv = _parameters(made, g, True)

    def work() -> list[Tensor]:
        given = x.detach().requires_grad_()
        return _back(conv_norm_act(given, made, *conv, EPS), grad, given, list(conv[:3]))

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


for _size, _side in SIDES.items():
    for _use in ("training", "evaluation"):
        SAMPLES[f"block, {_use}, {_size} maps"] = partial(block, _side, _use == "training")
SAMPLES["norm and activation"] = partial(layer, 1)
SAMPLES["depthwise gradient, 3 x 3"] = partial(layer, 3)
SAMPLES["depthwise gradient, larger"] = partial(layer, 5)
