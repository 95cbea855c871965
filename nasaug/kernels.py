"""Slices of parameters, and the operations of a training step in as few passes and graph nodes as torch allows.

A step of a tiny network is bound by overhead, not by arithmetic: a convolution, its norm and its activation
are one node here, whose backward adds the parameters' gradients straight into their place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from . import native
from .plan import Block, Layer

aten = torch.ops.aten


def window(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The part of `tensor` that a smaller layer shares: leading in dimensions 0 and 1, centred in the others."""
    if tuple(tensor.shape) == tuple(shape):
        return tensor
    for dim, size in enumerate(shape):
        spare = tensor.shape[dim] - size
        if spare:
            tensor = tensor.narrow(dim, spare // 2 if dim > 1 else 0, size)
    return tensor


class _Window(torch.autograd.Function):
    """A slice of a parameter whose gradient is added to its place in the parameter's own, without a full-size copy."""

    @staticmethod
    def forward(ctx, parameter: Tensor, shape: tuple[int, ...]) -> Tensor:
        ctx.parameter = parameter
        return window(parameter.detach(), shape)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, None]:
        if ctx.parameter.grad is None:  # dropped since the forward pass
            full = torch.zeros_like(ctx.parameter)
            window(full, grad.shape).copy_(grad)
            return full, None
        window(ctx.parameter.grad, grad.shape).add_(grad)
        return None, None


def part(parameter: Tensor, shape: tuple[int, ...]) -> Tensor:
    """`window` of a parameter. Where the parameter has a gradient buffer, backward adds to that in place, so
    gradients are had by `backward`, not by `torch.autograd.grad`."""
    if tuple(parameter.shape) == shape:
        return parameter
    if parameter.grad is None or not torch.is_grad_enabled():
        return window(parameter, shape)
    return _Window.apply(parameter, shape)


class _Clip(torch.autograd.Function):
    """ReLU (`top` infinite) or ReLU6 in place; torch's own in-place versions copy the tensor once more."""

    @staticmethod
    def forward(ctx, x: Tensor, top: float) -> Tensor:
        ctx.mark_dirty(x)
        x.clamp_(0.0, top)
        ctx.top = top
        ctx.save_for_backward(x)
        return x

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        (out,) = ctx.saved_tensors
        return aten.hardtanh_backward(grad, out, 0.0, ctx.top), None


