"""The sandwich rule with in-place distillation: how the supernet is trained."""

from __future__ import annotations

from dataclasses import dataclass

from ..cost import cost_of
from ..errors import BadInput
from ..space import Arch, Space
from .base import Base, Draw


@dataclass(frozen=True, slots=True)
class Sandwich:
    """Yu and Huang, ICCV 2019: the largest net learns the labels, the smallest (at a resolution drawn
    at random) and `samples` others its output.

    The samples' log MACs are about uniform between `low` and `high` (0: over the space), so that the subnets
    that the search will judge are the ones that are trained. The loss is the mean over the passes."""

    samples: int = 2
    low: float = 0.0
    high: float = 0.0

    def __post_init__(self):
        if self.samples < 0:
            raise BadInput(f"sandwich.samples = {self.samples} must not be negative")

    def space(self, base: Base) -> tuple[Space, Arch]:
        return base.space, base.space.largest

    def nets(self, draw: Draw) -> list[Arch]:
        ends = [draw.space.smallest, draw.space.largest]
        low, high = (
            given or cost_of(draw.space, end, draw.classes).macs
            for given, end in zip((self.low, self.high), ends, strict=True)
        )
        drawn = [draw.near(low, high) for _ in range(self.samples)]
        # always at the lowest resolution, the smallest would fit the narrow weights to that one alone
        smallest = draw.sample(low=draw.space.smallest, free=("resolution",))
        return [draw.space.largest, smallest, *drawn]

    def losses(self, step):
        x, y = step.view("train")
        largest, *others = self.nets(step)
        # the mean over the passes: summed, as published, the subnets train badly at a learning rate that suits one
        # network (docs/results/supernet_lr.md: a sum at lr 0.1 is this mean at 0.4)
        share = 1 / (1 + len(others))
        out = step.run(x, largest)
        yield "largest", share * step.loss(out, y)
        soft = step.soft(out)
        for name, arch in zip(("smallest", *("sample",) * self.samples), others, strict=True):
            yield name, share * step.match(step.run(x, arch), soft)

    def on_epoch(self, trainer) -> None:
        pass
