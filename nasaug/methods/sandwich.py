"""The sandwich rule with in-place distillation: how the supernet is trained."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge

from ..arch.cost import UNLIMITED, Budget, cost_of
from ..arch.space import Arch, Space
from ..core.checked import NotNegative, Told, checked
from .base import Base, Draw, Method, Pass, Step

if TYPE_CHECKING:
    from torch import Tensor


@checked("sandwich")
class Sandwich(Method):
    """Yu and Huang, ICCV 2019: the largest net learns the labels, the smallest (at a resolution drawn
    at random) and `samples` others its output. The loss is the mean over the passes.

    Every `every`-th step does this; in the others the largest net is left out, which at 1M MACs costs more than all
    of the rest, and the smaller ones learn the labels: at equal compute they are trained more than twice as often
    and come out better (docs/results/supernet.md). 1: the published rule.
    The samples' log MACs are about uniform between `low` and `high` (0: over the space), so that the subnets
    that the search will judge are the ones that are trained."""

    samples: Annotated[int, Ge(0), Told("must not be negative")] = 3
    every: Annotated[int, Ge(1), Told("must be at least 1 (the published rule)")] = 4
    low: NotNegative = 0.0
    high: NotNegative = 0.0

    @property
    def cycle(self) -> int:
        return self.every

    def space(self, base: Base) -> tuple[Space, Arch]:
        assert base.space is not None  # a supernet is always trained in a space
        return base.space, base.space.largest

    def passes(self, draw: Draw) -> list[Pass]:
        space = draw.space
        low, high = (
            given or cost_of(space, end, draw.classes).macs
            for given, end in zip((self.low, self.high), (space.smallest, space.largest), strict=True)
        )
        # always at the lowest resolution, the smallest would fit the narrow weights to that one alone
        smallest = draw.sample(low=space.smallest, free=("resolution",))
        drawn = [self.sample(draw, low, high) for _ in range(self.samples)]
        return [Pass(arch) for arch in (*(() if draw.step % self.every else (space.largest,)), smallest, *drawn)]

    def sample(self, draw: Draw, low: float, high: float) -> Arch:
        return draw.near(low, high)

    def losses(self, step: Step) -> Iterator[tuple[str, Tensor]]:
        x, y = step.view("train")
        nets = [each.arch for each in step.passes]
        # the mean over the passes: summed, as published, the subnets train badly at a learning rate that suits one
        # network (docs/results/supernet.md: a sum at lr 0.1 is this mean at 0.4)
        share, soft = 1 / len(nets), None
        if len(nets) > 1 + self.samples:
            out = step.run(x, nets.pop(0))
            yield "largest", share * step.loss(out, y)
            soft = step.soft(out)
        for name, arch in zip(("smallest", *("sample",) * self.samples), nets, strict=True):
            out = step.run(x, arch)
            if soft is None:
                yield name, share * step.loss(out, y)
            else:
                yield f"{name}_soft", share * step.match(out, soft)


@checked("sandwich")
class SandwichWithin(Sandwich):
    """With samples that keep to budgets beside that of MACs, as the subnets do that the search will judge."""

    limits: Budget = UNLIMITED

    def sample(self, draw: Draw, low: float, high: float) -> Arch:
        return draw.near(low, high, self.limits)
