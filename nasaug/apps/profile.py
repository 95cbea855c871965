"""`profile`: what a network costs, layer by layer."""

from __future__ import annotations

import json

from .. import archfile
from ..cost import cost, describe, layer_costs

EXACTLY = ("MACs", "parameters", "B peak SRAM", "B flash (int8)")


def command(arch: str, resolution: int | None, classes: int | None, as_json: bool) -> None:
    found = archfile.read(arch, resolution=resolution, classes=classes)
    rows = [
        (layer, c)
        for block in found.plan.blocks
        for layer, c in zip(block.all_layers, layer_costs(block), strict=True)
    ]
    total = cost(found.plan)
    if as_json:
        layers = [{"name": layer.name, "op": layer.op, **c._asdict()} for layer, c in rows]
        head = {"arch": found.name, "resolution": found.plan.resolution, "classes": found.plan.classes}
        print(json.dumps({**head, **total._asdict(), "layers": layers}))
        return
    print(_line("layer", "op", "channels", "k/s", "output", "MACs", "params", "SRAM, B", "flash, B"))
    for layer, c in rows:
        channels, shape = f"{layer.cin}->{layer.out}", f"{layer.kernel}/{layer.stride}"
        size = f"{layer.height}x{layer.width}"
        print(_line(layer.name, layer.op, channels, shape, size, *(f"{figure:,}" for figure in c)))
    print(f"{found.name} at {found.plan.resolution} px, {found.plan.classes} classes: {describe(total)}")
    exact = (f"{figure:,} {what}" for figure, what in zip(total, EXACTLY, strict=True))
    print(f"exactly {', '.join(exact)}")


def _line(name: str, op: str, channels: str, shape: str, size: str, *figures: str) -> str:
    return f"{name:22s}{op:9s}{channels:>12s}{shape:>6s}{size:>9s}" + "".join(f"{f:>14s}" for f in figures)
