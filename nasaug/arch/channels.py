"""The channel groups of a plan: which channels sorting and pruning must permute together. Independent of torch."""

from __future__ import annotations

from typing import NamedTuple

from .blocks import Layer
from .plan import Plan


class Group(NamedTuple):
    """Channels that must be permuted together: (parameter or buffer name, dimension) pairs."""

    size: int
    members: tuple[tuple[str, int], ...]
    readers: tuple[tuple[str, int], ...]  # the weights that read these channels: importance is their L1 norm


def channel_groups(plan: Plan) -> dict[str, Group]:
    """Every set of channels that can be reordered without changing the network's function.

    A block's inner channels are named after the layer that writes them (`s3.b2.expand`), a squeeze-excite's
    middle `s3.b2.se`, a residual stream after the block that opens it (`s3.b1`)."""
    parts: dict[str, tuple[int, list, list]] = {}
    streams = {-1: ""}  # by the block that writes it; the image's own channels have no group
    for n, (block, source) in enumerate(zip(plan.blocks, plan.sources, strict=True)):
        stream = current = streams[source]
        for i, layer in enumerate(block.layers):
            last = i == len(block.layers) - 1
            mixes = layer.op in ("conv", "linear") and not layer.depthwise
            target = layer.name if mixes else current
            if last and mixes:
                target = stream if block.shortcut == "identity" else block.name
            _members(parts, layer, current, target)
            current = target
        if block.project:
            _members(parts, block.project, stream, current)
        if block.spare and block.spare.name != block.layers[0].name:
            _members(parts, block.spare, stream, current)
        streams[n] = current
    for end in plan.ends:
        parts.pop(streams[end], None)  # the logits
    return {name: Group(size, tuple(own), tuple(reads)) for name, (size, own, reads) in parts.items()}


def _members(parts: dict, layer: Layer, source: str, target: str) -> None:
    """Add one layer's tensors to the group that it reads and the group that it writes."""
    def enter(group: str, size: int, *rows: tuple[str, int], reads: bool = False) -> None:
        if not group:
            return
        parts.setdefault(group, (size, [], []))[1].extend(rows)
        if reads:
            parts[group][2].extend(rows)

    name = layer.name
    norm = [(f"{name}.norm.{part}", 0) for part in ("weight", "bias", "running_mean", "running_var")]
    if layer.op == "norm":
        enter(source, layer.out, *norm)
    elif layer.op == "se":
        own = (f"{name}.reduce.weight", 1), (f"{name}.expand.weight", 0), (f"{name}.expand.bias", 0)
        enter(source, layer.out, *own)
        enter(name, layer.mid, (f"{name}.reduce.weight", 0), (f"{name}.reduce.bias", 0))
        enter(name, layer.mid, (f"{name}.expand.weight", 1), reads=True)
    elif layer.op in ("conv", "linear"):
        if not layer.depthwise:
            enter(source, layer.cin, (f"{name}.weight", 1), reads=True)
        enter(target, layer.out, (f"{name}.weight", 0), *([(f"{name}.bias", 0)] if layer.bias else []))
        if layer.norm:
            enter(source if layer.pre else target, layer.cin if layer.pre else layer.out, *norm)
