"""`profile`: what a network costs, layer by layer."""

from __future__ import annotations

import json

from ..arch import archfile
from ..arch.archfile import ArchFile
from ..arch.cost import Cost, cost, costs_by_layer, describe
from ..arch.plan import Layer
from ..reporting import tables

HEAD = ("layer", "op", "channels", "k/s", "output", "MACs", "params", "SRAM, B", "flash, B")
EXACTLY = ("MACs", "parameters", "B peak SRAM", "B flash (int8)")


def command(arch: str, resolution: int | None, classes: int | None, as_json: bool, check: bool) -> None:
    found = archfile.read(arch, resolution=resolution, classes=classes)
    if check:
        from .check import command as checked  # torch and thop, which nothing else here waits for

        checked(found, as_dict(found) if as_json else None)
    elif as_json:
        print(json.dumps(as_dict(found)))
    else:
        _show(found)


def as_dict(found: ArchFile) -> dict:
    """What --json prints."""
    layers = [{"name": layer.name, "op": layer.op, **c._asdict()} for layer, c in costs_by_layer(found.plan)]
    head = {"arch": found.name, "resolution": found.plan.resolution, "classes": found.plan.classes}
    return {**head, **cost(found.plan)._asdict(), "layers": layers}


def _show(found: ArchFile) -> None:
    total = cost(found.plan)
    print(tables.text(HEAD, (_row(layer, c) for layer, c in costs_by_layer(found.plan)), left=(0, 1)))
    print(f"{found.name} at {found.plan.resolution} px, {found.plan.classes} classes: {describe(total)}")
    exact = (f"{figure:,} {what}" for figure, what in zip(total, EXACTLY, strict=True))
    print(f"exactly {', '.join(exact)}")


def _row(layer: Layer, c: Cost) -> list[str]:
    channels, shape = f"{layer.cin}->{layer.out}", f"{layer.kernel}/{layer.stride}"
    return [layer.name, layer.op, channels, shape, f"{layer.height}x{layer.width}", *(f"{figure:,}" for figure in c)]
