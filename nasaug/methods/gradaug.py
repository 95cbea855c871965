"""GradAug: train a network together with thinner slices of itself on transformed images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from annotated_types import Gt, Le, Predicate

from ..arch.derived import below
from ..arch.plan import Outputs, plan
from ..arch.space import Arch, Space
from ..config.schedule import Constant, Schedule, weight
from ..core.checked import Count, Told, checked, rises
from ..core.errors import BadInput
from .base import Base, Description, Draw, Method, Outlook, Pass, Step

if TYPE_CHECKING:
    from torch import Tensor

STEPS = 20  # number of widths below the full one

Share = Annotated[float, Gt(0), Le(1), Told("must be a share", "give above 0, to 1")]
Shares = Annotated[
    tuple[float, ...], Predicate(lambda shares: rises(shares) and 0 < shares[0] and shares[-1] <= 1),
    Told("must rise, above 0 and up to 1.0, like 0.5, 1.0"),
]  # fmt: skip

@checked("gradaug")
class GradAug(Method):
    """Training with thinner slices of the net on transformed images (Yang et al., NeurIPS 2020): L(full, y) + weight x
    the sum over thin nets of match(thin on T(x), full's output).

    A thin net uses one random width for the whole network and, if `depth` is below 1, a random subset of the blocks
    with an identity shortcut. T resizes to a random one of `resolutions` (as fractions of the base's; published: 128,
    160, 192 and 224 px of 224) and applies the recipe's `[transforms.thin]` to the same images, mixed ones included.
    Only the full network updates the running statistics; thin nets use batch statistics."""

    num_subnet: Count = 3  # thin nets per step
    width: Share = 0.9  # of the thinnest net, as a fraction of the full net's channels
    depth: Share = 1.0  # probability of keeping each block with an identity shortcut; 1: keep all
    resolutions: Shares = (4 / 7, 5 / 7, 6 / 7, 1.0)
    weight: Schedule = Constant(1.0)  # of their loss, beside the full net's

    def __post_init__(self):
        weight("gradaug.weight", self.weight)

    def space(self, base: Base) -> tuple[Space, Arch]:
        widths = tuple(self.width + (1 - self.width) * i / STEPS for i in range(STEPS))
        sizes = tuple(max(1, round(base.plan.resolution * s)) for s in self.resolutions)
        space, arch = below(base.plan, widths, sizes, self.depth < 1)
        if _same(space, space.smallest, arch, base.plan.classes):
            given = f"gradaug.width = {self.width:g}, depth = {self.depth:g} and resolutions = {list(self.resolutions)}"
            raise BadInput(f"{given} leave no thinner version of this net to draw; lower one of them")
        return space, arch

    def passes(self, draw: Draw) -> list[Pass]:
        return [Pass(draw.base), *(Pass(self._thin(draw)) for _ in range(self.num_subnet))]

    def _thin(self, draw: Draw) -> Arch:
        """A random thin net. Never the full net, which widths near 1 may round to: such a pass would update the
        running statistics with transformed images."""
        for _ in range(1000):
            arch = draw.sample(low=draw.space.smallest, free=("width", "resolution"))
            stays = (
                int(draw.rng.random() < self.depth) if axis.kind == "skip" else value
                for axis, value in zip(draw.space.axes, arch.values, strict=True)
            )
            thin = draw.space.canonical(Arch(arch.space, tuple(stays)))
            if not _same(draw.space, thin, draw.base, draw.classes):
                return thin
        return draw.space.smallest

    def describe(self, outlook: Outlook) -> Description:
        """What the thin nets are matched to, if it is not the full net's output."""
        if outlook.aligned:
            return Description()
        learnt = f"the {outlook.moved}, moved with their images"
        line = f"  thin nets learn {learnt}: outputs at two resolutions do not align"
        return Description([line], {"match": f"the task's loss against the {outlook.moved} moved with the view"})

    def losses(self, step: Step) -> Iterator[tuple[str, Tensor]]:
        x, y = step.view("train")
        full, *thin = step.passes
        out = step.run(x, full.arch)
        soft = step.soft(out)
        yield "base", step.loss(out, y)
        del out
        for one in thin:
            seen, wanted = step.retold("thin", x, y, soft)
            loss = step.match(step.run(seen, one.arch), wanted)
            yield "thin", self.weight(step.progress) * loss


def _same(space: Space, a: Arch, b: Arch, classes: Outputs) -> bool:
    """Whether both describe the same network, as different archs may."""
    return a == b or plan(space, a, classes) == plan(space, b, classes)
