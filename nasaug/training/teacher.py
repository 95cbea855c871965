"""A teacher: a finished network whose soft output on a view is a further target of every pass on that view."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..core.checked import NotNegative, Positive, checked
from ..core.errors import BadInput


@checked("teacher")
class TeacherConfig:
    """The recipe's `[teacher]` table (Hinton et al. 2015). A search takes none."""

    source: str = ""
    """A run's folder or a model that nasaug wrote; "supernet": the largest net of the arch's supernet;
    torchvision:NAME, like torchvision:resnet18; empty: no teacher."""
    macs: NotNegative = 0.0
    """Of "supernet": the largest net found with at most these MACs; 0: the largest of all."""
    temperature: Positive = 1.0
    hard: NotNegative = 1.0
    """Weight of the labels' cross-entropy."""
    soft: NotNegative = 1.0
    """Weight of the teacher's target, times temperature squared."""

    def __post_init__(self):
        if self.macs and self.source != "supernet":
            rule = f'is of teacher.source = "supernet", not of {self.source!r}'
            raise BadInput.of(field="teacher.macs", value=self.macs, rule=rule, remedy="leave it out")


@dataclass(frozen=True)
class Teacher:
    """`net` in evaluation mode, and what one image costs it; `scale` and `shift` [3] turn a view of this data set into
    what it was trained on, None where that is the same."""

    net: nn.Module
    macs: int
    scale: Tensor | None = None
    shift: Tensor | None = None

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """Logits [n, classes] of a view [n, 3, h, w]."""
        if self.scale is not None:
            x = torch.addcmul(self.shift.view(1, 3, 1, 1), x, self.scale.view(1, 3, 1, 1))
        return self.net(x)


def renormalised(net: nn.Module, macs: int, device: torch.device, given: tuple, wanted: tuple) -> Teacher:
    """A teacher that was trained with the (mean, std) `wanted`, for views made with `given`."""
    net = net.to(device).eval()
    if given == wanted:
        return Teacher(net, macs)
    (mean, std), (other_mean, other_std) = (torch.tensor(pair, dtype=torch.float32) for pair in (given, wanted))
    return Teacher(net, macs, (std / other_std).to(device), ((mean - other_mean) / other_std).to(device))
