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
    """One operation. `kind`: conv, depthwise, add, mul, map, average or maxpool; a linear layer is a 1x1 conv.

    weight: int8 [out, kernel, kernel, in] (conv) or [kernel, kernel, channels] (depthwise). bias: int32 [out].
    multipliers, shifts: int32, one for each output channel (conv, depthwise), for each input (add), or one.
    table: int8 [256], the output for each input from -128 on (map)."""

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
    """An int8 net as a list of operations. `input` is the image; `output` [1, 1, outputs] the logits."""

    ops: list[Op]
    input: Tensor
    output: Tensor

    def run(self, images: np.ndarray) -> np.ndarray:
        """int8 logits [n, outputs] of int8 images [n, height, width, 3], bit for bit what the C source computes."""
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


_RUN: dict[str, Callable[..., np.ndarray]] = {
    "conv": _conv, "depthwise": _depthwise, "add": _add, "mul": _mul, "map": _map, "average": _average,
    "maxpool": _maxpool,
}  # fmt: skip


# --- from the ONNX model ------------------------------------------------------------------------------------------


def of_onnx(model: Any) -> IntegerNet:
    """The integer net of an int8 model that `to_int8` made."""
    return _Reading(model).net()


@dataclass
class _Constant:
    """An integer tensor of the file with its scales, one for each row or one for all."""

    values: np.ndarray
    scale: np.ndarray


class _Reading:
    """Walks the nodes in order. Each operation stands between DequantizeLinear and QuantizeLinear nodes, which say how
    its inputs and its output are stored."""

    def __init__(self, model: Any):
        from onnx import numpy_helper

        self.graph = model.graph
        self.arrays = {t.name: numpy_helper.to_array(t) for t in self.graph.initializer}
        self.tensors: dict[str, Any] = {}  # by the name of its int8 or of its float form: a Tensor or a _Constant
        self.pending: dict[str, Any] = {}  # nodes whose output is not stored yet, by that output
        self.ops: list[Op] = []

    def net(self) -> IntegerNet:
        (image,), (out,) = self.graph.input, self.graph.output
        for node in self.graph.node:
            if node.op_type == "QuantizeLinear":
                self._store(node)
            elif node.op_type == "DequantizeLinear":
                self._load(node)
            else:
                self.pending[node.output[0]] = node
        if out.name not in self.tensors:
            raise RunFault(f"the output {out.name} of the int8 model is not int8, so it cannot be written in integers")
        return IntegerNet(self.ops, self.tensors[image.name], self.tensors[out.name])

    def _load(self, node: Any) -> None:
        name, scale, zero = node.input
        if name in self.arrays:
            if self.arrays[zero].any():
                raise RunFault(f"the weights {name} have a zero point; only symmetric ones can be written in integers")
            self.tensors[node.output[0]] = _Constant(self.arrays[name], self.arrays[scale].reshape(-1))
        else:
            self.tensors[node.output[0]] = self.tensors[name]

    def _store(self, node: Any) -> None:
        name, scale, zero = node.input
        kind = (float(self.arrays[scale]), int(self.arrays[zero]) + LOW)  # uint8 in the file
        if name == self.graph.input[0].name:
            sizes = [d.dim_value for d in self.graph.input[0].type.tensor_type.shape.dim]
            self.tensors[name] = Tensor((sizes[2], sizes[3], sizes[1]), *kind)
        else:
            self._operate(self.pending.pop(name), *kind)
        self.tensors[node.output[0]] = self.tensors[name]

    def _operate(self, node: Any, scale: float, zero: int) -> None:
        read = _READ.get(node.op_type)
        missing = [name for name in node.input if name not in self.tensors and name not in self.arrays]
        if read is None or missing:
            raise RunFault(f"{node.name} ({node.op_type}) of the int8 model cannot be written in integers")
        inputs = [self.tensors.get(name) for name in node.input]
        op = read(self, node, inputs, scale, zero)
        if isinstance(op, Op):
            self.ops.append(op)
            op = op.output
        self.tensors[node.output[0]] = op


def _attributes(node: Any) -> dict[str, Any]:
    from onnx import helper

    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def _scales(op: Op, ratios: list[float]) -> Op:
    pairs = [fixed_point(ratio) for ratio in ratios]
    op.multipliers, op.shifts = (np.array(column, np.int32) for column in zip(*pairs, strict=True))
    return op


