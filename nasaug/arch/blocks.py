"""The kinds of blocks, and how each is lowered to typed layers: the vocabulary of plans.

Blocks are interned (equal blocks are one object), which makes it possible to lower and cost thousands of architectures
per second. Independent of weights and training.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import NamedTuple

from ..core.errors import BadInput


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
    spare: bool = False  # the net also owns the 1x1 convolution that stands in for the body in smaller plans
    room: int = 0  # the net's first layer has room for so many input channels, which smaller plans may use; 0: no more
    source: str = ""  # the block whose output it reads; empty: the one before. In a head also "@0" and so on: see plan


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
    spare: Layer | None = None

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


def _depthwise(c: _Chain, s: Spec) -> None:
    c.conv("", c.channels, s.kernel, s.stride, s.act, depthwise=True)


def _pointwise(c: _Chain, s: Spec) -> None:
    c.conv("", s.width, act=s.act, norm=False, bias=True)


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
    "depthwise": Kind(_depthwise, ("kernel", "stride", "act")),
    "pointwise": Kind(_pointwise, ("width", "act")),  # a linear layer at every pixel
}
ON_OUTPUT = ("basic", "bottleneck")  # their inner width is a ratio of the output width, not of the input width
STAND_IN = "shortcut"  # the 1x1 convolution beside or instead of a block's body, and its parameters' name
_ADDS_ACT = ("basic", "bottleneck")  # their activation follows the addition


@cache
def lower(spec: Spec, cin: int, height: int, width: int) -> Block:
    """The block of `spec` on an input of `cin` x `height` x `width`; the same object for equal arguments."""
    chain = _Chain(spec, cin, height, width)
    BLOCKS[spec.block].build(chain, spec)
    project = spare = None
    beside = Layer(
        f"{spec.name}.{STAND_IN}", "conv", cin, chain.channels, *chain.size, 1, spec.stride, norm=spec.order == "post"
    )
    if spec.shortcut == "project":
        project = beside
    elif spec.shortcut == "identity" and (chain.channels, chain.size) != (cin, (height, width)):
        raise BadInput(
            f"block {spec.name} has an identity shortcut but turns {cin}x{height}x{width} into "
            f"{chain.channels}x{chain.size[0]}x{chain.size[1]}; use shortcut = \"project\", or tie the widths"
        )
    if spec.spare:
        spare = beside
    if spec.room > cin:
        spare = chain.layers[0]._replace(cin=spec.room)
    act = spec.act if spec.block in _ADDS_ACT and spec.order == "post" else ""
    return Block(spec, cin, tuple(chain.layers), project, act, (height, width), spare)
