"""Slices of parameters, and a training step's operations in as few passes and graph nodes as torch allows.

Steps of tiny networks are bound by overhead, not by arithmetic, so a convolution, its norm and its activation are one
node here. Parameter gradients are returned to autograd as usual, so hooks and `torch.autograd.grad` work; within
`summed_in_place` they are accumulated directly into `.grad` instead.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from ..arch.blocks import Block, Layer
from . import native
from .choice import select_gradient, select_norm

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


# --- where gradients go ---------------------------------------------------------------------------------------

_in_place: frozenset[int] = frozenset()  # ids of the parameters of `summed_in_place`


@contextlib.contextmanager
def summed_in_place(parameters: Iterable[Tensor]) -> Iterator[None]:
    """Within the block, `backward` accumulates the gradients of these parameters directly into `.grad`, bypassing
    autograd, which would need a full-size copy of each slice's gradient. Run nothing but `backward` in it.

    Gradients of parameters with hooks still go through autograd."""
    global _in_place
    before, _in_place = _in_place, frozenset(map(id, parameters))
    try:
        yield
    finally:
        _in_place = before


def _is_in_place(parameter: Tensor) -> bool:
    return (
        id(parameter) in _in_place and parameter.requires_grad
        and not parameter._backward_hooks and not parameter._post_accumulate_grad_hooks
    )  # fmt: skip


def _place_of(parameter: Tensor) -> Tensor:
    """The buffer for a whole parameter's gradient: its `.grad`, or zeros that will be returned to autograd."""
    if not _is_in_place(parameter):
        return torch.zeros_like(parameter)
    if parameter.grad is None:  # set to None since the forward pass
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


def _handed_on(parameters: Sequence[Tensor], places: Sequence[Tensor]) -> list[Tensor | None]:
    """The gradients that a node's backward returns for its parameters: None for those accumulated in place."""
    return [None if place is p.grad else place for p, place in zip(parameters, places, strict=True)]


class _Window(torch.autograd.Function):
    """A slice of a parameter. Its gradient is added to the same slice of the parameter's, without a full-size copy."""

    @staticmethod
    def forward(ctx, parameter: Tensor, shape: tuple[int, ...]) -> Tensor:
        ctx.parameter = parameter
        return window(parameter.detach(), shape)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, None]:
        place = _place_of(ctx.parameter)
        window(place, grad.shape).add_(grad)
        return *_handed_on([ctx.parameter], [place]), None


def part(parameter: Tensor, shape: tuple[int, ...]) -> Tensor:
    """`window` of a parameter. Its gradient can be `summed_in_place` if the parameter has a gradient buffer."""
    if tuple(parameter.shape) == shape:
        return parameter
    if parameter.grad is None or not torch.is_grad_enabled():
        return window(parameter, shape)
    return _Window.apply(parameter, shape)


