"""The best epoch so far: its score and weights, which become the result of the training."""

from __future__ import annotations

from torch import Tensor

from ..core.metric import Metric
from ..nets.net import Net


class Best:
    """A copy of the net with the best validation score so far; empty at first."""

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self.score: float | None = None
        self.tensors: dict[str, Tensor] = {}

    def offer(self, net: Net, score: float) -> None:
        """Keep a copy of the net, with the running statistics it was evaluated with, if its score beats all before."""
        if self.metric.better(score, self.score):
            self.score = score
            self.tensors = {name: t.detach().clone() for name, t in net.state_dict().items()}
