"""Search spaces derived from one plan: above it for NetAug, below it for GradAug. Independent of torch."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

from .blocks import ON_OUTPUT, Spec
from .plan import Plan, hidden_width, make_divisible
from .space import Arch, Axis, Ref, Rule, Space

WIDEST_KERNEL = 7


class Ladders(NamedTuple):
    """Factors >= 1 by which `around` widens a plan: `width` and `expand` are NetAug's published pair, drawn once per
    stream and block.

    Our additions: `kernel` is added to spatial kernel sizes (even numbers), `depth` is the number of blocks appended to
    a stage."""

    width: tuple[float, ...] = (1.0,)
    expand: tuple[float, ...] = (1.0,)
    round: int = 1
    kernel: tuple[int, ...] = (0,)
    depth: tuple[int, ...] = (0,)


def around(base: Plan, ladders: Ladders) -> tuple[Space, Arch]:
    """A space whose smallest architecture is `base` and whose axes multiply its widths and expand ratios.

    Each augmented width is base x factor rounded to `round`, drawn independently for every block without a residual; a
    block with an identity shortcut keeps its input's width. Each expand factor multiplies the base ratio, which applies
    to the already widened input, so factors compound (Cai et al., ICLR 2022)."""
    axes: list[Axis] = []
    rules: list[Rule] = []
    stream: int | Ref = 3
    for block, after in zip(base.body, base.blocks[1:], strict=False):
        spec = block.spec
        if spec.shortcut == "identity" or not spec.width:
            width = stream if spec.width else 0
        else:
            width = _axis(axes, f"{spec.name}.width", "width", _widths(spec.width, ladders))
        rules.append(_widened(axes, spec, block.cin, stream, width, ladders))
        stream = width or stream
        if len(ladders.depth) > 1 and spec.hidden and _stage(spec) != _stage(after.spec):
            rules += _appended(axes, spec, stream, ladders)
    space = Space("around", ladders.round, tuple(axes), tuple(rules), base.resolution)
    return space, space.smallest


def _widened(axes: list[Axis], spec: Spec, cin: int, stream: int | Ref, width: int | Ref, ladders: Ladders) -> Rule:
    """The rule of one block of the plan, with new axes for whatever `ladders` widens in it."""
    expand: float | Ref = 1.0
    se = 0.0
    if spec.hidden:
        # plus 1e-10, as published, so that the base's ratio reproduces the base's width despite rounding
        ratio = spec.hidden / (spec.width if spec.block in ON_OUTPUT else cin) + 1e-10
        choices = tuple(ratio * factor for factor in ladders.expand)
        expand = _axis(axes, f"{spec.name}.expand", "expand", choices)
        if spec.se:
            source = width if spec.block in ON_OUTPUT else stream
            channels = int(axes[source.axis].choices[-1]) if isinstance(source, Ref) else source
            se = _se_ratio(spec, hidden_width(choices[-1], channels, ladders.round))
    kernel: int | Ref = spec.kernel
    larger = tuple(k for k in (spec.kernel + more for more in ladders.kernel) if k <= max(spec.kernel, WIDEST_KERNEL))
    if spec.width and spec.kernel > 1 and len(larger) > 1:
        kernel = _axis(axes, f"{spec.name}.kernel", "kernel", larger)
    return Rule(
        spec.name, spec.name, 1, spec.block, width, expand, kernel, spec.stride, None, spec.act, se, spec.shortcut,
        spec.order, spec.hidden,
    )  # fmt: skip


def _stage(spec: Spec) -> str:
    return spec.name.rpartition(".")[0]


def _appended(axes: list[Axis], last: Spec, stream: int | Ref, ladders: Ladders) -> list[Rule]:
    """Copies of a stage's last block with an identity shortcut, appended to it: as many as the stage's depth axis
    allows.
    """
    stage = _stage(last) or last.name
    depth = _axis(axes, f"{stage}.depth", "depth", tuple(more + 1 for more in ladders.depth))
    spec = last._replace(shortcut="identity", stride=1)
    rules = []
    for i in range(1, ladders.depth[-1] + 1):
        own = spec._replace(name=f"{stage}.more{i}")
        rule = _widened(axes, own, last.width, stream, stream, ladders)
        rules.append(replace(rule, stage=stage, index=i + 1, depth=depth))
    return rules


def below(
    base: Plan, widths: tuple[float, ...], resolutions: tuple[int, ...] = (), skip: bool = False
) -> tuple[Space, Arch]:
    """A space whose largest architecture is `base`: one factor for all widths, the image resolution, and axes (0 or 1)
    for skipping blocks with an identity shortcut.

    GradAug draws its thinner subnets from it (Yang et al., NeurIPS 2020). `widths` and `resolutions` are ascending; the
    base's own, 1.0 and its resolution, are added."""
    axes: list[Axis] = []
    factor = _axis(axes, "width", "width", (*(w for w in widths if w < 1), 1.0)).axis
    rules = []
    for block in base.body:
        spec = block.spec
        ratio = spec.hidden / (spec.width if spec.block in ON_OUTPUT else block.cin) if spec.hidden else 1.0
        left_out = None
        if skip and spec.shortcut == "identity":
            left_out = _axis(axes, f"{spec.name}.skip", "skip", (0, 1))
        rules.append(
            Rule(spec.name, spec.name, 1, spec.block, Ref(factor, spec.width) if spec.width else 0, ratio,
                 spec.kernel, spec.stride, None, spec.act, spec.se / spec.hidden if spec.hidden else 0.0,
                 spec.shortcut, spec.order, spec.hidden, left_out, True)
        )  # fmt: skip
    sizes = tuple(sorted({*(r for r in resolutions if r < base.resolution), base.resolution}))
    size = _axis(axes, "resolution", "resolution", sizes) if len(sizes) > 1 else base.resolution
    space = Space("below", 1, tuple(axes), tuple(rules), size)
    return space, space.largest


def _se_ratio(spec: Spec, widest: int) -> float:
    """The ratio of squeeze-excite middle to inner channels; `widest` is the block's maximum of inner channels.

    As published: the middle of the widest form is rounded, halves down, and the others use *its* ratio. This differs by
    up to 1 from rounding each form's middle by the base's ratio."""
    return math.ceil(widest * spec.se / spec.hidden - 0.5 - 1e-6) / widest


def _widths(base: int, ladders: Ladders) -> tuple[int, ...]:
    wide = {make_divisible(base * factor, ladders.round) for factor in ladders.width}
    return base, *sorted(width for width in wide if width > base)


def _axis(axes: list[Axis], name: str, kind: str, choices: tuple) -> Ref:
    axes.append(Axis(name, kind, choices))
    return Ref(len(axes) - 1)
