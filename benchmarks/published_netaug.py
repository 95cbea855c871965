"""The training step of the published NetAug code, re-implemented plainly: the reference for speed.

Written from the structure's description (Cai et al., "Network Augmentation for Tiny Deep Learning", ICLR
2022, and its published settings), not copied from it: MobileNetV2-Tiny in NCHW; every elastic convolution
slices the widest weights and makes the slice contiguous in each pass; batch norm with sliced parameters and
statistics; one backward pass of the base network and one of an augmented network drawn at random, then one
step of SGD. The plain network of ordinary torch layers, trained conventionally, is here as well.

    python benchmarks/published_netaug.py [--size 32] [--batch 128] [--threads 2] [--rounds 5]
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

WIDTH_FACTORS = (1.0, 1.8, 2.6)
EXPAND_FACTORS = (1.0, 1.6, 2.2, 2.8)

# MobileNetV2-Tiny; its width multiplier of 0.35 is already in these widths
STEM, SEPARABLE, HEAD, EXPAND = 16, 8, 448, 6
STAGES = ((8, 2, 2), (16, 3, 2), (24, 4, 2), (32, 3, 1), (56, 3, 2), (112, 1, 1))  # width, blocks, stride
# width, stride, shortcut
BLOCKS = tuple((width, 1 if i else stride, i > 0) for width, n, stride in STAGES for i in range(n))


def widths(pick: Callable[[Sequence[float]], float]) -> list[int]:
    """Output widths of all convolutions but the depthwise ones, in forward order; `pick` chooses each factor.

    `min` gives the base network, `max` the widest augmented one, `random.Random(seed).choice` a random one.
    A block with a shortcut keeps its input's width; an expand factor applies to the already widened input.
    """
    inputs = round(SEPARABLE * pick(WIDTH_FACTORS))
    chosen = [round(STEM * pick(WIDTH_FACTORS)), inputs]
    for width, _, shortcut in BLOCKS:
        outputs = inputs if shortcut else round(width * pick(WIDTH_FACTORS))
        chosen += [round(EXPAND * pick(EXPAND_FACTORS) * inputs), outputs]
        inputs = outputs
    return [*chosen, round(HEAD * pick(WIDTH_FACTORS))]


class SlicedConv(nn.Conv2d):
    """A convolution that uses its first `active` filters and as many input channels as it is given; if depthwise, as
    many filters as it is given channels."""

    active: int

    def forward(self, x):
        if self.groups > 1:
            weight = self.weight[: x.shape[1]].contiguous()
            return F.conv2d(x, weight, None, self.stride, self.padding, groups=x.shape[1])
        weight = self.weight[: self.active, : x.shape[1]].contiguous()
        return F.conv2d(x, weight, None, self.stride, self.padding)


class SlicedNorm(nn.BatchNorm2d):
    """Batch norm in training mode with the first entries of its parameters and running statistics."""

    def forward(self, x):
        n = x.shape[1]
        self.num_batches_tracked.add_(1)
        mean, var = self.running_mean[:n], self.running_var[:n]
        return F.batch_norm(x, mean, var, self.weight[:n], self.bias[:n], True, self.momentum, self.eps)


class SlicedLinear(nn.Linear):
    """A linear layer that uses as many input features as it is given."""

    def forward(self, x):
        return F.linear(x, self.weight[:, : x.shape[1]].contiguous(), self.bias)


class Layers(NamedTuple):
    """The layer classes that a network is built from; all keep torch's default initialisation (Kaiming-uniform)."""

    conv: type[nn.Conv2d]
    norm: type[nn.BatchNorm2d]
    linear: type[nn.Linear]


PLAIN = Layers(nn.Conv2d, nn.BatchNorm2d, nn.Linear)
SLICED = Layers(SlicedConv, SlicedNorm, SlicedLinear)


