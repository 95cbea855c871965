"""Peak SRAM and flash of the plan, counted again on the exported int8 graph by a walk that knows nothing of plans."""

import math

import pytest
from onnx import numpy_helper, shape_inference

from nasaug.arch import archfile
from nasaug.arch.blocks import Spec
from nasaug.arch.cost import cost
from nasaug.arch.figures import Assumptions, figures, peaks
from support.exported import between, int8_model, ready

NETS = {"mcunet": 24, "resnet20-cifar": 16, "mobilenetv3-w0.35": 24}  # px
SMALL = {
    "residual": [Spec("b", "inverted", 4, 12, 3, 1, "relu6", 0, "identity")],
    "strided": [Spec("b", "inverted", 6, 20, 5, 2, "hswish")],
    "projection": [Spec("b", "basic", 8, 8, 3, 2, "relu", 0, "project")],
    "separable": [Spec("b", "separable", 5, 0, 3, 1, "relu")],
    "pool": [Spec("m", "maxpool", kernel=3, stride=2)],
}  # fmt: skip
ASSUMED = [Assumptions(*pair) for pair in ((False, False), (True, False), (False, True), (True, True))]


class Graph:
    """An int8 ONNX model as operations on int8 tensors: (node, its inputs, its output), in order.

    What `arch.cost` assumes to be part of a layer is none here: conversions, activations and flattening keep the tensor
    that they are given. An addition writes over one of its terms."""

    KEEPS = ("QuantizeLinear", "DequantizeLinear", "Relu", "Clip", "HardSwish", "HardSigmoid", "Flatten")

    def __init__(self, model):
        graph = shape_inference.infer_shapes(model).graph
        arrays = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
        ends = (*graph.value_info, *graph.input, *graph.output)
        self.sizes = {v.name: math.prod(d.dim_value or 1 for d in v.type.tensor_type.shape.dim) for v in ends}
        self.image, self.weights, self.ops = graph.input[0].name, 0, []
        first = {}  # each tensor by the name of the one that it keeps
        for node in graph.node:
            given = node.input[0]
            if node.op_type == "DequantizeLinear" and given in arrays:
                self.weights += arrays[given].nbytes
            elif node.op_type in self.KEEPS:
                first[node.output[0]] = first.get(given, given)
            else:
                inputs = [first.get(name, name) for name in node.input if name in first or name == self.image]
                self.ops.append((node, inputs, node.output[0]))

    def peak(self, assumed):
        """The most bytes of tensors that are needed at the same time."""
        last = {name: i for i, (_, inputs, _) in enumerate(self.ops) for name in inputs}
        uncounted = self.gates() | ({self.image} if assumed.without_image else set())
        live, most = {self.image}, 0
        for i, (node, inputs, out) in enumerate(self.ops):
            needed = {name: self.sizes[name] for name in live | {out}}
            groups = next((a.i for a in node.attribute if a.name == "group"), 1)
            if node.op_type == "Add":
                del needed[out]
            elif assumed.in_place and groups > 1 and last[inputs[0]] == i:
                needed[out] //= groups  # one channel
            most = max(most, sum(size for name, size in needed.items() if name not in uncounted))
            live = {name for name in (*live, out) if last.get(name, -1) > i}
        return most

    def gates(self):
        """The vectors of each squeeze-excite, from the pooling to the gate: a few hundred bytes."""
        makers, found = {out: inputs[0] for _, inputs, out in self.ops}, set()
        for node, inputs, _ in self.ops:
            if node.op_type == "Mul":
                source, name = sorted(inputs, key=self.sizes.get, reverse=True)
                while name != source:
                    found.add(name)
                    name = makers[name]
        return found


@pytest.fixture(scope="module", params=[*NETS, *SMALL])
def exported(request):
    """(plan, graph)."""
    name = request.param
    plan = archfile.read(name, resolution=NETS[name], classes=10).plan if name in NETS else between(*SMALL[name])
    return plan, Graph(int8_model(ready(plan)))


def test_the_graphs_weights_are_the_plans_flash(exported):
    plan, graph = exported
    assert graph.weights == cost(plan).flash


@pytest.mark.parametrize("assumed", ASSUMED, ids=["budget", "in place", "without image", "both"])
def test_the_graphs_live_tensors_are_the_plans_peak(exported, assumed):
    plan, graph = exported
    assert graph.peak(assumed) == peaks(figures(plan, assumed))[0].cost.peak
    if assumed == ASSUMED[0]:
        assert graph.peak(assumed) == cost(plan).peak


def test_each_assumption_matters():
    """A residual block at 8 px: the stem's map has 256 B, the inner one 768 B, its channel 64 B, the image 192 B."""
    plan = between(*SMALL["residual"])
    counted = [peaks(figures(plan, assumed))[0] for assumed in ASSUMED[:2]]
    named = [(row.layer.name, row.cost.peak) for row in counted]
    assert named == [("b.dw", 768 * 2 + 256), ("b.project", 768 + 2 * 256)]
    pixels = figures(between(Spec("b", "conv", 1, kernel=3), size=16), Assumptions(without_image=True))
    assert (pixels[0].memory.input, pixels[0].cost.peak) == (0, 4 * 16 * 16)
