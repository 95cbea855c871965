"""How long a training is and with which optimiser: recipe keys, and epochs from the compute asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random
from typing import Annotated, Literal

from annotated_types import Ge, Lt

from ..arch.cost import cost_of
from ..arch.plan import Plan
from ..arch.space import Arch, Space
from ..core.checked import Auto, Count, Positive, Told, checked
from ..methods import Draw, Method

CPU_MACS = 3e12  # what train_macs = "auto" means on a CPU: about ten minutes on two cores
EVALUATION, EVALUATIONS = 0.25, 10  # share of training's cost that evaluations may have; at least so many of them
APART = 50  # steps between evaluations, so that short epochs do not fill the log and write a checkpoint each
Part = Annotated[float, Ge(0), Lt(1), Told("is a share", "give 0 (none) to below 1")]
DRAWS = 1000  # steps drawn to know a method's mean MACs before it starts


@checked()
class Training:
    """How long and with which optimiser: the recipe's top-level keys."""

    epochs: Count | Auto = "auto"
    """Passes over the training images; auto: from train_macs."""
    max_epochs: Count = 30
    """Upper bound for epochs = auto, where that is not below min_steps."""
    min_steps: Annotated[int, Ge(0)] = 2000
    """Steps that max_epochs does not take away from epochs = auto: of few images 30 epochs would train nothing."""
    train_macs: Annotated[float, Ge(1)] | Auto = "auto"
    """Forward MACs over all passes; auto: 3e12 on a CPU, what max_epochs and min_steps ask on an accelerator."""
    stop: Literal["epochs", "macs", "seconds"] = "epochs"
    """Where training ends: after whole epochs; at the step at which its forward MACs, a teacher's included, reach
    train_macs; or when max_seconds of training are over."""
    max_seconds: Positive = 600.0
    """What stop = "seconds" gives; evaluation does not count."""
    times: Positive = 1.0
    """Multiplies the length, however it was come by."""
    ema: Annotated[float, Ge(0), Lt(1), Told("is a decay a step", "give 0 (none) to below 1, like 0.999")] = 0.0
    """Decay a step of an average of the weights, which is then what is judged and kept; 0: none."""
    batch: Annotated[int, Ge(2)] = 128
    lr: Positive = 0.1
    warmup: Part = 0.03
    """Share of the steps in which the learning rate rises to lr; a cosine to 0 follows."""
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.9
    weight_decay: Annotated[float, Ge(0), Lt(1)] = 4e-5
    """Not applied to biases and norms."""
    label_smoothing: Part = 0.1
    zero_init_residual: bool = True
    """Fresh residual blocks begin as identities: the scale of their last norm is 0 (docs/results/supernet.md)."""
    calibration_images: Annotated[int, Ge(2)] = 2048
    evaluate_every: Count | Auto = "auto"
    """Epochs between evaluations, of which the best is kept; auto: every epoch, or with few training images as seldom
    as keeps their cost to a quarter of training's, and 50 steps apart, but ten times at least."""

    def most_epochs(self, images: int) -> int:
        """The upper bound for epochs = auto with so many training images."""
        return max(self.max_epochs, math.ceil(self.min_steps / self.steps_of(images)))

    def steps_of(self, images: int) -> int:
        """Steps of an epoch; fewer images than a batch are one smaller batch."""
        return max(1, images // min(self.batch, images))


@dataclass(frozen=True, slots=True)
class Length:
    """How long a training is, known before it starts. MACs are forward MACs, of one image where so named."""

    epochs: float
    steps_per_epoch: int
    macs_per_image: float  # mean over training, all passes of a step
    batch: int
    seconds: float = 0.0  # of training, after which it ends whatever the steps; 0: it ends with them
    whole_macs: float = 0.0  # likewise forward MACs

    @property
    def open_ended(self) -> bool:
        """Whether the steps are an estimate."""
        return bool(self.seconds or self.whole_macs)

    @property
    def steps(self) -> int:
        return max(1, round(self.epochs * self.steps_per_epoch))

    @property
    def macs(self) -> float:
        return self.steps * self.batch * self.macs_per_image


def length_of(
    training: Training, method: Method, space: Space, base: Arch, plan: Plan, images: int, cpu: bool,
    teacher: float = 0.0,
) -> Length:  # fmt: skip
    """What the recipe asks for, from the mean MACs of DRAWS seeded steps, spread over training; `teacher`: the MACs of
    one image's pass through a teacher."""
    total = 0
    for i in range(DRAWS):
        draw = Draw(space, base, plan.classes, i, i / DRAWS, Random(f"length/{i}"))
        first, *others = (cost_of(space, arch, plan.classes).macs for arch in method.nets(draw))
        total += first + method.share * sum(others)
    mean = total / DRAWS + teacher
    batch = min(training.batch, images)
    steps, most = training.steps_of(images), training.most_epochs(images)
    asked = training.train_macs if training.train_macs != "auto" else CPU_MACS if cpu else math.inf
    in_epochs = min(asked / (mean * steps * batch), 1e6)
    seconds = training.times * training.max_seconds if training.stop == "seconds" else 0.0
    if training.stop == "macs":
        epochs = in_epochs if math.isfinite(asked) else float(most)
    elif training.epochs == "auto":
        epochs = min(most, max(1, round(in_epochs)))
    else:
        epochs = training.epochs
    whole = asked * training.times if training.stop == "macs" and math.isfinite(asked) else 0.0
    return Length(_whole(epochs * training.times), steps, mean, batch, seconds, whole)


def evaluate_every(training: Training, epochs: float, images: int, judged: int) -> int:
    """Epochs between evaluations, the same for every method that is trained for as many epochs: told by the forward
    passes of `judged` images, and of three times `images`, which a plain epoch's forward and backward come to."""
    if training.evaluate_every != "auto":
        return training.evaluate_every
    seldom = max(judged / (EVALUATION * 3 * images), APART / training.steps_of(images))
    return max(1, min(math.ceil(seldom), int(epochs) // EVALUATIONS))


def _whole(epochs: float) -> float:
    """A whole number as one, which is how it is shown."""
    return int(epochs) if epochs == int(epochs) else epochs