def _conv(layers: Layers, inputs: int, outputs: int, kernel: int, stride=1, groups=1, act=True):
    conv = layers.conv(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    norm = layers.norm(outputs)
    return nn.Sequential(conv, norm, nn.ReLU6(inplace=True)) if act else nn.Sequential(conv, norm)


class InvertedBlock(nn.Module):
    """1×1 expansion, 3×3 depthwise, 1×1 projection, with or without the identity shortcut."""

    def __init__(self, layers: Layers, inputs: int, expanded: int, outputs: int, stride: int, shortcut: bool):
        super().__init__()
        self.body = nn.Sequential(
            _conv(layers, inputs, expanded, 1),
            _conv(layers, expanded, expanded, 3, stride, groups=expanded),
            _conv(layers, expanded, outputs, 1, act=False),
        )
        self.shortcut = shortcut

    def forward(self, x):
        return x + self.body(x) if self.shortcut else self.body(x)


def build(layers: Layers, channels: Sequence[int], classes: int) -> nn.Sequential:
    """MobileNetV2-Tiny as wide as `channels` (see `widths`): (batch, 3, h, w) to (batch, classes)."""
    stem, inputs, *inner, head = channels
    net = [_conv(layers, 3, stem, 3, 2), _conv(layers, stem, stem, 3, groups=stem)]
    net.append(_conv(layers, stem, inputs, 1, act=False))
    for (_, stride, shortcut), expanded, outputs in zip(BLOCKS, inner[::2], inner[1::2], strict=True):
        net.append(InvertedBlock(layers, inputs, expanded, outputs, stride, shortcut))
        inputs = outputs
    net += [_conv(layers, inputs, head, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*net, layers.linear(head, classes))


def make(classes: int = 10) -> tuple[nn.Sequential, nn.Sequential]:
    """The plain base network and the elastic network, which holds the widest weights and runs the base."""
    plain, elastic = build(PLAIN, widths(min), classes), build(SLICED, widths(max), classes)
    set_active(elastic, widths(min))
    return plain, elastic


def set_active(elastic: nn.Module, channels: Sequence[int]) -> None:
    """Make the next passes of the elastic network as wide as `channels` (see `widths`)."""
    convs = [m for m in elastic.modules() if isinstance(m, SlicedConv) and m.groups == 1]
    for conv, width in zip(convs, channels, strict=True):
        conv.active = width


def sgd(net: nn.Module) -> torch.optim.SGD:
    """SGD with Nesterov momentum in torch's default form; no weight decay on biases and norms."""
    exempt = [p for p in net.parameters() if p.dim() == 1]
    decayed = [p for p in net.parameters() if p.dim() > 1]
    groups = [{"params": exempt, "weight_decay": 0.0}, {"params": decayed, "weight_decay": 4e-5}]
    return torch.optim.SGD(groups, lr=0.025, momentum=0.9, nesterov=True)


def plain_step(net: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor) -> None:
    """One ordinary training step on images (batch, 3, h, w) and labels (batch,)."""
    optimizer.zero_grad()
    F.cross_entropy(net(x), y, label_smoothing=0.1).backward()
    optimizer.step()


def netaug_step(elastic: nn.Module, optimizer: torch.optim.Optimizer, x, y, rng: random.Random) -> None:
    """One NetAug step: the gradients of the base and of one augmented network drawn with `rng`, added."""
    optimizer.zero_grad()
    for pick in (min, rng.choice):
        set_active(elastic, widths(pick))
        F.cross_entropy(elastic(x), y, label_smoothing=0.1).backward()
    optimizer.step()


def images_per_second(step: Callable[[], None], batch: int, steps: int) -> float:
    """Images per second over `steps` calls of `step`, each on `batch` images."""
    start = time.perf_counter()
    for _ in range(steps):
        step()
    return batch * steps / (time.perf_counter() - start)


def measure(batch: int, size: int, rounds: int) -> dict[str, tuple[float, ...]]:
    """Images per second of both steps on random images, in alternating rounds after a warm-up round."""
    x, y = torch.randn(batch, 3, size, size), torch.randint(10, (batch,))
    (plain, elastic), rng = make(), random.Random(0)
    plain_sgd, elastic_sgd = sgd(plain), sgd(elastic)
    steps = {
        "plain": lambda: plain_step(plain, plain_sgd, x, y),
        "NetAug": lambda: netaug_step(elastic, elastic_sgd, x, y, rng),
    }
    table = [[images_per_second(step, batch, 6) for step in steps.values()] for _ in range(rounds + 1)]
    return dict(zip(steps, zip(*table[1:], strict=True), strict=True))


def main() -> None:
    """Print the median speed of both steps and its range over the rounds."""
    parser = argparse.ArgumentParser(description="Images per second of the published NetAug step.")
    for name, default in (("size", 32), ("batch", 128), ("threads", 2), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    for name, speeds in measure(options.batch, options.size, options.rounds).items():
        print(f"{name}: {statistics.median(speeds):.0f} images/s ({min(speeds):.0f} to {max(speeds):.0f})")


if __name__ == "__main__":
    main()
