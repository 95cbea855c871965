"""A Plan is an architecture lowered to typed layers; everything after the search works on it.

MACs, memory, network construction, slicing, pruning and export all read the same Plan, so they cannot disagree.
Independent of weights and training.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import NamedTuple

from ..core.errors import BadInput
from .blocks import BLOCKS, ON_OUTPUT, STAND_IN, Block, Layer, Spec, lower
from .space import ACTS, ORDERS, SHORTCUTS, Arch, Rule, Space, resolve


class Head(NamedTuple):
    """The end of a network for a task: its blocks follow those of the space and give `outputs` values per image.

    If `pooled`, they read the output of the space's own end (its global pool and what follows it), else the feature map
    before that pool. A block may read another map by its `source`: "@0", "@1" and "@2" are the network's last maps,
    each half the size of the one before (`levels`); a head that also reads "@3" has four. Hashable, because caches are
    keyed by it.

    beside: the sizes of modules that read the outputs of the plan and are not part of it, so that no cost includes
    them: torchvision's, as `nasaug.nets.two_stage` builds them. Empty: none."""

    outputs: int
    specs: tuple[Spec, ...]
    pooled: bool = True
    beside: tuple[tuple[str, int], ...] = ()

    def __str__(self) -> str:
        return str(self.outputs)


Outputs = int | Head  # an int means the default head: a linear layer with this many outputs


@cache
def end_of(outputs: Outputs) -> Head:
    """The head that `outputs` stands for."""
    return outputs if isinstance(outputs, Head) else Head(outputs, (Spec("classifier", "linear", outputs),))


@dataclass(frozen=True)
class Plan:
    """A network as pure data: lowered blocks on a `resolution` x `resolution` image of three channels.

    Each block reads the output of the block before it, or of the one that its spec names as `source`. The outputs of
    the network are those of the blocks that no other reads."""

    blocks: tuple[Block, ...]
    resolution: int
    classes: Outputs

    @property
    def head(self) -> tuple[Block, ...]:
        """The blocks that belong to the task's head."""
        return self.blocks[-len(end_of(self.classes).specs) :]

    @property
    def body(self) -> tuple[Block, ...]:
        """All other blocks."""
        return self.blocks[: -len(end_of(self.classes).specs)]

    @property
    def layers(self) -> Iterator[Layer]:
        """The layers that run, in order."""
        for block in self.blocks:
            yield from block.all_layers

    @property
    def owned(self) -> Iterator[Layer]:
        """The layers that the net has: those that run, and the spare ones, which only smaller plans run. A spare one
        may take the place of a layer of the same name, with room for more channels."""
        yield from self.layers
        yield from (block.spare for block in self.blocks if block.spare)

    @cached_property
    def sources(self) -> tuple[int, ...]:
        """For each block the index of the one whose output it reads; -1 is the image."""
        index = {block.name: i for i, block in enumerate(self.blocks)}
        return tuple(index[b.spec.source] if b.spec.source else i - 1 for i, b in enumerate(self.blocks))

    @cached_property
    def ends(self) -> tuple[int, ...]:
        """The indices of the blocks whose outputs are the network's: those that no other block reads."""
        read = set(self.sources)
        return tuple(i for i in range(len(self.blocks)) if i not in read)

    @cached_property
    def tapped(self) -> frozenset[str]:
        """The names of the blocks that another reads by name."""
        return frozenset(block.spec.source for block in self.blocks) - {""}

    @property
    def specs(self) -> tuple[Spec, ...]:
        """The specs from which the plan can be lowered again, at any resolution: a head's as its task gives them."""
        if isinstance(self.classes, Head):
            pairs = zip(self.classes.specs, self.head, strict=True)
            head = (given._replace(room=block.spec.room) for given, block in pairs)
            return (*(block.spec for block in self.body), *head)
        return tuple(block.spec for block in self.blocks)

    @cached_property
    def by_name(self) -> dict[str, Layer]:
        return {layer.name: layer for layer in self.owned}

    @cached_property
    def widths(self) -> dict[str, tuple[int, int, int, int]]:
        """Layer name to (input channels, output channels, kernel, squeeze-excite middle)."""
        return {x.name: (x.cin, x.out, x.kernel, x.mid) for x in self.owned}

    def holds(self, smaller: Plan) -> bool:
        """Whether `smaller` is a slice of this plan: each of its layers is here, at least as large."""
        mine = self.widths
        return all(
            name in mine and all(a <= b for a, b in zip(sizes, mine[name], strict=True))
            for name, sizes in smaller.widths.items()
        )

    def at(self, resolution: int) -> Plan:
        """The same network on images of another size."""
        return from_specs(self.specs, resolution, self.classes)

    def of_classes(self, classes: Outputs) -> Plan:
        """The same network with another number of outputs, or another head."""
        old, new = end_of(self.classes), end_of(classes)
        body, head = [block.spec for block in self.body], new.specs
        if isinstance(classes, int) and isinstance(self.classes, int):
            head = (self.head[0].spec._replace(width=classes),)
        if old.pooled and not new.pooled:
            body = body[: _pool_of(body)]
        elif new.pooled and not old.pooled:
            body.append(Spec("pool", "pool"))
        return from_specs((*body, *head), self.resolution, classes)

    def to_dict(self) -> dict:
        """JSON form; `from_dict` is its inverse."""
        default = Spec._field_defaults
        rows = [{k: v for k, v in spec._asdict().items() if v != default.get(k)} for spec in self.specs]
        form = {"resolution": self.resolution, "classes": end_of(self.classes).outputs, "blocks": rows}
        if isinstance(self.classes, Head):
            beside = {"beside": dict(self.classes.beside)} if self.classes.beside else {}
            form["head"] = {"blocks": len(self.classes.specs), "pooled": self.classes.pooled, **beside}
        return form


