"""int8: static post-training quantisation of a folded net's ONNX model, in the form that ONNX calls QDQ.

Weights are symmetric int8 with a scale per output channel; activations are uint8 with a scale and a zero point per
tensor, the combination that ONNX Runtime fuses into integer kernels everywhere.

On x86 without VNNI these kernels add the products of two neighbours in 16 bits (VPMADDUBSW), which saturates at
32,767, while 255 x 127 x 2 is 64,770: a net trained on digits lost 5.5 points of accuracy by that, with int8
activations too, which ONNX Runtime turns into uint8. So the scale of a channel is chosen for which no two weights of
one sign exceed 128 together: 255 x 128 fits. That costs less than `reduce_range`, which halves all weights alike.
Depthwise convolutions have kernels that do not saturate, and few weights to spare; they keep the whole range.
tests/deployment/test_quantize.py compares both with integer arithmetic.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .onnxfile import INPUT, need_onnx

# All of a net's operators, so that every tensor between two of them is int8. HardSwish and HardSigmoid, which ONNX
# Runtime computes in float, are maps of 256 values for anything that has no floats.
OPERATORS = (
    "Conv", "Gemm", "Add", "Mul", "Relu", "Clip", "HardSwish", "HardSigmoid", "MaxPool", "GlobalAveragePool", "Flatten",
)  # fmt: skip


def to_int8(model: Any, batches: Iterable[np.ndarray]) -> Any:
    """The int8 ONNX model of a float one, written by `to_onnx` with `norms_as_convs`. Input and output stay float32,
    with the same names.

    Args:
        batches: normalised images for calibration, float32 [n, 3, h, w]: each tensor's range is from the least to the
            largest value that occurs for them.
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
                "ActivationSymmetric": False, "WeightSymmetric": True, "TensorQuantOverrides": _ranges(model),
            },
        )  # fmt: skip
        return load(out)


def _ranges(model: Any) -> dict[str, list[dict[str, Any]]]:
    """The range of each output channel's weights by tensor, in the form of onnxruntime's TensorQuantOverrides."""
    from onnx import numpy_helper
    from onnxruntime.quantization import QuantType

    tensors = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        if node.op_type not in ("Conv", "Gemm"):
            continue
        weight = tensors[node.input[1]]
        rows = weight.reshape(len(weight), -1)
        limits = np.abs(rows).max(1) if node.op_type == "Conv" and weight.shape[1] == 1 else _largest_pair(rows)
        limits = np.maximum(limits, np.finfo(np.float32).tiny * 256).tolist()  # a channel of zeros needs a scale too
        found[node.input[1]] = [
            {"quant_type": QuantType.QInt8, "axis": 0, "symmetric": True, "rmin": -x, "rmax": x} for x in limits
        ]
    return found


def _largest_pair(rows: np.ndarray) -> np.ndarray:
    """[rows]: the largest sum of two values of the same sign in each row, as a magnitude; of one, if there is only one.

    With that as 127, two values are at most 127 together, and 128 rounded."""
    first = np.sort(np.pad(np.maximum(rows, 0), ((0, 0), (1, 1))), axis=1)[:, -2:].sum(1)
    second = np.sort(np.pad(np.maximum(-rows, 0), ((0, 0), (1, 1))), axis=1)[:, -2:].sum(1)
    return np.maximum(first, second)


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