def _window_of(x: Tensor, node: Any) -> tuple[dict[str, Any], tuple[int, int]]:
    """(kernel, stride, padding; height and width of the output)."""
    a = _attributes(node)
    kernel, stride, padding = a["kernel_shape"][0], a.get("strides", [1])[0], a.get("pads", [0])[0]
    size = tuple((n + 2 * padding - kernel) // stride + 1 for n in x.shape[:2])
    return {"kernel": kernel, "stride": stride, "padding": padding}, (size[0], size[1])


def _weighted(x: Tensor, weight: _Constant, bias: _Constant | None, op: Op) -> Op:
    outs = op.output.shape[2]
    ratios = (x.scale * np.broadcast_to(weight.scale, outs).astype(np.float64) / op.output.scale).tolist()
    op.bias = np.zeros(outs, np.int32) if bias is None else bias.values.astype(np.int32)
    return _scales(op, ratios)


def _read_conv(_: _Reading, node: Any, inputs: list, scale: float, zero: int) -> Op:
    x, weight, bias = (*inputs, None)[:3]
    window, size = _window_of(x, node)
    w = weight.values  # [out, in of its group, k, k]
    out = Tensor((*size, len(w)), scale, zero)
    groups = _attributes(node).get("group", 1)
    if groups == 1:
        op = Op("conv", node.name, [x], out, **window, weight=w.transpose(0, 2, 3, 1))
    elif groups == len(w) == x.shape[2]:
        op = Op("depthwise", node.name, [x], out, **window, weight=w[:, 0].transpose(1, 2, 0))
    else:
        raise RunFault(f"{node.name} has {groups} groups of channels; only depthwise ones can be written in integers")
    return _weighted(x, weight, bias, op)


def _read_gemm(_: _Reading, node: Any, inputs: list, scale: float, zero: int) -> Op:
    x, weight, bias = (*inputs, None)[:3]
    w = weight.values if _attributes(node).get("transB") else weight.values.T
    out = Tensor((1, 1, len(w)), scale, zero)
    return _weighted(x, weight, bias, Op("conv", node.name, [x], out, weight=w[:, None, None, :]))


def _read_add(_: _Reading, node: Any, inputs: list, scale: float, zero: int) -> Op:
    ratios = [x.scale / scale for x in inputs]
    shift = fixed_point(max(ratios))[1]  # one for both, so that their sum is rounded once
    op = Op("add", node.name, inputs, Tensor(inputs[0].shape, scale, zero))
    op.multipliers = np.array([round(ratio * 2**shift) for ratio in ratios], np.int32)
    op.shifts = np.array([shift], np.int32)
    return op


def _read_mul(_: _Reading, node: Any, inputs: list, scale: float, zero: int) -> Op:
    x, gate = sorted(inputs, key=lambda t: -t.size)
    return _scales(Op("mul", node.name, [x, gate], Tensor(x.shape, scale, zero)), [x.scale * gate.scale / scale])


def _read_average(_: _Reading, node: Any, inputs: list, scale: float, zero: int) -> Op:
    (x,) = inputs
    height, width, channels = x.shape
    op = Op("average", node.name, [x], Tensor((1, 1, channels), scale, zero))
    return _scales(op, [x.scale / scale / (height * width)])


def _read_maxpool(reading: _Reading, node: Any, inputs: list, scale: float, zero: int) -> Op:
    (x,) = inputs
    window, size = _window_of(x, node)
    pooled = Op("maxpool", node.name, [x], Tensor((*size, x.shape[2]), x.scale, x.zero), **window)
    stored = Tensor(pooled.output.shape, scale, zero)
    if stored.like(x):
        return pooled
    reading.ops.append(pooled)
    return _mapped(node.name, pooled.output, stored, lambda numbers: numbers)


def _mapped(name: str, x: Tensor, out: Tensor, function: Callable[[np.ndarray], np.ndarray]) -> Op:
    every = np.arange(LOW, HIGH + 1)
    return Op("map", name, [x], out, table=out.of(function(x.numbers(every))))


def _read_map(reading: _Reading, node: Any, inputs: list, scale: float, zero: int) -> Op:
    x, a = inputs[0], _attributes(node)
    limits = [float(_plain(reading.tensors.get(name, reading.arrays.get(name)))) for name in node.input[1:]]
    functions: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "Relu": lambda v: np.maximum(v, 0),
        "Clip": lambda v: np.clip(v, limits[0], limits[1]),
        "HardSigmoid": lambda v: np.clip(np.float32(a.get("alpha", 0.2)) * v + np.float32(a.get("beta", 0.5)), 0, 1),
        "HardSwish": lambda v: v * np.clip(v / np.float32(6) + np.float32(0.5), 0, 1),
    }
    return _mapped(node.name, x, Tensor(x.shape, scale, zero), functions[node.op_type])


def _plain(value: Any) -> Any:
    return value.values * value.scale if isinstance(value, _Constant) else value


def _read_flatten(_: _Reading, node: Any, inputs: list, scale: float, zero: int) -> Op | Tensor:
    (x,) = inputs
    out = Tensor((1, 1, x.size), scale, zero)
    if x.shape[:2] != (1, 1):
        raise RunFault(f"{node.name} flattens {x.shape}; only pooled maps can be written in integers")
    return x if out.like(x) else _mapped(node.name, x, out, lambda numbers: numbers)


_READ: dict[str, Callable[..., Op | Tensor]] = {
    "Conv": _read_conv, "Gemm": _read_gemm, "Add": _read_add, "Mul": _read_mul, "GlobalAveragePool": _read_average,
    "MaxPool": _read_maxpool, "Relu": _read_map, "Clip": _read_map, "HardSigmoid": _read_map, "HardSwish": _read_map,
    "Flatten": _read_flatten,
}  # fmt: skip
