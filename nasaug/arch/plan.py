"""A Plan is an architecture lowered to typed layers; everything after the search works on it.

MACs, memory, network construction, slicing, pruning and export all read the same Plan, so they cannot disagree.
Independent of weights and training. Blocks are interned (equal blocks are one object), which makes it possible to lower
and cost thousands of architectures per second.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import NamedTuple

from ..core.errors import BadInput
from .space import ACTS, ORDERS, SHORTCUTS, Arch, Rule, Space, resolve


class Layer(NamedTuple):
    """One layer; its `name` is also its parameters' name. `height` and `width` are those of its output.

    op: conv | linear | se (squeeze-excite of `out` channels over `mid`) | pool (average) | maxpool | norm.
    A conv's norm follows it, or with `pre` precedes it (on its input channels, with `act` between).
    """

    name: str
    op: str
    cin: int
    out: int
    height: int
    width: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    act: str = ""
    norm: bool = False
    bias: bool = False
    pre: bool = False
    mid: int = 0

    @property
    def depthwise(self) -> bool:
        return self.op == "conv" and self.groups > 1


class Spec(NamedTuple):
    """One block with every choice resolved; a plan is stored as its specs."""

    name: str
    block: str
    width: int = 0  # output channels
    hidden: int = 0  # inner channels of blocks that have them
    kernel: int = 1
    stride: int = 1
    act: str = ""
    se: int = 0  # middle channels of the squeeze-excite, 0 = none
    shortcut: str = "none"
    order: str = "post"


class Head(NamedTuple):
    """The end of a network for a task: its blocks follow those of the space and give `outputs` values per image.

    If `pooled`, they read the output of the space's own end (its global pool and what follows it), else the feature map
    before that pool. Hashable, because caches are keyed by it."""

    outputs: int
    specs: tuple[Spec, ...]
    pooled: bool = True

    def __str__(self) -> str:
        return str(self.outputs)


Outputs = int | Head  # an int means the default head: a linear layer with this many outputs


@cache
def end_of(outputs: Outputs) -> Head:
    """The head that `outputs` stands for."""
    return outputs if isinstance(outputs, Head) else Head(outputs, (Spec("classifier", "linear", outputs),))


@dataclass(frozen=True, eq=False)
class Block:
    """A lowered block: its `layers` in order, and how its input is added to its output.

    `act` follows the addition. Interned by `lower`, so identity is equality."""

    spec: Spec
    cin: int
    layers: tuple[Layer, ...]
    project: Layer | None
    act: str
    in_size: tuple[int, int]

    def __reduce__(self):
        """Copying or unpickling returns the interned object."""
        return lower, (self.spec, self.cin, *self.in_size)

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def shortcut(self) -> str:
        return self.spec.shortcut

    @property
    def all_layers(self) -> tuple[Layer, ...]:
        return self.layers if self.project is None else (*self.layers, self.project)

    @cached_property
    def out(self) -> int:
        return self.layers[-1].out

    @cached_property
    def out_size(self) -> tuple[int, int]:
        return self.layers[-1].height, self.layers[-1].width


class _Chain:
    """Appends layers one after another, tracking channels and size."""

    def __init__(self, spec: Spec, cin: int, height: int, width: int):
        self.spec, self.channels, self.size = spec, cin, (height, width)
        self.layers: list[Layer] = []

    def conv(self, name: str, out: int, kernel=1, stride=1, act="", depthwise=False, **kw) -> None:
        h, w = (math.ceil(s / stride) for s in self.size)
        groups = self.channels if depthwise else 1
        kw.setdefault("norm", True)
        layer = Layer(self._name(name), "conv", self.channels, out, h, w, kernel, stride, groups, act, **kw)
        self._add(layer)

    def other(self, name: str, op: str, out: int, size: tuple[int, int], **kw) -> None:
        self._add(Layer(self._name(name), op, self.channels, out, *size, **kw))

    def _name(self, name: str) -> str:
        return f"{self.spec.name}.{name}" if name else self.spec.name

    def _add(self, layer: Layer) -> None:
        self.layers.append(layer)
        self.channels, self.size = layer.out, (layer.height, layer.width)


def _conv(c: _Chain, s: Spec) -> None:
    c.conv("", s.width, s.kernel, s.stride, s.act, norm=s.order == "post")


def _separable(c: _Chain, s: Spec) -> None:
    c.conv("dw", c.channels, s.kernel, s.stride, s.act, depthwise=True)
    c.conv("project", s.width)


def _inverted(c: _Chain, s: Spec) -> None:
    c.conv("expand", s.hidden, act=s.act)
    c.conv("dw", s.hidden, s.kernel, s.stride, s.act, depthwise=True)
    if s.se:
        c.other("se", "se", s.hidden, c.size, mid=s.se)
    c.conv("project", s.width)


def _basic(c: _Chain, s: Spec) -> None:
    pre = s.order == "pre"
    c.conv("conv1", s.hidden, s.kernel, s.stride, s.act, pre=pre)
    c.conv("conv2", s.width, s.kernel, act=s.act if pre else "", pre=pre)


def _bottleneck(c: _Chain, s: Spec) -> None:
    pre = s.order == "pre"
    c.conv("conv1", s.hidden, act=s.act, pre=pre)
    c.conv("conv2", s.hidden, s.kernel, s.stride, s.act, pre=pre)
    c.conv("conv3", s.width, act=s.act if pre else "", pre=pre)


def _pool(c: _Chain, s: Spec) -> None:
    c.other("", "pool", c.channels, (1, 1))


def _maxpool(c: _Chain, s: Spec) -> None:
    height, width = (math.ceil(n / s.stride) for n in c.size)
    c.other("", "maxpool", c.channels, (height, width), kernel=s.kernel, stride=s.stride)


def _norm(c: _Chain, s: Spec) -> None:
    c.other("", "norm", c.channels, c.size, act=s.act, norm=True)


def _linear(c: _Chain, s: Spec) -> None:
    c.other("", "linear", s.width, (1, 1), act=s.act, bias=True)


class Kind(NamedTuple):
    """A kind of block: how it is built, and the keys that a [[stage]] of it accepts besides name and block."""

    build: Callable[[_Chain, Spec], None]
    takes: tuple[str, ...]


_DEEP = ("width", "depth", "kernel", "stride", "act", "shortcut", "first")
BLOCKS: dict[str, Kind] = {
    "conv": Kind(_conv, ("width", "depth", "kernel", "stride", "act", "order")),
    "separable": Kind(_separable, _DEEP),
    "inverted": Kind(_inverted, (*_DEEP, "expand", "se")),
    "basic": Kind(_basic, (*_DEEP, "expand", "order")),
    "bottleneck": Kind(_bottleneck, (*_DEEP, "expand", "order")),
    "pool": Kind(_pool, ()),
    "maxpool": Kind(_maxpool, ("kernel", "stride")),
    "norm": Kind(_norm, ("act",)),
    "linear": Kind(_linear, ("width", "act")),
}
ON_OUTPUT = ("basic", "bottleneck")  # their inner width is a ratio of the output width, not of the input width
_ADDS_ACT = ("basic", "bottleneck")  # their activation follows the addition


@cache
def lower(spec: Spec, cin: int, height: int, width: int) -> Block:
    """The block of `spec` on an input of `cin` x `height` x `width`; the same object for equal arguments."""
    chain = _Chain(spec, cin, height, width)
    BLOCKS[spec.block].build(chain, spec)
    project = None
    if spec.shortcut == "project":
        h, w = chain.size
        pre = spec.order == "pre"
        project = Layer(
            f"{spec.name}.shortcut", "conv", cin, chain.channels, h, w, 1, spec.stride, norm=not pre
        )
    elif spec.shortcut == "identity" and (chain.channels, chain.size) != (cin, (height, width)):
        raise BadInput(
            f"block {spec.name} has an identity shortcut but turns {cin}x{height}x{width} into "
            f"{chain.channels}x{chain.size[0]}x{chain.size[1]}; use shortcut = \"project\", or tie the widths"
        )
    act = spec.act if spec.block in _ADDS_ACT and spec.order == "post" else ""
    return Block(spec, cin, tuple(chain.layers), project, act, (height, width))


@dataclass(frozen=True)
class Plan:
    """A network as pure data: lowered blocks on a `resolution` x `resolution` image of three channels."""

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
        for block in self.blocks:
            yield from block.all_layers

    @cached_property
    def by_name(self) -> dict[str, Layer]:
        return {layer.name: layer for layer in self.layers}

    @cached_property
    def widths(self) -> dict[str, tuple[int, int, int, int]]:
        """Layer name to (input channels, output channels, kernel, squeeze-excite middle)."""
        return {x.name: (x.cin, x.out, x.kernel, x.mid) for x in self.layers}

    def holds(self, smaller: Plan) -> bool:
        """Whether `smaller` is a slice of this plan: each of its layers is here, at least as large."""
        mine = self.widths
        return all(
            name in mine and all(a <= b for a, b in zip(sizes, mine[name], strict=True))
            for name, sizes in smaller.widths.items()
        )

    def at(self, resolution: int) -> Plan:
        """The same network on images of another size."""
        return from_specs((b.spec for b in self.blocks), resolution, self.classes)

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
        rows = [{k: v for k, v in b.spec._asdict().items() if v != default.get(k)} for b in self.blocks]
        form = {"resolution": self.resolution, "classes": end_of(self.classes).outputs, "blocks": rows}
        if isinstance(self.classes, Head):
            form["head"] = {"blocks": len(self.classes.specs), "pooled": self.classes.pooled}
        return form


def _pool_of(specs: list[Spec]) -> int:
    """The index of the global pool; the number of specs if there is none."""
    return next((i for i, spec in enumerate(specs) if spec.block == "pool"), len(specs))


def from_specs(specs, resolution: int, classes: Outputs) -> Plan:
    """A Plan from resolved blocks in sequence, on an image of 3 x resolution x resolution."""
    blocks, channels, size = [], 3, (resolution, resolution)
    for spec in specs:
        block = lower(spec, channels, *size)
        blocks.append(block)
        channels, size = block.out, block.out_size
    return Plan(tuple(blocks), resolution, classes)


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
        raise BadInput(f"{where}: two blocks have one name; every block needs its own")
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
        raise BadInput(f"{where}: head = {head!r:.80} must tell {rule}; write the file again with nasaug search")
    return Head(outputs, tuple(specs[-head["blocks"] :]), head["pooled"])


def _check_spec(spec: Spec, where: str) -> None:
    words = (spec.name, spec.block, spec.act, spec.shortcut, spec.order)
    known = (
        all(isinstance(word, str) for word in words) and spec.block in BLOCKS and spec.act in ACTS
        and spec.shortcut in SHORTCUTS and spec.order in ORDERS
    )  # fmt: skip
    if not known:
        raise BadInput(f"{where}: block {spec.name!r} has an unknown kind, act, shortcut or order in {words}")
    sizes = (spec.width, spec.hidden, spec.kernel, spec.stride, spec.se)
    takes = BLOCKS[spec.block].takes
    least = ("width" in takes, "expand" in takes, 1, 1, 0)
    if not all(_whole(n, low) for n, low in zip(sizes, least, strict=True)) or spec.kernel % 2 == 0:
        raise BadInput(f"{where}: block {spec.name!r} has impossible sizes {sizes}")


def _whole(value, least: int) -> bool:
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
        block = lowered.get(key)
        if block is None:
            block = lowered[key] = lower(_spec(rule, values, channels, space.divisor), channels, *size)
        blocks.append(block)
        channels, size = block.out, block.out_size
    if isinstance(classes, Head):
        _check_names(end, blocks)
    for spec in end.specs:
        block = lower(spec, channels, *size)
        blocks.append(block)
        channels, size = block.out, block.out_size
    return Plan(tuple(blocks), resolution, classes)


def _check_names(head: Head, blocks: list[Block]) -> None:
    """Raises ValueError if a block of a task's head has the name of a block of the space, since names identify
    parameters.
    """
    taken = {block.name for block in blocks} | {block.name.partition(".")[0] for block in blocks}
    for spec in head.specs:
        if spec.name in taken:
            raise ValueError(f"a head's block is named {spec.name}, as one of the network's is; give it another name")


def _spec(rule: Rule, values: tuple, channels: int, divisor: int) -> Spec:
    """One block's rule with the architecture's choices filled in."""
    width, expand = resolve(rule.width, values), resolve(rule.expand, values)
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
