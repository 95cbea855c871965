"""The latency of a network on a device, predicted from a table of measurements.

A network is the parts that a device runs one after another: its layers, each with its activation, and the additions of
its shortcuts. The time of a part is a sum of terms that do not fall with its size: something for running it at all, for
each value read and written, each product and each weight, and more for values beyond what caches hold. The terms of
every kind of part are fitted to measurements (nasaug.deployment.latency) as non-negative numbers, so that a wider layer
or a larger kernel never counts as faster.

Independent of torch, numpy and scipy: a search predicts thousands of networks per second.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from operator import mul
from pathlib import Path
from typing import Any, NamedTuple

from ..core import files
from ..core.errors import BadInput, arg
from .blocks import Block, Layer
from .plan import Outputs, Plan, from_dict, plan
from .space import Arch, Space

FORMAT = "nasaug-latency/1"
TERMS = ("each", "reads", "writes", "products", "weights", "beyond_32k", "beyond_128k", "beyond_512k")
HELD = (1 << 15, 1 << 17, 1 << 19)  # values; what a part reads and writes beyond these counts again
OPS = ("conv", "depthwise", "linear", "se", "pool", "maxpool", "norm", "add")

# A table is trusted if it was checked on this many networks (or layers) or more, and predicts them this well.
LEAST_CHECKED, MOST_ERROR, TIMES_NOISE, LEAST_RANK = 30, 0.10, 1.5, 0.95


class Part(NamedTuple):
    """What a device runs at once: a layer with its activation, or the addition of a shortcut (`add`).

    `height` and `width` are those of the output, but for `pool` those of the input. `middle`: of a squeeze-excite."""

    op: str
    kernel: int
    stride: int
    act: str
    inputs: int
    outputs: int
    height: int
    width: int
    middle: int = 0

    @property
    def kind(self) -> Kind:
        return Kind(self.op, self.stride, self.act)

    def __str__(self) -> str:
        act = f" {self.act}" if self.act else ""
        window = f" {self.kernel}x{self.kernel}/{self.stride}" if self.op in ("conv", "depthwise", "maxpool") else ""
        return f"{self.op}{window}{act} {self.inputs}->{self.outputs} at {self.height}x{self.width}"


class Kind(NamedTuple):
    """Parts of one kind differ in their kernels and sizes alone."""

    op: str
    stride: int
    act: str


@cache
def parts(block: Block) -> tuple[Part, ...]:
    """The parts of a block, in execution order."""
    return tuple(part for layer, size in _steps(block) for part in _parts_of(layer, size))


def _steps(block: Block) -> list[tuple[Layer, tuple[int, ...]]]:
    """The layers of a block, the last of them its addition if it has one, each with the height and width of its
    input."""
    found: list[tuple[Layer, tuple[int, ...]]] = []
    size: tuple[int, ...] = block.in_size
    for layer in block.layers:
        found.append((layer, size))
        size = layer[4:6]
    if block.project is not None:
        found.append((block.project, block.in_size))
    if block.shortcut != "none":
        found.append((Layer("", "add", block.out, block.out, size[0], size[1], act=block.act), size))
    return found


def _parts_of(layer: Layer, size: tuple[int, ...]) -> Iterator[Part]:
    """The parts of a layer on an input of this size."""
    act = layer.act
    if layer.pre:
        yield Part("norm", 1, 1, act, layer.cin, layer.cin, size[0], size[1])
        act = ""
    op = "depthwise" if layer.depthwise else layer.op
    shown = size if op == "pool" else (layer.height, layer.width)
    yield Part(op, layer.kernel, layer.stride, act, layer.cin, layer.out, shown[0], shown[1], layer.mid)


def terms(part: Part, multiple: int) -> tuple[float, ...]:
    """How much of each of TERMS a part has, on a device that works on `multiple` channels at a time."""
    inputs, outputs = -(-part.inputs // multiple) * multiple, -(-part.outputs // multiple) * multiple
    pixels, op = part.height * part.width, part.op
    pairs = outputs * part.middle if op == "se" else inputs * outputs if op in ("conv", "linear") else 0
    reads = inputs * pixels * part.stride**2
    writes = outputs if op == "pool" else outputs * pixels
    moved = reads + writes
    beyond = [moved - held if moved > held else 0 for held in HELD]
    return 1.0, reads, writes, pairs * pixels if op == "conv" else 0, pairs, *beyond


def rows(part: Part, kernels: Iterable[int]) -> list[tuple[Kind, int]]:
    """The rows of a model whose terms count for a part: those of its kind with kernels up to its own, so that a larger
    kernel adds to the time of a smaller one."""
    return [(part.kind, kernel) for kernel in kernels if kernel <= part.kernel]


class Checked(NamedTuple):
    """What a table predicts against what was measured, of networks or layers that its terms were not fitted to."""

    of: str  # networks or layers
    number: int
    mean_error: float  # relative
    r2: float
    spearman: float
    kendall: float
    noise: float | None = None  # the mean relative difference between two measurements of the same network
    by_macs: Mapping[str, float] | None = None  # the same figures where MACs alone predict

    @property
    def doubt(self) -> str:
        """Why the table should not be trusted; empty if it may be."""
        most = max(MOST_ERROR, TIMES_NOISE * (self.noise or 0))
        if self.number < LEAST_CHECKED:
            return f"it was checked on {self.number} {self.of}, of {LEAST_CHECKED} needed"
        if not self.mean_error <= most:
            return f"its mean error is {100 * self.mean_error:.1f} %, of {100 * most:.0f} % allowed"
        if not self.spearman >= LEAST_RANK:
            return f"its rank correlation is {self.spearman:.2f}, of {LEAST_RANK} needed"
        return ""

    def __str__(self) -> str:
        noise = "" if self.noise is None else f", where measuring again differs by {100 * self.noise:.1f} %"
        macs = ""
        if self.by_macs:
            macs = f"; MACs alone: {100 * self.by_macs['mean_error']:.0f} %, {self.by_macs['spearman']:.3f}"
        return (
            f"{self.number} {self.of} not used in the fit: mean error {100 * self.mean_error:.1f} %{noise}; "
            f"R² {self.r2:.3f}, Spearman {self.spearman:.3f}, Kendall {self.kendall:.3f}{macs}"
        )


class Reference(NamedTuple):
    """The network that was timed again and again while the others were, and the milliseconds that it took, by which the
    figures of another moment can be compared with the table's."""

    plan: Plan
    milliseconds: float


