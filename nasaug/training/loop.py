"""The trainer, shared by all methods and tasks: the only place that runs backward passes and optimiser steps.

All randomness is derived from (seed, step) or (seed, epoch), so checkpoints contain no generator state and a resumed
run ends with bit-identical weights to an uninterrupted one (on the CPU, with the same number of threads).
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import islice

from torch import Tensor, optim

from ..arch.plan import Plan, plan
from ..arch.space import Arch, Space
from ..core import tensorfile
from ..core.errors import Diverged, arg
from ..core.progress import Stages
from ..core.signals import Pending
from ..data import Data
from ..kernels.fused import summed_in_place
from ..methods import Method
from ..nets.net import Net
from ..nets.regularisers import Noise
from ..tasks import Task
from . import checkpoint
from .best import Best
from .device import Runtime
from .difficulty import Difficulty
from .length import Length, Training, evaluate_every
from .losses import Losses
from .scoring import Scorer
from .step import Step
from .teacher import Teacher
from .weights import Weights


class Trainer:
    """A Net in training: weights, optimiser, step count, history and the best epoch so far."""

    def __init__(
        self, net: Net, method: Method, space: Space, base: Arch, *, task: Task, data: Data, views: dict,
        training: Training, length: Length, runtime: Runtime, scorer: Scorer, seed: int, inherited: bool = False,
        keep_best: bool = True, noise: Noise | None = None, teacher: Teacher | None = None,
        transforms: dict | None = None, difficulty: Difficulty | None = None,
    ):  # fmt: skip
        self.weights = Weights(net, training, runtime.device)
        self.method, self.space, self.base = method, space, base
        self.task, self.data, self.training, self.length = task, data, training, length
        # streamed images are already randomly cropped during decoding, unless they have boxes
        cropped = data.streamed and data.targets != "boxes"
        self.views = {n: replace(v, crop=0.0) if cropped else v for n, v in views.items()}
        self.runtime, self.scorer, self.seed, self.inherited = runtime, scorer, seed, inherited
        self.noise, self.teacher, self.transforms = noise, teacher, transforms or {}
        self.difficulty = difficulty or Difficulty()
        self.magnitude = self.views["train"].magnitude(0.0)  # RandAugment's, if difficulty.policy = "drive"
        self.magnitudes = 0.0  # sum over the steps so far
        self.keep_best, self.stages = keep_best, Stages(runtime.profile, runtime.synchronize)
        self.plan: Plan = plan(space, base, task.head)
        self.step, self.macs, self.seconds = 0, 0.0, 0.0
        self.history: list[dict] = []
        self._best, self._losses = Best(task.metric), Losses()

    @property
    def net(self) -> Net:
        return self.weights.net

    @property
    def frozen(self) -> bool:
        """Whether the trunk is frozen, with its running statistics."""
        return self.training.trunk == "frozen"

    @property
    def optimizer(self) -> optim.Optimizer:
        return self.weights.optimizer

    @property
    def average(self) -> Net | None:
        """The net with averaged weights, None without `ema`. If there is one, it is evaluated and kept."""
        return None if self.weights.average is None else self.weights.average.net

    @property
    def best(self) -> dict[str, Tensor]:
        """Weights and running statistics of the best epoch; empty before the first evaluation."""
        return self._best.tensors

    @property
    def best_score(self) -> float | None:
        """The best epoch's score; None before the first evaluation."""
        return self._best.score

    @property
    def progress(self) -> float:
        """The fraction of training that is done, measured in steps, or in the time or MACs that limit it."""
        return min(1.0, self._over())

    @property
    def done(self) -> bool:
        return self._over() >= 1

    def _over(self) -> float:
        length = self.length
        if length.seconds:
            return self.seconds / length.seconds
        return self.macs / length.whole_macs if length.whole_macs else self.step / length.steps

    @property
    def every(self) -> int:
        """Evaluate every this many epochs."""
        judged = len(self.scorer.calibration) + len(self.data.val) + self.keep_best * len(self.scorer.seen)
        return evaluate_every(self.training, self.length.epochs, len(self.data.train), judged)

    @property
    def drives(self) -> bool:
        return self.difficulty.policy == "drive"

    def learning_rate(self) -> float:
        """The learning rate schedule: linear warm-up, then cosine decay to 0 at the end of training."""
        whole, unit = (1.0, 1e-3) if self.length.open_ended else (self.length.steps, 1)
        done, warm = self.progress * whole if self.length.open_ended else self.step, self.training.warmup * whole
        if done < warm:
            return self.training.lr * (done + unit) / (warm + unit)
        left = (done - warm) / max(unit, whole - warm)
        return self.training.lr * 0.5 * (1 + math.cos(math.pi * left))

    def train_step(self, images: Tensor, labels: Tensor) -> None:
        """One optimiser step on a raw uint8 batch, with a backward pass after each loss that the method yields."""
        weights, ranks, before = self.weights, self.runtime.ranks, self.macs
        weights.gradients.zero_()
        device = self.runtime.device
        with self.stages("copy"):
            step = Step(self, images.to(device, non_blocking=True), labels.to(device, non_blocking=True))
        for name, loss in self.method.losses(step):
            with self.stages("backward"), summed_in_place(weights.parameters):
                loss.backward()
            self._losses.note(name, loss.detach())
        if not ranks.alone:
            with self.stages("reduce"):
                count, macs = ranks.sums(len(images), self.macs - before)
                ranks.sum_(weights.gradients.mul_(len(images) / count))
                self.macs = before + macs
        with self.stages("optimise"):
            weights.update(self.learning_rate(), self.step)
        self.step += 1

    def losses(self, of_all: bool = False) -> dict[str, float]:
        """Mean of each loss since the last evaluation, on this rank or `of_all`. Raises Diverged if one is not
        finite."""
        ranks = self.runtime.ranks
        return self._losses.means(self.step, self.training.lr, ranks.sums if of_all and not ranks.alone else None)

    def end_epoch(self) -> dict:
        """Evaluate the base network by the fixed protocol, keep it if it is the best so far, and extend the history.

        Losses are means since the previous evaluation."""
        losses, metric = self.losses(of_all=True), self.task.metric
        self._losses = Losses()
        with self.stages("evaluate"):
            small = self.scorer.calibrated(self.average or self.net, self.plan, self.frozen)
            val, val_loss = self.scorer.measured(small, self.data.val)
            seen = {metric.key("train"): self.scorer.score(small, self.scorer.seen)} if self.keep_best else {}
        if self.keep_best:
            self._best.offer(small, val)
        row = {
            "epoch": math.ceil(self.step / self.length.steps_per_epoch), "step": self.step, metric.key("val"): val,
            "val_loss": val_loss, **seen, "train_macs": self.macs, "seconds": round(self.seconds, 3),
            **{f"loss_{k}": v for k, v in losses.items()},
        }  # fmt: skip
        if self.drives:
            row |= {"magnitude": self.magnitude, "mean_magnitude": self.magnitudes / max(1, self.step)}
        self.history.append(row)
        return row

    def best_row(self) -> dict:
        """The best epoch's row of the history; the last one if several tie."""
        metric = self.task.metric
        return min(reversed(self.history), key=lambda row: metric.rank(row[metric.key("val")]))

    def product(self) -> Net:
        """The base network with the weights and running statistics of its best epoch, in evaluation mode."""
        net = self.net.narrow(self.plan)
        net.load_state_dict(self.best)
        return net.eval()

    def twin(self) -> Trainer:
        """A trainer in the same state with its own copy of the weights, for trial steps; read-only parts are shared."""
        twin = copy.copy(self)
        twin.weights, twin._losses, twin.history = self.weights.copy(), self._losses.copy(), list(self.history)
        twin._best, twin.stages = copy.copy(self._best), Stages()
        return twin

    # --- checkpoints -----------------------------------------------------------------------------------------

    def companions(self) -> list[dict[str, Tensor]]:
        """Tensors to permute along with the weights, by parameter name: momentum, and averaged weights if any."""
        return self.weights.companions()

    def tensors(self) -> dict[str, Tensor]:
        return {**self.weights.tensors(), **tensorfile.prefixed("best", self.best)}

    def state(self) -> dict:
        kept = {key: getattr(self, key) for key in _STATE} | {self.task.metric.key("best"): self.best_score}
        return {**kept, "steps": self.length.steps, "method": type(self.method).__name__, **self._losses.state()}

    def save(self, path) -> None:
        """Write a checkpoint. Raises Diverged, and leaves the one there is, if a loss or a weight is not finite."""
        self.losses()
        if not self.weights.finite:
            lower = f"start anew with a lower learning rate: {arg.set} lr={self.training.lr / 2:g}"
            raise Diverged(f"a weight is not finite by step {self.step}; {lower}")
        checkpoint.write(path, (self.tensors(), self.state()))

    def load(self, path) -> None:
        """Restore a checkpoint. Raises BadInput if it belongs to a different training."""
        own = self.tensors(), self.state()
        tensors, state = checkpoint.read(path, own, estimated=self.length.open_ended)
        self.weights.restore(tensors)
        self._losses.restore(state)
        for key in _STATE:
            setattr(self, key, state[key])
        self._best.tensors = tensorfile.part(tensors, "best")
        self._best.score = state[self.task.metric.key("best")] if self.best else None


