"""The sandwich rule with in-place distillation: how the supernet is trained."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge

from ..arch.cost import UNLIMITED, Budget, cost_of
from ..arch.space import Arch, Space
from ..core.checked import NotNegative, Told, checked
from ..core.errors import BadInput
from .base import Base, Draw, Method, Pass, Step

if TYPE_CHECKING:
    from torch import Tensor


@checked("sandwich")
class Sandwich(Method):
    """Yu and Huang, ICCV 2019: the largest net is trained on the labels, the smallest (at a random resolution) and
    `samples` random ones on the largest net's output. The loss is the mean over the passes.

    Only every `every`-th step does so (1: the published rule). The other steps leave out the largest net, which at 1M
    MACs costs more than all the others together, and train the smaller ones on the labels: at equal compute they
    are trained more than twice as often and become more accurate (docs/results/supernet.md). Without `smallest` the
    smallest net is never trained; what that does to the ranking is not settled (docs/results/finalist_ranks.md).
    The samples' log MACs are about uniformly distributed from `low` to `high` (0: over the whole space), so that
    training concentrates on the subnets that the search will evaluate. If the space's largest net has more than `most`
    MACs (0: no limit), one of about that many is drawn in its place in each step."""

    samples: Annotated[int, Ge(0), Told("must not be negative")] = 3
    every: Annotated[int, Ge(1), Told("must be at least 1 (the published rule)")] = 4
    low: NotNegative = 0.0
    high: NotNegative = 0.0
    most: NotNegative = 0.0
    smallest: bool = True

    def __post_init__(self):
        if not (self.samples or self.smallest):
            rule = "leaves most steps without a network if sandwich.smallest is false"
            raise BadInput.of(field="sandwich.samples", value=0, rule=rule, remedy="give at least 1")

    @property
    def cycle(self) -> int:
        return self.every

    def space(self, base: Base) -> tuple[Space, Arch]:
        assert base.space is not None  # a supernet is always trained in a space
        return base.space, base.space.largest if base.arch is None else base.arch

    def passes(self, draw: Draw) -> list[Pass]:
        space = draw.space
        low, high = (
            given or cost_of(space, end, draw.classes).macs
            for given, end in zip((self.low, self.high), (space.smallest, space.largest), strict=True)
        )
        # if the smallest net always ran at the lowest resolution, the narrow weights would specialise in it
        smallest = [draw.sample(low=space.smallest, free=("resolution",))] if self.smallest else []
        drawn = [self.sample(draw, low, high) for _ in range(self.samples)]
        largest = [] if draw.step % self.every else [self._largest(draw)]
        return [Pass(arch) for arch in (*largest, *smallest, *drawn)]

    def _largest(self, draw: Draw) -> Arch:
        space = draw.space
        if not self.most or cost_of(space, space.largest, draw.classes).macs <= self.most:
            return space.largest
        return self.sample(draw, self.most, self.most)

    def sample(self, draw: Draw, low: float, high: float) -> Arch:
        return draw.near(low, high)

    def losses(self, step: Step) -> Iterator[tuple[str, Tensor]]:
        x, y = step.view("train")
        nets = [each.arch for each in step.passes]
        # The mean over the passes. With the published sum, subnets train badly at a learning rate that suits a single
        # network (docs/results/supernet.md: the sum at lr 0.1 is this mean at lr 0.4).
        share, soft, names = 1 / len(nets), None, self.smallest * ["smallest"] + self.samples * ["sample"]
        if len(nets) > len(names):
            out = step.run(x, nets.pop(0))
            yield "largest", share * step.loss(out, y)
            soft = step.soft(out) if step.aligned else None  # of boxes, nets of other sizes have other outputs
        for name, arch in zip(names, nets, strict=True):
            out = step.run(x, arch)
            if soft is None:
                yield name, share * step.loss(out, y)
            else:
                yield f"{name}_soft", share * step.match(out, soft)


@checked("sandwich")
class SandwichWithin(Sandwich):
    """Sandwich with samples that also respect the search's other budgets."""

    limits: Budget = UNLIMITED

    def sample(self, draw: Draw, low: float, high: float) -> Arch:
        return draw.near(low, high, self.limits)
