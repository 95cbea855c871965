"""The trainer: the only backward and the only optimiser step, whichever method or task it runs.

Everything random draws from (seed, step) or (seed, epoch), so a checkpoint holds no generator and a resumed
run ends with the same weights, bit for bit, as an uninterrupted one (on the CPU, same threads).
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import chain, count, islice
from random import Random
from statistics import mean

import torch
from torch import Tensor

from .. import augment
from ..arch.cost import cost
from ..arch.plan import Plan, plan
from ..arch.space import Arch, Space
from ..augment.transform import transform
from ..config.schedule import Constant
from ..core import tensorfile
from ..core.errors import BadInput, Diverged
from ..core.progress import Stages
from ..core.signals import Pending
from ..data import Data
from ..kernels.fused import summed_in_place
from ..methods import Draw, Method
from ..nets.net import Net
from ..nets.regularisers import Noise
from ..tasks import Target, Task
from .device import Runtime
from .difficulty import Difficulty
from .length import Length, Training, evaluate_every
from .scoring import Scorer
from .teacher import Teacher


class Step(Draw):
    """What a method sees of one training step: views of the batch, passes, losses, and architectures drawn."""

    def __init__(self, trainer: Trainer, images: Tensor, labels: Tensor):
        t = trainer
        super().__init__(t.space, t.base, t.plan.classes, t.step, t.progress, Random(f"{t.seed}/{t.step}/archs"))
        self._trainer, self._images, self._labels, self._passes = t, images, labels, 0

    def view(self, name: str) -> tuple[Tensor, Target]:
        """(x, target) of the recipe's `[views.NAME]`, drawn from (seed, step, name); a teacher sees it once."""
        t = self._trainer
        if name not in t.views:
            raise BadInput(f"the recipe has no [views.{name}], which this method needs")
        generator = torch.Generator().manual_seed(Random(f"{t.seed}/{t.step}/{name}").getrandbits(62))
        guided = bool(t.difficulty) and name == "train"
        view = replace(t.views[name], magnitude=Constant(t.magnitude)) if guided and t.drives else t.views[name]

        def make() -> Tensor:
            look = {"mean": t.data.mean, "std": t.data.std, "flip": t.data.flip, "progress": t.progress}
            with t.stages("augment"):
                return augment.make_view(view, self._images, generator, **look)

        seen, weight, judged = self._guided(make) if guided else (make(), None, None)
        x, labels = augment.mix(view, seen, self._labels, self.classes, generator)
        soft = None
        if t.teacher and t.task.soft_weight:
            known = judged is not None and x is seen  # mixed images are others than those that were judged
            soft = t.task.soft(judged if known else self._taught(x), t.task.temperature)
        return x, Target(labels, soft, weight)

    def _taught(self, x: Tensor) -> Tensor:
        """The teacher's logits, their cost counted."""
        t = self._trainer
        t.macs += t.teacher.macs * len(x)
        with t.stages("teacher"), t.runtime.autocast():
            return t.teacher(augment.resize(x, t.plan.resolution))

    def _guided(self, make: Callable[[], Tensor]) -> tuple[Tensor, Tensor | None, Tensor]:
        """The training view as the recipe's [difficulty] wants it, what each image counts, and the teacher's logits.

        Raises Diverged where these are no numbers, of which a magnitude of 0 or any image would be made."""
        t, how = self._trainer, self._trainer.difficulty
        versions = [make() for _ in range(how.candidates if how.policy == "keep" else 1)]
        logits = torch.stack([self._taught(x) for x in versions])
        scores = torch.stack([how.of(each, self._labels) for each in logits])
        mean_score = scores.mean().item()
        if not math.isfinite(mean_score):
            remedy = "the teacher gives no numbers: give another teacher.source, or train that one again"
            raise Diverged(f"the images' mean difficulty is {mean_score} at step {t.step}; {remedy}")
        if how.policy == "keep":
            chosen = how.chosen(scores), torch.arange(len(self._labels), device=scores.device)
            x = torch.stack(versions)[chosen].contiguous(memory_format=torch.channels_last)
            return x, None, logits[chosen]
        if how.policy == "weight":
            return versions[0], how.weights(scores[0]), logits[0]
        t.magnitudes += t.magnitude
        t.magnitude = how.driven(t.magnitude, mean_score)
        return versions[0], None, logits[0]

    def transform(self, name: str, x: Tensor) -> Tensor:
        """The recipe's `[transforms.NAME]` of a view's images, drawn anew for every pass; x itself without one."""
        t = self._trainer
        if name not in t.transforms:
            return x
        seed = Random(f"{t.seed}/{t.step}/{name}/{self._passes}").getrandbits(62)
        with t.stages("augment"):
            return transform(t.transforms[name], x, torch.Generator().manual_seed(seed))

    def run(self, x: Tensor, arch: Arch) -> Tensor:
        """The architecture's logits on x, resized to its resolution (the Net itself never resizes)."""
        p = plan(self.space, arch, self.classes)
        t = self._trainer
        t.macs += cost(p).macs * len(x)
        self._passes += 1
        with t.stages("forward"), t.runtime.autocast():
            x = augment.resize(x, p.resolution)
            if not t.noise:
                return t.net(x, p)
            with t.runtime.seeded(Random(f"{t.seed}/{t.step}/noise/{self._passes}").getrandbits(62)):
                return t.net(x, p, t.noise)

    def loss(self, out: Tensor, target: Target) -> Tensor:
        return self._trainer.task.loss(out, target)

    def soft(self, out: Tensor) -> Tensor:
        return self._trainer.task.soft(out)

    def match(self, out: Tensor, soft: Tensor) -> Tensor:
        return self._trainer.task.match(out, soft)


