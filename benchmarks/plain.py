"""A plan as an ordinary torch network in NCHW, with no slices and no fused operations: the reference for speed.

Parameter names and shapes match `nasaug.nets.net.Net`'s, so state dicts are interchangeable.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nasaug.arch.blocks import Layer
from nasaug.arch.plan import Plan
from nasaug.nets.net import Net

ACTS = {"": lambda x: x, "relu": F.relu, "relu6": F.relu6, "hswish": F.hardswish}


class Conv(nn.Conv2d):
    def __init__(self, layer: Layer):
        super().__init__(
            layer.cin, layer.out, layer.kernel, layer.stride, layer.kernel // 2, groups=layer.groups, bias=layer.bias
        )
        self.norm = nn.BatchNorm2d(layer.out) if layer.norm else nn.Identity()
        self.act = ACTS[layer.act]

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(super().forward(x)))


class PlainNet(nn.Module):
    """The network of a plan of convolutions, pooling, linear layers and identity shortcuts."""

    def __init__(self, plan: Plan):
        super().__init__()
        self.plan = plan
        for layer in plan.layers:
            if layer.op == "conv":
                self._put(layer.name, Conv(layer))
            elif layer.op == "linear":
                self._put(layer.name, nn.Linear(layer.cin, layer.out))
            elif layer.op != "pool":
                raise ValueError(f"{layer.name}: a plain network has no {layer.op}")

    _put = Net._put  # the same names

    def forward(self, x: Tensor) -> Tensor:
        for block in self.plan.blocks:
            source = x
            for layer in block.layers:
                x = F.adaptive_avg_pool2d(x, 1) if layer.op == "pool" else self._layer(layer, x)
            if block.shortcut == "identity":
                x = x + source
        return x

    def _layer(self, layer: Layer, x: Tensor) -> Tensor:
        return self.get_submodule(layer.name)(x.flatten(1) if layer.op == "linear" else x)


@torch.no_grad()
def calibrate(net: nn.Module, batches: list[Tensor]) -> None:
    """Sets norm statistics to their means over the batches, as the published implementations do."""
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative mean
    net.train()
    for x in batches:
        net(x)
    net.eval()
