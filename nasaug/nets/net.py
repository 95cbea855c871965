"""The network class: `Net(plan)` runs its own plan or a slice of itself, and slices can be copied out or in.

The supernet is the Net of the largest plan; the result is the Net of the plan found. The choice of a subnet is an
argument of `forward`, never state. Independent of search spaces, training methods and devices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..arch.blocks import Block
from ..arch.channels import Group
from ..arch.plan import Head, Outputs, Plan
from ..kernels.choice import chains
from ..kernels.fused import ACTIVATIONS, window
from .layers import LAYERS, BatchStats, CollectStats, Norm, RunningStats, Stats, TrackStats, fused_blocks
from .regularisers import Noise

BESIDE = "two_stage."  # what the names of a head's modules beside the plan begin with
_BATCH, _TRACK, _RUNNING = BatchStats(), TrackStats(), RunningStats()


class Net(nn.Module):
    """The network of a Plan: images [N, 3, H, W] to logits [N, classes], or to [N, pixels, values] if the plan has
    several outputs: those of the pixels of each map in turn. If the plan's head has modules beside it, they are the
    submodule `two_stage`, and the output is a `nasaug.nets.two_stage.Maps` that they read.

    `net(x)` runs its own plan; only this updates the running statistics, in training mode. `net(x, smaller)` runs a
    slice of the shared weights with batch statistics, in training mode only. With `frozen` no gradient reaches the
    trunk, and in a pass of the net's own plan it uses its running statistics and leaves them as they are."""

    def __init__(self, plan: Plan, seed: int | None = 0):
        """Fresh weights from `seed`; None leaves them uninitialised, for a caller that writes all of them."""
        super().__init__()
        self.plan = plan
        for layer in plan.owned:
            self._put(layer.name, LAYERS[layer.op](layer))
        self._layers = {layer.name: self.get_submodule(layer.name) for layer in plan.owned}
        running = [m for layer in plan.layers for m in self._layers[layer.name].modules()]
        self._norms = [m for m in running if isinstance(m, Norm)]
        in_head = [m for block in plan.head for x in block.all_layers for m in self._layers[x.name].modules()]
        self._head_norms = [m for m in in_head if isinstance(m, Norm)]
        if isinstance(plan.classes, Head) and plan.classes.beside:
            from .two_stage import TwoStage  # imports torchvision

            self.two_stage = TwoStage(plan, seed or 0)
        if seed is not None:
            self.reset(seed)
        self.to(memory_format=torch.channels_last)

    def _put(self, name: str, module: nn.Module) -> None:
        *parents, last = name.split(".")
        place: nn.Module = self
        for parent in parents:
            if parent not in place._modules:
                place.add_module(parent, nn.Module())
            place = place._modules[parent]
        place.add_module(last, module)

    @torch.no_grad()
    def reset(self, seed: int) -> None:
        """Fresh weights: Kaiming-uniform (torch's default), truncated normal (0.02) for the last layers, zero biases.

        As in NetAug's published code, whose authors found that fan-out initialisation fails in widened nets."""
        g, last = torch.Generator().manual_seed(seed), tuple(f"{self.plan.blocks[i].name}." for i in self.plan.ends)
        for name, p in self.named_parameters():
            if name.startswith(BESIDE):
                continue  # torchvision's own initialisation
            if p.dim() == 1:
                p.fill_(1.0 if name.endswith("norm.weight") else 0.0)
            elif name.startswith(last):
                p.copy_(nn.init.trunc_normal_(torch.empty(p.shape), std=0.02, generator=g))
            else:
                p.copy_(nn.init.kaiming_uniform_(torch.empty(p.shape), a=5**0.5, generator=g))
        self.forget_statistics()

    @torch.no_grad()
    def start_as_identities(self) -> None:
        """Zero the scale of the last norm in every block with an identity shortcut, so that the block starts as an
        identity.

        Goyal et al. 2017; Yu et al., BigNAS, ECCV 2020, for supernets. A norm before its convolution is left unchanged:
        at zero its ReLU would pass no gradient."""
        for block in self.plan.blocks:
            last = block.layers[-1]
            if block.shortcut == "identity" and last.norm and not last.pre and not last.act:
                self._layers[last.name].norm.weight.zero_()

    def forward(
        self, x: Tensor, plan: Plan | None = None, noise: Noise | None = None, frozen: bool = False
    ) -> Tensor:  # fmt: skip
        own = plan is None or plan == self.plan
        if not own and not self.training:
            raise RuntimeError("a slice has no running statistics of its own: narrow(plan), calibrate, then evaluate")
        if not self.training or (own and frozen):
            self._check_statistics()
        if own and self.training and (tracked := self._head_norms if frozen else self._norms):
            torch._foreach_add_([n.num_batches_tracked for n in tracked], 1)
        stats = _RUNNING if not self.training else _TRACK if own else _BATCH
        trunk = (_RUNNING if own else _BATCH) if frozen and self.training else None
        return self._run(x, self.plan if own else plan, stats, noise if self.training else None, trunk)

    @property
    def has_statistics(self) -> bool:
        """Whether the net can be evaluated: its norms' running statistics are set, or it has no norms."""
        return not self._norms or int(self._norms[0].num_batches_tracked) > 0

    def _check_statistics(self) -> None:
        if not self.has_statistics:
            raise RuntimeError("the norms' statistics are not set: calibrate the net before evaluating it")

    def _run(
        self, x: Tensor, plan: Plan, stats: Stats, noise: Noise | None = None, trunk: Stats | None = None
    ) -> Tensor:  # fmt: skip
        """`trunk`: the statistics of a frozen trunk, which has neither gradients nor noise; None: it is not frozen."""
        size, first = x.shape[-1], len(plan.body)
        x = x.contiguous(memory_format=torch.channels_last)
        inner, branches = ([b for b in plan.blocks if noise and kind(b)] for kind in (_has_inner, _has_branch))
        tapped: dict[str, Tensor] = {}
        ends: list[Tensor] = []
        i = -1
        for blocks in chains(plan, x) if noise is None and trunk is None else zip(plan.blocks):
            block, i = blocks[-1], i + len(blocks)
            if blocks[0].spec.source:
                x = tapped[blocks[0].spec.source]
            if noise and i in plan.ends:
                x = noise.features(x)
            if len(blocks) > 1:
                x = self._chain(blocks, x, stats)
            elif trunk is not None and i < first:
                with torch.no_grad():
                    x = self._block(block, x, trunk)
            else:
                x = self._block(block, x, stats, noise, _place(block, branches))
            if noise and _has_inner(block) and (trunk is None or i >= first):
                x = noise.output(x, _place(block, inner))
            if block.name in plan.tapped:
                tapped[block.name] = x
            if i in plan.ends:
                ends.append(x)
        return self.two_stage.read(ends, size) if "two_stage" in self._modules else joined(ends)

    def _chain(self, blocks: tuple[Block, ...], x: Tensor, stats: Stats) -> Tensor:
        """Blocks that only read each other."""
        whole = fused_blocks([self._convs(block) for block in blocks], x, blocks, stats)
        if whole is None:
            for block in blocks:
                x = self._block(block, x, stats)
            return x
        return whole

    def _convs(self, block: Block) -> list:
        return [self._layers[layer.name] for layer in block.layers]

    def _block(self, block: Block, x: Tensor, stats: Stats, noise: Noise | None = None, place: float = 0.0) -> Tensor:
        whole = fused_blocks([self._convs(block)], x, (block,), stats)
        if whole is not None:
            if noise and noise.stochastic_depth and block.shortcut == "identity":
                return x + noise.branch(whole - x, place)
            return whole
        source = x
        for i, layer in enumerate(block.layers):
            module = self._layers[layer.name]
            if layer.pre:
                x = module.activate(x, layer, stats)
                if i == 0 and block.project:
                    source = x  # a pre-activation projection reads the activated input (WideResNet)
            x = module(x, layer, stats)
        if block.project:
            x = x + self._layers[block.project.name](source, block.project, stats)
        elif block.shortcut == "identity":
            x = (noise.branch(x, place) if noise else x) + source
        return ACTIVATIONS[block.act](x)

    # --- slices ----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def narrow(self, plan: Plan) -> Net:
        """A plain Net of a smaller plan with copies of its slice of these weights.

        Its running statistics are unset unless `plan` is this net's own. Raises ValueError if `plan` is not a slice."""
        small = Net(plan, None).to(**self._kind())
        for theirs, mine in _pairs(self, small):
            mine.copy_(window(theirs, mine.shape))
        if plan != self.plan:
            small.forget_statistics()
        return small.train(self.training)

    @torch.no_grad()
    def grow(self, plan: Plan, seed: int = 0, identities: bool = False) -> Net:
        """A Net of a larger plan with this net's weights as its slice; all other weights are fresh, optionally starting
        as identities (`start_as_identities`). The inverse of `narrow`."""
        big = Net(plan, seed).to(**self._kind())
        if identities:
            big.start_as_identities()
        big.put(self)
        return big.train(self.training)

    @torch.no_grad()
    def put(self, small: Net) -> None:
        """Overwrite the slice of these weights that `small`'s plan selects, so that `narrow` of it gives `small` back.

        The running statistics are unset unless the plan is this net's own. Raises ValueError if it is not a slice."""
        for mine, theirs in _pairs(self, small):
            window(mine, theirs.shape).copy_(theirs)
        if small.plan != self.plan:
            self.forget_statistics()

    @torch.no_grad()
    def with_fresh_classifier(self, classes: Outputs, seed: int) -> Net:
        """A Net with this net's weights except for a fresh classifier with `classes` outputs.

        The running statistics are copied: the classifier has none, and nothing follows it."""
        other = Net(self.plan.of_classes(classes), seed).to(**self._kind())
        kept = {name: t for name, t in self.state_dict().items() if not name.startswith(heads_of(self.plan))}
        other.load_state_dict(kept, strict=False)
        return other.train(self.training)

    def _kind(self) -> dict:
        first = next(self.parameters())
        return {"device": first.device, "dtype": first.dtype}

    def forget_statistics(self) -> None:
        """Mark the norms' running statistics as unset, so that evaluating before calibrating raises."""
        for norm in (m for m in self.modules() if isinstance(m, Norm)):
            norm.reset_running_stats()

    @torch.no_grad()
    def calibrate(
        self, batches: Iterable[Tensor], gathered: Callable[[Any], list] | None = None, frozen: bool = False
    ) -> Net:  # fmt: skip
        """Set the norms' running statistics to those of all images in `batches` ([N, 3, H, W] each), or of a net with a
        `frozen` trunk only the head's. Returns self.

        `gathered` returns what each of several processes gives it, if each has some of the batches."""
        if frozen and not self._head_norms:
            return self
        collected = CollectStats()
        for x in batches:
            self._run(x, self.plan, collected, trunk=_RUNNING if frozen else None)
        if gathered is not None:
            collected.join([module for module in self.modules() if isinstance(module, Norm)], gathered)
        collected.write()
        return self

    @torch.no_grad()
    def permute(self, group: Group, order: Tensor, *companions: Mapping[str, Tensor]) -> None:
        """Reorder the channels of `group` in place; channel i becomes the old `order[i]`.

        `companions` hold tensors with the same names and shapes (momentum, averaged weights). They are permuted too;
        otherwise the next optimiser step would silently mix up the channels."""
        own = dict(self.named_parameters()) | dict(self.named_buffers())
        for tensors in (own, *companions):
            for name, dim in group.members:
                if name in tensors:
                    tensors[name].copy_(tensors[name].index_select(dim, order.to(tensors[name].device)))

    def importance(self, group: Group) -> Tensor:
        """[channels]: L1 norm of the weights that read each channel of `group` (NetAug's sorting key)."""
        own = dict(self.named_parameters())
        total = torch.zeros(group.size, dtype=next(self.parameters()).dtype)
        for name, dim in group.readers:
            weight = own[name].detach().abs()
            total += weight.sum([d for d in range(weight.dim()) if d != dim]).cpu()
        return total


