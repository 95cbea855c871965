"""What each layer of a plan costs, keeps in memory and moves, and which layer sets the peak."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .blocks import Block, Layer
from .cost import Cost, Memory, layer_costs, layer_memory, memory_of
from .plan import Plan


class Figures(NamedTuple):
    """One layer. `memory`, and with it `cost.peak`, is under the assumptions given to `figures`.

    `moved` is in bytes of int8: the layer reads its input and its weights (with biases and scales) once and writes its
    output once, and the last layer of a block also reads what it adds to its result.
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


class Assumptions(NamedTuple):
    """How a device keeps feature maps, where it differs from the budgets' model of memory.

    in_place: depthwise layers write over their input (`layer_memory`). without_image: the net's input is read from
    elsewhere, such as a camera's own buffer."""

    in_place: bool = False
    without_image: bool = False


BUDGETS = Assumptions()  # those of `arch.cost`


def figures(plan: Plan, assumed: Assumptions = BUDGETS) -> list[Figures]:
    """Every layer of a plan, in execution order, with its memory as `assumed`."""
    rows = []
    for block, own in zip(plan.blocks, memory_of(plan, assumed.in_place), strict=True):
        last, first = block.all_layers[-1], block is plan.blocks[0]
        for layer, c, maps, memory in zip(block.all_layers, layer_costs(block), layer_memory(block), own, strict=True):
            if assumed.without_image and first:
                memory = _without_image(block, layer, maps if layer is block.layers[0] else memory)
            moved = maps.input + maps.output + (maps.held if layer is last else 0) + c.flash
            rows.append(Figures(layer, c._replace(peak=sum(memory)), memory, moved))
    return rows


def _without_image(block: Block, layer: Layer, memory: Memory) -> Memory:
    """The memory of a layer of the first block, whose input is the image, also where it is held for the shortcut."""
    if layer is block.project:
        return memory._replace(input=0)  # held is the main path's output
    return memory._replace(held=0, **({"input": 0} if layer is block.layers[0] else {}))


def intensity(rows: Sequence[Figures]) -> float:
    """MACs per byte moved, of several layers together."""
    return sum(row.cost.macs for row in rows) / sum(row.moved for row in rows)


def peaks(rows: Sequence[Figures]) -> list[Figures]:
    """The layers that set the peak SRAM, usually one, in execution order."""
    most = max(row.cost.peak for row in rows)
    return [row for row in rows if row.cost.peak == most]