class Table:
    """A latency table as read from its file. Equal only to itself, since it is a key of caches."""

    def __init__(self, content: Mapping[str, Any], name: str = "the table"):
        """`content`: of the file. Raises BadInput if an entry is missing or impossible."""
        self.content, self.name = content, name
        self._sums: dict[tuple, list[float]] = {}  # of TERMS, by op, stride, act and kernel
        self._layers: dict[tuple, float] = {}  # milliseconds, by all of a layer but its name, and its input's size
        self._blocks: dict[Block, float] = {}
        try:
            self.space, self.space_hash = content["space"]["name"], content["space"]["hash"]
            self.device, self.backend = content["device"], content["backend"]
            self.threads, self.checked = int(content["threads"]), Checked(**content["checked"])
            self.constant, self.multiple = float(content["model"]["constant"]), int(content["model"]["multiple"])
            self._terms = {
                (Kind(row["layer"], row["stride"], row["activation"]), row["kernel"]): tuple(
                    float(row[term]) for term in TERMS
                )
                for row in content["model"]["rows"]
            }
            for (op, stride, act), kernel in self._terms:
                if not (isinstance(op, str) and isinstance(act, str)) or {type(stride), type(kernel)} != {int}:
                    raise ValueError("the layer, stride, activation or kernel of a row is of the wrong type")
            numbers = [self.constant, *(x for row in self._terms.values() for x in row)]
            if not 1 <= self.multiple < 1e6 or not all(0 <= x < 1e6 for x in numbers):
                raise ValueError("a number in its model is impossible")
            self.reference = _reference(content.get("reference"), name)
            if not all(isinstance(x, str) for x in (self.space, self.space_hash, self.device, *self.backend.values())):
                raise ValueError("a name is no text")
            f"{self.checked}{self.checked.doubt}"  # fails unless its figures are numbers
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            reason = f"{type(error).__name__}: {error}".rstrip(": ")
            raise BadInput(
                f"{name} is no complete latency table ({reason}); make it again with nasaug latency-table"
            ) from None
        for kind, kernel in sorted(self._terms):  # a larger kernel adds to what a smaller one takes
            smaller = [row for (other, size), row in self._terms.items() if other == kind and size <= kernel]
            self._sums[*kind, kernel] = [sum(column) for column in zip(*smaller, strict=True)]

    def predict(self, p: Plan) -> float:
        """Milliseconds for one image. Raises BadInput if the table has no layers of a kind that the network has."""
        known, total = self._blocks, self.constant
        for block in p.blocks:
            found = known.get(block)
            if found is None:
                found = known[block] = self._of_block(block)
            total += found
        return total

    def _of_block(self, block: Block) -> float:
        """Milliseconds that a block adds to a network. Most new blocks are made of layers that are known, so these are
        looked up before any of their parts is made."""
        known, total = self._layers, 0.0
        for layer, size in _steps(block):
            key = layer[1:], size
            found = known.get(key)
            if found is None:
                found = known[key] = sum(map(self._of_part, _parts_of(layer, size)))
            total += found
        return total

    def _of_part(self, part: Part) -> float:
        """Milliseconds that a part adds to a network."""
        costs = self._sums.get((part.op, part.stride, part.act, part.kernel))
        if costs is None:
            raise self._lacks([part])
        return sum(map(mul, costs, terms(part, self.multiple)))

    def check(self, lot: Iterable[Part]) -> None:
        """Raises BadInput, naming them, if the table has no layers of the kinds of some parts."""
        kinds = {(*part.kind, part.kernel): part for part in lot}
        missing = [part for kind, part in kinds.items() if kind not in self._sums]
        if missing:
            raise self._lacks(missing)

    def _lacks(self, missing: list[Part]) -> BadInput:
        more = f" and {len(missing) - 3} kinds more" if len(missing) > 3 else ""
        return BadInput(
            f"{self.name} has no layers like {', '.join(map(str, missing[:3]))}{more}; measure them, or make a table "
            "of a space that has them with nasaug latency-table"
        )

    def check_space(self, space: Space, outputs: Outputs) -> None:
        """Raises BadInput if the table is of another space or version, or lacks layers that a network can have."""
        if (self.space, self.space_hash) != (space.name, space_hash(space)):
            what = f"another version of space {space.name}" if self.space == space.name else f"space {self.space}"
            raise BadInput(
                f"{self.name} is of {what}, not of the one searched; make one with nasaug latency-table --space "
                f"{space.name}, or give {arg.trust_table} if its layers are alike"
            )
        self.check(all_parts(space, outputs))

    def __str__(self) -> str:
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        return f"{self.device}, {self.backend['name']} {self.backend['version']}, {threads}"


