"""NetAug: train a tiny network inside wider ones that share its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..around import Ladders, around
from ..channels import channel_groups
from ..errors import BadInput
from ..schedule import Constant, Schedule
from ..space import Arch, Space
from .base import Base, Draw


@dataclass(frozen=True, slots=True)
class NetAug:
    """Cai et al., ICLR 2022, eq. 2: L(W_t) + weight x L([W_t, W_i]), one augmented net a step.

    ladder: what the wider nets are. "supernet": the search space's own choices at or above the base; "factors":
    base x the factors below; "auto": supernet where the arch file names one with such choices, else factors.
    sort: sort inner channels by importance before each epoch of width augmentation ("auto": for fresh weights;
    inherited leading channels *are* the found subnet)."""

    weight: Schedule = Constant(1.0)
    width_until: float = 0.5  # share of training with width augmentation; expand augmentation runs to the end
    ladder: Literal["auto", "supernet", "factors"] = "auto"
    width_factors: tuple[float, ...] = (1.0, 1.8, 2.6)
    expand_factors: tuple[float, ...] = (1.0, 1.6, 2.2, 2.8)
    round: int = 1  # augmented channels are multiples of this
    every: int = 1  # an augmented pass in every so many-th step
    share: float = 1.0  # of a step's images, the part that the augmented pass sees; its loss is weighted by it
    sort: bool | Literal["auto"] = "auto"

    def __post_init__(self):
        for name in ("width_factors", "expand_factors"):
            factors = getattr(self, name)
            if not factors or factors[0] != 1 or list(factors) != sorted(set(factors)):
                raise BadInput(f"netaug.{name} = {factors} must rise from 1.0, like 1.0, 1.8, 2.6")
        if not 0 <= self.width_until <= 1:
            raise BadInput(f"netaug.width_until = {self.width_until} is a share of training, 0 to 1")
        for name in ("round", "every"):
            if getattr(self, name) < 1:
                raise BadInput(f"netaug.{name} = {getattr(self, name)} must be at least 1")
        if not 0 < self.share <= 1:
            raise BadInput(f"netaug.share = {self.share:g} is a part of a step's images: give above 0, to 1")

    def chosen_ladder(self, base: Base) -> str:
        """"supernet" or "factors": `ladder` with "auto" decided."""
        if self.ladder == "factors":
            return "factors"
        wider = base.space is not None and base.space.above(base.arch, ("width", "expand")).largest != base.arch
        if self.ladder == "supernet" and base.space is None:
            raise BadInput(
                "netaug.ladder = supernet needs an arch file that a search wrote (it holds the space); this one "
                "has none: use --set netaug.ladder=factors"
            )
        return "supernet" if wider else "factors"

    def space(self, base: Base) -> tuple[Space, Arch]:
        if self.chosen_ladder(base) == "supernet":
            return base.space.above(base.arch, ("width", "expand")), base.arch
        return around(base.plan, Ladders(self.width_factors, self.expand_factors, self.round))

    def nets(self, draw: Draw) -> list[Arch]:
        if draw.step % self.every:
            return [draw.base]
        free = ("width", "expand") if draw.progress < self.width_until else ("expand",)
        return [draw.base, draw.sample(low=draw.base, free=free)]

    def losses(self, step):
        x, y = step.view("train")
        base, *wide = self.nets(step)
        yield "base", step.loss(step.run(x, base), y)
        for arch in wide:
            part = max(2, round(self.share * len(x)))  # a norm needs more than one
            weight = self.weight(step.progress) * part / len(x)
            yield "wide", weight * step.loss(step.run(x[:part], arch), y[:part])

    def on_epoch(self, trainer) -> None:
        sort = not trainer.inherited if self.sort == "auto" else self.sort
        if sort and trainer.progress < self.width_until:
            sort_channels(trainer.net, trainer.momentum())


def sort_channels(net, momentum) -> None:
    """Most important inner channels first in every block, weights and momentum alike.

    Importance is the L1 norm over the weights that read a channel (the published code's measure). Residual
    streams are not sorted."""
    streams = {block.name for block in net.plan.blocks}
    for name, group in channel_groups(net.plan).items():
        if name not in streams:
            order = net.importance(group).argsort(descending=True, stable=True)
            net.permute(group, order, momentum)
