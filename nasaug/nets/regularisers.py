"""Regularisers that add noise to a forward pass: dropout and its variants, by torch's and torchvision's operators.

Passed to `Net.forward` as an argument, never stored; they draw from torch's global generator, which the caller seeds
for each pass.
"""

from __future__ import annotations

from typing import Annotated

import torch.nn.functional as F
from annotated_types import Ge, Lt, Predicate
from torch import Tensor

from ..core.checked import Told, checked

Probability = Annotated[float, Ge(0), Lt(1), Told("must be a probability", "give 0 to below 1")]
ODD = Told("must be odd, so that a square has a middle")


@checked("noise")
class Noise:
    """The recipe's `[noise]` table: probabilities, 0 turns one off. Applied in training passes only."""

    dropout: Probability = 0.0
    """Of dropping each feature before the classifier (Srivastava et al. 2014)."""
    spatial_dropout: Probability = 0.0
    """Of dropping each whole channel of a block's output, in the later half of the blocks with inner channels (Tompson
    et al., CVPR 2015)."""
    dropblock: Probability = 0.0
    """Of dropping squares, in the same blocks (Ghiasi et al., NeurIPS 2018)."""
    dropblock_size: Annotated[int, Ge(1), Predicate(lambda side: side % 2), ODD] = 3
    """Side of those squares in pixels of the feature map, odd; reduced to the largest odd side that fits."""
    stochastic_depth: Probability = 0.0
    """Of skipping the last block with an identity shortcut, rising linearly over those blocks (Huang et al., ECCV
    2016).
    """

    def __bool__(self) -> bool:
        return any((self.dropout, self.spatial_dropout, self.dropblock, self.stochastic_depth))

    def branch(self, x: Tensor, place: float) -> Tensor:
        """A block's residual branch, dropped for some images; `place` is 1 for the last such block."""
        if not self.stochastic_depth * place:
            return x
        from torchvision.ops import stochastic_depth

        return stochastic_depth(x, self.stochastic_depth * place, "row", True)

    def output(self, x: Tensor, place: float) -> Tensor:
        """A block's output with noise; `place` is 1 for the last block of its kind."""
        if place <= 0.5:
            return x
        if self.spatial_dropout:
            x = F.dropout2d(x, self.spatial_dropout, True)
        if self.dropblock:
            from torchvision.ops import drop_block2d

            size = min(self.dropblock_size, *x.shape[2:])
            x = drop_block2d(x, self.dropblock, size - 1 + size % 2)
        return x

    def features(self, x: Tensor) -> Tensor:
        """The classifier's input with dropout."""
        return F.dropout(x, self.dropout, True) if self.dropout else x
