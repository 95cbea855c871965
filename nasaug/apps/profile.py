"""`profile`: what a network costs, layer by layer."""

from __future__ import annotations

import json

from .. import archfile
from ..cost import Cost, cost, describe, layer_costs


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
    print(f"{'layer':22s}{'op':9s}{'channels':>12s}{'k/s':>6s}{'output':>9s}{'MACs':>14s}{'params':>10s}{'SRAM, B':>10s}{'flash, B':>10s}")
    for layer, c in rows:
        channels, size = f"{layer.cin}->{layer.out}", f"{layer.height}x{layer.width}"
        shape = f"{layer.kernel}/{layer.stride}"
        print(f"{layer.name:22s}{layer.op:9s}{channels:>12s}{shape:>6s}{size:>9s}{_figures(c)}")
    print(f"{found.name} at {found.plan.resolution} px, {found.plan.classes} classes: {describe(total)}")
    print(f"exactly {total.macs:,} MACs, {total.params:,} parameters, {total.peak:,} B peak SRAM, {total.flash:,} B flash (int8)")


def _figures(c: Cost) -> str:
    return f"{c.macs:>14,}{c.params:>10,}{c.peak:>10,}{c.flash:>10,}"
