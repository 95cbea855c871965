"""The mutable tensors of a training: weights, gradients, optimiser state and averaged weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ..core import tensorfile
from ..nets.net import Net, heads_of
from .length import Training


class Weights:
    """A net on its device, with everything that an optimiser step reads and writes."""

    def __init__(self, net: Net, training: Training, device: torch.device):
        self.net, self._training, self._device = net.to(device).train(), training, device
        self.trained = trained_of(self.net, training)
        for name, p in self.net.named_parameters():
            if name not in self.trained:
                p.requires_grad_(False)
        self.average = Average(self.net, training.ema) if training.ema else None
        self.parameters = list(self.trained.values())
        self.gradients = _one_buffer(self.parameters, device)
        self.optimizer = _optimizer(self.net, self.trained, training)

    def update(self, rate: float, step: int) -> None:
        """Optimiser step number `step`, at learning rate `rate`."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        self.optimizer.step()
        if self.average is not None:
            self.average.update(step)

    def momentum(self) -> dict[str, Tensor]:
        """Momentum by the names of the parameters that are trained."""
        return {name: self.optimizer.state[p]["momentum_buffer"] for name, p in self.trained.items()}

    def companions(self) -> list[dict[str, Tensor]]:
        """Tensors to permute along with the weights, by parameter name: momentum, and averaged weights if any."""
        return [self.momentum(), *([] if self.average is None else [dict(self.average.net.named_parameters())])]

    def tensors(self) -> dict[str, Tensor]:
        """All state for a checkpoint, not copied."""
        averaged = {} if self.average is None else dict(self.average.net.named_parameters())
        return {
            **tensorfile.prefixed("net", self.net.state_dict()),
            **tensorfile.prefixed("average", {name: p.detach() for name, p in averaged.items()}),
            **tensorfile.prefixed("momentum", self.momentum()),
        }

    @property
    def finite(self) -> bool:
        """Whether no weight, statistic or momentum is NaN or infinite."""
        return all(bool(t.isfinite().all()) for t in self.tensors().values())

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Copy in the state that `tensors()` returned."""
        self.net.load_state_dict(tensorfile.part(tensors, "net"))
        saved = tensorfile.part(tensors, "momentum")
        for name, buffer in self.momentum().items():
            buffer.copy_(saved[name])
        if self.average is not None:
            self.average.net.load_state_dict(tensorfile.part(tensors, "average"), strict=False)

    def copy(self) -> Weights:
        """An independent copy, without the optimiser's hooks."""
        twin = Weights(copy.deepcopy(self.net), self._training, self._device)
        twin.restore(self.tensors())
        return twin


class Average:
    """An exponential moving average of a net's weights. The decay is min(`decay`, (1 + step) / (10 + step)), low at
    first so that the initial weights are soon forgotten.

    `net` holds the average. Its buffers are not updated: recalibrate the running statistics before evaluating it."""

    def __init__(self, net: Net, decay: float):
        self.net, self._most, self._decay = copy.deepcopy(net), decay, 0.0
        # parameters only: given a whole net, AveragedModel would copy every buffer at every step
        self._source = nn.ParameterList(net.parameters())
        self._model = AveragedModel(self._source, multi_avg_fn=self._blend)
        self._model.module = nn.ParameterList(self.net.parameters())  # replaces the copy that AveragedModel made
        self._model.n_averaged.fill_(1)  # the initial weights are part of the average

    def update(self, step: int) -> None:
        """Add the weights after step number `step` to the average."""
        self._decay = min(self._most, (1 + step) / (10 + step))
        self._model.update_parameters(self._source)

    @torch.no_grad()
    def _blend(self, averaged: list[Tensor], current: list[Tensor], count: Tensor | int) -> None:
        torch._foreach_lerp_(averaged, current, 1 - self._decay)


def _one_buffer(parameters: list[nn.Parameter], device: torch.device) -> Tensor:
    """Make every parameter's gradient a view of one buffer, which one operation can zero or reduce.

    Unused parameters thus have zero gradients, not None, for which the optimiser would skip decay and momentum."""
    gradients = torch.zeros(sum(p.numel() for p in parameters), device=device)
    start = 0
    for p in parameters:
        p.grad = gradients.as_strided(p.shape, p.stride(), start)
        start += p.numel()
    return gradients


def trained_of(net: Net, training: Training) -> dict[str, nn.Parameter]:
    """The parameters that are trained, by name: all, or the head's and what `training.trunk` says."""
    named = dict(net.named_parameters())
    if training.trunk == "train":
        return named
    norms = training.trunk == "norms"
    return {name: p for name, p in named.items() if name.startswith(heads_of(net.plan)) or (norms and ".norm." in name)}


def _optimizer(net: Net, trained: Mapping[str, nn.Parameter], training: Training) -> torch.optim.SGD:
    """SGD with Nesterov momentum, without weight decay on biases and norms. Momentum buffers exist from the start."""
    parts = {1.0: trained}
    if training.trunk_lr != 1:
        parts = {training.trunk_lr: {}, 1.0: {}}
        for name, p in trained.items():
            parts[1.0 if name.startswith(heads_of(net.plan)) else training.trunk_lr][name] = p
    groups = []
    for factor, part in parts.items():
        decayed = [p for p in part.values() if p.dim() > 1]
        plain = [p for p in part.values() if p.dim() == 1]
        for params, decay in ((decayed, training.weight_decay), (plain, 0.0)):
            if params:
                groups.append({"params": params, "weight_decay": decay, "factor": factor})
    optimizer = torch.optim.SGD(
        groups, lr=training.lr, momentum=training.momentum, nesterov=training.momentum > 0, fused=True
    )
    for p in trained.values():
        optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)
    return optimizer
