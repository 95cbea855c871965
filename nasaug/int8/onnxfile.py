"""ONNX: a folded net as a model file, with all that its user must know in the file's metadata.

`fold` leaves a dozen kinds of torch layers, each of which is one ONNX node, so the translation is a table. It takes
milliseconds, where torch.onnx takes seconds and needs onnxscript.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.fx import GraphModule, Node

from .. import __version__
from ..core.errors import BadInput, MissingExtra, RunFault
from ..core.files import read_bytes, to_json
from ..nets.fold import norm_as_conv

INPUT = "image"
OPSET, IR = 17, 8  # of 2022: a runtime needs neither to be new nor to know more than these layers
Attributes = dict[str, Any]


def need_onnx(purpose: str, *packages: str) -> None:
    """Raises MissingExtra, with pip's command, if onnx or one of the further `packages` is not installed."""
    from importlib.util import find_spec

    for package in ("onnx", *packages):
        if find_spec(package) is None:
            raise MissingExtra(package, "export", purpose)


def to_onnx(
    folded: GraphModule, resolution: int, outputs: int, output: str = "logits", *,
    facts: Mapping[str, Any] | None = None, norms_as_convs: bool = False,
) -> Any:  # fmt: skip
    """The ONNX model of `nasaug.fold`'s result: float32 `image` [batch, 3, resolution, resolution], any batch, to
    `output` [batch, outputs], or [batch, pixels, outputs] where the net has several maps as its outputs.

    Args:
        facts: the file's metadata, each value stored as JSON; `facts_of` reads them.
        norms_as_convs: write a norm that could not be folded as a 1x1 depthwise convolution, which can be quantised.
    """
    from onnx import TensorProto, checker, helper

    writing = _Writing(folded, norms_as_convs, outputs)
    for node in folded.graph.nodes:
        writing.node(node, output)
    image = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", 3, resolution, resolution])
    several = [node for node in folded.graph.nodes if node.target is torch.cat]
    shape: list[str | int | None] = ["batch", "pixels", outputs] if several else ["batch", outputs]
    out = helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)
    graph = helper.make_graph(writing.nodes, "nasaug", [image], [out], writing.tensors)
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(
        graph, opset_imports=[opset], ir_version=IR, producer_name="nasaug", producer_version=__version__
    )
    set_facts(model, facts or {})
    checker.check_model(model, full_check=True)
    return model


def set_facts(model: Any, facts: Mapping[str, Any]) -> None:
    """Store `facts` as the model's only metadata."""
    from onnx import helper

    helper.set_model_props(model, {key: to_json(value) for key, value in facts.items()})


def facts_of(model: Any) -> dict[str, Any]:
    """The facts stored by `to_onnx`; other metadata are left out."""
    facts = {}
    for prop in model.metadata_props:
        try:
            facts[prop.key] = json.loads(prop.value)
        except ValueError:
            continue
    return facts


