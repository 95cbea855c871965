"""Bindings to the C kernels (csrc/), which are used where choice.py selects them: a whole inverted block
(csrc/block.c), a norm with its activation (csrc/norm.c), depthwise gradients (csrc/depthwise.c).

A tiny network's step is bound by its passes over memory, and these kernels need fewer. fused.py has the torch versions.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..arch.blocks import Block, Layer
from .build import call

NONE, CLIP, HSWISH = range(3)
ACTS = {"": (NONE, 0.0), "relu": (CLIP, float("inf")), "relu6": (CLIP, 6.0), "hswish": (HSWISH, 0.0)}
MAX_KERNEL = 7
MAX_PIXELS = 128 * 128  # the canvas of one image, for one vector of channels, has to fit in a core's cache

_P, _L, _F, _I = ctypes.c_void_p, ctypes.c_long, ctypes.c_float, ctypes.c_int


class Conv(ctypes.Structure):
    """`Conv` in block_norms.h: one convolution with its norm."""

    _fields_ = [
        ("w", _P), ("stride", _L * 3), ("scale", _P), ("shift", _P), ("mean", _P), ("rstd", _P), ("running_mean", _P),
        ("running_var", _P), ("momentum", _F), ("for_w", _P), ("for_scale", _P), ("for_shift", _P),
    ]  # fmt: skip


class Inverted(ctypes.Structure):
    """`Inverted` in block_small.h: the sizes of a block and its convolutions."""

    _fields_ = [
        *((name, _L) for name in "n h w oh ow cin hidden out k s".split()),
        *((name, _I) for name in ("expands", "residual", "act")), ("top", _F), ("eps", _F),
        ("expand", Conv), ("depthwise", Conv), ("project", Conv),
    ]  # fmt: skip


def norm_act(y: Tensor, layer: Layer, scale: Tensor, shift: Tensor, running, eps: float) -> tuple[Tensor, ...]:
    """(act(norm(y)), mean [C], 1 / standard deviation [C]) of y [N, C, H, W] in channels-last.

    `running` is (mean, variance, momentum), updated in place, or (None, None, 0.0)."""
    out = torch.empty_like(y)
    mean, rstd = y.new_empty(2, y.shape[1]).unbind()
    known, spread, momentum = running
    call("norm_act", y, out, *_rows(y), scale, shift, eps, *ACTS[layer.act], mean, rstd, known, spread, momentum)
    return out, mean, rstd


def norm_act_back(
    grad: Tensor, y: Tensor, layer: Layer, scale: Tensor, shift: Tensor, mean: Tensor, rstd: Tensor, to: tuple
) -> Tensor:
    """The gradient of `norm_act`'s y. The gradients of scale and shift are added to the tensors `to`."""
    back = torch.empty_like(y)
    call("norm_act_back", grad, y, back, *_rows(y), scale, shift, *ACTS[layer.act], mean, rstd, *to)
    return back


def depthwise_back(grad: Tensor, x: Tensor, weight: Tensor, layer: Layer, to: Tensor, wanted: bool) -> Tensor | None:
    """The gradient of a depthwise convolution's x [N, C, H, W], channels-last, if `wanted`, else None. The gradient of
    the weight, which may be any slice of a parameter, is added to the tensor `to`."""
    back = torch.empty_like(x) if wanted else None
    call("depthwise_back", grad, x, weight, _strides(weight), back, to, _strides(to), *_sizes(x, layer))
    return back


class Parameters(NamedTuple):
    """The whole parameters of a convolution and its norm, and the norm's running (mean, variance, momentum) or
    (None, None, 0.0). A block uses the leading channels and the centre of the kernel."""

    weight: Tensor
    scale: Tensor
    shift: Tensor
    running: tuple


class Kept(NamedTuple):
    """The state of a forward pass that `inverted_back` needs. `given` points into the parameters and `statistics`."""

    given: Inverted
    x: Tensor
    expanded: Tensor
    mapped: Tensor
    shrunk: Tensor
    statistics: Tensor


