"""Select the least important channels or weights of a trained net, and remove or zero them.

Channels are removed by permuting so that the kept ones come first, then narrowing, so the smaller net has an ordinary
Plan. One threshold over all channel groups determines how many channels each keeps. Independent of training.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.utils import prune as torch_prune

from ..arch.channels import channel_groups
from ..arch.cost import cost
from ..arch.plan import Plan, from_specs
from ..config.schedule import Linear, from_ends
from ..core.errors import BadInput, arg
from ..nets.net import Net

CRITERIA = ("l1", "bn")  # for channels
OF_WEIGHTS = ("lamp", "l1")
LEAST, LEAST_SHARE = 4, 0.1  # minimum channels of a group: a number, and a share of its initial channels

Size = tuple[str, str]  # identifies a channel count in a plan: (block, "width" | "hidden" | "se")


# --- the plan of each step ----------------------------------------------------------------------------------


def sizes(plan: Plan) -> dict[Size, tuple[str, ...]]:
    """The channel counts that pruning reduces, and the channel groups (nasaug.arch.channels) that share each of them.

    A residual stream's count is the width of the block that opens it. A bottleneck's two inner groups share one count.
    The task's head keeps its own.
    """
    blocks, head, found = {block.name for block in plan.blocks}, {block.name for block in plan.head}, {}
    for name in channel_groups(plan):
        block = name if name in blocks else name.rpartition(".")[0]
        if block in head:
            continue
        kind = "width" if name == block else "se" if name == f"{block}.se" else "hidden"
        found.setdefault((block, kind), []).append(name)
    return {size: tuple(names) for size, names in found.items()}


def with_sizes(plan: Plan, counts: Mapping[Size, int]) -> Plan:
    """The plan with other channel counts; a stream's width applies to every block that adds to it."""
    specs, stream = [], 3
    for block in plan.body:
        spec = block.spec
        if spec.width and spec.shortcut != "identity":
            stream = counts.get((spec.name, "width"), spec.width)
        inner = {kind: counts.get((spec.name, kind), getattr(spec, kind)) for kind in ("hidden", "se")}
        specs.append(spec._replace(width=stream if spec.width else 0, **inner))
    return from_specs((*specs, *plan.specs[len(specs) :]), plan.resolution, plan.classes)


def least_sizes(plan: Plan, divisor: int = 1) -> dict[Size, int]:
    """The minimum channel counts, whatever the target: LEAST or LEAST_SHARE of those in `plan`, whichever is more,
    rounded up to a multiple of `divisor`."""
    groups = channel_groups(plan)
    have = {size: groups[names[0]].size for size, names in sizes(plan).items()}
    least = {size: max(LEAST, math.ceil(LEAST_SHARE * n)) for size, n in have.items()}
    return {size: min(n, divisor * math.ceil(least[size] / divisor)) for size, n in have.items()}


def targets(start: float, end: float, steps: int) -> list[float]:
    """`steps` values in geometric progression from `start` (excluded) to `end` (included exactly)."""
    return [start * (end / start) ** (i / steps) for i in range(1, steps)] + [end]


def smaller(
    plan: Plan, scores: Mapping[str, Tensor], macs: float, least: Mapping[Size, int], divisor: int = 1
) -> Plan:
    """The largest plan of at most `macs` MACs that keeps the channels above a single threshold for all groups.

    Groups that lose channels keep a multiple of `divisor`, which is faster on hardware. `scores` are from `importance`.
    Raises BadInput if even the minimum counts `least` have more MACs."""
    counted, leaving, have = sizes(plan), [], {}
    for size, names in counted.items():
        # groups that share a count lose their least important channels together
        ranked = torch.stack([scores[name].sort(descending=True).values for name in names]).mean(0)
        have[size] = len(ranked)
        leaving += [(score, size) for score in ranked[least[size] :].tolist()]
    leaving.sort()

    def without(n: int) -> Plan:
        gone = Counter(size for _, size in leaving[:n])
        kept = {size: number - gone[size] for size, number in have.items()}
        rounded = {size: max(least[size], n - n % divisor) if gone[size] else n for size, n in kept.items()}
        return with_sizes(plan, rounded)

    n = bisect_left(range(len(leaving) + 1), -macs, key=lambda n: -cost(without(n)).macs)
    if n > len(leaving):
        raise BadInput(f"{macs:.0f} MACs are impossible; ask for at least {cost(without(len(leaving))).macs}")
    return without(n)


# --- channels -----------------------------------------------------------------------------------------------


