"""NetAug against plain training of the same compute, from the finished pages: what `netaug-train` tells beforehand.

    python benchmarks/netaug_pays.py

Writes nasaug/methods/netaug_measured.json. Plain training's score is interpolated between the lengths that were run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from statistics import fmean

from cells import RESULTS

from nasaug.comparison.curves import Point, interpolated, neighbours
from nasaug.methods.measured import FILE, FORMAT

PAGES = ("netaug_cap", "netaug_curves", "little_data_epochs", "strong_wide_compute")
NETAUG = re.compile(r"netaug(:aug_compute=[\d.]+)?")


def point(arm: dict) -> Point:
    return Point({0: (arm["train_macs"], arm["val_top1"]["mean"])})


def measured(page: str) -> Iterator[dict]:
    """A row for each arm of NetAug whose compute is between those of two lengths of plain training."""
    figures = json.loads((RESULTS / f"{page}.json").read_text())
    first = next(arm for arm in figures["arms"] if arm["arm"] == "baseline")
    epoch = first["train_macs"] / first["epochs"]  # of plain training
    plain = [point(arm) for arm in figures["arms"] if arm["arm"] == "baseline" or arm["arm"].startswith("longer:")]
    for arm in figures["arms"]:
        beside = neighbours(plain, arm["train_macs"])
        if not NETAUG.fullmatch(arm["arm"]) or isinstance(beside, str):
            continue
        (low, high), compute = (each.runs[0] for each in beside), arm["train_macs"]
        yield {
            "data": figures["data"], "net": arm["arch"], "macs": round(arm["macs"]), "epochs": arm["epochs"],
            "images": round(epoch / arm["macs"]), "times": round(compute / arm["epochs"] / epoch, 2),
            "seeds": arm["n"], "compute": round(compute), "page": f"docs/results/{page}.md",
            "points": round(arm["val_top1"]["mean"] - interpolated(low, high, compute), 2),
        }  # fmt: skip


def rows() -> list[dict]:
    return [row for page in PAGES if (RESULTS / f"{page}.json").is_file() for row in measured(page)]


if __name__ == "__main__":
    FILE.write_text(json.dumps({"format": FORMAT, "rows": rows()}, indent=1) + "\n")
    print(f"{len(rows())} rows, {fmean(row['points'] for row in rows()):+.2f} points on average")