def heads_of(plan: Plan) -> tuple[str, ...]:
    """What the names of the head's parameters and buffers begin with."""
    return (BESIDE, *(f"{block.name}." for block in plan.head))


def joined(outputs: list[Tensor]) -> Tensor:
    """The only output; or several maps [N, C, H, W] as one [N, pixels, C], row by row."""
    if len(outputs) == 1:
        return outputs[0]
    return torch.cat([x.permute(0, 2, 3, 1).flatten(1, 2) for x in outputs], 1)


def _has_inner(block: Block) -> bool:
    return block.spec.hidden > 0


def _has_branch(block: Block) -> bool:
    return block.shortcut == "identity"


def _place(block: Block, of: list[Block]) -> float:
    """The block's position in `of`, evenly spaced up to 1 for the last; 0 for a block that is not in it."""
    return (of.index(block) + 1) / len(of) if block in of else 0.0


def _pairs(big: Net, small: Net) -> Iterable[tuple[Tensor, Tensor]]:
    """(big's tensor, small's tensor) for each of small's parameters and buffers, by name."""
    if not big.plan.holds(small.plan):
        raise ValueError("the smaller plan is not a slice of the bigger one: a layer is missing there or larger here")
    theirs = big.state_dict()
    return [(theirs[name], tensor) for name, tensor in small.state_dict().items()]
