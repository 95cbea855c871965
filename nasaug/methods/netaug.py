"""NetAug: train a tiny network inside wider ones that share its weights."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Gt, Le, MinLen, Predicate

from ..arch.channels import channel_groups
from ..arch.cost import Budget, cost, cost_of, crop
from ..arch.derived import Ladders, around
from ..arch.plan import Outputs, Plan, plan
from ..arch.space import Arch, Space
from ..config.schedule import Constant, Schedule, weight
from ..core.checked import Auto, Count, NotNegative, Told, checked, rises
from ..core.errors import BadInput, arg
from ..core.units import format_duration, format_quantity
from .base import DRAWS, Base, Course, Description, Draw, Method, Outlook, Pass, Step, drawn
from .measured import forecast

if TYPE_CHECKING:
    from torch import Tensor

AXES = ("width", "expand", "depth", "kernel")  # width first: it stops at width_until

FINE = 16  # factors for `shrink_until`, evenly spaced from 1 to the largest
FEWEST = 32  # minimum images per capped augmented pass: with fewer, batch statistics are too noisy
SAFE = 0.96  # fraction of the cap to aim for: the nets drawn in training differ from those the mean is estimated on
LITTLE = 1.5  # augmented nets with fewer than this many times the base's MACs are reported as too small to help

Factors = Annotated[
    tuple[float, ...], Predicate(lambda them: rises(them) and them[0] == 1),
    Told("must rise from 1.0, like 1.0, 1.8, 2.6"),
]  # fmt: skip
MoreKernel = Annotated[
    tuple[int, ...], Predicate(lambda more: rises(more) and more[0] == 0 and not any(one % 2 for one in more)),
    Told("must rise from 0, like 0, 2"),
]  # fmt: skip
MoreDepth = Annotated[
    tuple[int, ...], Predicate(lambda more: rises(more) and more[0] == 0), Told("must rise from 0, like 0, 1")
]
Kinds = Annotated[
    tuple[Literal["width", "expand", "depth", "kernel"], ...], MinLen(1),
    Told(": name what is augmented, like width, expand"),
]  # fmt: skip
Until = Annotated[float, Ge(0), Le(1), Told("must be a share of training, 0 to 1")]
Share = Annotated[float, Gt(0), Le(1), Told("must be a part of a step's images", "give above 0, to 1")]

@checked("netaug")
class NetAug(Method):
    """Training inside wider nets that share the net's weights (Cai et al., ICLR 2022, eq. 2): L(W_t) + weight x
    L([W_t, W_i]), with one augmented net per step.

    ladder: where the wider nets come from. "supernet": the space's choices at or above the base, with widths cut so
    that the widest net costs at most `widest` x the base's MACs; "factors": base x the factors below; "auto": supernet
    if the arch file names one, and its widest net costs at least `needed` x the base's MACs, else factors.
    sort: sort inner channels by importance before each epoch of width augmentation ("auto": only for fresh weights;
    of inherited ones, the leading channels *are* the found subnet).

    Beyond the paper: depth and kernel augmentation; several augmented nets per step; a cap on the extra MACs; the first
    augmented net's soft output as an additional target of the base, at no extra pass; an initial phase that trains
    only one wide net, which shrinks from the widest to the base (parameters are added, then discarded: Yu, Zhang and
    Ma 2023, who give no details) in FINE steps of the factors."""

    weight: Schedule = Constant(1.0)  # of the augmented nets' loss, beside the base's
    width_until: Until = 0.5  # fraction of training with width augmentation; the other kinds last until the end
    ladder: Literal["auto", "supernet", "factors"] = "auto"
    widest: NotNegative = 0.0  # 0: no limit
    needed: NotNegative = 0.0
    width_factors: Factors = (1.0, 1.8, 2.6)  # of the base's widths (ladder "factors")
    expand_factors: Factors = (1.0, 1.6, 2.2, 2.8)  # of the base's expand ratios (ladder "factors")
    kernel_more: MoreKernel = (0,)  # added to kernel sizes above 1, like 0, 2 (ladder "factors")
    depth_more: MoreDepth = (0,)  # blocks appended to each stage, like 0, 1 (ladder "factors")
    kinds: Kinds = ("width", "expand")  # what is augmented (ladder "supernet")
    round: Count = 1  # augmented channels are multiples of this
    augmented: Annotated[int, Ge(0)] = 1  # augmented nets per step; their losses are averaged
    shrink_until: Until = 0.0  # fraction of training with only the shrinking net; after it, augmented may be 0
    every: Count = 1  # run augmented passes only in every this many-th step
    share: Share = 1.0  # fraction of a step's images used by augmented passes, which also scales their loss
    aug_compute: NotNegative = 0.0  # augmented passes cost at most this many times the base's (0.17: 17 %); 0: no cap
    teach: NotNegative = 0.0  # weight of the augmented net's soft output as a target of the base
    wide_view: str = "train"  # the recipe's view for augmented nets, like [views.strong]
    sort: bool | Auto = "auto"
    sort_momentum: bool = True  # sort momentum along with the weights; false: for ablations

    def __post_init__(self):
        if self.augmented < (least := int(not self.shrink_until)):
            raise BadInput.of(field="netaug.augmented", value=self.augmented, rule=f"must be at least {least}")
        if self.teach and self.wide_view != "train":
            rule = "and netaug.wide_view exclude each other"
            remedy = "leave one out, since the wide net teaches what it saw"
            raise BadInput.of(field="netaug.teach", value=self.teach, rule=rule, remedy=remedy)
        if self.aug_compute and (self.every > 1 or self.share < 1 or self.shrink_until):
            rule = "sets netaug.every and netaug.share, and cannot be combined with netaug.shrink_until"
            raise BadInput.of(field="netaug.aug_compute", value=self.aug_compute, rule=rule, remedy="leave one out")
        if not self.augmented and (self.teach or self.every > 1 or self.share < 1):
            rule = "leaves nothing for netaug.teach, every and share"
            raise BadInput.of(field="netaug.augmented", value=0, rule=rule, remedy="leave those out")
        weight("netaug.weight", self.weight)

    @property
    def cycle(self) -> int:
        return self.every

    @property
    def reorders(self) -> bool:
        return True

    def check_views(self, views: Collection[str]) -> None:
        if self.wide_view not in views:
            wide = self.wide_view
            raise BadInput.of(
                field="netaug.wide_view", value=wide, rule="is not a view of the recipe", choices=sorted(views),
                remedy=f"or add [views.{wide}] beside [views.train]",
            )  # fmt: skip

    def chosen_ladder(self, base: Base) -> str:
        """`ladder` with "auto" resolved to "supernet" or "factors"."""
        if self.ladder == "factors" or (self.ladder == "auto" and not base.supernet):
            return "factors"
        if self.ladder == "supernet" and base.space is None:
            raise BadInput(
                "netaug.ladder = supernet needs an arch file that a search wrote (it holds the space); this one "
                f"has none: use {arg.set} netaug.ladder=factors"
            )
        if base.space is None or base.arch is None:
            return "factors"
        wider, needed = self._above(base), self.needed if self.ladder == "auto" else 0.0
        widest = cost_of(wider, wider.largest, base.plan.classes).macs
        return "supernet" if wider.largest != base.arch and widest >= needed * cost(base.plan).macs else "factors"

    def _above(self, base: Base) -> Space:
        """The space's choices at or above the base, as wide as `widest` allows."""
        assert base.space is not None and base.arch is not None
        above = base.space.above(base.arch, self.kinds)
        return crop(above, Budget(macs=cost(base.plan).macs), self.widest, base.plan.classes)

    def space(self, base: Base) -> tuple[Space, Arch]:
        if self.chosen_ladder(base) == "supernet":
            assert base.arch is not None
            return self._above(base), base.arch
        widths, expands = self.width_factors, self.expand_factors
        if self.shrink_until:
            widths, expands = _fine(widths[-1]), _fine(expands[-1])
        return around(base.plan, Ladders(widths, expands, self.round, self.kernel_more, self.depth_more))

    def prepare(self, space: Space, base: Arch, classes: Outputs, batch: int) -> NetAug:
        """The same method with `every` and `share` set so that augmented passes cost `aug_compute` times the base's.

        It first reduces the images, down to FEWEST per batch, and only then the steps: if few steps were augmented,
        these would pull the shared weights back and forth."""
        if not self.aug_compute:
            return self
        whole, extra = replace(self, every=1, share=1.0), 0
        for passes in drawn(whole, space, base, classes, "cap"):
            extra += sum(cost_of(space, each.arch, classes).macs for each in passes[1:])
        part = SAFE * self.aug_compute * cost_of(space, base, classes).macs * DRAWS / max(extra, 1)
        if part >= 1:
            return replace(whole, aug_compute=0.0)
        every = math.ceil(max(part, min(1.0, FEWEST / batch)) / part - 1e-9)
        return replace(self, aug_compute=0.0, every=every, share=math.floor(min(1.0, part * every) * batch) / batch)

    def describe(self, outlook: Outlook) -> Description:
        """The MACs of augmented nets relative to the base, an alternative if that is little, and whether plain training
        of the same compute is expected to give more."""
        ladder, base = self.chosen_ladder(outlook.base), cost(outlook.base.plan).macs
        if self.shrink_until:
            widest = cost_of(outlook.space, self.shrunk(outlook.space, 0.0), outlook.base.plan.classes).macs
            shown = f"{format_quantity(widest, 'macs')} MACs at first, trained alone and shrunk to the base"
            line = f"  for {self.shrink_until:.0%} of training one net of {shown}"
            return Description([line], {"ladder": ladder, "shrunk_from_macs": widest})
        wide = self._augmented_macs(outlook)
        lines = [f"  augmented nets (ladder {ladder}): {wide / base:.2f} x the base's MACs on average"]
        if wide < LITTLE * base and ladder == "supernet":
            assert isinstance(outlook.asked, NetAug)
            other = outlook.instead(replace(outlook.asked, ladder="factors"))
            assert isinstance(other.method, NetAug)
            lines.append(
                f"  that is little augmentation: started with {arg.set} netaug.ladder=factors it would be "
                f"{other.method._augmented_macs(other) / base:.2f} x "
                f"and would take about {format_duration(other.seconds)}"
            )
        if isinstance(outlook.base.plan.classes, int):
            lines.append(f"  {forecast(base, outlook.epochs, outlook.images, outlook.macs / base)}")
        return Description(lines, {"ladder": ladder, "augmented_macs": wide, "augmented_over_base": wide / base})

    def _augmented_macs(self, outlook: Outlook) -> float:
        """Mean MACs of one augmented net."""
        return (outlook.macs - cost(outlook.base.plan).macs) / (self.share / self.every) / self.augmented

    def shrunk(self, space: Space, progress: float) -> Arch:
        """The net of the initial phase: all axes shrink in step from the largest of `space` to the base."""
        left = 1 - progress / self.shrink_until
        values = (axis.choices[round(left * (len(axis.choices) - 1))] for axis in space.axes)
        return space.canonical(Arch(space.name, tuple(values)))

    def passes(self, draw: Draw) -> list[Pass]:
        if draw.progress < self.shrink_until:
            return [Pass(self.shrunk(draw.space, draw.progress), view=self.wide_view)]
        if draw.step % self.every:
            return [Pass(draw.base)]
        free = AXES if draw.progress < self.width_until else AXES[1:]
        wide = (draw.sample(low=draw.base, free=free) for _ in range(self.augmented))
        return [Pass(draw.base), *(Pass(arch, self.share, self.wide_view) for arch in wide)]

    def losses(self, step: Step) -> Iterator[tuple[str, Tensor]]:
        base, *wide = step.passes
        x, y = step.view(base.view)
        if step.progress < self.shrink_until:
            yield "wide", step.loss(step.run(x, base.arch), y)
            return
        if not (self.teach and wide):
            yield "base", step.loss(step.run(x, base.arch), y)
        if not wide:
            return
        part = wide[0].images(len(x))
        weight, soft = self.weight(step.progress) * part / len(x) / len(wide), None
        seen, told = step.view(wide[0].view) if wide[0].view != base.view else (x, y)
        for each in wide:
            out = step.run(seen[:part], each.arch)
            soft = step.soft(out) if soft is None else soft
            yield "wide", weight * step.loss(out, told.first(part))
            del out
        if soft is not None and self.teach:
            out = step.run(x, base.arch)
            yield "base", step.loss(out, y) + self.teach * part / len(x) * step.match(out[:part], soft)

    def on_epoch(self, trainer: Course) -> None:
        """Sorts channels while widths vary; in the initial phase, only those still in use."""
        sort, within = not trainer.inherited if self.sort == "auto" else self.sort, trainer.net.plan
        shrinks = trainer.progress < self.shrink_until
        if shrinks:
            within = plan(trainer.space, self.shrunk(trainer.space, trainer.progress), within.classes)
        if sort and (shrinks or (trainer.progress < self.width_until and self.augmented)):
            momentum, *averages = trainer.companions()
            sort_channels(trainer.net, within, *(momentum,) * self.sort_momentum, *averages)


def _fine(largest: float) -> tuple[float, ...]:
    return tuple(sorted({1 + (largest - 1) * i / (FINE - 1) for i in range(FINE)}))


def sort_channels(net, within: Plan, *companions) -> None:
    """Sort the inner channels of every block by descending importance, in the weights and in `companions`, dicts of
    tensors by parameter name.

    Importance is the L1 norm of the weights that read a channel, as in the published code. Residual streams are not
    sorted; channels beyond those of the smaller plan `within` stay last."""
    streams, sizes = {block.name for block in net.plan.blocks}, channel_groups(within)
    for name, group in channel_groups(net.plan).items():
        if name not in streams and name in sizes:
            score = net.importance(group)
            score[sizes[name].size :] = -1.0
            net.permute(group, score.argsort(descending=True, stable=True), *companions)
