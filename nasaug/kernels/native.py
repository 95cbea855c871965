"""Bindings to the C kernels (csrc/), which are used where choice.py selects them: whole inverted blocks (csrc/block.c),
a norm with its activation (csrc/norm.c), depthwise gradients (csrc/depthwise.c).

A tiny network's step is bound by its passes over memory, and these kernels need fewer. fused.py has the torch versions.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
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


class Link(ctypes.Structure):
    """`Link` in block.c: one of consecutive blocks, and what its forward pass writes."""

    _fields_ = [("v", Inverted), *((name, _P) for name in ("expanded", "mapped", "shrunk", "out"))]


class Kept(NamedTuple):
    """The state of a forward pass that `inverted_back` needs. `links` points into the parameters and the tensors."""

    links: ctypes.Array[Link]
    x: Tensor
    statistics: Tensor  # [2, C]: mean and 1 / standard deviation, for the channels of all convolutions in order
    maps: Sequence[Tensor]  # of each block: expanded, mapped, shrunk, and its output unless it is the last


def inverted(
    x: Tensor, blocks: Sequence[Block], convs: Sequence[Sequence[Parameters]], eps: float
) -> tuple[Tensor, Kept]:
    """The output of blocks one after another for x [N, C, H, W], channels-last, and the state for `inverted_back`."""
    n, maps = len(x), []
    for block in blocks:
        (h, w), hidden, out = block.in_size, block.layers[-2].out, block.layers[-1].out
        maps.append(x.new_empty((n, h, w, hidden) if len(block.layers) == 3 else 0))
        maps += (x.new_empty(n, *block.out_size, c) for c in (hidden, out, out))
    last = maps.pop()
    links = (Link * len(blocks))()
    for link, block, rows in zip(links, blocks, convs, strict=True):
        link.v = _template(block)
        _fill(link.v, n, rows, eps)
    links[-1].out = last.data_ptr()
    kept = Kept(links, x, x.new_empty(2, sum(layer.out for block in blocks for layer in block.layers)), maps)
    _point(kept)
    call("chain", links, len(links), x)
    return last.permute(0, 3, 1, 2), kept


def inverted_back(grad: Tensor, kept: Kept, gradients: Sequence[Sequence[Tensor]], wanted: bool) -> Tensor | None:
    """The gradient of `inverted`'s x if `wanted`, else None. The parameters' gradients are added to `gradients`, for
    each convolution in order one tensor per whole parameter, with the same strides."""
    _point(kept)
    places = iter(gradients)
    for link in kept.links:
        for conv, kernel, _ in _convs(link.v):
            weight, scale, shift = next(places)
            conv.for_w = weight.data_ptr() + _centre(weight, kernel)
            conv.for_scale, conv.for_shift = scale.data_ptr(), shift.data_ptr()
    between = kept.maps[3::4]  # the blocks' outputs
    room = grad.new_empty(2, max((out.numel() for out in between), default=0))
    back = torch.empty_like(kept.x) if wanted else None
    call("chain_back", kept.links, len(kept.links), kept.x, grad, back, room, room.shape[1])
    return back


def _point(kept: Kept) -> None:
    """Let the links point to the tensors of the pass, in whose place autograd's hooks may have put others."""
    maps, mean = iter(kept.maps), kept.statistics.data_ptr()
    apart = 4 * kept.statistics.shape[1]
    for link in kept.links:
        for name, held in zip(("expanded", "mapped", "shrunk", "out"), maps):  # noqa: B905 the last's out is not kept
            setattr(link, name, held.data_ptr())
        for conv, _, channels in _convs(link.v):
            conv.mean, conv.rstd = mean, mean + apart
            mean += 4 * channels


def inverted_eval(x: Tensor, block: Block, convs: Sequence[Parameters], eps: float) -> Tensor:
    """A block's output for x [N, C, H, W], channels-last, with the norms' running statistics."""
    out = x.new_empty(len(x), *block.out_size, block.out)
    given = Inverted.from_buffer_copy(_template(block))
    _fill(given, len(x), convs, eps)
    call("inverted_eval", ctypes.byref(given), x, out)
    return out.permute(0, 3, 1, 2)


@cache
def _template(block: Block) -> Inverted:
    """The block for C, without parameters and the number of images."""
    depthwise, last = block.layers[-2:]
    return Inverted(
        0, *block.in_size, *block.out_size, block.cin, depthwise.out, last.out, depthwise.kernel, depthwise.stride,
        len(block.layers) == 3, block.shortcut == "identity", *ACTS[depthwise.act],
    )  # fmt: skip


def _fill(given: Inverted, n: int, convs: Sequence[Parameters], eps: float) -> None:
    """Enter the number of images, and where the parameters and running statistics of the convolutions are.

    Uses pointers because creating tensor slices took a quarter of a tiny network's step."""
    given.n, given.eps = n, eps
    for (conv, kernel, _), (weight, scale, shift, (known, spread, momentum)) in zip(_convs(given), convs, strict=True):
        conv.w, conv.stride = weight.data_ptr() + _centre(weight, kernel), _strides(weight)
        conv.scale, conv.shift, conv.momentum = scale.data_ptr(), shift.data_ptr(), momentum
        conv.running_mean, conv.running_var = _at(known), _at(spread)


def _convs(given: Inverted) -> tuple[tuple[Conv, int, int], ...]:
    """The convolutions of a block in order, each with its kernel and its output channels."""
    rest = (given.depthwise, given.k, given.hidden), (given.project, 1, given.out)
    return ((given.expand, 1, given.hidden), *rest) if given.expands else rest


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
