"""A method outside nasaug, as a user would write one: NASAUG_IMPORT=own_method registers it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nasaug.arch.derived import below
from nasaug.arch.space import Arch, Space
from nasaug.methods import Base, Draw, Method, Pass, Step, register

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Halves(Method):
    """The net, and every `every` steps also its slice of half the channels on part of the same images."""

    weight: float = 1.0
    every: int = 2
    part: float = 0.5

    @property
    def cycle(self) -> int:
        return self.every

    def space(self, base: Base) -> tuple[Space, Arch]:
        return below(base.plan, (0.5,))

    def passes(self, draw: Draw) -> list[Pass]:
        half = [] if draw.step % self.every else [Pass(draw.space.smallest, self.part)]
        return [Pass(draw.base), *half]

    def losses(self, step: Step) -> Iterator[tuple[str, Tensor]]:
        x, y = step.view("train")
        for name, each in zip(("base", "half"), step.passes, strict=False):
            n = each.images(len(x))
            loss = step.loss(step.run(x[:n], each.arch), y.first(n))
            yield name, loss if name == "base" else self.weight * loss


register("halves", Halves)
