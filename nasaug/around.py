"""A search space around one plan, found, published or pruned: what NetAug's published factors widen. Pure."""

from __future__ import annotations

import math
from typing import NamedTuple

from .plan import ON_OUTPUT, Plan, Spec, hidden_width, make_divisible
from .space import Arch, Axis, Ref, Rule, Space


class Ladders(NamedTuple):
    """Factors >= 1 by which `around` widens a plan: NetAug's published pair, one draw a stream and block."""

    width: tuple[float, ...] = (1.0,)
    expand: tuple[float, ...] = (1.0,)
    round: int = 1


def around(base: Plan, ladders: Ladders) -> tuple[Space, Arch]:
    """A space whose smallest architecture is `base` and whose axes multiply its widths and expand ratios.

    Each augmented width is base x factor rounded to `round`, drawn independently for every block without a
    residual; one that has an identity shortcut keeps its input's width. Each expand factor multiplies the
    base ratio, which applies to the already widened input, so factors compound (Cai et al., ICLR 2022)."""
    axes: list[Axis] = []
    rules: list[Rule] = []
    stream: int | Ref = 3
    for block in base.blocks[:-1]:
        spec = block.spec
        if spec.shortcut == "identity" or not spec.width:
            width = stream if spec.width else 0
        else:
            width = _axis(axes, f"{spec.name}.width", "width", _widths(spec.width, ladders))
        expand: float | Ref = 1.0
        if spec.hidden:
            # half a part in 1e10 up, as published, so that the base's own ratio gives the base's own width
            ratio = spec.hidden / (spec.width if spec.block in ON_OUTPUT else block.cin) + 1e-10
            choices = tuple(ratio * factor for factor in ladders.expand)
            expand = _axis(axes, f"{spec.name}.expand", "expand", choices)
        se = 0.0
        if spec.se:
            source = width if spec.block in ON_OUTPUT else stream
            channels = axes[source.axis].choices[-1] if isinstance(source, Ref) else source
            se = _se_ratio(spec, hidden_width(choices[-1], channels, ladders.round))
        rules.append(
            Rule(spec.name, spec.name, 1, spec.block, width, expand, spec.kernel, spec.stride, None, spec.act,
                 se, spec.shortcut, spec.order, spec.hidden)
        )  # fmt: skip
        stream = width or stream
    space = Space("around", ladders.round, tuple(axes), tuple(rules), base.resolution)
    return space, space.smallest


def _se_ratio(spec: Spec, widest: int) -> float:
    """Squeeze-excite middle over inner channels of a block; `widest` is the most inner channels it can have.

    As published: the widest form's middle is rounded, halves down, and the others follow *its* ratio, which
    differs by up to 1 from rounding each form's middle by the base's ratio."""
    return math.ceil(widest * spec.se / spec.hidden - 0.5 - 1e-6) / widest


def _widths(base: int, ladders: Ladders) -> tuple[int, ...]:
    wide = {make_divisible(base * factor, ladders.round) for factor in ladders.width}
    return base, *sorted(width for width in wide if width > base)


def _axis(axes: list[Axis], name: str, kind: str, choices: tuple) -> Ref:
    axes.append(Axis(name, kind, choices))
    return Ref(len(axes) - 1)