_STATE = ("step", "macs", "seconds", "history", "magnitude", "magnitudes")


def fit(
    trainer: Trainer, pending: Pending, *, save: Callable[[], None], on_epoch: Callable[[dict], None],
    tick: Callable[[Trainer], None], save_every: float = 60.0, until: int | None = None,
) -> None:
    """Train to the end from the trainer's current state, or until a step.

    save() writes a checkpoint: every `save_every` seconds, after each evaluation, and when a stop was requested.
    on_epoch(row) receives each evaluation: every `trainer.every` epochs, at the end of training and at step `until`.
    tick(trainer) reports progress after each step."""
    per_epoch, saved = trainer.length.steps_per_epoch, time.perf_counter()

    def ended() -> bool:
        return trainer.done or until is not None and trainer.step >= until

    while not ended():
        epoch, start = divmod(trainer.step, per_epoch)
        if start == 0:
            trainer.method.on_epoch(trainer)
        begun, spent = time.perf_counter(), trainer.seconds
        batches = trainer.data.train.batches(
            trainer.length.batch, seed=trainer.seed, epoch=epoch, start=start, share=trainer.runtime.ranks.share
        )
        batches = islice(batches, per_epoch - start)  # an epoch may cover only part of the images
        for images, labels, _ in trainer.stages.waiting("load", batches):
            trainer.train_step(images, labels)
            if trainer.length.seconds:
                trainer.runtime.synchronize()
            trainer.seconds = spent + time.perf_counter() - begun
            stopping = _ticked(trainer, pending, tick)
            if ended():
                break
            inside = trainer.step % per_epoch != 0
            if inside and (stopping or time.perf_counter() - saved > save_every):
                save()
                saved = time.perf_counter()
                if stopping:
                    pending.check()
        evaluated = ended() or (epoch + 1) % trainer.every == 0
        if evaluated:
            on_epoch(trainer.end_epoch())
        stopping = _agreed(trainer, pending)
        if evaluated or stopping or time.perf_counter() - saved > save_every:
            save()
            saved = time.perf_counter()
            if stopping:
                pending.check()


def _ticked(trainer: Trainer, pending: Pending, tick: Callable[[Trainer], None]) -> bool:
    """Report progress; returns whether to stop. A training that has diverged on one rank ends on all."""
    fault = None
    try:
        tick(trainer)
    except Diverged as error:
        if trainer.runtime.ranks.alone:
            raise
        fault = error
    return _agreed(trainer, pending, fault)


def _agreed(trainer: Trainer, pending: Pending, fault: Diverged | None = None) -> bool:
    """Whether a stop was requested, on any rank: all share what depends on a clock, a signal or one rank's loss."""
    shared = trainer.seconds, fault is not None, pending.signum or 0
    trainer.seconds, diverged, signum = trainer.runtime.ranks.most(*shared)
    if diverged:
        raise fault or Diverged(f"the loss is not finite on another rank by step {trainer.step}")
    if signum:  # otherwise nothing is assigned: a signal may have arrived by now
        pending.signum = pending.signum or round(signum)
    return bool(signum)
