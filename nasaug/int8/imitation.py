"""Training in int8: a net whose forward pass imitates its int8 ONNX model (quantisation-aware training).

The imitation is built from an int8 model that `to_int8` made, so that both store the same tensors with the same scales.
Weights, biases and activations are rounded to the values that the integers stand for; gradients pass the rounding
unchanged (Jacob et al., CVPR 2018, section 3). A weight's scale follows from the weights by the rule of `limits`; an
activation's is learned (LSQ, Esser et al., ICLR 2020), its zero point stays.

torchao's PT2E could do this too, but its ready quantisers know neither that rule nor which tensors ONNX Runtime stores,
and a quantiser of one's own is longer than this module.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.fx import GraphModule, Node

from ..arch.blocks import Layer
from ..arch.plan import Plan, end_of
from ..kernels.fused import convolve
from ..nets.fold import fold, folded_weights, place_in
from ..nets.net import Net
from . import onnxfile
from .quantize import LARGEST, Scale, limits, scales_of, stored_as, to_int8

LEVELS = 255  # of an activation
OUTPUT = "output"  # of the models that are made here
MERGED = (nn.ReLU, nn.ReLU6)  # with the layer before them


class Imitation(Net):
    """A net in int8, with the parameters and running statistics of a float one, and the scale of each activation.

    Statistics are constants, folded into the weights: `calibrate` leaves them as they are. It has its own plan only."""

    def __init__(self, net: Net, batches: Iterable[Tensor]):
        """`batches`: normalised images that the activations' scales begin with."""
        super().__init__(net.plan, None)
        self.load_state_dict(net.state_dict())
        model = int8_model(net, (x.cpu().numpy() for x in batches))
        scales = scales_of(model)
        self.names = tuple(scales)
        self.int8_scales = nn.Parameter(torch.tensor([each.scale for each in scales.values()]))
        self.register_buffer("int8_least", self.int8_scales.detach() / 8)
        self.register_buffer("int8_zeros", torch.tensor([each.zero for each in scales.values()], dtype=torch.int32))
        # in a list, so that its tensors are not the net's: they are only places for those of `_rounded`
        self._folded = [_imitating(fold(net), net.plan, stored_as(model), self.names)]
        self.to(next(net.parameters()).device)

    def forward(self, x: Tensor, plan: Plan | None = None, noise: Any = None) -> Tensor:
        if plan is not None and plan != self.plan:
            raise RuntimeError("a net in int8 has no slices")
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(x.device.type, enabled=False):
            return functional_call(self._folded[0], dict(self._rounded()), (x.float(),))

    def _rounded(self) -> Iterator[tuple[str, Tensor]]:
        """The tensors of the folded net in the values that int8 has, the biases in those of the sums."""
        folded = self._folded[0]
        given = folded_weights(self, folded)
        scales = self._scales().unbind()
        for node in folded.graph.nodes:
            if node.op != "call_module":
                continue
            module = folded.get_submodule(node.target)
            if isinstance(module, Stored):
                yield f"{node.target}.scale", scales[module.number]
                yield f"{node.target}.zero", self.int8_zeros[module.number]
            elif f"{node.target}.weight" in given:
                weight = given[f"{node.target}.weight"]
                step = limits(weight) / LARGEST
                yield f"{node.target}.weight", _to_steps(weight, step.view(-1, *[1] * (weight.dim() - 1)))
                if (bias := given.get(f"{node.target}.bias")) is not None:
                    yield f"{node.target}.bias", _to_steps(bias, step * scales[_number(folded, node)].detach())

    def _scales(self) -> Tensor:
        """[activations]; a large step of the optimiser takes none below an eighth of what it began with."""
        return torch.maximum(self.int8_scales, self.int8_least)

    def narrow(self, plan: Plan) -> Imitation:
        """A copy; there are no slices."""
        if plan != self.plan:
            raise ValueError("a net in int8 has no slices")
        return copy.deepcopy(self)

    def calibrate(self, batches: Iterable[Tensor], gathered: Any = None) -> Imitation:
        return self

    def plain(self) -> Net:
        """The float net with the same parameters and statistics, in evaluation mode."""
        net = Net(self.plan, None).to(**self._kind())
        state = self.state_dict()
        net.load_state_dict({name: state[name] for name in net.state_dict()})
        return net.eval()

    def table(self) -> dict[str, Scale]:
        """The scale of each activation by name, for `int8_model`."""
        pairs = zip(self._scales().tolist(), self.int8_zeros.tolist(), strict=True)
        return {name: Scale(*pair) for name, pair in zip(self.names, pairs, strict=True)}


