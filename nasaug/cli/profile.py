"""`profile`: what a network costs, layer by layer, or several side by side; its drawing and its memory as pictures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile

from ..arch import archfile, latency
from ..arch.archfile import ArchFile
from ..arch.cost import Budget, Cost, cost, describe
from ..arch.figures import BUDGETS, Assumptions, Figures, figures, intensity, peaks
from ..arch.plan import Plan
from ..core import files
from ..core.errors import BadInput, arg
from ..core.units import format_quantity
from ..reporting import tables
from .names import ArchNames
from .options import Flag, Whole, print_json

HEAD = ("layer", "op", "channels", "k/s", "output", "MACs", "params", "SRAM, B", "flash, B", "MACs/B")
TIMES = {
    "latency": "predicted", "median_ms": "measured median", "p95_ms": "95th percentile",
    "corrected_ms": "median corrected for drift",
}  # fmt: skip
EXACTLY = ("MACs", "parameters", "B peak SRAM", "B flash (int8)")


def profile(
    *,
    arch: ArchNames,
    resolution: Whole = None,
    classes: Whole = None,
    sram_budget: str | None = None,
    svg: Path | None = None,
    memory: Path | None = None,
    in_place: Flag = False,
    without_image: Flag = False,
    device_table: Path | None = None,
    measure: Flag = False,
    check: Flag = False,
    json: Flag = False,
):
    """Show MACs, parameters, peak SRAM, flash and arithmetic intensity of a network, per layer and in total, or compare
    several networks.

    Examples:

      nasaug profile --arch mobilenetv2-tiny

      nasaug profile --arch found.json,mobilenetv2-tiny,mcunet

      nasaug profile --arch found.json --svg net.svg

      nasaug profile --arch found.json --memory memory.png --sram-budget 64KB

      nasaug profile --arch mcunet --in-place --without-image

      nasaug profile --arch found.json --device-table table.json --measure

      nasaug profile --arch found.json --json

      nasaug profile --arch found.json --check

    Arithmetic intensity is MACs per byte moved: every layer reads its int8 input and weights once and writes its output
    once.

    :param arch: An arch file or a named architecture (mcunet; in a space of your own: mine.toml:NAME), or several,
        separated by commas: a table with a column for each.
    :param resolution: Image size in px; default: the architecture's own.
    :param classes: Outputs; default: the architecture's own.
    :param sram_budget: Name the layers that need more SRAM than this, like 320KB; a line in the picture of --memory.
    :param svg: Draw the network into this .svg file: its blocks with their widths, kernels, shortcuts and MACs.
    :param memory: Draw the SRAM of each layer into this .png file; the peak is marked.
    :param in_place: Peak SRAM of a device whose depthwise layers write over their input. Budgets assume that they do
      not.
    :param without_image: Peak SRAM without the image, for a device that keeps it elsewhere. Budgets include it.
    :param device_table: Predict the time of one image by this table, written by nasaug latency-table.
    :param measure: Time the network on this machine: in the back end and with the threads of --device-table, else in
      ONNX Runtime with one thread. With a table of this machine the median is also shown corrected for the drift of
      the machine's speed since the table was made, which is what compares with the prediction.
    :param check: Also build the network and count its MACs with thop and torch; explains differences from the cost
      model, and exits with 1 if the counts of a convolution or linear layer disagree.
    :param json: Print JSON, with the integer keys `macs` and `params`; with --check also `thop`, `torch` and `agrees`;
      of several networks a list.
    """
    names = _names(arch)
    limit, assumed = Budget.parse(peak=sram_budget).peak, Assumptions(in_place, without_image)
    for argument, path, ending in (("svg", svg, ".svg"), ("memory", memory, ".png")):
        if path is not None:
            _check_file(argument, path, ending)
    table = None if device_table is None else latency.read(device_table)
    for argument, given in (("svg", svg), ("memory", memory), ("check", check)):
        if given and len(names) > 1:
            rule = f"names {len(names)} networks, but {getattr(arg, argument)} is for one"
            raise BadInput.of(argument="arch", value=arch, rule=rule, remedy="give one", apart=True)
    found = [archfile.read(name, resolution=resolution, classes=classes) for name in names]
    times = [_times(each, table, measure) for each in found]
    if svg is not None:
        from ..reporting.drawing import network

        files.write_whole(svg, network(found[0].plan, found[0].name))
    if memory is not None:
        _draw_memory(memory, found[0], limit, assumed)
    show(found, names, limit, json, check, assumed, times, table)
    if measure and table is not None and table.reference is None and not json:
        print(
            f"{table.name} was made by an older nasaug and keeps no time of a reference network, so the median is not "
            "corrected for drift; make it again with nasaug latency-table"
        )


def _times(found: ArchFile, table: latency.Table | None, measure: bool) -> dict[str, float]:
    """Milliseconds of one image by what they are: predicted, and measured with the median and the 95th percentile."""
    times = {} if table is None else {"latency": table.predict(found.plan)}
    if measure:
        from ..deployment.timing import measured  # imports torch, which takes seconds

        times |= measured(found.plan, table)
    return times


def _names(arch: str) -> list[str]:
    """The networks in --arch: parts between commas, unless the whole is the path of a file."""
    names = [arch] if os.path.exists(arch) else [name.strip() for name in arch.split(",")]
    if not all(names):
        rule, remedy = "leaves a name empty", "give names or files separated by single commas"
        raise BadInput.of(argument="arch", value=repr(arch), rule=rule, remedy=remedy, apart=True)
    return names


def _check_file(argument: str, path: Path, ending: str) -> None:
    """Raises an error unless a picture can be written there, so that of two pictures none is written alone."""
    if path.suffix.lower() != ending:
        raise BadInput.of(argument=argument, value=path, rule=f"must end in {ending}, like net{ending}")
    if path.is_dir():
        raise BadInput.of(argument=argument, value=path, rule="is a folder", remedy="give a file's name")
    try:
        with TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise files.write_error(path, error) from error


def _draw_memory(path: Path, found: ArchFile, limit: int | None, assumed: Assumptions) -> None:
    from ..reporting.pictures import Bar, memory

    bars = [Bar(row.layer.name, *row.memory) for row in figures(found.plan, assumed)]
    memory(path, bars, f"{found.name} at {found.plan.resolution} px: feature maps in memory, layer by layer", limit)


def show(
    found: Sequence[ArchFile], names: Sequence[str], limit: int | None, as_json: bool, check: bool,
    assumed: Assumptions, times: Sequence[dict[str, float]], table: latency.Table | None = None,
) -> None:  # fmt: skip
    """Print the costs of networks as a table or as JSON, those of one with `check` next to the counts of thop and
    torch. `limit` is the SRAM budget in bytes; `names` are what the networks were asked for by; `times` are
    milliseconds of each, predicted by `table`."""
    whose = {} if table is None else {"latency_of": str(table)}
    if check:
        from .check import command as checked  # imports torch and thop, which are slow to load

        checked(found[0], as_dict(found[0], limit, assumed) | times[0] | whose if as_json else None)
    elif as_json:
        shown = [as_dict(each, limit, assumed) | own | whose for each, own in zip(found, times, strict=True)]
        print_json(shown if len(shown) > 1 else shown[0])
    elif len(found) > 1:
        print(_side_by_side(found, names, limit, assumed, times))
    else:
        _show(found[0], limit, assumed)
    if not as_json and len(found) == 1 and times[0]:
        print(f"one image: {', '.join(f'{TIMES[key]} {_ms(ms)}' for key, ms in times[0].items())}")
    if not as_json and table is not None:
        print(_whose(table))


def _whose(table: latency.Table) -> str:
    doubt = f"; it predicts badly: {table.checked.doubt}" if table.checked.doubt else ""
    return f"predicted by {table.name}, made for space {table.space}: {table}{doubt}"


def _ms(milliseconds: float) -> str:
    return format_quantity(milliseconds, "milliseconds")


def as_dict(found: ArchFile, limit: int | None = None, assumed: Assumptions = BUDGETS) -> dict:
    """The content of --json."""
    rows = figures(found.plan, assumed)
    layers = [
        {
            "name": row.layer.name, "op": row.layer.op, **row.cost.known, **row.memory._asdict(),
            "moved": row.moved, "intensity": row.intensity,
        }
        for row in rows
    ]  # fmt: skip
    head = {"arch": found.name, "resolution": found.plan.resolution, "classes": found.plan.classes}
    totals = {
        **_total(found.plan, rows).known, "moved": sum(row.moved for row in rows), "intensity": intensity(rows),
        "peak_layers": [row.layer.name for row in peaks(rows)],
    }  # fmt: skip
    totals |= {name: True for name, holds in assumed._asdict().items() if holds}
    if limit is not None:
        totals |= {"sram_budget": limit, "over_budget": _over(rows, limit)}
    return {**head, **totals, "layers": layers}


def _over(rows: Sequence[Figures], limit: int) -> list[str]:
    """The layers that need more SRAM than `limit` bytes."""
    return [row.layer.name for row in rows if row.cost.peak > limit]


def _side_by_side(
    found: Sequence[ArchFile], names: Sequence[str], limit: int | None, assumed: Assumptions,
    times: Sequence[dict[str, float]],
) -> str:  # fmt: skip
    """A table with a row for each figure and a column for each network, named as asked where names are equal."""
    own = [each.name for each in found]
    heads = [name if own.count(name) == 1 else asked for name, asked in zip(own, names, strict=True)]
    columns = [
        _column(each, limit, assumed) | {f"latency, {TIMES[key]}": _ms(ms) for key, ms in took.items()}
        for each, took in zip(found, times, strict=True)
    ]
    rows = [[figure, *(column[figure] for column in columns)] for figure in columns[0]]
    return tables.text(("", *heads), rows)


def _column(found: ArchFile, limit: int | None, assumed: Assumptions) -> dict[str, str]:
    """A network's figures as texts, by what they are."""
    rows = figures(found.plan, assumed)
    total = _total(found.plan, rows)
    first, *others = peaks(rows)
    column = {
        "resolution": f"{found.plan.resolution} px", "classes": str(found.plan.classes), "layers": str(len(rows)),
        "MACs": format_quantity(total.macs, "macs"), "parameters": format_quantity(total.params, "params"),
        "peak SRAM": format_quantity(total.peak, "bytes"),
        "  in layer": first.layer.name + (f" and {len(others)} more" if others else ""),
        "flash": format_quantity(total.flash, "bytes"),
        "MACs per byte moved": f"{intensity(rows):.1f}",
    }  # fmt: skip
    if limit is not None:
        column[f"layers over {format_quantity(limit, 'bytes')} of SRAM"] = str(len(_over(rows, limit)))
    return column


