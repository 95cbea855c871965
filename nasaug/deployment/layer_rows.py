"""Layers and their milliseconds as CSV, for devices that nasaug cannot run on: phones and boards."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from random import Random

from ..arch.cost import cost_of, sample_near
from ..arch.latency import OPS, Kind, Part, all_parts, parts
from ..arch.plan import plan
from ..arch.space import ACTS, Space
from ..core import files
from ..core.errors import BadInput

COLUMNS = (
    "layer", "kernel", "stride", "activation", "inputs", "outputs", "height", "width", "middle", "milliseconds"
)  # fmt: skip
SIZES = 12  # of each kind of layer in a template
NETWORKS = 200  # from whose layers those are taken
NEEDED = f"the columns {','.join(COLUMNS)}, like depthwise,3,1,relu6,48,48,16,16,0,0.021"


def read(path: Path) -> list[tuple[Part, float]]:
    """The layers of a file with their milliseconds. Raises BadInput with the line of anything else."""
    content = files.read_bytes(path)
    try:
        text = content.decode("utf-8-sig")
        lines = list(csv.DictReader(io.StringIO(text), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{path} is not CSV ({error}); give {NEEDED}") from None
    if not lines or (absent := [name for name in COLUMNS if name not in lines[0]]):
        what = "has no rows" if not lines else f"has no column {absent[0]}"
        raise BadInput(f"{path} {what}; give {NEEDED}")
    return [_row(line, f"{path}, line {number}") for number, line in enumerate(lines, 2)]


def _row(line: dict[str, str], where: str) -> tuple[Part, float]:
    texts = {name: (line[name] or "").strip() for name in COLUMNS}
    if not texts["milliseconds"]:
        raise BadInput(f"{where}: no milliseconds; fill them in, or delete the line")
    for name, choices in (("layer", OPS), ("activation", ACTS)):
        if texts[name] not in choices:
            shown = ", ".join(filter(None, choices))
            raise BadInput(f"{where}: {name} = {texts[name]!r:.40} is unknown; choices: {shown}")
    whole = {}
    for name in COLUMNS[1:3] + COLUMNS[4:-1]:
        least = 0 if name == "middle" else 1
        if not (texts[name].isascii() and texts[name].isdecimal() and least <= int(texts[name]) <= 1 << 20):
            raise BadInput(f"{where}: {name} = {texts[name]!r:.40} must be a whole number of at least {least}")
        whole[name] = int(texts[name])
    try:
        milliseconds = float(texts["milliseconds"])
    except ValueError:
        milliseconds = math.nan
    if not 0 < milliseconds < 1e6:
        raise BadInput(f"{where}: milliseconds = {texts['milliseconds']!r:.40} must be a number above 0, like 0.021")
    size = (whole[name] for name in ("inputs", "outputs", "height", "width", "middle"))
    return Part(texts["layer"], whole["kernel"], whole["stride"], texts["activation"], *size), milliseconds


def write_template(path: Path, space: Space) -> int:
    """Write the layers whose milliseconds a table of the space needs; returns their number."""
    chosen = wanted(space)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for p in chosen:
        writer.writerow(
            (p.op, p.kernel, p.stride, p.act, p.inputs, p.outputs, p.height, p.width, p.middle, "")
        )
    files.write_whole(path, text.getvalue())
    return len(chosen)


def wanted(space: Space) -> list[Part]:
    """A few layers of each kind that networks of the space have, from the smallest to the largest."""
    low, high = (cost_of(space, end, 10).macs for end in (space.smallest, space.largest))
    archs = [sample_near(space, Random(f"layers/{i}"), low, high, 10) for i in range(NETWORKS)]
    lot = {part for arch in archs for block in plan(space, arch, 10).blocks for part in parts(block)}
    kinds: dict[tuple[Kind, int], list[Part]] = {}
    for part in sorted(lot | set(all_parts(space, 10)), key=_size):
        kinds.setdefault((part.kind, part.kernel), []).append(part)
    few = [group[:: max(1, (len(group) - 1) // (SIZES - 1))] for _, group in sorted(kinds.items())]
    return [part for group in few for part in group]


def _size(part: Part) -> tuple:
    return part.outputs * part.inputs * part.height * part.width * part.kernel**2, part