def int8_model(net: Net, batches: Iterable[np.ndarray] = (), scales: dict[str, Scale] | None = None) -> Any:
    """The int8 ONNX model of a float net, calibrated on batches, or with the scales that training found."""
    px, outputs = net.plan.resolution, end_of(net.plan.classes).outputs
    model = onnxfile.to_onnx(fold(net), px, outputs, OUTPUT, norms_as_convs=True)
    return to_int8(model, batches if scales is None else any_batch(px), scales)


def any_batch(resolution: int) -> list[np.ndarray]:
    """A batch for `to_int8` where the scales are known."""
    return [np.zeros((1, 3, resolution, resolution), np.float32)]


class Affine(nn.Module):
    """A norm as a 1x1 depthwise convolution: weight [channels, 1, 1, 1] and bias [channels] come from `_rounded`."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(()))
        self.register_buffer("bias", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight.view(-1, 1, 1) + self.bias.view(-1, 1, 1)


class Convolution(nn.Module):
    """A convolution by nasaug's own function, because torch's corrupts memory in some cases (see there)."""

    def __init__(self, layer: Layer, bias: bool):
        super().__init__()
        self.layer = layer
        self.register_buffer("weight", torch.ones(()))
        self.register_buffer("bias", torch.zeros(()) if bias else None)

    def forward(self, x: Tensor) -> Tensor:
        return convolve(x, self.weight, self.bias, self.layer)


class Stored(nn.Module):
    """Where the folded net stores an activation, with the scale of that number among the net's."""

    def __init__(self, number: int):
        super().__init__()
        self.number = number
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("zero", torch.zeros((), dtype=torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        return _Store.apply(x, self.scale, self.zero)


class _Store(torch.autograd.Function):
    """x in the values that uint8 has. The gradient of the scale is LSQ's, scaled by 1 / sqrt(features x levels)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
        out = torch.fake_quantize_per_tensor_affine(x, scale.detach(), zero, 0, LEVELS)
        ctx.save_for_backward(x, out, scale, zero)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        x, out, scale, zero = ctx.saved_tensors
        (grad,) = grads
        # half a step beyond the ends still rounds to them
        inside = (x >= (-0.5 - zero) * scale) & (x <= (LEVELS + 0.5 - zero) * scale)
        passed = grad * inside
        of_scale = ((grad * out).sum() - (passed * x).sum()) / scale
        return passed, of_scale / math.sqrt(x[0].numel() * LEVELS), None


def _to_steps(x: Tensor, step: Tensor) -> Tensor:
    """x in whole steps; the gradient passes unchanged. Beyond 2^24 steps, as of the bias of a channel whose weights are
    zero, float32 has no finer values than these."""
    steps = x / step
    return x + (torch.where(steps.abs() < 2**24, steps.round() * step, x) - x).detach()


def _imitating(
    folded: GraphModule, plan: Plan, stored: dict[str, str], names: tuple[str, ...]
) -> GraphModule:
    """The folded net with a `Stored` after each tensor that the int8 model stores, without the activations that it
    merges, and with norms as convolutions. `stored` has the scale's name for each tensor."""
    graph, layers = folded.graph, {place_in(folded, layer.name): layer for layer in plan.layers}
    for node in list(graph.nodes):
        if node.op == "output":
            continue
        module = folded.get_submodule(str(node.target)) if node.op == "call_module" else None
        if isinstance(module, MERGED) and _name(node.all_input_nodes[0]) not in stored:
            number, source = names.index(stored[_name(node)]), node.all_input_nodes[0]
            node.replace_all_uses_with(source)
            graph.erase_node(node)
            _store(folded, source, str(node.target), number)
            continue
        if isinstance(module, nn.Conv2d) and node.target in layers:  # not one of squeeze-excite's
            convolution = Convolution(layers[str(node.target)], module.bias is not None)
            folded.add_submodule(str(node.target), convolution)
        if isinstance(module, nn.BatchNorm2d):
            folded.add_submodule(str(node.target), Affine())
        if _name(node) in stored:
            _store(folded, node, _name(node), names.index(stored[_name(node)]))
    folded.recompile()
    return folded


def _name(node: Node) -> str:
    """A tensor's name in the models that are made here, as `to_onnx` gives it."""
    if node.op == "placeholder":
        return onnxfile.INPUT
    if any(user.op == "output" for user in node.users):
        return OUTPUT
    return str(node.target) if node.op == "call_module" else node.name


def _store(folded: GraphModule, source: Node, name: str, number: int) -> None:
    place = f"{name.replace('.', '_')}_stored"
    folded.add_submodule(place, Stored(number))
    with folded.graph.inserting_after(source):
        stored = folded.graph.call_module(place, (source,))
    source.replace_all_uses_with(stored, lambda user: user is not stored)


def _number(folded: GraphModule, node: Node) -> int:
    """The number of the scale that a layer's input is stored with."""
    module: Any = folded.get_submodule(str(node.all_input_nodes[0].target))
    return module.number
