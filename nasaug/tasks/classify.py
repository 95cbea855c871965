"""Image classification: cross-entropy, soft-target matching, top-1."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Classify:
    """`classes` labels; targets are class indices [N] or probabilities [N, classes]."""

    classes: int
    label_smoothing: float = 0.0

    def loss(self, out: Tensor, target: Tensor) -> Tensor:
        """Mean cross-entropy of logits [N, classes], with label smoothing."""
        return F.cross_entropy(out.float(), target, label_smoothing=self.label_smoothing)

    def soft(self, out: Tensor) -> Tensor:
        """Detached probabilities, to be matched by a smaller net."""
        return out.detach().float().softmax(1)

    def match(self, out: Tensor, soft: Tensor) -> Tensor:
        """KL(soft || softmax(out)), mean over the batch. The soft target is never smoothed."""
        return F.kl_div(F.log_softmax(out.float(), 1), soft, reduction="batchmean")

    def correct(self, out: Tensor, labels: Tensor) -> Tensor:
        """Bool [N]: top-1 is right."""
        return out.argmax(1) == labels


def top1(correct: list[Tensor]) -> float:
    """Share of right answers, in percent."""
    return 100.0 * torch.cat(correct).float().mean().item()
