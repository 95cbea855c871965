"""Image classification: cross-entropy, soft-target matching, top-1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Target(NamedTuple):
    """What a view's images should give: class indices [N] or probabilities [N, classes]; where the recipe names a
    teacher, its probabilities [N, classes] on that view, at the task's temperature; and what each image counts [N],
    None: all alike."""

    labels: Tensor
    soft: Tensor | None = None
    weight: Tensor | None = None

    def first(self, n: int) -> Target:
        """That of the first n images."""
        return Target(*(None if t is None else t[:n] for t in self))


@dataclass(frozen=True, slots=True)
class Classify:
    """`classes` labels. The loss is hard x cross-entropy + soft x T^2 x KL(teacher || net), the second where there is a
    teacher, both distributions at temperature T (Hinton et al. 2015, whose T^2 keeps the gradients' size)."""

    classes: int
    label_smoothing: float = 0.0
    temperature: float = 1.0
    hard: float = 1.0
    soft_weight: float = 0.0

    def loss(self, out: Tensor, target: Target) -> Tensor:
        """Mean over the batch, of logits [N, classes]; labels are smoothed, a teacher's targets never."""
        reduction = "mean" if target.weight is None else "none"
        loss = F.cross_entropy(out.float(), target.labels, label_smoothing=self.label_smoothing, reduction=reduction)
        if target.weight is not None:
            loss = (loss * target.weight).mean()
        if target.soft is None:
            return loss
        t = self.temperature
        return self.hard * loss + self.soft_weight * t * t * self.match(out / t, target.soft, target.weight)

    def soft(self, out: Tensor, temperature: float = 1.0) -> Tensor:
        """Detached probabilities, to be matched by another net."""
        return (out.detach().float() / temperature).softmax(1)

    def match(self, out: Tensor, soft: Tensor, weight: Tensor | None = None) -> Tensor:
        """KL(soft || softmax(out)), mean over the batch by each image's weight. The soft target is never smoothed."""
        if weight is None:
            return F.kl_div(F.log_softmax(out.float(), 1), soft, reduction="batchmean")
        each = F.kl_div(F.log_softmax(out.float(), 1), soft, reduction="none").sum(1)
        return (each * weight).mean()

    def correct(self, out: Tensor, labels: Tensor) -> Tensor:
        """Bool [N]: top-1 is right."""
        return out.argmax(1) == labels


def top1(correct: list[Tensor]) -> float:
    """Share of right answers, in percent."""
    return 100.0 * torch.cat(correct).float().mean().item()
