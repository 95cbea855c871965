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
    points, side = abs(row["points"]), "above" if row["points"] < 0 else "below"
    expected = "about as much" if points < TIE else "more" if side == "above" else "less"
    where = f"{row['data']}, {format_quantity(row['macs'], 'macs')} MACs, {row['epochs']:g} epochs"
    return (
        f"plain training of the same compute is expected to give {expected}: in the nearest measurement ({where}) it "
        f"ended {points:.1f} points {side} NetAug; see {row['page']}, or measure your own net by compare with "
        f"{arg.lengths}"
    )
