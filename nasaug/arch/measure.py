"""The cost of a network, given as a plan, an arch file or a name."""

from __future__ import annotations

import os

from . import archfile
from .cost import Cost
from .cost import cost as cost_of_plan
from .plan import Plan


def cost(
    arch: Plan | str | os.PathLike[str], *, resolution: int | None = None, classes: int | None = None
) -> Cost:
    """MACs, parameters, peak SRAM and flash (bytes in int8) of a plan, an arch file or a named architecture.

    `resolution` (px) and `classes` default to the network's own. Raises BadInput if `arch` names no network, or for
    impossible sizes.
    """
    archfile.check_sizes(resolution, classes)
    if isinstance(arch, Plan):
        plan = arch if resolution is None else arch.at(resolution)
        return cost_of_plan(plan if classes is None else plan.of_classes(classes))
    return cost_of_plan(archfile.read(archfile.path_of(arch), resolution=resolution, classes=classes).plan)