def _reference(entry: Mapping[str, Any] | None, name: str) -> Reference | None:
    """A table's reference network; None in tables from elsewhere, and in those of older versions of nasaug."""
    if entry is None:
        return None
    found = Reference(from_dict(entry["plan"], name), float(entry["milliseconds"]))
    if not 0 < found.milliseconds < 1e6:
        raise ValueError("the time of its reference network is impossible")
    return found


def read(path: str | Path) -> Table:
    """The table in a file. Raises BadInput if it cannot be read or is none."""
    if Path(path).suffix.lower() == ".csv":
        remedy = f"make one of it with nasaug latency-table {arg.from_csv}"
        raise BadInput.of(argument="device_table", value=path, rule="holds layers, and is no table", remedy=remedy)
    return Table(files.read_json(path, FORMAT), str(path))


def space_hash(space: Space) -> str:
    """Ten hexadecimal digits that change with the blocks and choices of the space's file, however it was trimmed
    afterwards."""
    kept = {key: value for key, value in space.to_dict().items() if key not in ("ladders", "arch", "summary")}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:10]


def all_parts(space: Space, outputs: Outputs) -> list[Part]:
    """A part of each kind and kernel that a network of the space can have, and more."""
    return [part for arch in corners(space) for block in plan(space, arch, outputs).blocks for part in parts(block)]


def corners(space: Space) -> list[Arch]:
    """The smallest and the largest architecture, and each of them with every other choice of each axis."""
    found = [space.smallest, space.largest]
    for base in (space.smallest, space.largest):
        for i, axis in enumerate(space.axes):
            found += [
                space.canonical(Arch(space.name, (*base.values[:i], choice, *base.values[i + 1 :])))
                for choice in axis.choices
            ]
    return list(dict.fromkeys(found))