def _total(plan: Plan, rows: Sequence[Figures]) -> Cost:
    """The network's cost, with the peak SRAM of the rows."""
    return cost(plan)._replace(peak=peaks(rows)[0].cost.peak)


def _show(found: ArchFile, limit: int | None, assumed: Assumptions) -> None:
    rows = figures(found.plan, assumed)
    total = _total(found.plan, rows)
    print(tables.text(HEAD, map(_row, rows), left=(0, 1)))
    print(f"{found.name} at {found.plan.resolution} px, {found.plan.classes} classes: {describe(total)}")
    exact = (f"{figure:,} {what}" for figure, what in zip(total.known.values(), EXACTLY, strict=True))
    print(f"exactly {', '.join(exact)}")
    print(f"peak SRAM{_told(assumed)}: {_why(rows, assumed)}")
    if limit is not None:
        print(_against(rows, limit))
    moved = format_quantity(sum(row.moved for row in rows), "bytes")
    print(f"arithmetic intensity: {intensity(rows):.1f} MACs per byte of weights and feature maps moved ({moved})")


def _told(assumed: Assumptions) -> str:
    """The assumptions that differ from those of budgets."""
    parts = ("depthwise in place" if assumed.in_place else "", "without the image" if assumed.without_image else "")
    return f" ({', '.join(filter(None, parts))})" if any(parts) else ""


