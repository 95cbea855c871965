"""`profile`: what a network costs, layer by layer."""

from __future__ import annotations

from json import dumps

from ..arch import archfile
from ..arch.archfile import ArchFile
from ..arch.blocks import Layer
from ..arch.cost import Cost, cost, costs_by_layer, describe
from ..reporting import tables
from .options import Flag, Whole

HEAD = ("layer", "op", "channels", "k/s", "output", "MACs", "params", "SRAM, B", "flash, B")
EXACTLY = ("MACs", "parameters", "B peak SRAM", "B flash (int8)")


def profile(
    *,
    arch: str,
    resolution: Whole = None,
    classes: Whole = None,
    check: Flag = False,
    json: Flag = False,
):
    """Show MACs, parameters, peak SRAM and flash of a network, per layer and in total.

    Examples:

      nasaug profile --arch mobilenetv2-tiny

      nasaug profile --arch found.json --json

      nasaug profile --arch found.json --check

    :param arch: An arch file or a named architecture.
    :param resolution: Image size in px; default: the architecture's own.
    :param classes: Outputs; default: the architecture's own.
    :param check: Also build the network and count its MACs with thop and torch; explains differences from the cost
      model, and exits with 1 if the counts of a convolution or linear layer disagree.
    :param json: Print JSON, with the integer keys `macs` and `params`; with --check also `thop`, `torch` and `agrees`.
    """
    show(arch, resolution, classes, json, check)


def show(arch: str, resolution: int | None, classes: int | None, as_json: bool, check: bool) -> None:
    """Print a network's costs as a table or as JSON, with `check` next to the counts of thop and torch."""
    found = archfile.read(arch, resolution=resolution, classes=classes)
    if check:
        from .check import command as checked  # imports torch and thop, which are slow to load

        checked(found, as_dict(found) if as_json else None)
    elif as_json:
        print(dumps(as_dict(found)))
    else:
        _show(found)


def as_dict(found: ArchFile) -> dict:
    """The content of --json."""
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