def read(path: str | Path) -> Any:
    """The ONNX model in a file. Raises BadInput if it is none, or damaged."""
    need_onnx("reading an ONNX file")
    from google.protobuf.message import DecodeError
    from onnx import ModelProto, checker

    model = ModelProto()
    try:
        model.ParseFromString(read_bytes(path))
        checker.check_model(model)
    except (DecodeError, checker.ValidationError, UnicodeDecodeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "damaged"
        raise BadInput(f"{path} is no ONNX model, or a damaged one ({reason}); export it again") from None
    return model


class _Writing:
    """The ONNX nodes and tensors of a graph, collected node by node. Values are named as in the folded net."""

    def __init__(self, folded: GraphModule, norms_as_convs: bool, outputs: int):
        self.folded, self.norms_as_convs, self.outputs = folded, norms_as_convs, outputs
        self.nodes: list[Any] = []
        self.tensors: list[Any] = []
        self.names: dict[Node, str] = {}

    def node(self, node: Node, output: str) -> None:
        """Add one node of the graph."""
        if node.op == "placeholder":
            self.names[node] = INPUT
            return
        if node.op == "output":
            return
        last = node.next.op == "output"
        inputs = [self.names[x] for x in node.all_input_nodes]
        name = str(node.target) if node.op == "call_module" else node.name
        value = self.names[node] = output if last else name
        if node.op == "call_module":
            module = self.folded.get_submodule(name)
            write = _MODULES.get(type(module))
            if write is None:
                raise RunFault(f"{name} is a {type(module).__name__}, which this export does not know")
            kind, tensors, attributes = write(module, self.norms_as_convs)
            inputs += [self.tensor(f"{name}.{key}", t) for key, t in tensors]
        elif node.target is torch.flatten and len(node.args) > 2:  # the pixels of a map [batch, h, w, outputs]
            kind, attributes = "Reshape", {}
            inputs.append(self.tensor(f"{name}.shape", np.array([0, -1, self.outputs], np.int64)))
        elif node.target in _FUNCTIONS:
            kind, attributes = _FUNCTIONS[node.target]
        else:
            raise RunFault(f"{name} calls {node.target}, which this export does not know")
        from onnx import helper

        self.nodes.append(helper.make_node(kind, inputs, [value], name=name, **attributes))

    def tensor(self, name: str, value: torch.Tensor | np.ndarray | float) -> str:
        """Add a constant; returns its name."""
        from onnx import numpy_helper

        if isinstance(value, torch.Tensor):
            value = value.detach().cpu().float().numpy()
        array = value if isinstance(value, np.ndarray) else np.float32(value)
        self.tensors.append(numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name))
        return name


Written = tuple[str, list[tuple[str, Any]], Attributes]  # the node's kind, its constant inputs, its attributes


def _given(module: nn.Module, *names: str) -> Iterator[tuple[str, torch.Tensor]]:
    return ((name, t) for name in names if (t := getattr(module, name)) is not None)


def _window(module: Any) -> Attributes:
    """Kernel, strides and padding of a convolution or pooling layer, which are the same in both directions."""
    sizes = (module.kernel_size, module.stride, module.padding)
    kernel, stride, padding = (size if isinstance(size, tuple) else (size, size) for size in sizes)
    return {"kernel_shape": kernel, "strides": stride, "pads": padding * 2}


def _conv(conv: nn.Conv2d, _: bool) -> Written:
    return "Conv", list(_given(conv, "weight", "bias")), _window(conv) | {"group": conv.groups}


def _norm(norm: nn.BatchNorm2d, as_conv: bool) -> Written:
    if not as_conv:
        return "BatchNormalization", list(_given(norm, "weight", "bias", "running_mean", "running_var")), {
            "epsilon": norm.eps
        }
    tensors = list(zip(("weight", "bias"), norm_as_conv(norm), strict=True))
    return "Conv", tensors, {"kernel_shape": (1, 1), "group": norm.num_features}


_MODULES: dict[type[nn.Module], Callable[[Any, bool], Written]] = {
    nn.Conv2d: _conv,
    nn.BatchNorm2d: _norm,
    nn.Linear: lambda m, _: ("Gemm", list(_given(m, "weight", "bias")), {"transB": 1}),
    nn.ReLU: lambda m, _: ("Relu", [], {}),
    nn.ReLU6: lambda m, _: ("Clip", [("min", 0.0), ("max", 6.0)], {}),
    nn.Hardswish: lambda m, _: ("HardSwish", [], {}),
    nn.Hardsigmoid: lambda m, _: ("HardSigmoid", [], {"alpha": 1 / 6, "beta": 0.5}),
    nn.MaxPool2d: lambda m, _: ("MaxPool", [], _window(m)),
    nn.AdaptiveAvgPool2d: lambda m, _: ("GlobalAveragePool", [], {}),  # `fold` has it with an output of 1x1 only
}
_FUNCTIONS: dict[Any, tuple[str, Attributes]] = {
    operator.add: ("Add", {}),
    operator.mul: ("Mul", {}),
    torch.flatten: ("Flatten", {"axis": 1}),
    torch.permute: ("Transpose", {"perm": (0, 2, 3, 1)}),  # as `fold` joins maps
    torch.cat: ("Concat", {"axis": 1}),
}
