"""Training length and optimiser: the recipe keys, and the number of epochs that a compute budget allows."""

from __future__ import annotations

import math
from collections.abc import Callable, Set
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Literal

from annotated_types import Ge, Lt

from ..arch.cost import cost_of
from ..arch.plan import Outputs, Plan
from ..arch.space import Arch, Named, Space
from ..core.checked import Auto, Count, Positive, Told, checked
from ..methods import Method, drawn

CPU_MACS = 3e12  # train_macs = "auto" on a CPU for nets of up to SMALL MACs: about ten minutes on two cores
SMALL, OVERHEAD = 1e6, 3e6  # MACs; OVERHEAD: what an image costs beside its own, a guess (growth.md: 1.8e6)
EVALUATION, EVALUATIONS = 0.25, 10  # maximum cost of evaluations as a fraction of training's; their minimum number
APART = 50  # minimum steps between evaluations: each adds to the log and writes a checkpoint
Part = Annotated[float, Ge(0), Lt(1), Told("must be a share", "give 0 (none) to below 1")]


@checked()
class Training:
    """Training length and optimiser: the recipe's top-level keys."""

    epochs: Count | Auto = "auto"
    """Passes over the training images; auto: from train_macs."""
    max_epochs: Count = 30
    """Upper bound for epochs = auto, unless it amounts to fewer than min_steps steps."""
    min_steps: Annotated[int, Ge(0)] = 2000
    """max_epochs never limits epochs = auto to fewer steps: with few images, 30 epochs would hardly train at all."""
    train_macs: Annotated[float, Ge(1)] | Auto = "auto"
    """Budget of forward MACs over all passes; auto: on a CPU 3e12 for nets of up to 1M MACs and for larger ones what
    should take about as long, which is 7.5e12 at 5M and at most 12e12; on an accelerator as many as max_epochs and
    min_steps allow."""
    stop: Literal["epochs", "macs", "seconds"] = "epochs"
    """When training ends: after whole epochs; at the step at which its forward MACs, a teacher's included, reach
    train_macs; or after max_seconds of training."""
    max_seconds: Positive = 600.0
    """Training time for stop = "seconds"; evaluation does not count."""
    times: Positive = 1.0
    """Factor on the training length, however that is determined."""
    ema: Annotated[float, Ge(0), Lt(1), Told("must be a decay per step", "give 0 (none) to below 1, like 0.999")] = 0.0
    """Decay per step of an exponential moving average of the weights, which is then evaluated and kept; 0: none."""
    batch: Annotated[int, Ge(2)] = 128
    """Images in a step, of all processes together."""
    lr: Positive = 0.1
    """The learning rate after the warm-up."""
    warmup: Part = 0.03
    """Fraction of the steps in which the learning rate rises to lr; cosine decay to 0 follows."""
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.9
    """Nesterov's, of SGD."""
    weight_decay: Annotated[float, Ge(0), Lt(1)] = 4e-5
    """Not applied to biases and norms."""
    trunk: Literal["train", "norms", "frozen"] = "train"
    """What is trained of the trunk, which is all but the head: everything; the scales and shifts of its norms; or
    nothing, and then its norms keep their running statistics too."""
    trunk_lr: Positive = 1.0
    """Factor on the learning rate of what is trained of the trunk."""
    label_smoothing: Part = 0.1
    """The share of a label's weight that is spread over all classes."""
    zero_init_residual: bool = True
    """Initialise fresh residual blocks as identities: the scale of their last norm is 0 (docs/results/supernet.md)."""
    calibration_images: Annotated[int, Ge(2)] = 2048
    """Training images from which the norms' statistics of a net are taken before it is evaluated."""
    evaluate_every: Count | Auto = "auto"
    """Epochs between evaluations, the best of which is kept; auto: every epoch, but less often with few training
    images: evaluations cost at most a quarter of training and are at least 50 steps apart, but there are at least
    ten."""

    def most_epochs(self, images: int) -> int:
        """The upper bound for epochs = auto with this number of training images."""
        return max(self.max_epochs, math.ceil(self.min_steps / self.steps_of(images)))

    def macs_for(self, cpu: bool, macs: float) -> float:
        """The budget of forward MACs for a net with these MACs; infinite if there is none."""
        if self.train_macs != "auto":
            return self.train_macs
        return CPU_MACS * (SMALL + OVERHEAD) / (SMALL + OVERHEAD * min(1, SMALL / macs)) if cpu else math.inf

    def size_for(self, cpu: bool, images: float) -> float:
        """The MACs of the largest net for which `macs_for` is enough to see so many images; infinite if there is no
        budget."""
        if self.train_macs != "auto":
            return self.train_macs / images
        if not cpu:
            return math.inf
        return max(CPU_MACS / images, CPU_MACS / images * (SMALL + OVERHEAD) / SMALL - OVERHEAD)

    def steps_of(self, images: int) -> int:
        """Steps per epoch; if there are fewer images than the batch size, they form one smaller batch."""
        return max(1, images // min(self.batch, images))


@dataclass(frozen=True, slots=True)
class Length:
    """The length of a training, known before it starts. MACs are forward MACs."""

    epochs: float
    steps_per_epoch: int
    macs_per_image: float  # mean over training, all passes of a step
    batch: int
    seconds: float = 0.0  # training time limit, which overrides the steps; 0: none
    whole_macs: float = 0.0  # limit of forward MACs, which overrides the steps; 0: none
    teacher_macs: float = 0.0  # the part of macs_per_image due to the teacher's passes

    @property
    def open_ended(self) -> bool:
        """Whether time or MACs limit the training, so that the number of steps is only an estimate."""
        return bool(self.seconds or self.whole_macs)

    @property
    def steps(self) -> int:
        return max(1, round(self.epochs * self.steps_per_epoch))

    @property
    def macs(self) -> float:
        return self.steps * self.batch * self.macs_per_image


def length_of(
    training: Training, method: Method, space: Space, base: Arch, plan: Plan, images: int, cpu: bool,
    teacher: Callable[[Set[str]], float] = lambda views: 0.0,
) -> Length:  # fmt: skip
    """The length that the recipe specifies, based on the mean MACs of seeded steps spread over training (`drawn`).

    `teacher` returns the MACs per image of the teacher's passes in a step whose own passes see these views."""
    asked_of = method, space, base, plan.classes, tuple(space.archs.items())
    try:
        own, views = _steps(*asked_of)
    except TypeError:  # a method from elsewhere may have fields that cannot be hashed
        own, views = _steps.__wrapped__(*asked_of)
    taught, count = 0.0, len(views)
    for each in views:
        taught += teacher(each)
    mean = own / count + taught / count
    batch = min(training.batch, images)
    steps, most = training.steps_of(images), training.most_epochs(images)
    asked = training.macs_for(cpu, cost_of(space, base, plan.classes).macs)
    in_epochs = min(asked / (mean * steps * batch), 1e6)
    seconds = training.times * training.max_seconds if training.stop == "seconds" else 0.0
    if training.stop == "macs":
        epochs = in_epochs if math.isfinite(asked) else float(most)
    elif training.epochs == "auto":
        epochs = min(most, max(1, round(in_epochs)))
    else:
        epochs = training.epochs
    whole = asked * training.times if training.stop == "macs" and math.isfinite(asked) else 0.0
    return Length(_whole(epochs * training.times), steps, mean, batch, seconds, whole, taught / count)


@lru_cache(maxsize=64)
def _steps(
    method: Method, space: Space, base: Arch, classes: Outputs, archs: tuple[tuple[str, Named], ...]
) -> tuple[float, list[Set[str]]]:
    """MACs per image of all steps that `drawn` yields, and the views that each of them sees.

    A search and its finalists ask several times; `archs` are the space's, which equal spaces need not have in
    common."""
    own, views = 0.0, []
    for passes in drawn(method, space, base, classes):
        own += sum(each.share * cost_of(space, each.arch, classes).macs for each in passes)
        views.append(frozenset(each.view for each in passes))
    return own, views


def evaluate_every(training: Training, epochs: float, images: int, judged: int) -> int:
    """Epochs between evaluations. An evaluation is counted as forward passes of `judged` images, an epoch as 3 x
    `images`: forward and backward passes of plain training, so that the result is the same for every method."""
    if training.evaluate_every != "auto":
        return training.evaluate_every
    seldom = max(judged / (EVALUATION * 3 * images), APART / training.steps_of(images))
    return max(1, min(math.ceil(seldom), int(epochs) // EVALUATIONS))


def _whole(epochs: float) -> float:
    """An int if `epochs` is a whole number, because it is printed."""
    return int(epochs) if epochs == int(epochs) else epochs
