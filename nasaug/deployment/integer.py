"""The int8 ONNX model as integer arithmetic alone: what a board computes, and how many bytes it needs for it.

All tensors are int8. A sum of products is exact in 32 bits; it is then multiplied by the ratio of the scales, a 32-bit
integer and a shift (Jacob et al., CVPR 2018, section 2.2), rounded once, halves away from zero. ONNX Runtime multiplies
by a float instead, so that now and then a value differs by one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from random import Random
from typing import Any

import numpy as np

from ..core.errors import RunFault

LOW, HIGH = -128, 127
BITS = 31  # of a multiplier
ORDERS = 200  # in which tensors are placed at most, before the best is taken


@dataclass(eq=False)
class Tensor:
    """An int8 tensor [height, width, channels] that stands for scale x (value - zero)."""

    shape: tuple[int, int, int]
    scale: float
    zero: int

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape)

    def like(self, other: Tensor) -> bool:
        """Whether both stand for the same numbers by the same values."""
        return (self.scale, self.zero) == (other.scale, other.zero)

    def of(self, numbers: np.ndarray) -> np.ndarray:
        """The int8 values for float32 numbers, halves to even, as ONNX's QuantizeLinear gives them."""
        scaled = np.rint(numbers.astype(np.float32) / np.float32(self.scale)) + self.zero
        return np.clip(scaled, LOW, HIGH).astype(np.int8)

    def numbers(self, values: np.ndarray) -> np.ndarray:
        """The float32 numbers that int8 values stand for."""
        return (values.astype(np.float32) - self.zero) * np.float32(self.scale)


@dataclass
class Op:
    """One operation. `kind`: conv, depthwise, add, mul, map, average, maxpool or join (of maps, one after another, as
    the output of a detector); a linear layer is a 1x1 conv.

    weight: int8 [out, kernel, kernel, in] (conv) or [kernel, kernel, channels] (depthwise). bias: int32 [out].
    multipliers, shifts: int32, one for each output channel (conv, depthwise), for each input (add), or one.
    table: int8 [256], the output for each value from -128 on (map), or [inputs, 256] (join)."""

    kind: str
    name: str
    inputs: list[Tensor]
    output: Tensor
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    weight: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int8))
    bias: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    multipliers: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    shifts: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    table: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int8))


@dataclass
class IntegerNet:
    """An int8 net as a list of operations. `input` is the image; `output` the logits: [1, 1, outputs], or
    [1, pixels, outputs] of a detector."""

    ops: list[Op]
    input: Tensor
    output: Tensor

    def run(self, images: np.ndarray) -> np.ndarray:
        """int8 logits [n, size of `output`] of int8 images [n, height, width, 3], bit for bit as the C source."""
        values: dict[int, np.ndarray] = {id(self.input): images}
        last = self._last_uses
        for i, op in enumerate(self.ops):
            values[id(op.output)] = _RUN[op.kind](op, *(values[id(x)] for x in op.inputs))
            for x in op.inputs:
                if last[id(x)] == i:
                    values.pop(id(x), None)
        return values[id(self.output)].reshape(len(images), -1)

    @cached_property
    def _last_uses(self) -> dict[int, int]:
        return {id(x): i for i, op in enumerate(self.ops) for x in op.inputs}

    @cached_property
    def places(self) -> dict[int, int]:
        """The offset of each tensor between input and output in one buffer, by its id. Tensors that are needed at the
        same time do not overlap, except that an operation on single values may overwrite its input.

        Tensors are placed greedily in several orders, some drawn by seed, until one needs no more than what is held at
        the same time, or for the best of them."""
        shared, spans = self._spans()
        held = [sum(size for a, b, size in spans.values() if a <= i <= b) for i in range(len(self.ops))]
        rng = Random(0)

        def orders() -> Iterator[list[int]]:
            by_size = sorted(spans, key=lambda x: -spans[x][2])
            yield by_size
            yield sorted(by_size, key=lambda x: spans[x][0] - spans[x][1])
            yield sorted(by_size, key=lambda x: -max(held[spans[x][0] : spans[x][1] + 1]))
            for _ in range(ORDERS):
                yield sorted(spans, key=lambda x: -spans[x][2] * rng.uniform(0.3, 1))

        best, least = _placed([], spans), math.inf
        for order in orders():
            plan = _placed(order, spans)
            needed = max((plan[x] + spans[x][2] for x in plan), default=0)
            if needed < least:
                best, least = plan, needed
            if needed == max(held, default=0):
                break
        return {x: best[first] for x, first in shared.items()}

    def _spans(self) -> tuple[dict[int, int], dict[int, tuple[int, int, int]]]:
        """(the buffer that each tensor uses, (first operation, last operation, bytes) of each buffer)."""
        last = self._last_uses
        shared: dict[int, int] = {}
        spans: dict[int, tuple[int, int, int]] = {}
        for i, op in enumerate(self.ops):
            out = id(op.output)
            if op.output is self.output:
                continue
            end = last[out]
            over = [shared[id(x)] for x in op.inputs if self._replaces(op, x, i)]
            if over:
                # the residual's own place, which it then keeps for a whole stage
                first = shared[out] = min(over, key=lambda x: spans[x][0])
                spans[first] = (spans[first][0], end, spans[first][2])
            else:
                shared[out] = out
                spans[out] = (i, end, op.output.size)
        return shared, spans

    def _replaces(self, op: Op, x: Tensor, i: int) -> bool:
        single = op.kind in ("add", "mul", "map") and x.shape == op.output.shape
        return single and x is not self.input and self._last_uses[id(x)] == i

    @property
    def arena(self) -> int:
        """Bytes of the buffer for all tensors between input and output."""
        sizes = {id(op.output): op.output.size for op in self.ops}
        return max((place + sizes[x] for x, place in self.places.items()), default=0)

    @property
    def constants(self) -> int:
        """Bytes of weights, biases, multipliers, shifts (one byte each) and tables."""
        return sum(
            op.weight.size + 4 * op.bias.size + 4 * op.multipliers.size + op.shifts.size + op.table.size
            for op in self.ops
        )


