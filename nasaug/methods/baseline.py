"""Plain training of one network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..arch.derived import Ladders, around
from ..arch.space import Arch, Space
from .base import Base, Draw, Method, Pass, Step

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Baseline(Method):
    """Plain training: the net's own loss on the training view."""

    def space(self, base: Base) -> tuple[Space, Arch]:
        return around(base.plan, Ladders())

    def passes(self, draw: Draw) -> list[Pass]:
        return [Pass(draw.base)]

    def losses(self, step: Step) -> Iterator[tuple[str, Tensor]]:
        x, y = step.view("train")
        yield "base", step.loss(step.run(x, step.base), y)
