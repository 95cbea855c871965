"""Counting a built network's MACs with thop and with torch, for comparison with the cost model."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ..arch.cost import cost, costs_by_layer
from ..arch.plan import Plan
from ..core.errors import RunFault, told_by
from .layers import LAYERS, Norm
from .net import Net

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # thop imports distutils
    import thop
    from thop.vision.basic_hooks import count_adap_avgpool, count_convNd, count_linear, count_normalization, zero_ops

ALL = "the whole"


class Row(NamedTuple):
    """MACs of convolutions and linear layers, of one layer or of the whole network, by each of the three counters."""

    name: str
    op: str
    cost: int
    thop: int
    torch: int

    @property
    def agrees(self) -> bool:
        return self.cost == self.thop == self.torch


class Counts(NamedTuple):
    """A row for each layer and for the total, thop's further counts (by kind), and torch's FLOPs."""

    rows: list[Row]
    total: Row
    beside: Counter
    flops: int

    @property
    def wrong(self) -> list[Row]:
        """The rows that disagree. If all layers agree but the total does not, something outside the layers was counted:
        then the total.
        """
        return [row for row in self.rows if not row.agrees] or [row for row in [self.total] if not row.agrees]


def count(plan: Plan) -> Counts:
    """Build the network of a plan and count one image's MACs. Raises RunFault if torch fails, for example out of
    memory.
    """
    macs, beside = Counter(), Counter()
    try:
        net, image = _built(plan), torch.zeros(1, 3, plan.resolution, plan.resolution)
        with FlopCounterMode(display=False) as counter:  # this mode disables the C kernels, which it cannot look into
            thop.profile(net, (image,), _rules(macs, beside), verbose=False)
    except RuntimeError as error:
        told = f"the network cannot be built and run here ({told_by(error)})"
        raise RunFault(told) from error
    flops, by_module = counter.get_total_flops(), counter.get_flop_counts()
    rows = []
    for layer, c in costs_by_layer(plan):
        in_layer = sum(by_module.get(f"Net.{layer.name}", {}).values())
        rows.append(Row(layer.name, layer.op, c.macs, macs[layer.name], in_layer // 2))
    return Counts(rows, Row(ALL, "", cost(plan).macs, macs.total(), flops // 2), beside, flops)


def _built(plan: Plan) -> Net:
    """Weights are left uninitialised, since no count depends on them; norms are marked as calibrated."""
    net = Net(plan, None).eval()
    for norm in (m for m in net.modules() if isinstance(m, Norm)):
        norm.num_batches_tracked.fill_(1)
    return net


def _rules(macs: Counter, beside: Counter) -> dict[type, Callable]:
    """thop's rules for nasaug's layers, which it would not recognise since it looks up the exact type.

    Each layer's count is added to `macs` under its name; `beside` receives what thop counts in a network of torch's own
    layers that is not a MAC."""

    def add(kind: str, rule: Callable, x: Tensor, y: Tensor) -> None:
        module = SimpleNamespace(total_ops=0, affine=True)
        rule(module, (x,), y)
        beside[kind] += int(module.total_ops)

    def norm(module, inputs, out) -> None:
        x, layer, _ = inputs
        if module.norm is not None:
            normed = x if layer.pre else out
            add("norms", count_normalization, normed, normed)

    def conv(module, inputs, out) -> None:
        count_convNd(module, inputs, out)
        norm(module, inputs, out)

    def average(module, inputs, out) -> None:
        add("averages", count_adap_avgpool, inputs[0], inputs[0].mean((2, 3), keepdim=True))

    def squeeze_excite(module, inputs, out) -> None:
        for linear in (module.reduce, module.expand):
            count_linear(linear, inputs, linear.bias)  # the bias has as many values as the output
            module.total_ops += linear.total_ops
        average(module, inputs, out)

    def noted(rule: Callable) -> Callable:
        def hook(module, inputs, out) -> None:
            rule(module, inputs, out)
            macs[inputs[1].name] = int(module.total_ops)

        return hook

    rules = {
        "conv": conv, "linear": count_linear, "se": squeeze_excite, "pool": average, "maxpool": zero_ops, "norm": norm
    }  # fmt: skip
    return {LAYERS[op]: noted(rule) for op, rule in rules.items()}


def verdict(counts: Counts) -> str:
    """Whether the three counters agree, in words."""
    if counts.wrong:
        return f"the three differ in {', '.join(row.name for row in counts.wrong)}"
    return f"the three agree on every convolution and linear layer, {counts.total.cost:,} MACs"


def differences(plan: Plan, counts: Counts) -> Iterator[str]:
    """What they count differently or not at all, and why: a line for each kind that occurs in this network."""
    norms, averages = counts.beside["norms"], counts.beside["averages"]
    if norms:
        yield f"norms: thop's own rule adds {norms:,}, 4 for each value; the cost model and torch count none"
    if averages:
        yield f"global averages: thop's own rule adds {averages:,}; the cost model and torch count none"
    if any(layer.op == "se" for layer in plan.layers):
        yield "squeeze-excite: all count its two linear layers, on one pixel; none counts the scaling of channels"
    yield "activations, additions and biases: none of the three counts them"
    yield f"FLOPs: torch's FlopCounterMode reports {counts.flops:,}, two per MAC; its column shows half of them"
    yield "types: thop matches a layer's exact type, so alone it counts 0 in a nasaug network; here it is given rules"
    yield "kernels: no counter sees inside nasaug's kernels in C, so the network ran with torch's operations"
