"""Fold an evaluated Net into torch's own layers, independent of nasaug, for deployment, quantisation or inspection.

Independent of training and slices.
"""

from __future__ import annotations

import operator
from keyword import iskeyword
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node

from ..arch.blocks import Block, Layer
from ..core.errors import BadInput
from .layers import Conv, Norm, SqueezeExcite
from .net import Net

M = TypeVar("M", bound=nn.Module)
ACTIVATIONS = {"relu": nn.ReLU, "relu6": nn.ReLU6, "hswish": nn.Hardswish}


@torch.no_grad()
def fold(net: Net) -> GraphModule:
    """The evaluated net in torch's own layers, in evaluation mode: images [N, 3, H, W] to logits [N, classes], or to
    what else the net gives (`Net`).

    A norm after a convolution is folded into its weights and bias (Jacob et al., CVPR 2018, section 3.2). A norm before
    one (pre-activation) stays a BatchNorm2d, as nasaug.arch.cost counts it. Each folded norm's two parameters per
    channel become one bias.

    Layers are named as in the plan (`s3.b2.dw`); `NAME_act` is the activation of NAME, `NAME_norm` the norm before it.
    `torch.export` and `torch.fx` can trace the result, `torch.save` saves it whole, and `.code` is its forward pass.
    Weights are copies with the net's dtype and device. Outputs differ by rounding only: 1e-14 of the largest logit in
    float64, and in float32 about 1e-6 in trained nets, which is the net's own rounding error. Raises BadInput if the
    norms' running statistics are not set."""
    if not net.has_statistics:
        raise BadInput(
            "fold(net): the statistics of the net's norms are not set, and folding needs them; call "
            "net.calibrate(batches) first, or load a net that was trained"
        )
    folding = _Folding(net)
    outputs = [folding.graph.placeholder("x")]  # of the image, then of each block
    for block, source in zip(net.plan.blocks, net.plan.sources, strict=True):
        outputs.append(folding.block(block, outputs[source + 1]))
    folding.graph.output(folding.joined([outputs[i + 1] for i in net.plan.ends]))
    folding.whole.recompile()
    return folding.whole.eval()


