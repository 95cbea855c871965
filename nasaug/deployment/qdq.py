"""Reading an int8 ONNX model, as `to_int8` makes it, as an integer net."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.errors import RunFault
from .integer import HIGH, LOW, IntegerNet, Op, Tensor, fixed_point


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


EVERY = np.arange(LOW, HIGH + 1)  # int8 value


def _mapped(name: str, x: Tensor, out: Tensor, function: Callable[[np.ndarray], np.ndarray]) -> Op:
    return Op("map", name, [x], out, table=out.of(function(x.numbers(EVERY))))


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


def _read_same(_: _Reading, node: Any, inputs: list, scale: float, zero: int) -> Op | Tensor:
    """Another order of axes or another shape, of values that lie as [height, width, channels] before and after: what
    joins the maps of a detector transposes them to that order, in which integer nets have them anyway."""
    x, out = inputs[0], Tensor(inputs[0].shape, scale, zero)
    return x if out.like(x) else _mapped(node.name, x, out, lambda numbers: numbers)


def _read_join(_: _Reading, node: Any, inputs: list, scale: float, zero: int) -> Op:
    channels = inputs[0].shape[2]
    out = Tensor((1, sum(x.size for x in inputs) // channels, channels), scale, zero)
    return Op("join", node.name, inputs, out, table=np.stack([out.of(x.numbers(EVERY)) for x in inputs]))


_READ: dict[str, Callable[..., Op | Tensor]] = {
    "Conv": _read_conv, "Gemm": _read_gemm, "Add": _read_add, "Mul": _read_mul, "GlobalAveragePool": _read_average,
    "MaxPool": _read_maxpool, "Relu": _read_map, "Clip": _read_map, "HardSigmoid": _read_map, "HardSwish": _read_map,
    "Flatten": _read_flatten, "Transpose": _read_same, "Reshape": _read_same, "Concat": _read_join,
}  # fmt: skip