class _Clip(torch.autograd.Function):
    """In-place ReLU (`top` infinite) or ReLU6; torch's in-place versions make an additional copy of the tensor."""

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
    """Convolution in channels-last. 1x1 convolutions are matrix products, on a subset of the pixels if strided.

    This is not only for speed: in the weight gradient of strided 1x1 convolutions with fewer than 8 input channels,
    oneDNN 3.12 on AVX2 writes out of bounds or returns wrong results (uxlfoundation/oneDNN#6035;
    docs/explanation/performance.md)."""
    if pointwise(layer):
        return F.linear(pixels_read(x, layer).permute(0, 2, 3, 1), weight[:, :, 0, 0], bias).permute(0, 3, 1, 2)
    return F.conv2d(x, weight, bias, layer.stride, layer.kernel // 2, 1, layer.groups)


def pointwise(layer: Layer) -> bool:
    """Whether a convolution is a single matrix product on the (pixels x channels) view."""
    return layer.kernel == 1 and layer.groups == 1


def pixels_read(x: Tensor, layer: Layer) -> Tensor:
    """The pixels [N, C, H', W'] of x that a 1x1 convolution reads."""
    return x if layer.stride == 1 else x[:, :, :: layer.stride, :: layer.stride]


def folded_conv(
    x: Tensor, layer: Layer, weight: Tensor, scale: Tensor, shift: Tensor, running: tuple, eps: float
) -> Tensor:
    """A convolution with its norm folded in, and its activation. `running` is (mean, variance, _)."""
    mean, var, _ = running
    factor = scale * torch.rsqrt(var + eps)
    return ACTIVATIONS[layer.act](convolve(x, weight * factor.view(-1, 1, 1, 1), shift - mean * factor, layer))


# --- convolution, norm and activation as one node ------------------------------------------------------------


def conv_norm_act(x: Tensor, layer: Layer, conv: Tensor, scale: Tensor, shift: Tensor, running, eps: float) -> Tensor:
    """`convolve`, batch norm with batch statistics, and the activation, using leading slices of the parameters.

    `conv`, `scale` and `shift` are the whole parameters. `running` is (mean, variance, momentum), updated in place, or
    (None, None, 0.0)."""
    return _ConvNormAct.apply(x, conv, scale, shift, layer, running, eps)


class _ConvNormAct(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, conv, scale, shift, layer: Layer, running, eps: float):
        c, ctx.size = layer.out, x.shape
        weight = window(conv.detach(), (c, layer.cin // layer.groups, layer.kernel, layer.kernel))
        small, move = scale.detach()[:c], shift.detach()[:c]
        if pointwise(layer):
            x = pixels_read(x, layer).contiguous(memory_format=torch.channels_last)
            n, cin, h, w = x.shape
            y = torch.mm(_rows(x), weight.view(c, cin).t()).view(n, h, w, c).permute(0, 3, 1, 2)
        else:
            x = x.contiguous(memory_format=torch.channels_last)
            y = aten.convolution(x, weight, None, *geometry(layer))
        if y.numel() == c:
            raise ValueError(f"{layer.name}: a batch norm in training needs more than one value per channel")
        kept, ctx.compiled = None, select_norm(x, y, conv)  # both: under autocast, x and y differ in dtype
        if ctx.compiled:
            y = y.contiguous(memory_format=torch.channels_last)
            out, center, spread = native.norm_act(y, layer, small, move, running, eps)
        else:
            out, kept, center, spread = torch_norm_act(y, layer, small, move, running, eps)
        ctx.save_for_backward(x, y, kept, weight, small, move, center, spread)
        ctx.parameters, ctx.layer, ctx.eps = (conv, scale, shift), layer, eps
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, y, kept, weight, small, move, center, spread = ctx.saved_tensors
        layer, places = ctx.layer, [_place_of(p) for p in ctx.parameters]
        c, wanted = layer.out, ctx.needs_input_grad[0]
        grad = grad.contiguous(memory_format=torch.channels_last)
        to = places[1][:c], places[2][:c]
        if ctx.compiled:
            grad = native.norm_act_back(grad, y, layer, small, move, center, spread, to)
        else:
            grad = torch_norm_act_back(grad, y, kept, layer, small, center, spread, ctx.eps, to)
        place = window(places[0], weight.shape)
        if pointwise(layer):
            back = _pointwise_back(grad, x, weight, ctx.size, layer) if wanted else None
            place.select(3, 0).select(2, 0).addmm_(_rows(grad).t(), _rows(x))
        else:
            back = _conv_back(grad, x, weight, place, layer, wanted)
        return back, *_handed_on(ctx.parameters, places), None, None, None


def _pointwise_back(grad: Tensor, x: Tensor, weight: Tensor, size, layer: Layer) -> Tensor:
    """The gradient of a 1x1 convolution's input, of shape `size`: zero except at the pixels x that it read."""
    back = torch.mm(_rows(grad), weight.view(layer.out, -1)).view(*_last(x)).permute(0, 3, 1, 2)
    if layer.stride == 1:
        return back
    whole = torch.zeros(size, dtype=back.dtype).contiguous(memory_format=torch.channels_last)
    pixels_read(whole, layer).copy_(back)
    return whole


def _conv_back(grad: Tensor, x: Tensor, weight: Tensor, place: Tensor, layer: Layer, wanted: bool) -> Tensor | None:
    """The gradient of a convolution's input if `wanted`, else None. The weight's gradient is added to `place`."""
    how = select_gradient(x, grad, layer)
    if how == "compiled":
        return native.depthwise_back(grad, x, weight, layer, place, wanted)
    asked = wanted, how == "torch", False
    back, for_weight, _ = aten.convolution_backward(grad, x, weight, None, *geometry(layer), asked)
    place.add_(for_weight if how == "torch" else depthwise_gradient(grad, x, layer))
    return back


def torch_norm_act(y, layer: Layer, scale, shift, running, eps: float) -> tuple[Tensor, ...]:
    """`native.norm_act` in torch: (output, input of the activation if needed, mean, 1 / standard deviation)."""
    mean, var, momentum = running
    kept, center, spread = aten.native_batch_norm(y, scale, shift, mean, var, True, momentum, eps)
    if layer.act in TOPS:
        return kept.clamp_(0.0, TOPS[layer.act]), kept, center, spread
    return (F.hardswish(kept), kept, center, spread) if layer.act else (kept, None, center, spread)


def torch_norm_act_back(grad, y, kept, layer: Layer, scale, mean, rstd, eps: float, to: tuple) -> Tensor:
    """`native.norm_act_back` in torch."""
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


# --- whole blocks as one node ---------------------------------------------------------------------------------


def inverted(x: Tensor, blocks: Sequence[Block], convs: Sequence[Sequence[native.Parameters]], eps: float) -> Tensor:
    """Depthwise-separable blocks, one after another, with batch statistics as one node, equivalent to their layers; see
    `choice.select`."""
    return _Inverted.apply(x, blocks, convs, eps, *(p for rows in convs for conv in rows for p in conv[:3]))


def inverted_eval(x: Tensor, block: Block, convs: Sequence[native.Parameters], eps: float) -> Tensor:
    """One of them with the running statistics, without gradients."""
    return native.inverted_eval(x.contiguous(memory_format=torch.channels_last), block, convs, eps)


class _Inverted(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, blocks: Sequence[Block], convs: Sequence[Sequence[native.Parameters]], eps: float, *_):
        out, kept = native.inverted(x.contiguous(memory_format=torch.channels_last), blocks, convs, eps)
        ctx.save_for_backward(kept.x, kept.statistics, *kept.maps)
        ctx.links, ctx.parameters = kept.links, [p for rows in convs for conv in rows for p in conv[:3]]
        ctx.versions = [p._version for p in ctx.parameters]
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        # autograd checks versions of saved tensors, but C reads the parameters themselves, which are not saved
        if [p._version for p in ctx.parameters] != ctx.versions:
            raise RuntimeError(
                "a parameter needed for gradient computation has been modified by an inplace operation since the "
                "forward pass; run backward first, or the forward pass again"
            )
        grad = grad.contiguous(memory_format=torch.channels_last)
        x, statistics, *maps = ctx.saved_tensors
        places = [_place_of(p) for p in ctx.parameters]
        into = [places[i : i + 3] for i in range(0, len(places), 3)]
        back = native.inverted_back(grad, native.Kept(ctx.links, x, statistics, maps), into, ctx.needs_input_grad[0])
        return back, None, None, None, *_handed_on(ctx.parameters, places)


def _last(x: Tensor) -> tuple[int, int, int, int]:
    n, c, h, w = x.shape
    return n, h, w, c


def _rows(x: Tensor) -> Tensor:
    """[N, C, H, W] in channels-last as [pixels, C], without a copy."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def geometry(layer: Layer) -> tuple:
    """(stride, padding, dilation, transposed, output padding, groups), the arguments of torch's convolution."""
    s, p = layer.stride, layer.kernel // 2
    return (s, s), (p, p), (1, 1), False, (0, 0), layer.groups


# --- gradients of depthwise weights --------------------------------------------------------------------------


def depthwise_gradient(grad: Tensor, x: Tensor, layer: Layer) -> Tensor:
    """The gradient of a depthwise convolution's weights, [C, 1, k, k], for few pixels or large kernels.

    Tap (i, j) of a channel is the sum over images of x, shifted by (i, j), times grad. This is a convolution of x with
    grad as its kernel, with one group per image and channel, dilated by the stride. It is usually faster where
    `choice.select_gradient` selects it (figures in docs/explanation/performance.md)."""
    (n, c, h, w), k, p = grad.shape, layer.kernel, layer.kernel // 2
    if h == w == 1:  # a single output pixel has a single input window
        out = grad.new_zeros(c, 1, k, k)
        seen = x[:, :, : k - p, : k - p]
        out[:, 0, p : p + seen.shape[2], p : p + seen.shape[3]] = (seen * grad).sum(0)
        return out
    images = x.permute(2, 3, 0, 1).reshape(1, x.shape[2], x.shape[3], n * c).permute(0, 3, 1, 2)
    kernels = grad.permute(2, 3, 0, 1).reshape(h, w, n * c, 1).permute(2, 3, 0, 1)
    s = layer.stride
    taps = aten.convolution(images, kernels, None, (1, 1), (p, p), (s, s), False, (0, 0), n * c)[0, :, :k, :k]
    return taps.reshape(n, c, k, k).sum(0).unsqueeze(1)