class Trainer:
    """A Net in training: weights, optimiser, step count, history and the best epoch so far."""

    def __init__(
        self, net: Net, method: Method, space: Space, base: Arch, *, task: Task, data: Data, views: dict,
        training: Training, length: Length, runtime: Runtime, scorer: Scorer, seed: int, inherited: bool = False,
        keep_best: bool = True, noise: Noise | None = None, teacher: Teacher | None = None,
        transforms: dict | None = None, difficulty: Difficulty | None = None,
    ):  # fmt: skip
        self.net, self.method, self.space, self.base = net.to(runtime.device).train(), method, space, base
        self.task, self.data, self.training, self.length = task, data, training, length
        # streamed images were cropped at random when they were decoded
        self.views = {n: replace(v, crop=0.0) if data.streamed else v for n, v in views.items()}
        self.runtime, self.scorer, self.seed, self.inherited = runtime, scorer, seed, inherited
        self.noise, self.teacher, self.transforms = noise, teacher, transforms or {}
        self.difficulty = difficulty or Difficulty()
        self.magnitude = self.views["train"].magnitude(0.0)  # RandAugment's, where the difficulty drives it
        self.magnitudes = 0.0  # their sum over the steps so far
        self.keep_best, self.stages = keep_best, Stages(runtime.profile, runtime.synchronize)
        self.plan: Plan = plan(space, base, task.head)
        self.step, self.macs, self.seconds = 0, 0.0, 0.0
        self.history: list[dict] = []
        self.best: dict[str, Tensor] = {}
        self.best_score: float | None = None
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self.average = copy.deepcopy(self.net) if training.ema else None
        self._flatten_gradients()
        self.optimizer = _optimizer(net, training)

    def _flatten_gradients(self) -> None:
        """Every parameter's gradient is a view of one buffer: zeroed, and later reduced, in one operation.

        Zero where unused, never absent: an absent one would skip decay and momentum."""
        self._parameters = parameters = list(self.net.parameters())
        self._gradients = torch.zeros(sum(p.numel() for p in parameters), device=self.runtime.device)
        start = 0
        for p in parameters:
            p.grad = self._gradients.as_strided(p.shape, p.stride(), start)
            start += p.numel()

    @property
    def progress(self) -> float:
        """The part of training that is over: of its steps, or of the time or MACs that end it."""
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
        """Epochs between evaluations."""
        judged = len(self.scorer.calibration) + len(self.data.val) + self.keep_best * len(self.scorer.seen)
        return evaluate_every(self.training, self.length.epochs, len(self.data.train), judged)

    @property
    def drives(self) -> bool:
        return self.difficulty.policy == "drive"

    def learning_rate(self) -> float:
        """Linear warm-up, then a cosine to 0 over all of training."""
        whole, unit = (1.0, 1e-3) if self.length.open_ended else (self.length.steps, 1)
        done, warm = self.progress * whole if self.length.open_ended else self.step, self.training.warmup * whole
        if done < warm:
            return self.training.lr * (done + unit) / (warm + unit)
        left = (done - warm) / max(unit, whole - warm)
        return self.training.lr * 0.5 * (1 + math.cos(math.pi * left))

    def train_step(self, images: Tensor, labels: Tensor) -> None:
        """One optimiser step on a raw uint8 batch: backward after each loss that the method yields."""
        self._gradients.zero_()
        device = self.runtime.device
        with self.stages("copy"):
            step = Step(self, images.to(device, non_blocking=True), labels.to(device, non_blocking=True))
        for name, loss in self.method.losses(step):
            with self.stages("backward"), summed_in_place(self._parameters):
                loss.backward()
            self._note(name, loss.detach())
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        with self.stages("optimise"):
            self.optimizer.step()
            self._note_average()
        self.step += 1

    @torch.no_grad()
    def _note_average(self) -> None:
        """Weights averaged with a decay that begins low, so that those of the start are soon forgotten."""
        if self.average is not None:
            decay = min(self.training.ema, (1 + self.step) / (10 + self.step))
            torch._foreach_lerp_(list(self.average.parameters()), list(self.net.parameters()), 1 - decay)

    def _note(self, name: str, loss: Tensor) -> None:
        self._sums[name] = self._sums[name] + loss if name in self._sums else loss
        self._counts[name] = self._counts.get(name, 0) + 1

    def losses(self) -> dict[str, float]:
        """Mean of each loss since the last evaluation. Raises Diverged where one is not a number."""
        means = {name: float(total) / self._counts[name] for name, total in self._sums.items()}
        for name, value in means.items():
            if not math.isfinite(value):
                half = f"{self.training.lr / 2:g}"
                lower = f"--set lr={half}, a supernet's by --set search.lr={half}"
                remedy = f"start anew with a lower learning rate: {lower}"
                raise Diverged(f"the {name} loss is {value} by step {self.step}; {remedy}")
        return means

    def end_epoch(self) -> dict:
        """Judge the base by the fixed protocol, keep the best epoch, and add to the history.

        Losses are means since the last time."""
        losses, metric = self.losses(), self.task.metric
        self._sums, self._counts = {}, {}
        with self.stages("evaluate"):
            small = self.scorer.calibrated(self.average or self.net, self.plan)
            val = self.scorer.score(small, self.data.val)
            seen = {metric.key("train"): self.scorer.score(small, self.scorer.seen)} if self.keep_best else {}
        if self.keep_best and metric.better(val, self.best_score):
            self.best_score = val
            self.best = {name: t.detach().clone() for name, t in small.state_dict().items()}
        row = {
            "epoch": math.ceil(self.step / self.length.steps_per_epoch), "step": self.step, metric.key("val"): val,
            **seen, "train_macs": self.macs, "seconds": round(self.seconds, 3),
            **{f"loss_{k}": v for k, v in losses.items()},
        }  # fmt: skip
        if self.drives:
            row |= {"magnitude": self.magnitude, "mean_magnitude": self.magnitudes / max(1, self.step)}
        self.history.append(row)
        return row

    def best_row(self) -> dict:
        """What the history says of the best epoch, the first of those that tie."""
        metric = self.task.metric
        return min(self.history, key=lambda row: metric.rank(row[metric.key("val")]))

    def product(self) -> Net:
        """The base network with the weights and statistics of its best epoch, in evaluation mode."""
        net = Net(self.plan).to(self.runtime.device)
        net.load_state_dict(self.best)
        return net.eval()

    # --- checkpoints -----------------------------------------------------------------------------------------

    def momentum(self) -> dict[str, Tensor]:
        """Momentum by parameter name."""
        return {name: self.optimizer.state[p]["momentum_buffer"] for name, p in self.net.named_parameters()}

    def companions(self) -> list[dict[str, Tensor]]:
        """What is permuted with the weights, by their names: momentum, and the averaged weights where there are any."""
        return [self.momentum(), *([] if self.average is None else [dict(self.average.named_parameters())])]

    def tensors(self) -> dict[str, Tensor]:
        averaged = {} if self.average is None else dict(self.average.named_parameters())
        return {
            **tensorfile.prefixed("net", self.net.state_dict()),
            **tensorfile.prefixed("average", {name: p.detach() for name, p in averaged.items()}),
            **tensorfile.prefixed("momentum", self.momentum()),
            **tensorfile.prefixed("best", self.best),
        }

    def state(self) -> dict:
        sums = {name: float(total) for name, total in self._sums.items()}
        kept = {key: getattr(self, key) for key in _STATE} | {self.task.metric.key("best"): self.best_score}
        return {**kept, "steps": self.length.steps, "sums": sums, "counts": dict(self._counts)}

    def save(self, path) -> None:
        tensorfile.write(path, self.tensors(), self.state())

    def restore(self, tensors: dict[str, Tensor], state: dict) -> None:
        """Go on from what `tensors()` and `state()` held."""
        self.net.load_state_dict(tensorfile.part(tensors, "net"))
        saved = tensorfile.part(tensors, "momentum")
        for name, buffer in self.momentum().items():
            buffer.copy_(saved[name])
        if self.average is not None:
            self.average.load_state_dict(tensorfile.part(tensors, "average"), strict=False)
        self.best = tensorfile.part(tensors, "best")
        for key in _STATE:
            setattr(self, key, state[key])
        self.best_score = state[self.task.metric.key("best")] if self.best else None
        self._sums = {name: torch.tensor(total) for name, total in state["sums"].items()}
        self._counts = dict(state["counts"])

    def load(self, path) -> None:
        tensors, state = tensorfile.read(path)
        if state.get("steps") != self.length.steps and not self.length.seconds:
            raise BadInput(f"{path} is of a run of {state.get('steps')} steps, this one has {self.length.steps}")
        if state.keys() != self.state().keys() or _shapes(tensors) != _shapes(self.tensors()):
            raise BadInput(f"{path} is of another run, or was altered; restore it, or start a new run")
        self.restore(tensors, state)


