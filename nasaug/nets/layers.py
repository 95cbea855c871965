"""Layers that can run a slice of themselves: the leading channels and the kernel's centre, selected by an argument.

They subclass torch's own layers, so tools that know those also work with these. The slice is given by the `Layer`
passed to `forward`; modules hold no such state. Convolutions are channels-last throughout; a 1x1 convolution is one
matrix product on the (pixels x channels) view, which slices its weight without a copy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from ..arch.blocks import Block, Layer
from ..kernels import native
from ..kernels.choice import select, select_node
from ..kernels.fused import ACTIVATIONS, conv_norm_act, convolve, folded_conv, inverted, inverted_eval, part


class Stats(Protocol):
    """Which statistics a norm uses in a pass, and which it updates.

    With `folds` the norm uses the running statistics and is folded into the preceding convolution. Otherwise it uses
    the batch's own; `updated` returns the ones to update as (mean, var, momentum), or (None, None, 0.0). If they are
    computed outside `norm`, `note` receives them, with the number of values per channel (`count`)."""

    folds: bool

    def updated(self, module: Norm) -> tuple: ...

    def note(self, module: Norm, updated: tuple, count: int) -> None: ...

    def norm(self, module: Norm, x: Tensor, channels: int) -> Tensor: ...


class BatchStats:
    """Use the batch's own statistics and leave the buffers unchanged (every pass but the net's own training pass)."""

    folds = False

    def updated(self, module: Norm) -> tuple:
        return None, None, 0.0

    def note(self, module: Norm, updated: tuple, count: int) -> None:
        pass

    def norm(self, module: Norm, x: Tensor, channels: int) -> Tensor:
        weight, bias = module.scale_shift(channels)
        return F.batch_norm(x, None, None, weight, bias, True, 0.0, module.eps)


class TrackStats(BatchStats):
    """Use the batch's own statistics and update the running ones (the net's own plan in training)."""

    def updated(self, module: Norm) -> tuple:
        return module.running_mean, module.running_var, module.momentum

    def norm(self, module: Norm, x: Tensor, channels: int) -> Tensor:
        mean, var, momentum = self.updated(module)
        return F.batch_norm(x, mean, var, module.weight, module.bias, True, momentum, module.eps)


class RunningStats(BatchStats):
    """Use the running statistics, folded into the preceding convolution if there is one."""

    folds = True

    def updated(self, module: Norm) -> tuple:
        return module.running_mean, module.running_var, 0.0

    def norm(self, module: Norm, x: Tensor, channels: int) -> Tensor:
        return F.batch_norm(
            x, module.running_mean, module.running_var, module.weight, module.bias, False, 0.0, module.eps
        )


@dataclass
class CollectStats:
    """Use the batch's statistics, and merge them over batches into those of all images (Chan et al. 1979).

    Averaging the batches' variances would ignore the spread of their means."""

    folds = False
    taken: dict[Norm, list[tuple[int, Tensor, Tensor]]] = field(default_factory=dict)

    def updated(self, module: Norm) -> tuple:
        return torch.zeros_like(module.running_mean), torch.zeros_like(module.running_var), 1.0

    def norm(self, module: Norm, x: Tensor, channels: int) -> Tensor:
        mean, var, momentum = taken = self.updated(module)
        out = F.batch_norm(x, mean, var, module.weight, module.bias, True, momentum, module.eps)
        self.note(module, taken, x.numel() // channels)
        return out

    def note(self, module: Norm, updated: tuple, count: int) -> None:
        mean, var, _ = updated
        self.taken.setdefault(module, []).append((count, mean, var))

    def join(self, norms: Sequence[Norm], gathered: Callable[[Any], list]) -> None:
        """Add what other processes have taken of a net with the same norms; `gathered` returns what each gives it."""
        own = [[(n, mean.cpu(), var.cpu()) for n, mean, var in self.taken.get(norm, ())] for norm in norms]
        for norm, *rows in zip(norms, *gathered(own), strict=True):
            like = norm.running_mean
            merged = [(n, mean.to(like), var.to(like)) for each in rows for n, mean, var in each]
            if merged:
                self.taken[norm] = merged

    def write(self) -> None:
        """Write the merged mean and (unbiased) variance into the norms' buffers."""
        for module, rows in self.taken.items():
            counts, means, variances = zip(*rows, strict=True)
            n, means = module.running_mean.new_tensor(counts).unsqueeze(1), torch.stack(means)
            total = sum(counts)
            mean = (means * n).sum(0) / total
            squares = torch.stack(variances) * (n - 1) + (means - mean) ** 2 * n
            module.running_mean.copy_(mean)
            module.running_var.copy_(squares.sum(0) / max(total - 1, 1))
            module.num_batches_tracked.fill_(1)


class Norm(nn.BatchNorm2d):
    """Batch norm over leading channels; the pass's `Stats` selects the statistics."""

    def scale_shift(self, channels: int) -> tuple[Tensor, Tensor]:
        return part(self.weight, (channels,)), part(self.bias, (channels,))


class Conv(nn.Conv2d):
    """Convolution with its norm and activation; the norm comes first if `layer.pre` is set."""

    def __init__(self, layer: Layer):
        super().__init__(
            layer.cin, layer.out, layer.kernel, layer.stride, layer.kernel // 2, groups=layer.groups, bias=layer.bias
        )
        self.norm = Norm(layer.cin if layer.pre else layer.out) if layer.norm else None

    def reset_parameters(self) -> None:
        """Does nothing: Net.reset draws all weights."""

    def activate(self, x: Tensor, layer: Layer, stats: Stats) -> Tensor:
        """The norm and activation that precede a pre-activation convolution."""
        return ACTIVATIONS[layer.act](stats.norm(self.norm, x, layer.cin))

    def forward(self, x: Tensor, layer: Layer, stats: Stats) -> Tensor:
        if not layer.pre and self.norm is not None:
            norm = self.norm
            if not stats.folds and select_node(x, layer, self.weight, norm.weight, norm.bias):
                return conv_norm_act(x, layer, self.weight, norm.weight, norm.bias, stats.updated(norm), norm.eps)
        weight, bias = self._slice(layer)
        if layer.pre or self.norm is None:
            x = convolve(x, weight, bias, layer)
            return x if layer.pre else ACTIVATIONS[layer.act](x)
        if stats.folds:
            known = self.norm.running_mean, self.norm.running_var, 0.0
            return folded_conv(x, layer, weight, self.norm.weight, self.norm.bias, known, self.norm.eps)
        return ACTIVATIONS[layer.act](stats.norm(self.norm, convolve(x, weight, bias, layer), layer.out))

    def _slice(self, layer: Layer) -> tuple[Tensor, Tensor | None]:
        bias = None if self.bias is None else part(self.bias, (layer.out,))
        return part(self.weight, (layer.out, layer.cin // layer.groups, layer.kernel, layer.kernel)), bias


def _watched(module: nn.Module) -> bool:
    """Whether hooks are registered that expect this layer to run on its own."""
    hooks = module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks
    return any(hooks) or _has_any_global_hook()


def fused_blocks(convs: Sequence[Sequence[Conv]], x: Tensor, blocks: tuple[Block, ...], stats: Stats) -> Tensor | None:
    """The output of whole blocks, one after another, as one compiled node, or None if each, or its layers, must run on
    its own. `convs`: those of each block."""
    if not select(blocks, x) or any(_watched(conv) for row in convs for conv in row):
        return None
    norms = [[conv.norm for conv in row] for row in convs]
    eps = norms[0][0].eps
    if any(norm.eps != eps for row in norms for norm in row):
        return None
    parameters = [
        [
            native.Parameters(conv.weight, norm.weight, norm.bias, stats.updated(norm))
            for conv, norm in zip(*rows, strict=True)
        ]
        for rows in zip(convs, norms, strict=True)
    ]
    if stats.folds:
        return None if torch.is_grad_enabled() else inverted_eval(x, blocks[0], parameters[0], eps)
    whole = (p for row in parameters for conv in row for p in conv[:3])
    if torch.is_grad_enabled() and not select_node(x, blocks[0].layers[0], *whole):
        return None
    out = inverted(x, blocks, parameters, eps)
    for block, *rows in zip(blocks, norms, parameters, strict=True):
        for layer, norm, conv in zip(block.layers, *rows, strict=True):
            stats.note(norm, conv.running, len(x) * layer.height * layer.width)
    return out


class Linear(nn.Linear):
    """Fully connected layer on leading features."""

    def __init__(self, layer: Layer):
        super().__init__(layer.cin, layer.out, bias=layer.bias)

    def reset_parameters(self) -> None:
        """Does nothing: Net.reset draws all weights."""

    def forward(self, x: Tensor, layer: Layer, stats: Stats) -> Tensor:
        weight, bias = part(self.weight, (layer.out, layer.cin)), part(self.bias, (layer.out,))
        return ACTIVATIONS[layer.act](F.linear(x.flatten(1), weight, bias))


class SqueezeExcite(nn.Module):
    """Channel attention: global mean, reduce, ReLU, expand, hard sigmoid (MobileNetV3's form)."""

    def __init__(self, layer: Layer):
        super().__init__()
        self.reduce = nn.Linear(layer.cin, layer.mid)
        self.expand = nn.Linear(layer.mid, layer.out)

    def forward(self, x: Tensor, layer: Layer, stats: Stats) -> Tensor:
        c, m = layer.out, layer.mid
        y = F.linear(x.mean((2, 3)), part(self.reduce.weight, (m, c)), part(self.reduce.bias, (m,)))
        y = F.linear(F.relu(y), part(self.expand.weight, (c, m)), part(self.expand.bias, (c,)))
        y = F.hardsigmoid(y)
        return x * y[:, :, None, None]


class Pool(nn.Module):
    """Global average pooling."""

    def __init__(self, layer: Layer):
        super().__init__()

    def forward(self, x: Tensor, layer: Layer, stats: Stats) -> Tensor:
        return x.mean((2, 3), keepdim=True)


class MaxPool(nn.MaxPool2d):
    def __init__(self, layer: Layer):
        super().__init__(layer.kernel, layer.stride, layer.kernel // 2)

    def forward(self, x: Tensor, layer: Layer, stats: Stats) -> Tensor:
        return super().forward(x)


class NormAct(nn.Module):
    """A separate norm with its activation: the end of a pre-activation network."""

    def __init__(self, layer: Layer):
        super().__init__()
        self.norm = Norm(layer.out)

    def forward(self, x: Tensor, layer: Layer, stats: Stats) -> Tensor:
        return ACTIVATIONS[layer.act](stats.norm(self.norm, x, layer.out))


LAYERS = {
    "conv": Conv, "linear": Linear, "se": SqueezeExcite, "pool": Pool, "maxpool": MaxPool, "norm": NormAct,
}  # fmt: skip
