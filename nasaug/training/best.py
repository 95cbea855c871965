"""The best epoch so far: its score and weights, which become the result of the training."""

from __future__ import annotations

from torch import Tensor

from ..core.metric import Metric
from ..nets.net import Net


class Best:
    """A copy of the net with the best validation score so far; empty at first.

    Of equal scores the last counts: on few validation images the best score is often reached early, at a high learning
    rate, by a net that is not the best yet."""

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self.score: float | None = None
        self.tensors: dict[str, Tensor] = {}

    def offer(self, net: Net, score: float) -> None:
        """Keep a copy of the net, with the running statistics it was evaluated with, unless its score is worse than one
        before."""
        if score == self.score or self.metric.better(score, self.score):
            self.score = score
            self.tensors = {name: t.detach().clone() for name, t in net.state_dict().items()}