def importance(net: Net, criterion: str = "l1") -> dict[str, Tensor]:
    """[channels] per channel group, float64: each channel's importance, with mean 1 in its group.

    l1: L1 norm of the weights that read the channel (Li et al., ICLR 2017, use those that write it). bn: sum of the
    absolute scales of the channel's norms (Liu et al., Network Slimming, ICCV 2017); l1 for channels without a norm."""
    own, scores = dict(net.named_parameters()), {}
    for name, group in channel_groups(net.plan).items():
        norms = [own[member].detach().abs().cpu() for member, _ in group.members if member.endswith("norm.weight")]
        score = sum(norms) if norms and criterion == "bn" else net.importance(group)
        score = score.double()
        scores[name] = score / score.mean().clamp(min=torch.finfo(torch.float64).tiny)
    return scores


def narrowed(net: Net, plan: Plan, scores: Mapping[str, Tensor]) -> Net:
    """The net of the smaller plan with the highest-scoring channels; reorders `net` in place.

    Groups that lose no channels keep their order. The smaller net's running statistics are unset (see Net.narrow)."""
    kept = channel_groups(plan)
    for name, group in channel_groups(net.plan).items():
        if kept[name].size < group.size:
            net.permute(group, scores[name].argsort(descending=True, stable=True))
    return net.narrow(plan)


# --- weights ------------------------------------------------------------------------------------------------


def prunable(plan: Plan) -> list[str]:
    """Names of the weights that `sparsify` may zero: those of convolutions and linear layers.

    Depthwise ones are excluded: they have only 9 to 49 weights per channel, with no redundancy, and are few. So are
    those of squeeze-excites, since zeroing them would save nothing."""
    return [f"{x.name}.weight" for x in plan.layers if x.op in ("conv", "linear") and not x.depthwise]


def sparsify(net: Net, sparsity: float, criterion: str = "lamp") -> Net:
    """Zero this share of the prunable weights, those with the lowest scores over the whole net; returns `net`.

    lamp: see `lamp`. l1: by magnitude alone, which empties layers with small weights, although the norm after a layer
    cancels its scale. Weights that are already zero go first; at least one weight stays."""
    net.to(memory_format=torch.contiguous_format)  # torch's pruning views each weight as a vector
    weights = [(net.get_submodule(name.removesuffix(".weight")), "weight") for name in prunable(net.plan)]
    score = lamp if criterion == "lamp" else torch.abs
    scores = {(module, name): score(module.weight.detach()) for module, name in weights}
    total = sum(score.numel() for score in scores.values())
    zeros = min(round(sparsity * total), total - 1)
    torch_prune.global_unstructured(weights, torch_prune.L1Unstructured, scores, amount=zeros)
    for module, name in weights:
        torch_prune.remove(module, name)
    return net.to(memory_format=torch.channels_last)


def lamp(weight: Tensor) -> Tensor:
    """Each weight's square over the sum of squares of all weights in its layer that are at least as large.

    Lee et al., ICLR 2021. It ranks by magnitude within a layer, and is 1 for the largest."""
    squares, order = weight.double().square().flatten().sort()
    rest = squares.flip(0).cumsum(0).flip(0)
    scores = torch.empty_like(squares)
    scores[order] = squares / rest.clamp(min=torch.finfo(torch.float64).tiny)
    return scores.view_as(weight)


def masks(net: Net) -> dict[str, Tensor]:
    """Masks of the non-zero prunable weights, by name."""
    own = dict(net.named_parameters())
    return {name: own[name].detach() != 0 for name in prunable(net.plan)}


@torch.no_grad()
def apply_masks(net: Net, kept: Mapping[str, Tensor]) -> None:
    """Zero the weights outside the masks, in place."""
    for name, mask in kept.items():
        net.get_parameter(name).mul_(mask)


def sparsity(net: Net) -> dict[str, float]:
    """The share of zeros by layer, among all prunable weights ("prunable") and among all parameters ("all")."""
    zeros = {name.removesuffix(".weight"): (~mask).sum().item() for name, mask in masks(net).items()}
    counts = {layer: net.get_submodule(layer).weight.numel() for layer in zeros}
    return {
        **{layer: zeros[layer] / counts[layer] for layer in zeros},
        "prunable": sum(zeros.values()) / sum(counts.values()),
        "all": sum(zeros.values()) / sum(p.numel() for p in net.parameters()),
    }


# --- magnitudes ---------------------------------------------------------------------------------------------


def magnitudes(text: str | None, steps: int) -> Sequence[float | None]:
    """RandAugment's magnitude in each step: "9" for a constant, "9:2" for 9 in the first step to 2 in the last.

    None gives None for each step. Raises BadInput for anything but one or two numbers from 0 to 30."""
    if text is None:
        return [None] * steps
    try:
        line = from_ends(text)
    except BadInput as error:
        raise error.within(f"{arg.magnitude} ", "magnitude") from None
    if isinstance(line, Linear) and steps == 1:
        raise BadInput(f"{arg.magnitude} {text} needs two steps or more; give one number, or more {arg.steps}")
    return [round(line(i / max(1, steps - 1)), 6) for i in range(steps)]