def inverted(x: Tensor, block: Block, convs: Sequence[Parameters], eps: float) -> tuple[Tensor, Kept]:
    """A block's output for x [N, C, H, W], channels-last, and the state for `inverted_back`."""
    last, hidden = block.layers[-1], block.layers[-2].out
    n, _, h, w = x.shape
    after = (n, last.height, last.width)
    expanded = x.new_empty((n, h, w, hidden) if len(convs) == 3 else 0)
    mapped, shrunk, out = (x.new_empty(*after, c) for c in (hidden, last.out, last.out))
    statistics = x.new_empty(2, sum(layer.out for layer in block.layers))
    given = _block(x, block, convs, statistics, eps)
    call("inverted", ctypes.byref(given), x, expanded, mapped, shrunk, out)
    return out.permute(0, 3, 1, 2), Kept(given, x, expanded, mapped, shrunk, statistics)


def inverted_back(grad: Tensor, kept: Kept, gradients: Sequence[Sequence[Tensor]], wanted: bool) -> Tensor | None:
    """The gradient of `inverted`'s x if `wanted`, else None. The parameters' gradients are added to `gradients`, one
    tensor per whole parameter, with the same strides."""
    back = torch.empty_like(kept.x) if wanted else None
    given = kept.given
    places = ((given.expand, 1), (given.depthwise, given.k), (given.project, 1))[-len(gradients) :]
    for (place, kernel), (weight, scale, shift) in zip(places, gradients, strict=True):
        place.for_w = weight.data_ptr() + _centre(weight, kernel)
        place.for_scale, place.for_shift = scale.data_ptr(), shift.data_ptr()
    call("inverted_back", ctypes.byref(given), kept.x, kept.expanded, kept.mapped, kept.shrunk, grad, back)
    return back


def inverted_eval(x: Tensor, block: Block, convs: Sequence[Parameters], eps: float) -> Tensor:
    """A block's output for x [N, C, H, W], channels-last, with the norms' running statistics."""
    last = block.layers[-1]
    out = x.new_empty(len(x), last.height, last.width, last.out)
    call("inverted_eval", ctypes.byref(_block(x, block, convs, None, eps)), x, out)
    return out.permute(0, 3, 1, 2)


def _block(
    x: Tensor, block: Block, convs: Sequence[Parameters], statistics: Tensor | None, eps: float
) -> Inverted:
    """`statistics` [2, C]: mean and 1 / standard deviation over the batch, for the channels of all convolutions in
    order.

    Uses pointers because creating tensor slices took a quarter of a tiny network's step."""
    n, cin, h, w = x.shape
    depthwise, last = block.layers[-2:]
    start = 0 if statistics is None else statistics.data_ptr()
    apart = 0 if statistics is None else 4 * statistics.shape[1]
    made = []
    for layer, conv in zip(block.layers, convs, strict=True):
        made.append(_conv(layer.kernel, conv, start, start + apart))
        start += 4 * layer.out
    return Inverted(
        n, h, w, last.height, last.width, cin, depthwise.out, last.out, depthwise.kernel, depthwise.stride,
        len(convs) == 3, block.shortcut == "identity", *ACTS[depthwise.act], eps,
        *(() if len(convs) == 3 else (Conv(),)), *made,
    )  # fmt: skip


def _conv(kernel: int, given: Parameters, mean: int, rstd: int) -> Conv:
    weight, scale, shift, (known, spread, momentum) = given
    return Conv(
        weight.data_ptr() + _centre(weight, kernel), _strides(weight), scale.data_ptr(), shift.data_ptr(), mean, rstd,
        _at(known), _at(spread), momentum,
    )  # fmt: skip


def _centre(weight: Tensor, kernel: int) -> int:
    """Offset in bytes of the central kernel x kernel part of a weight's first channel."""
    spare = (weight.shape[-1] - kernel) // 2
    return spare and 4 * spare * (weight.stride(2) + weight.stride(3))


def _at(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _rows(y: Tensor) -> tuple[int, int]:
    n, c, h, w = y.shape
    return n * h * w, c


def _sizes(x: Tensor, layer: Layer) -> tuple[int, ...]:
    n, c, h, w = x.shape
    k, s = layer.kernel, layer.stride
    return n, h, w, c, k, s, (h + 2 * (k // 2) - k) // s + 1, (w + 2 * (k // 2) - k) // s + 1


_Three = ctypes.c_long * 3


def _strides(weight: Tensor):
    channel, _, row, column = weight.stride()
    return _Three(channel, row, column)