def _why(rows: Sequence[Figures], assumed: Assumptions) -> str:
    """Which layer sets the peak, and what it has in memory."""
    first, *others = peaks(rows)
    image = " (the image)" if first is rows[0] and not assumed.without_image else ""
    held = f" + {first.memory.held:,} B held for the shortcut" if first.memory.held else ""
    also = f"; as much in {len(others)} more, from {others[0].layer.name} on" if others else ""
    maps = f"{first.memory.input:,} B input{image} + {first.memory.output:,} B output{held}"
    return f"{first.layer.name} sets it, {maps} = {first.cost.peak:,} B{also}"


def _against(rows: Sequence[Figures], limit: int) -> str:
    budget, over = format_quantity(limit, "bytes"), _over(rows, limit)
    if not over:
        return f"SRAM budget {budget}: every layer is within it"
    more = f" and {len(over) - 4} more" if len(over) > 4 else ""
    return f"SRAM budget {budget}: exceeded by {len(over)} of {len(rows)} layers: {', '.join(over[:4])}{more}"


def _row(row: Figures) -> list[str]:
    layer = row.layer
    channels, shape = f"{layer.cin}->{layer.out}", f"{layer.kernel}/{layer.stride}"
    costs = (f"{figure:,}" for figure in row.cost.known.values())
    return [layer.name, layer.op, channels, shape, f"{layer.height}x{layer.width}", *costs, f"{row.intensity:.1f}"]
