"""Plain training of one network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..arch.derived import Ladders, around
from ..arch.space import Arch, Space
from .base import Base, Draw


@dataclass(frozen=True, slots=True)
class Baseline:
    """L(W) on the training view, and nothing else."""

    share: ClassVar[float] = 1.0

    def space(self, base: Base) -> tuple[Space, Arch]:
        return around(base.plan, Ladders())

    def nets(self, draw: Draw) -> list[Arch]:
        return [draw.base]

    def losses(self, step):
        x, y = step.view("train")
        yield "base", step.loss(step.run(x, step.base), y)

    def on_epoch(self, trainer) -> None:
        pass
