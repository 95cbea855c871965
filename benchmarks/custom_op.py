"""Overhead of registering a fused operation with torch: `torch.library.custom_op` against `autograd.Function`.

    python benchmarks/custom_op.py [rounds]

The operation is nasaug's norm with activation in C, forward and backward; both variants call the same C code. The
registered one has a fake and an autograd formula and is checked by `torch.library.opcheck`. One thread."""

from __future__ import annotations

import sys

import torch
from timing import alternate
from torch import Tensor

from nasaug.arch.blocks import Layer
from nasaug.kernels import native

EPS, CHANNELS = 1e-5, 48
LAYER = Layer("it", "conv", CHANNELS, CHANNELS, 1, 1, act="relu6")


@torch.library.custom_op("nasaug_bench::norm_act", mutates_args=())
def norm_act(y: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    out, mean, rstd = native.norm_act(y, LAYER, scale, shift, (None, None, 0.0), EPS)
    return out, mean.clone(), rstd.clone()  # views of one tensor, which a registered operation must not return


@norm_act.register_fake
def _(y: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(y), y.new_empty(y.shape[1]), y.new_empty(y.shape[1])


@torch.library.custom_op("nasaug_bench::norm_act_back", mutates_args=())
def norm_act_back(
    grad: Tensor, y: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, rstd: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    to = torch.zeros_like(scale), torch.zeros_like(shift)
    return native.norm_act_back(grad, y, LAYER, scale, shift, mean, rstd, to), *to


@norm_act_back.register_fake
def _(grad, y, scale, shift, mean, rstd):
    return torch.empty_like(y), torch.empty_like(scale), torch.empty_like(shift)


def _keep(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs, *output[1:])


def _back(ctx, grad, *_):
    return norm_act_back(grad.contiguous(memory_format=torch.channels_last), *ctx.saved_tensors)


norm_act.register_autograd(_back, setup_context=_keep)


class Plain(torch.autograd.Function):
    @staticmethod
    def forward(ctx, y, scale, shift):
        out, mean, rstd = native.norm_act(y, LAYER, scale, shift, (None, None, 0.0), EPS)
        ctx.save_for_backward(y, scale, shift, mean, rstd)
        return out

    @staticmethod
    def backward(ctx, grad):
        y, scale, shift, mean, rstd = ctx.saved_tensors
        to = torch.zeros_like(scale), torch.zeros_like(shift)
        return native.norm_act_back(grad, y, LAYER, scale, shift, mean, rstd, to), *to


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    torch.set_num_threads(1)
    y = torch.randn(16, CHANNELS, 2, 2).contiguous(memory_format=torch.channels_last).requires_grad_()
    scale, shift = torch.ones(CHANNELS, requires_grad=True), torch.zeros(CHANNELS, requires_grad=True)
    print(torch.library.opcheck(norm_act, (y, scale, shift)))
    grad = torch.randn(y.shape).contiguous(memory_format=torch.channels_last)
    jobs = {
        "autograd.Function": lambda: Plain.apply(y, scale, shift).backward(grad),
        "custom_op": lambda: norm_act(y, scale, shift)[0].backward(grad),
    }
    times = alternate(jobs, rounds, 300)
    least = {name: 1e6 * min(seconds) for name, seconds in times.items()}
    for name, microseconds in least.items():
        print(f"{name:20s}{microseconds:8.1f} us, forward and back")
    print(f"registered, an operation costs {least['custom_op'] - least['autograd.Function']:.0f} us more")


if __name__ == "__main__":
    main()