def _pool_of(specs: list[Spec]) -> int:
    """The index of the global pool; the number of specs if there is none."""
    return next((i for i, spec in enumerate(specs) if spec.block == "pool"), len(specs))


def from_specs(specs, resolution: int, classes: Outputs) -> Plan:
    """A Plan from resolved blocks in sequence, on an image of 3 x resolution x resolution."""
    return Plan(tuple(_with([], specs, resolution)), resolution, classes)


def _with(blocks: list[Block], specs: Iterable[Spec], resolution: int) -> list[Block]:
    """`blocks` on an image of 3 x resolution x resolution, followed by those of `specs`."""
    taps: list[Tap] = []
    specs = tuple(specs)
    count = max(LEVELS, *(1 + int(s.source.removeprefix(LEVEL)) for s in specs if s.source.startswith(LEVEL)), 0)
    for spec in specs:
        before = blocks[-1] if blocks else None
        if spec.source.startswith(LEVEL):
            taps = taps or levels(blocks, count)
            tap = taps[int(spec.source.removeprefix(LEVEL))]
            spec = spec._replace(source=tap.block, stride=tap.stride)
        if spec.source:
            before = next(block for block in blocks if block.name == spec.source)
        channels, size = (before.out, before.out_size) if before else (3, (resolution, resolution))
        blocks.append(lower(spec, channels, *size))
    return blocks


LEVEL, LEVELS, MOST_LEVELS = "@", 3, 4
BESIDE = ("classes", "width", "box_width", "mask_width", "anchor", "detections")  # keys of `Head.beside`


class Tap(NamedTuple):
    """Where a head reads a map: the block, and the stride with which it reads it."""

    block: str
    stride: int


