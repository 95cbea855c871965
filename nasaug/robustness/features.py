"""How diverse and how alike features are: effective rank (Roy and Vetterli, EUSIPCO 2007) and linear CKA (Kornblith et
al., ICML 2019)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.fx import GraphModule


@torch.no_grad()
def penultimate(folded: GraphModule, batches: Iterable[Tensor]) -> Tensor:
    """What the last layer of a folded net reads, float64 [images, features], for normalised images [n, 3, h, w]."""
    seen: list[Tensor] = []
    modules = dict(folded.named_modules())
    calls = [modules[str(node.target)] for node in folded.graph.nodes if node.op == "call_module"]
    last = [module for module in calls if isinstance(module, (nn.Linear, nn.Conv2d))][-1]
    hook = last.register_forward_pre_hook(lambda module, given: seen.append(given[0].flatten(1).cpu().double()))
    try:
        for x in batches:
            folded(x)
    finally:
        hook.remove()
    return torch.cat(seen)


def effective_rank(features: Tensor) -> float:
    """exp of the entropy of the singular values' shares, of the centred features [images, features]: 1 if all lie on
    a line, `features` at most. 0 for features that do not vary."""
    values = torch.linalg.svdvals(features - features.mean(0))
    if values.sum() <= 1e-12:
        return 0.0
    shares = values / values.sum()
    return torch.exp(torch.special.entr(shares).sum()).item()


def cka(one: Tensor, two: Tensor) -> float:
    """Linear CKA of two nets' features [images, features] on the same images: 1 for features that are equal up to
    rotation and scale, near 0 for unrelated ones (with many more images than features). 0 if either does not vary."""
    one, two = one - one.mean(0), two - two.mean(0)
    scale = torch.linalg.norm(one.T @ one) * torch.linalg.norm(two.T @ two)
    return (torch.linalg.norm(two.T @ one) ** 2 / scale).item() if scale > 1e-24 else 0.0
