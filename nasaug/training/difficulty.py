"""How difficult augmented images are for a teacher, and how training uses that (Yu, Zhang, Ma 2023)."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Lt
from torch import Tensor

from ..config.schedule import STRONGEST
from ..core.checked import Positive, Told, checked
from ..core.errors import BadInput


@checked("difficulty")
class Difficulty:
    """The recipe's `[difficulty]` table: how the teacher's judgement of `[views.train]` (no other view) is used.
    Requires a [teacher], whose `soft` may be 0."""

    policy: Literal["none", "keep", "weight", "drive"] = "none"
    """keep: of `candidates` versions of each image, use the first whose difficulty is at most the batch's `quantile`,
    else the easiest; weight: give easy images more weight; drive: adjust RandAugment's magnitude until the mean
    difficulty is `target`."""
    by: Literal["loss", "confidence"] = "loss"
    """The measure of difficulty: the teacher's cross-entropy, or 1 - its probability of the label."""
    candidates: Annotated[int, Ge(2), Told("must be at least 2, or there is no choice")] = 2
    """For keep: versions of each image."""
    quantile: Annotated[float, Gt(0), Lt(1)] = 0.8
    """For keep: the part of all versions that are not too hard."""
    target: Positive = 1.0
    """For drive: the mean difficulty that is aimed at."""
    rate: Positive = 0.1
    """For drive: the increase of the magnitude in a step whose mean difficulty is 1 below `target`."""

    def __post_init__(self):
        if self.policy == "drive" and self.by == "confidence" and self.target >= 1:
            rule = "is out of reach: with difficulty.by = confidence, difficulties are below 1"
            remedy = "give 0.5, for example, or difficulty.by = loss"
            raise BadInput.of(field="difficulty.target", value=self.target, rule=rule, remedy=remedy)

    def __bool__(self) -> bool:
        return self.policy != "none"

    def of(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Difficulties [n] from a teacher's logits [n, classes] and the labels [n]."""
        loss = F.cross_entropy(logits.float(), labels, reduction="none")
        return loss if self.by == "loss" else 1 - torch.exp(-loss)

    def chosen(self, scores: Tensor) -> Tensor:
        """The index of the candidate to use for each image, int64 [n], from difficulties [candidates, n]."""
        fits = scores <= torch.quantile(scores.flatten(), self.quantile)
        return torch.where(fits.any(0), fits.float().argmax(0), scores.argmin(0))

    def weights(self, scores: Tensor) -> Tensor:
        """Weights [n] with mean 1, proportional to exp(-difficulty / mean difficulty): an image of twice the mean
        difficulty has a seventh of the weight of one of difficulty 0."""
        weights = torch.exp(-scores / scores.mean().clamp(min=1e-6))
        return weights / weights.mean()

    def driven(self, magnitude: float, mean: float) -> float:
        """The next step's magnitude, given that this step's `magnitude` led to this `mean` difficulty."""
        return min(STRONGEST, max(0.0, magnitude + self.rate * (self.target - mean)))
