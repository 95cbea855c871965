"""What each layer of a plan costs, keeps in memory and moves, and which layer sets the peak."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .blocks import Layer
from .cost import Cost, Memory, layer_costs, layer_memory, memory_of
from .plan import Plan


class Figures(NamedTuple):
    """One layer. `moved` is in bytes of int8: the layer reads its input and its weights (with biases and scales) once
    and writes its output once, and the last layer of a block also reads what it adds to its result.

    A device moves less where it keeps data in registers or a cache, and more where it reads them again.
    """

    layer: Layer
    cost: Cost
    memory: Memory
    moved: int

    @property
    def intensity(self) -> float:
        """Arithmetic intensity: MACs per byte moved. Where it is low, memory rather than arithmetic limits the speed
        (Williams et al., CACM 2009)."""
        return intensity([self])


def figures(plan: Plan) -> list[Figures]:
    """Every layer of a plan, in execution order."""
    rows = []
    for block, memories, alone in zip(plan.blocks, memory_of(plan), map(layer_memory, plan.blocks), strict=True):
        last, costs = block.all_layers[-1], layer_costs(block, memories)
        for layer, c, memory, own in zip(block.all_layers, costs, memories, alone, strict=True):
            added = own.held if layer is last else 0
            rows.append(Figures(layer, c, memory, memory.input + memory.output + added + c.flash))
    return rows


def intensity(rows: Sequence[Figures]) -> float:
    """MACs per byte moved, of several layers together."""
    return sum(row.cost.macs for row in rows) / sum(row.moved for row in rows)


def peaks(rows: Sequence[Figures]) -> list[Figures]:
    """The layers that set the peak SRAM, usually one, in execution order."""
    most = max(row.cost.peak for row in rows)
    return [row for row in rows if row.cost.peak == most]
