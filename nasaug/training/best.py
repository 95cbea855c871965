"""The best epoch so far: its figure, and the weights that a training ends with."""

from __future__ import annotations

import torch
from torch import Tensor

from ..arch.plan import Plan
from ..nets.net import Net


class Best:
    """The net of the epoch that was best on the validation images, by value; none at first."""

    def __init__(self) -> None:
        self.top1, self.tensors = -1.0, {}
        self.tensors: dict[str, Tensor]

    def offer(self, net: Net, top1: float) -> None:
        """Keep a copy of the net, calibrated as it was judged, where it is better than all before."""
        if top1 > self.top1:
            self.top1 = top1
            self.tensors = {name: t.detach().clone() for name, t in net.state_dict().items()}

    def net(self, plan: Plan, device: torch.device) -> Net:
        """The network that was kept, in evaluation mode."""
        net = Net(plan).to(device)
        net.load_state_dict(self.tensors)
        return net.eval()
