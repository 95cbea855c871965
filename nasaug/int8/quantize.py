"""int8: static post-training quantisation of a folded net's ONNX model, in the form that ONNX calls QDQ.

Weights are symmetric int8 with a scale per output channel; activations are uint8 with a scale and a zero point per
tensor, the combination that ONNX Runtime fuses into integer kernels everywhere.

On x86 without VNNI these kernels add the products of two neighbours in 16 bits (VPMADDUBSW), which saturates at
32,767, while 255 x 127 x 2 is 64,770: a net trained on digits lost 5.5 points of accuracy by that, with int8
activations too, which ONNX Runtime turns into uint8. So the scale of a channel is chosen for which no two weights of
one sign exceed 128 together: 255 x 128 fits. That costs less than `reduce_range`, which halves all weights alike.
Depthwise convolutions have kernels that do not saturate, and few weights to spare; they keep the whole range.
tests/int8/test_quantize.py compares both with integer arithmetic.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .onnxfile import INPUT, need_onnx

# All of a net's operators, so that every tensor between two of them is int8. HardSwish and HardSigmoid, which ONNX
# Runtime computes in float, are maps of 256 values for anything that has no floats.
OPERATORS = (
    "Conv", "Gemm", "Add", "Mul", "Relu", "Clip", "HardSwish", "HardSigmoid", "MaxPool", "GlobalAveragePool", "Flatten",
    "Transpose", "Reshape", "Concat",
)  # fmt: skip


CALIBRATION = 512  # images of the training split
LARGEST = 127  # weight


class Scale(NamedTuple):
    """How an activation is stored: the uint8 q stands for scale x (q - zero)."""

    scale: float
    zero: int


def to_int8(model: Any, batches: Iterable[np.ndarray], scales: Mapping[str, Scale] | None = None) -> Any:
    """The int8 ONNX model of a float one, written by `to_onnx` with `norms_as_convs`. Input and output stay float32,
    with the same names.

    Args:
        batches: normalised images for calibration, float32 [n, 3, h, w]: each tensor's range is from the least to the
            largest value that occurs for them.
        scales: those of the activations, where they are known from training, in the form of `scales_of`; then one
            batch of any images is enough.
    """
    need_onnx("int8 quantisation", "onnxruntime")
    from onnx import load
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    with tempfile.TemporaryDirectory() as folder, _quiet():
        given, out = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        given.write_bytes(model.SerializeToString())  # given as an object, the model would be altered
        quantize_static(
            given, out, _Images(batches), quant_format=QuantFormat.QDQ, op_types_to_quantize=list(OPERATORS),
            per_channel=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={
                "ActivationSymmetric": False, "WeightSymmetric": True,
                "TensorQuantOverrides": _ranges(model) | _given(scales or {}),
            },
        )  # fmt: skip
        return load(out)


def scales_of(model: Any) -> dict[str, Scale]:
    """The scale of each activation of an int8 model, by the tensor's name in the float model.

    Those that pass values on unchanged (pooling by the maximum, flattening, another order of axes) have their input's
    scale and are left out: see `stored_as`."""
    from onnx import numpy_helper

    arrays = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    named = {n.input[1].removesuffix("_scale"): n.input for n in model.graph.node if n.op_type == "QuantizeLinear"}
    return {name: Scale(float(arrays[scale]), int(arrays[zero])) for name, (_, scale, zero) in named.items()}


def stored_as(model: Any) -> dict[str, str]:
    """For each tensor of the float model that an int8 model stores, the name of its scale in `scales_of`.

    A ReLU whose input is not among them is no operation of its own: the output's range begins at 0, so that storing
    it cuts off what is negative."""
    nodes = (node for node in model.graph.node if node.op_type == "QuantizeLinear")
    return {n.input[0].removesuffix("_QuantizeLinear_Input"): n.input[1].removesuffix("_scale") for n in nodes}


def _given(scales: Mapping[str, Scale]) -> dict[str, list[dict[str, Any]]]:
    """Scales in the form of onnxruntime's TensorQuantOverrides."""
    from onnxruntime.quantization import QuantType

    return {
        name: [{
            "quant_type": QuantType.QUInt8, "scale": np.array(each.scale, np.float32),
            "zero_point": np.array(each.zero, np.uint8),
        }]
        for name, each in scales.items()
    }  # fmt: skip


def _ranges(model: Any) -> dict[str, list[dict[str, Any]]]:
    """The range of each output channel's weights by tensor, in the form of onnxruntime's TensorQuantOverrides."""
    from onnx import numpy_helper
    from onnxruntime.quantization import QuantType

    tensors = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        if node.op_type not in ("Conv", "Gemm"):
            continue
        bounds = limits(torch.from_numpy(tensors[node.input[1]].copy())).tolist()
        found[node.input[1]] = [
            {"quant_type": QuantType.QInt8, "axis": 0, "symmetric": True, "rmin": -x, "rmax": x} for x in bounds
        ]
    return found


def limits(weight: Tensor) -> Tensor:
    """[outputs]: the magnitude of each output channel's weights [outputs, inputs, …] that is stored as 127.

    In a depthwise convolution the largest weight's; else the largest sum of two of the same sign, so that two are at
    most 127 together, and 128 rounded."""
    rows = weight.detach().flatten(1)
    if weight.dim() == 4 and weight.shape[1] == 1:
        largest = rows.abs().amax(1)
    else:
        pairs = (side.clamp_min(0).topk(min(2, side.shape[1])).values.sum(1) for side in (rows, -rows))
        largest = torch.maximum(*pairs)
    return largest.clamp_min(torch.finfo(torch.float32).tiny * 256)  # a channel of zeros needs a scale too


class _Images:
    """The batches as ONNX Runtime's calibration reads them."""

    def __init__(self, batches: Iterable[np.ndarray]):
        self._batches = iter(batches)

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the root logger, to which onnxruntime.quantization writes advice that is of no use here."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(before)
