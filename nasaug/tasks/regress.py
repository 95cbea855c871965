"""Regression of one number per image: smooth L1 on standardised targets; the metric is the mean absolute error."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.errors import BadInput
from ..core.metric import Metric
from ..data import Data, Info
from .base import Settings, Target, register

SPREAD = (math.pi / 2 - 1) ** 0.5  # ratio of standard deviation to mean of |error|, for normally distributed errors


@register
@dataclass(frozen=True, slots=True)
class Regress:
    """Regression; the network outputs (number - mean) / std, standardised over the training images.

    The loss is hard x smooth L1 + soft x smooth L1 to the teacher's output, if there is a teacher. The temperature
    applies to probabilities only and has no effect.
    """

    name: ClassVar[str] = "regress"
    targets: ClassVar[str] = "numbers"
    metric: ClassVar[Metric] = Metric("mae", higher_is_better=False)

    mean: float
    std: float
    temperature: float = 1.0
    hard: float = 1.0
    soft_weight: float = 0.0

    @property
    def head(self) -> int:
        """One output."""
        return 1

    @classmethod
    def outputs(cls, info: Info) -> int:
        return 1

    @classmethod
    def of_data(cls, data: Data, settings: Settings) -> Regress:
        """Raises BadInput if all training images have the same number."""
        numbers = data.train.labels.double()
        mean, std = numbers.mean().item(), numbers.std(correction=0).item()
        if not std > 0:
            rule = f"all {len(numbers)} training images of {data.name} have the number {mean:g}"
            raise BadInput(f"{rule}, so there is nothing to learn; give images with different numbers")
        return cls(mean, std, settings.temperature, settings.hard, settings.soft_weight)

    @classmethod
    def of_facts(cls, facts: Mapping[str, Any]) -> Regress:
        try:
            return cls(**facts["numbers"])
        except (KeyError, TypeError) as error:
            rule = f"the file of a regression net lacks the mean and std of its numbers ({error})"
            raise BadInput(f"{rule}; train it again, or restore it") from None

    @property
    def facts(self) -> dict[str, Any]:
        return {"task": self.name, "numbers": {"mean": self.mean, "std": self.std}}

    def loss(self, out: Tensor, target: Target) -> Tensor:
        """Mean over the batch, for outputs [N, 1] and numbers [N]."""
        loss = _smooth_l1(out, (target.labels - self.mean) / self.std, target.weight)
        if target.soft is None:
            return loss
        return self.hard * loss + self.soft_weight * self.match(out, target.soft, target.weight)

    def soft(self, out: Tensor, temperature: float = 1.0) -> Tensor:
        """The detached output [N, 1]."""
        return out.detach().float()

    def match(self, out: Tensor, soft: Tensor, weight: Tensor | None = None) -> Tensor:
        """Smooth L1 to another net's output: a mean over the batch, weighted per image."""
        return _smooth_l1(out, soft[:, 0], weight)

    def judge(self, out: Tensor, labels: Tensor) -> Tensor:
        """Float32 [N]: the absolute error of each image, in the targets' unit."""
        return (self.answer(out) - labels).abs()

    def score(self, judged: Sequence[Tensor]) -> float:
        """The mean absolute error; the metric's worst value if it is not finite."""
        mean = torch.cat(list(judged)).double().mean().item()
        return min(mean, self.metric.worst) if math.isfinite(mean) else self.metric.worst

    def standard_error(self, score: float, images: int) -> float:
        """The standard error of the mean absolute value of normally distributed errors."""
        return SPREAD * score / images**0.5

    def answer(self, out: Tensor) -> Tensor:
        """Float32 [N]: the number, in the targets' unit."""
        return out[:, 0].float() * self.std + self.mean


def _smooth_l1(out: Tensor, wanted: Tensor, weight: Tensor | None) -> Tensor:
    each = F.smooth_l1_loss(out[:, 0].float(), wanted.float(), reduction="none")
    return (each if weight is None else each * weight).mean()