def _shapes(tensors: dict[str, Tensor]) -> dict[str, torch.Size]:
    """Of what a trainer holds from its first step on, which the best epoch's weights are not."""
    return {name: t.shape for name, t in tensors.items() if not name.startswith("best.")}


_STATE = ("step", "macs", "seconds", "history", "magnitude", "magnitudes")


def _optimizer(net: Net, training: Training) -> torch.optim.SGD:
    """SGD with Nesterov momentum; no weight decay on biases and norms; momentum starts at zero."""
    decayed = [p for p in net.parameters() if p.dim() > 1]
    plain = [p for p in net.parameters() if p.dim() == 1]
    groups = [{"params": decayed, "weight_decay": training.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(
        groups, lr=training.lr, momentum=training.momentum, nesterov=training.momentum > 0, fused=True
    )
    for p in net.parameters():
        optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)
    return optimizer


def time_steps(trainer: Trainer) -> float:
    """Seconds a step takes, the mean over steps spread over training, since the nets that a method draws change in its
    course; one step before warms up. The trainer is left as it was.

    At each of up to 4 places a whole cycle of the method (`every`); where that is more than one, 8 steps at most."""
    cycle = min(32, getattr(trainer.method, "every", 1))
    places = max(1, min(4, 8 // cycle))
    tensors = {name: t.clone() for name, t in trainer.tensors().items()}
    state = trainer.state() | {"history": list(trainer.history)}
    times = []
    batches = partial(trainer.data.train.batches, trainer.length.batch, seed=trainer.seed)
    for images, labels, _ in chain.from_iterable(batches(epoch=epoch) for epoch in count()):
        place, within = divmod(max(0, len(times) - 1), cycle)
        if within == 0:
            _go_to(trainer, (place + 0.5) / places, cycle)
        start = time.perf_counter()
        trainer.train_step(images, labels)
        trainer.runtime.synchronize()
        times.append(time.perf_counter() - start)
        if len(times) > cycle * places:
            break
    trainer.restore(tensors, state)
    return mean(times[1:] or times)


def _go_to(trainer: Trainer, share: float, cycle: int) -> None:
    """Pretend that this share of training is over, at the beginning of a cycle."""
    length = trainer.length
    trainer.step = round(share * length.steps) // cycle * cycle
    trainer.macs, trainer.seconds = share * length.whole_macs, share * length.seconds


def fit(
    trainer: Trainer, pending: Pending, *, save: Callable[[], None], on_epoch: Callable[[dict], None],
    tick: Callable[[Trainer], None], save_every: float = 60.0,
) -> None:
    """Train to the end from wherever `trainer` stands.

    save() writes a checkpoint: every `save_every` seconds, after each evaluation, and when a stop is asked for.
    on_epoch(row) tells of an evaluation, after every `trainer.every`-th epoch and the last.
    tick(trainer) reports progress."""
    per_epoch, saved = trainer.length.steps_per_epoch, time.perf_counter()
    while not trainer.done:
        epoch, start = divmod(trainer.step, per_epoch)
        if start == 0:
            trainer.method.on_epoch(trainer)
        begun, spent = time.perf_counter(), trainer.seconds
        batches = trainer.data.train.batches(trainer.length.batch, seed=trainer.seed, epoch=epoch, start=start)
        batches = islice(batches, per_epoch - start)  # an epoch may be a part of the images
        for images, labels, _ in trainer.stages.waiting("load", batches):
            trainer.train_step(images, labels)
            if trainer.length.seconds:
                trainer.runtime.synchronize()
            trainer.seconds = spent + time.perf_counter() - begun
            tick(trainer)
            if trainer.done:
                break
            inside = trainer.step % per_epoch != 0
            if inside and (pending.signum is not None or time.perf_counter() - saved > save_every):
                save()
                saved = time.perf_counter()
                pending.check()
        evaluated = trainer.done or (epoch + 1) % trainer.every == 0
        if evaluated:
            on_epoch(trainer.end_epoch())
        if evaluated or pending.signum is not None or time.perf_counter() - saved > save_every:
            save()
            saved = time.perf_counter()
            pending.check()
