"""`profile --check`: compares the cost model's counts with those of the built network."""

from __future__ import annotations

from ..arch.archfile import ArchFile
from ..core.errors import RunFault, arg
from ..nets.counted import Counts, count, differences, verdict
from ..reporting import tables
from .options import print_json


def command(found: ArchFile, shown: dict | None) -> None:
    """Print the counts as a table, or add them to the JSON object `shown`. Raises RunFault if they disagree."""
    try:
        counts = count(found.plan)
    except RunFault as error:
        raise RunFault(f"{error}; without {arg.check}, profile builds no network") from error
    if shown is not None:
        print_json(_with_counts(shown, counts))
    else:
        rows = ([row.name, row.op, *(f"{macs:,}" for macs in row[2:])] for row in [*counts.rows, counts.total])
        print(tables.text(("layer", "op", "cost model", "thop", "torch"), rows, left=(0, 1)))
        print(f"{found.name} at {found.plan.resolution} px, {found.plan.classes} classes: {verdict(counts)}")
        for line in differences(found.plan, counts):
            print(f"- {line}")
    if counts.wrong:
        first = [f"{r.name} (cost model {r.cost:,}, thop {r.thop:,}, torch {r.torch:,})" for r in counts.wrong[:3]]
        more = f" and {len(counts.wrong) - 3} more" if len(counts.wrong) > 3 else ""
        raise RunFault(
            f"the three MAC counts disagree in {', '.join(first)}{more}; one of them is wrong: report it with the arch "
            "file and the versions of torch and thop"
        )


def _with_counts(shown: dict, counts: Counts) -> dict:
    layers = [
        {**layer, "thop": row.thop, "torch": row.torch}
        for layer, row in zip(shown["layers"], counts.rows, strict=True)
    ]
    return {
        **shown, "thop": counts.total.thop, "torch": counts.total.torch, "agrees": not counts.wrong,
        "thop_beside": dict(counts.beside), "torch_flops": counts.flops, "layers": layers,
    }  # fmt: skip