def levels(body: Sequence[Block], count: int = LEVELS) -> list[Tap]:
    """The `count` last maps, the largest first, each half the size (rounded up) of the one before: of each size the
    last block's output. A body with too few sizes has its last map read with a stride, so that there are always as
    many, and the number of their pixels tells the size of each."""
    last = body[-1]
    found, size = [Tap(last.name, 1)], last.out_size
    for block in reversed(body):
        if block.out_size != size:
            if len(found) == count or tuple(-(-side // 2) for side in block.out_size) != size:
                break
            found.insert(0, Tap(block.name, 1))
            size = block.out_size
    while len(found) < count:
        found.append(Tap(last.name, 2 * found[-1].stride))
    return found


def from_dict(data: Mapping, where: str = "plan") -> Plan:
    """The inverse of `Plan.to_dict`. Raises BadInput for anything that is not a plan."""
    try:
        specs = [Spec(**row) for row in data["blocks"]]
        resolution, classes = data["resolution"], data["classes"]
    except (KeyError, TypeError) as error:
        raise BadInput(f"{where}: not a plan ({error}); write the file again with nasaug search") from None
    for spec in specs:
        _check_spec(spec, where)
    if len({spec.name for spec in specs}) < len(specs):
        raise BadInput(f"{where}: two blocks have the same name; every block needs its own")
    for i, spec in enumerate(specs):
        there = {"", *(other.name for other in specs[:i]), *(f"{LEVEL}{n}" for n in range(MOST_LEVELS) if i)}
        if spec.source not in there:
            raise BadInput(f"{where}: block {spec.name!r} reads {spec.source!r}, which is not a block before it")
    head = data.get("head")
    if head is None and (not specs or (specs[-1].block, specs[-1].width) != ("linear", classes)):
        raise BadInput(f"{where}: the last block must be the classifier, linear and of width {classes!r}")
    if not all(_whole(n, least=1) for n in (resolution, classes)):
        sizes = f"resolution {resolution!r} and classes {classes!r}"
        raise BadInput(f"{where}: {sizes} must be positive whole numbers")
    return from_specs(specs, resolution, classes if head is None else _head_in(head, specs, classes, where))


def _head_in(head, specs: list[Spec], outputs: int, where: str) -> Head:
    right = isinstance(head, Mapping) and _whole(head.get("blocks"), least=1) and isinstance(head.get("pooled"), bool)
    if not right or head["blocks"] > len(specs):
        rule = f"how many of the {len(specs)} last blocks are the task's, and whether they follow the pool"
        raise BadInput(f"{where}: head = {head!r:.80} must say {rule}; write the file again with nasaug search")
    beside = head.get("beside", {})
    if beside and (not isinstance(beside, Mapping) or {*beside} != {*BESIDE} or not all(map(_whole, beside.values()))):
        rule = f"must give {', '.join(BESIDE)} as positive whole numbers"
        raise BadInput(f"{where}: head.beside = {beside!r:.80} {rule}; write the file again with nasaug train")
    given = tuple(spec._replace(room=0) for spec in specs[-head["blocks"] :])  # room is the plan's, not the task's
    return Head(outputs, given, head["pooled"], tuple((key, beside[key]) for key in BESIDE if beside))


def _check_spec(spec: Spec, where: str) -> None:
    words = (spec.name, spec.block, spec.act, spec.shortcut, spec.order, spec.source)
    known = (
        all(isinstance(word, str) for word in words) and isinstance(spec.spare, bool) and spec.block in BLOCKS
        and spec.act in ACTS and spec.shortcut in SHORTCUTS and spec.order in ORDERS
    )  # fmt: skip
    if not known:
        raise BadInput(f"{where}: block {spec.name!r} has an unknown kind, act, shortcut or order in {words}")
    sizes = (spec.width, spec.hidden, spec.kernel, spec.stride, spec.se, spec.room)
    takes = BLOCKS[spec.block].takes
    least = ("width" in takes, "expand" in takes, 1, 1, 0, 0)
    if not all(_whole(n, low) for n, low in zip(sizes, least, strict=True)) or spec.kernel % 2 == 0:
        raise BadInput(f"{where}: block {spec.name!r} has impossible sizes {sizes}")


def _whole(value, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= 1 << 20


def make_divisible(value: float, divisor: int) -> int:
    """The multiple of `divisor` nearest to `value`, at least one, rounded up if rounding down would lose over 10 %."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if divisor > 1 and rounded < 0.9 * value else rounded


def plan(space: Space, arch: Arch, classes: Outputs) -> Plan:
    """Lower one architecture of `space` to a Plan that ends in a classifier with `classes` outputs, or in a task's own
    head."""
    values, end = arch.values, end_of(classes)
    resolution = resolve(space.resolution, values)
    blocks, channels, size = [], 3, (resolution, resolution)
    for rule, choices, lowered in space.lowerings:
        if not rule.present(values):
            continue
        if rule.block == "pool" and not end.pooled:
            break
        key = (choices(values), channels, size)
        if key not in lowered:
            spec = _spec(rule, values, channels, space.divisor)
            lowered[key] = None if spec is None else lower(spec, channels, *size)
        block = lowered[key]
        if block is None:
            continue
        blocks.append(block)
        channels, size = block.out, block.out_size
    if isinstance(classes, Head):
        _check_names(end, blocks)
    return Plan(tuple(_with(blocks, end.specs, resolution)), resolution, classes)


def _check_names(head: Head, blocks: list[Block]) -> None:
    """Raises ValueError if a block of a task's head has the name of a block of the space, since names identify
    parameters.
    """
    taken = {block.name for block in blocks} | {block.name.partition(".")[0] for block in blocks}
    for spec in head.specs:
        if spec.name in taken:
            raise ValueError(f"the task's head and the network both have a block named {spec.name}; rename the head's")


def whole(space: Space, classes: Outputs) -> Plan:
    """The plan of a net that holds every architecture of the space: the largest one, which also owns as spare layers
    the convolutions that stand in for the bodies of blocks."""
    largest = plan(space, space.largest, classes)
    standing_in = {rule.name for rule in space.rules if rule.shortcut == "none" and rule.optional(space)}
    # which map a head reads depends on the strides, so it has room for the widest of them
    strides = any(axis.kind == "stride" and len(axis.choices) > 1 for axis in space.axes)
    room = max(block.out for block in largest.body) if strides and largest.tapped else 0
    if not standing_in and not room:
        return largest
    specs = [spec._replace(spare=True) if spec.name in standing_in else spec for spec in largest.specs]
    specs = [spec._replace(room=room) if spec.source else spec for spec in specs]
    return from_specs(specs, largest.resolution, classes)


def _spec(rule: Rule, values: tuple, channels: int, divisor: int) -> Spec | None:
    """One block's rule with the architecture's choices filled in; None for an identity.

    A block without a body (expand ratio 0) is an identity if its skeleton has an identity shortcut; else it may change
    the shape, and a 1x1 convolution with a norm stands in (Su et al., CVPR 2021)."""
    width, expand = resolve(rule.width, values), resolve(rule.expand, values)
    if expand == 0:
        stride = resolve(rule.stride, values)
        return None if rule.shortcut == "identity" else Spec(f"{rule.name}.{STAND_IN}", "conv", width, stride=stride)
    hidden = se = 0
    if "expand" in BLOCKS[rule.block].takes:
        hidden = _hidden(rule, expand, width if rule.block in ON_OUTPUT else channels, divisor)
    if rule.se:
        se = _se_middle(rule, hidden, divisor)
    return Spec(
        rule.name, rule.block, width, hidden, resolve(rule.kernel, values), resolve(rule.stride, values),
        rule.act, se, rule.shortcut, rule.order,
    )  # fmt: skip


def hidden_width(expand: float, channels: int, divisor: int) -> int:
    """Expanded channels: make_divisible(round(expand x channels), divisor), halves up.

    The 1e-6 keeps a ratio such as 100/24 x 24 from falling below the whole number it represents."""
    return make_divisible(int(expand * channels + 0.5 + 1e-6), divisor)


def _hidden(rule: Rule, expand: float, channels: int, divisor: int) -> int:
    """Inner channels; in a space around a plan those of the plan are kept, even if the divisor does not divide them."""
    if rule.thin:
        return hidden_width(expand, channels, 1)
    if hidden_width(expand, channels, 1) == rule.inner:
        return rule.inner
    return max(rule.inner, hidden_width(expand, channels, divisor))


def _se_middle(rule: Rule, hidden: int, divisor: int) -> int:
    """Squeeze-excite middle: at least 16; in a space around a plan, at least the plan's.

    The 1e-6 as in `hidden_width`."""
    own = round(rule.se * rule.inner)
    if rule.inner == hidden:
        return own
    if rule.thin:
        return max(1, round(hidden * rule.se))
    return max(make_divisible(hidden * rule.se + 1e-6, divisor), own, 16)