def _placed(order: list[int], spans: dict[int, tuple[int, int, int]]) -> dict[int, int]:
    """Offsets: each buffer in turn at the lowest one where it overlaps none that is needed at the same time."""
    places: dict[int, int] = {}
    for x in order:
        first, last, size = spans[x]
        meets = (y for y in places if spans[y][0] <= last and first <= spans[y][1])
        place = 0
        for low, high in sorted((places[y], places[y] + spans[y][2]) for y in meets):
            if place + size <= low:
                break
            place = max(place, high)
        places[x] = place
    return places


# --- running in numpy ---------------------------------------------------------------------------------------------


def fixed_point(ratio: float) -> tuple[int, int]:
    """(multiplier, shift): ratio = multiplier / 2^shift, with a multiplier of 31 bits, and a shift from 1 to 62."""
    mantissa, exponent = math.frexp(ratio)
    shift = BITS - exponent
    multiplier = round(mantissa * 2**BITS)
    if multiplier == 2**BITS:
        multiplier, shift = multiplier // 2, shift - 1
    if shift > 62:
        multiplier, shift = multiplier >> (shift - 62), 62
    if shift < 1:
        raise RunFault(f"the int8 scales of two layers differ by a factor of {ratio:g}; train the net anew")
    return multiplier, shift


def rounded(product: np.ndarray, shift: np.ndarray | int) -> np.ndarray:
    """product / 2^shift, halves away from zero."""
    half = np.int64(1) << (np.asarray(shift, np.int64) - 1)
    return np.sign(product) * ((np.abs(product) + half) >> np.asarray(shift, np.int64))


def _bounded(values: np.ndarray, out: Tensor) -> np.ndarray:
    return np.clip(values + out.zero, LOW, HIGH).astype(np.int8)


def _scaled(op: Op, sums: np.ndarray) -> np.ndarray:
    return _bounded(rounded(sums.astype(np.int64) * op.multipliers, op.shifts), op.output)


def _taps(op: Op, x: np.ndarray, fill: int) -> Iterator[tuple[int, int, np.ndarray]]:
    """(row, column, the input values under that tap for each output pixel)."""
    height, width, _ = op.output.shape
    p, s = op.padding, op.stride
    x = np.pad(x, ((0, 0), (p, p), (p, p), (0, 0)), constant_values=fill)
    for row in range(op.kernel):
        for column in range(op.kernel):
            yield row, column, x[:, row : row + s * height : s, column : column + s * width : s]


def _conv(op: Op, x: np.ndarray) -> np.ndarray:
    centred = x.astype(np.float64) - op.inputs[0].zero  # sums are exact: far below 2^53
    sums: Any = op.bias.astype(np.float64)
    for row, column, seen in _taps(op, centred, 0):
        sums = sums + seen @ op.weight[:, row, column].T.astype(np.float64)
    return _scaled(op, sums)


def _depthwise(op: Op, x: np.ndarray) -> np.ndarray:
    sums: Any = op.bias.astype(np.int64)
    for row, column, seen in _taps(op, x.astype(np.int64) - op.inputs[0].zero, 0):
        sums = sums + seen * op.weight[row, column]
    return _scaled(op, sums)


def _add(op: Op, *inputs: np.ndarray) -> np.ndarray:
    terms = zip(inputs, op.inputs, op.multipliers.tolist(), strict=True)
    sums: Any = sum((x.astype(np.int64) - t.zero) * multiplier for x, t, multiplier in terms)
    return _bounded(rounded(sums, op.shifts[0]), op.output)


def _mul(op: Op, x: np.ndarray, gate: np.ndarray) -> np.ndarray:
    return _scaled(op, (x.astype(np.int64) - op.inputs[0].zero) * (gate.astype(np.int64) - op.inputs[1].zero))


def _map(op: Op, x: np.ndarray) -> np.ndarray:
    return op.table[x.astype(np.int64) - LOW]


def _average(op: Op, x: np.ndarray) -> np.ndarray:
    return _scaled(op, (x.astype(np.int64) - op.inputs[0].zero).sum((1, 2), keepdims=True))


def _maxpool(op: Op, x: np.ndarray) -> np.ndarray:
    return np.max(np.stack([seen for _, _, seen in _taps(op, x, LOW)]), axis=0)


def _join(op: Op, *inputs: np.ndarray) -> np.ndarray:
    lots = (table[x.astype(np.int64) - LOW] for table, x in zip(op.table, inputs, strict=True))
    return np.concatenate([lot.reshape(len(lot), -1) for lot in lots], axis=1)


_RUN: dict[str, Callable[..., np.ndarray]] = {
    "conv": _conv, "depthwise": _depthwise, "add": _add, "mul": _mul, "map": _map, "average": _average,
    "maxpool": _maxpool, "join": _join,
}  # fmt: skip
