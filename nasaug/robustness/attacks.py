"""Attacks within an L-infinity ball about each image, in pixels in [0, 1], before normalisation.

FGSM: Goodfellow et al., ICLR 2015, one step along the sign of the gradient. PGD: Madry et al., ICLR 2018, many smaller
steps from a random start, each followed by a projection onto the ball. Both maximise the cross-entropy with the true
labels and keep pixels in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Logits = Callable[[Tensor], Tensor]  # of pixels in [0, 1], [n, c, h, w]


def fgsm(logits: Logits, x: Tensor, labels: Tensor, eps: float) -> Tensor:
    """The attacked images [n, c, h, w]; `eps` in the unit of the pixels, such as 8 / 255."""
    return (x + eps * _gradient(logits, x, labels).sign()).clamp(0, 1)


def pgd(
    logits: Logits, x: Tensor, labels: Tensor, eps: float, *, steps: int = 10, step: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:  # fmt: skip
    """The attacked images [n, c, h, w].

    Args:
        step: size of a step; default 2.5 eps / steps, Madry et al.'s, which reaches the ball's border from anywhere.
        generator: on the CPU, for the random start, uniform in the ball; None: from the image itself.
    """
    step = 2.5 * eps / steps if step is None else step
    attacked = x
    if generator is not None:
        start = (2 * torch.rand(x.shape, generator=generator) - 1) * eps
        attacked = (x + start.to(x.device)).clamp(0, 1)
    for _ in range(steps):
        moved = attacked + step * _gradient(logits, attacked, labels).sign()
        attacked = torch.minimum(torch.maximum(moved, x - eps), x + eps).clamp(0, 1)
    return attacked


def _gradient(logits: Logits, x: Tensor, labels: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    return torch.autograd.grad(F.cross_entropy(logits(x).float(), labels, reduction="sum"), x)[0]