class _Folding:
    """Builds the graph of a net layer by layer, and owns the modules that it calls."""

    def __init__(self, net: Net):
        self.net, self.whole = net, GraphModule(nn.Module(), Graph())
        self.graph = self.whole.graph

    def call(self, name: str, module: nn.Module, x: Node) -> Node:
        """Add `module` under this name and return its output on x."""
        place = place_in(self.whole, name)
        self.whole.add_submodule(place, module)
        return self.graph.call_module(place, (x,))

    def act(self, name: str, act: str, x: Node) -> Node:
        name += "_act"
        while name in self.net.plan.by_name:  # a stage may have that name
            name += "_"
        return self.call(name, ACTIVATIONS[act](), x) if act else x

    def joined(self, outputs: list[Node]) -> Node:
        """`nasaug.nets.net.joined`."""
        if len(outputs) == 1:
            return outputs[0]
        turned = (self.graph.call_function(torch.permute, (x, (0, 2, 3, 1))) for x in outputs)
        rows = [self.graph.call_function(torch.flatten, (x, 1, 2)) for x in turned]
        return self.graph.call_function(torch.cat, (rows, 1))

    def block(self, block: Block, x: Node) -> Node:
        source = x
        for i, layer in enumerate(block.layers):
            if layer.pre:
                norm = _plain_norm(self.module(layer).norm)
                x = self.act(layer.name, layer.act, self.call(f"{layer.name}_norm", norm, x))
                if i == 0 and block.project:
                    source = x  # as in Net: a pre-activation projection reads the activated input
            x = self.layer(layer, x)
            if not layer.pre:
                x = self.act(layer.name, layer.act, x)
        if block.project:
            source = self.layer(block.project, source)
        if block.shortcut != "none":
            x = self.graph.call_function(operator.add, (x, source))
        return self.act(block.name, block.act, x)

    def module(self, layer: Layer) -> Any:
        """The net's module for a layer: Conv, Linear, SqueezeExcite, NormAct or one without weights."""
        return self.net.get_submodule(layer.name)

    def layer(self, layer: Layer, x: Node) -> Node:
        """A layer without its activation and without a preceding norm."""
        name, module, plain = layer.name, self.module(layer), nn.Module()
        if layer.op == "se":
            return self.squeeze_excite(name, module, x)
        if layer.op == "conv":
            plain = _plain_conv(module, layer)
        elif layer.op == "linear":
            x = self.graph.call_function(torch.flatten, (x, 1))
            plain = _filled(nn.Linear(layer.cin, layer.out, device="meta"), module.weight, module.bias)
        elif layer.op == "norm":
            plain = _plain_norm(module.norm)
        elif layer.op == "maxpool":
            plain = nn.MaxPool2d(layer.kernel, layer.stride, layer.kernel // 2)
        else:
            plain = nn.AdaptiveAvgPool2d(1)
        return self.call(name, plain, x)

    def squeeze_excite(self, name: str, module: SqueezeExcite, x: Node) -> Node:
        """Its linear layers become 1x1 convolutions, so that no reshaping is needed."""
        y = self.call(f"{name}.pool", nn.AdaptiveAvgPool2d(1), x)
        y = self.call(f"{name}.reduce", _as_conv(module.reduce), y)
        y = self.call(f"{name}.act", nn.ReLU(), y)
        y = self.call(f"{name}.expand", _as_conv(module.expand), y)
        y = self.call(f"{name}.gate", nn.Hardsigmoid(), y)
        return self.graph.call_function(operator.mul, (x, y))


def folded_weights(net: Net, folded: GraphModule) -> dict[str, Tensor]:
    """The weights and biases of `folded = fold(net)` by name, as functions of the net's parameters: gradients reach
    these, while running statistics are constants. A norm that `fold` keeps is given as the weight [channels, 1, 1, 1]
    and bias of a depthwise convolution."""
    found: dict[str, Tensor] = {}

    def add(name: str, weight: Tensor, bias: Tensor | None) -> None:
        place = place_in(folded, name)
        found[f"{place}.weight"] = weight
        if bias is not None:
            found[f"{place}.bias"] = bias

    for layer in net.plan.layers:
        name = layer.name
        module: Any = net.get_submodule(name)
        if layer.op == "se":
            add(f"{name}.reduce", module.reduce.weight[:, :, None, None], module.reduce.bias)
            add(f"{name}.expand", module.expand.weight[:, :, None, None], module.expand.bias)
        elif layer.op == "linear":
            add(name, module.weight, module.bias)
        elif layer.op == "conv":
            if layer.pre:
                add(f"{name}_norm", *norm_as_conv(module.norm))
            add(name, *_folded(module, layer))
        elif layer.op == "norm":
            add(name, *norm_as_conv(module.norm))
    return found


def norm_as_conv(norm: Any) -> tuple[Tensor, Tensor]:
    """The weight [channels, 1, 1, 1] and bias of the depthwise convolution that an evaluated norm is."""
    factor = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    return factor[:, None, None, None], norm.bias - norm.running_mean * factor


def place_in(whole: GraphModule, name: str) -> str:
    """Where a layer lies in a folded net: its name, unless that clashes with a keyword of Python or an attribute of
    torch, such as `global` or `graph`."""
    top, *rest = name.split(".")
    if iskeyword(top) or (hasattr(whole, top) and top not in whole._modules):
        top += "_"
    return ".".join((top, *rest))


def _folded(conv: Conv, layer: Layer) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of a convolution with the norm after it, if any, folded in."""
    if conv.norm is None or layer.pre:
        return conv.weight, conv.bias
    factor, bias = norm_as_conv(conv.norm)  # in the net's dtype, as its evaluation does: identical bitwise
    return conv.weight * factor, bias


def _plain_conv(conv: Conv, layer: Layer) -> nn.Conv2d:
    """The convolution with the norm after it, if any, folded in."""
    weight, bias = _folded(conv, layer)
    plain = nn.Conv2d(
        layer.cin, layer.out, layer.kernel, layer.stride, layer.kernel // 2, groups=layer.groups,
        bias=bias is not None, device="meta",
    )  # fmt: skip
    return _filled(plain, weight, bias)


def _as_conv(linear: nn.Linear) -> nn.Conv2d:
    plain = nn.Conv2d(linear.in_features, linear.out_features, 1, device="meta")
    return _filled(plain, linear.weight[:, :, None, None], linear.bias)


def _plain_norm(norm: Norm) -> nn.BatchNorm2d:
    plain = nn.BatchNorm2d(norm.num_features, norm.eps, norm.momentum, device="meta")
    return _filled(plain, norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.num_batches_tracked)


def _filled(module: M, *tensors: Tensor | None) -> M:
    """Load copies of the tensors, in state_dict order, into a module made on the meta device (no random draws)."""
    copies = [t.clone(memory_format=torch.contiguous_format) for t in tensors if t is not None]
    module.load_state_dict(dict(zip(module.state_dict(), copies, strict=True)), assign=True)
    return module