TOPS = {"relu": float("inf"), "relu6": 6.0}

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "": lambda x: x,
    "relu": lambda x: _Clip.apply(x, TOPS["relu"]),
    "relu6": lambda x: _Clip.apply(x, TOPS["relu6"]),
    "hswish": F.hardswish,
}


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, layer: Layer) -> Tensor:
    """Convolution in channels-last; 1x1 with stride 1 as a matrix product."""
    if pointwise(layer):
        return F.linear(x.permute(0, 2, 3, 1), weight[:, :, 0, 0], bias).permute(0, 3, 1, 2)
    return F.conv2d(x, weight, bias, layer.stride, layer.kernel // 2, 1, layer.groups)


def pointwise(layer: Layer) -> bool:
    """Whether a convolution is one matrix product on the (pixels x channels) view."""
    return layer.kernel == 1 and layer.stride == 1 and layer.groups == 1


# --- convolution, norm and activation as one node ------------------------------------------------------------


def fusible(x: Tensor, layer: Layer, *parameters: Tensor) -> bool:
    """Whether `conv_norm_act` may run: in training on the CPU, where every parameter has a gradient buffer."""
    return (
        x.device.type == "cpu" and torch.is_grad_enabled() and not layer.bias
        and all(p.grad is not None for p in parameters)
    )  # fmt: skip


def conv_norm_act(x: Tensor, layer: Layer, conv: Tensor, scale: Tensor, shift: Tensor, running, eps: float) -> Tensor:
    """What `convolve`, batch norm with the batch's own statistics and the activation do, for a leading slice.

    `conv`, `scale` and `shift` are the whole parameters. `running` is (mean, var, momentum) to be updated, or
    (None, None, 0.0). Backward adds to the parameters' `.grad`."""
    return _ConvNormAct.apply(x, conv, scale, shift, layer, running, eps)


class _ConvNormAct(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, conv, scale, shift, layer: Layer, running, eps: float):
        x = x.contiguous(memory_format=torch.channels_last)
        c = layer.out
        weight = window(conv.detach(), (c, layer.cin // layer.groups, layer.kernel, layer.kernel))
        small, move = scale.detach()[:c], shift.detach()[:c]
        if pointwise(layer):
            n, cin, h, w = x.shape
            y = torch.mm(_rows(x), weight.view(c, cin).t()).view(n, h, w, c).permute(0, 3, 1, 2)
        else:
            y = aten.convolution(x, weight, None, *geometry(layer))
        if y.numel() == c:
            raise ValueError(f"{layer.name}: a batch norm in training needs more than one value per channel")
        kept, ctx.compiled = None, native.serves(x, y, conv)  # under autocast x and y are of two types
        if ctx.compiled:
            y = y.contiguous(memory_format=torch.channels_last)
            out, center, spread = native.norm_act(y, layer, small, move, running, eps)
        else:
            out, kept, center, spread = torch_norm_act(y, layer, small, move, running, eps)
        ctx.save_for_backward(x, y, kept, weight, small, move, center, spread)
        ctx.parameters, ctx.layer, ctx.eps = (conv, scale, shift), layer, eps
        return out

    @staticmethod
    def backward(ctx, grad):
        x, y, kept, weight, small, move, center, spread = ctx.saved_tensors
        (conv, scale, shift), layer = ctx.parameters, ctx.layer
        c, wanted = layer.out, ctx.needs_input_grad[0]
        grad = grad.contiguous(memory_format=torch.channels_last)
        to = _gradient(scale)[:c], _gradient(shift)[:c]
        if ctx.compiled:
            grad = native.norm_act_back(grad, y, layer, small, move, center, spread, to)
        else:
            grad = torch_norm_act_back(grad, y, kept, layer, small, center, spread, ctx.eps, to)
        place = window(_gradient(conv), weight.shape)
        if pointwise(layer):
            rows = _rows(grad)
            place.select(3, 0).select(2, 0).addmm_(rows.t(), _rows(x))
            back = torch.mm(rows, weight.view(c, -1)).view(*_last(x)).permute(0, 3, 1, 2) if wanted else None
        elif ctx.compiled and native.serves_depthwise(x, layer):
            back = native.depthwise_back(grad, x, weight, layer, place, wanted)
        else:
            slow = layer.depthwise and not _well_served(x, grad, layer)
            back, for_weight, _ = aten.convolution_backward(
                grad, x, weight, None, *geometry(layer), (wanted, not slow, False)
            )
            place.add_(depthwise_gradient(grad, x, layer) if slow else for_weight)
        return back, None, None, None, None, None, None


def torch_norm_act(y, layer: Layer, scale, shift, running, eps: float) -> tuple[Tensor, ...]:
    """`native.norm_act` by torch's operations: output, what the activation's gradient needs, mean, 1 / deviation."""
    mean, var, momentum = running
    kept, center, spread = aten.native_batch_norm(y, scale, shift, mean, var, True, momentum, eps)
    if layer.act in TOPS:
        return kept.clamp_(0.0, TOPS[layer.act]), kept, center, spread
    return (F.hardswish(kept), kept, center, spread) if layer.act else (kept, None, center, spread)


def torch_norm_act_back(grad, y, kept, layer: Layer, scale, mean, rstd, eps: float, to: tuple) -> Tensor:
    """`native.norm_act_back` by torch's operations."""
    if layer.act in TOPS:
        grad = aten.hardtanh_backward(grad, kept, 0.0, TOPS[layer.act])
    elif layer.act:
        grad = aten.hardswish_backward(grad, kept)
    grad, for_scale, for_shift = aten.native_batch_norm_backward(
        grad, y, scale, None, None, mean, rstd, True, eps, (True, True, True)
    )
    to[0].add_(for_scale)
    to[1].add_(for_shift)
    return grad


# --- a whole block as one node --------------------------------------------------------------------------------


def inverted(x: Tensor, block: Block, convs: Sequence[native.Parameters], eps: float) -> Tensor:
    """A depthwise-separable block with the batch's statistics, where `native.serves_block`: what its layers do."""
    return _Inverted.apply(x, block, convs, eps, *(p for conv in convs for p in conv[:3]))


def inverted_eval(x: Tensor, block: Block, convs: Sequence[native.Parameters], eps: float) -> Tensor:
    """The same with the running statistics, without gradients."""
    return native.inverted_eval(x.contiguous(memory_format=torch.channels_last), block, convs, eps)


class _Inverted(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, block: Block, convs: Sequence[native.Parameters], eps: float, *_):
        out, kept = native.inverted(x.contiguous(memory_format=torch.channels_last), block, convs, eps)
        given, *tensors = kept
        ctx.save_for_backward(*tensors)
        ctx.given, ctx.parameters = given, [conv[:3] for conv in convs]
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        grad = grad.contiguous(memory_format=torch.channels_last)
        kept = native.Kept(ctx.given, *ctx.saved_tensors)
        into = [[_gradient(p) for p in three] for three in ctx.parameters]
        back = native.inverted_back(grad, kept, into, ctx.needs_input_grad[0])
        return back, *[None] * (3 + 3 * len(into))


def _gradient(parameter: Tensor) -> Tensor:
    """Its gradient buffer; a new one where that was dropped since the forward pass."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


def _last(x: Tensor) -> tuple[int, int, int, int]:
    n, c, h, w = x.shape
    return n, h, w, c


def _rows(x: Tensor) -> Tensor:
    """[N, C, H, W] in channels-last as [pixels, C], without a copy."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def geometry(layer: Layer) -> tuple:
    """stride, padding, dilation, transposed, output padding, groups: as torch's convolution wants them."""
    s, p = layer.stride, layer.kernel // 2
    return (s, s), (p, p), (1, 1), False, (0, 0), layer.groups


# --- gradients of depthwise weights --------------------------------------------------------------------------


def _well_served(x: Tensor, grad: Tensor, layer: Layer) -> bool:
    """Whether oneDNN's own gradient of depthwise weights is the faster: it has a kernel for 3 x 3 on images of
    3 px and more, and a slow way for everything else, which on many pixels still wins (docs/performance.md)."""
    if layer.kernel <= 3:
        return min(x.shape[2:]) >= 3
    return grad.shape[2] * grad.shape[3] > MANY_PIXELS


MANY_PIXELS = 64


def depthwise_gradient(grad: Tensor, x: Tensor, layer: Layer) -> Tensor:
    """[C, 1, k, k]: the gradient of a depthwise convolution's weights, for few pixels or large kernels.

    Tap (i, j) of a channel is the sum over images of x, moved by (i, j), times grad: a convolution of x with
    grad as its kernel, one group for every image and channel, dilated by the stride. Mostly the faster where
    `_well_served` says no (docs/performance.md has the figures)."""
    (n, c, h, w), k, p = grad.shape, layer.kernel, layer.kernel // 2
    if h == w == 1:  # one output pixel sees one window
        out = grad.new_zeros(c, 1, k, k)
        seen = x[:, :, : k - p, : k - p]
        out[:, 0, p : p + seen.shape[2], p : p + seen.shape[3]] = (seen * grad).sum(0)
        return out
    images = x.permute(2, 3, 0, 1).reshape(1, x.shape[2], x.shape[3], n * c).permute(0, 3, 1, 2)
    kernels = grad.permute(2, 3, 0, 1).reshape(h, w, n * c, 1).permute(2, 3, 0, 1)
    s = layer.stride
    taps = aten.convolution(images, kernels, None, (1, 1), (p, p), (s, s), False, (0, 0), n * c)[0, :, :k, :k]
    return taps.reshape(n, c, k, k).sum(0).unsqueeze(1)
