"""What was measured of NetAug against plain training of the same compute, for those who are about to choose."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any

from ..core import files
from ..core.errors import arg
from ..core.units import format_quantity

FILE, FORMAT = Path(__file__).with_name("netaug_measured.json"), "nasaug-netaug-measured/2"
TIE = 0.5  # points of validation accuracy below which a difference is called none


@cache
def rows() -> list[dict[str, Any]]:
    """One for each net and length measured; benchmarks/netaug_pays.py writes them."""
    return files.read_json(FILE, FORMAT)["rows"]


def nearest(macs: float, epochs: float, images: int, times: float) -> dict[str, Any]:
    """The measurement nearest to a net of so many MACs that NetAug trains for so many epochs of so many images, with
    `times` the compute of plain training: the sum of the logarithms of the four ratios is least."""
    asked = {"macs": macs, "epochs": epochs, "images": images, "times": times}
    return min(rows(), key=lambda row: sum(abs(math.log(row[key] / value)) for key, value in asked.items()))


def forecast(macs: float, epochs: float, images: int, times: float) -> str:
    """What to expect of NetAug there, as in `nearest`, in a sentence."""
    row = nearest(macs, epochs, images, times)
    points, side = abs(row["points"]), "above" if row["points"] < 0 else "below"
    expected = "about as much" if points < TIE else "more" if side == "above" else "less"
    where = (
        f"{row['data']}, {format_quantity(row['macs'], 'macs')} MACs, {row['epochs']:.3g} epochs of "
        f"{row['images']:,} images, NetAug for {row['times']:.2g} times the compute, both from fresh weights"
    )
    return (
        f"plain training of the same compute is expected to give {expected}: in the nearest measurement ({where}) it "
        f"ended {points:.1f} points of validation accuracy {side} NetAug; see {row['page']}, or measure your own net "
        f"by compare with {arg.lengths}"
    )
