"""What was measured of NetAug against plain training of the same compute, for those who are about to choose."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any

from ..core import files
from ..core.errors import arg
from ..core.units import format_quantity

FILE, FORMAT = Path(__file__).with_name("netaug_measured.json"), "nasaug-netaug-measured/1"
TIE = 0.5  # points of validation accuracy below which a difference is called none


@cache
def rows() -> list[dict[str, Any]]:
    """One for each net and length measured; benchmarks/netaug_pays.py writes them."""
    return files.read_json(FILE, FORMAT)["rows"]


def nearest(macs: float, epochs: float) -> dict[str, Any]:
    """The measurement of the net and the length nearest to these, each by its ratio."""
    return min(rows(), key=lambda r: abs(math.log(r["macs"] / macs)) + abs(math.log(r["epochs"] / epochs)))


def forecast(macs: float, epochs: float) -> str:
    """What to expect of NetAug for a net of so many MACs over so many epochs, in a sentence."""
    row = nearest(macs, epochs)
    if abs(row["points"]) < TIE:
        expected = "about as much as NetAug"
    else:
        expected = f"{'more' if row['points'] < 0 else 'less'} than NetAug"
    where = f"{row['data']}, {format_quantity(row['macs'], 'macs')} MACs, {row['epochs']:g} epochs, {row['page']}"
    return (
        f"plain training for the same time is expected to give {expected}: in the nearest measurement NetAug ended "
        f"{row['points']:+.1f} points from it ({where}); compare with {arg.lengths} measures it for this net"
    )
