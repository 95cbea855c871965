"""Image classification: cross-entropy, soft-target matching, top-1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.metric import Metric
from ..data import Data, Info
from .base import Settings, Target, register


@register
@dataclass(frozen=True, slots=True)
class Classify:
    """Classification into `classes` classes.

    The loss is hard x cross-entropy + soft x T^2 x KL(teacher || net). The second term needs a teacher; its
    distributions are at temperature T, and T^2 preserves the gradients' scale (Hinton et al. 2015)."""

    name: ClassVar[str] = "classify"
    targets: ClassVar[str] = "classes"
    metric: ClassVar[Metric] = Metric("top1", "%")

    classes: int
    label_smoothing: float = 0.0
    temperature: float = 1.0
    hard: float = 1.0
    soft_weight: float = 0.0

    @property
    def head(self) -> int:
        """One logit per class."""
        return self.classes

    @classmethod
    def outputs(cls, info: Info) -> int:
        return info.classes

    @classmethod
    def of_data(cls, data: Data, settings: Settings) -> Classify:
        s = settings
        return cls(len(data.classes), s.label_smoothing, s.temperature, s.hard, s.soft_weight)

    @classmethod
    def of_facts(cls, facts: Mapping[str, Any]) -> Classify:
        return cls(len(facts.get("classes", ())))

    @property
    def facts(self) -> dict[str, Any]:
        return {}

    def loss(self, out: Tensor, target: Target) -> Tensor:
        """Mean over the batch, for logits [N, classes] and class indices [N] or probabilities [N, classes].

        Labels are smoothed, a teacher's targets never."""
        reduction = "mean" if target.weight is None else "none"
        loss = F.cross_entropy(out.float(), target.labels, label_smoothing=self.label_smoothing, reduction=reduction)
        if target.weight is not None:
            loss = (loss * target.weight).mean()
        if target.soft is None:
            return loss
        t = self.temperature
        return self.hard * loss + self.soft_weight * t * t * self.match(out / t, target.soft, target.weight)

    def soft(self, out: Tensor, temperature: float = 1.0) -> Tensor:
        """Detached probabilities, for another net to match."""
        return (out.detach().float() / temperature).softmax(1)

    def match(self, out: Tensor, soft: Tensor, weight: Tensor | None = None) -> Tensor:
        """KL(soft || softmax(out)): a mean over the batch, weighted per image. The soft target is never smoothed."""
        if weight is None:
            return F.kl_div(F.log_softmax(out.float(), 1), soft, reduction="batchmean")
        each = F.kl_div(F.log_softmax(out.float(), 1), soft, reduction="none").sum(1)
        return (each * weight).mean()

    def judge(self, out: Tensor, labels: Tensor) -> Tensor:
        """Bool [N]: whether top-1 is right."""
        return out.argmax(1) == labels

    def score(self, judged: Sequence[Tensor]) -> float:
        """Accuracy in percent."""
        return 100.0 * torch.cat(list(judged)).float().mean().item()

    def standard_error(self, score: float, images: int) -> float:
        """The binomial standard error, in percentage points."""
        share = min(max(score / 100, 0.0), 1.0)
        return 100 * (share * (1 - share) / images) ** 0.5

    def answer(self, out: Tensor) -> Tensor:
        """Int64 [N]: the class with the highest logit."""
        return out.argmax(1)
