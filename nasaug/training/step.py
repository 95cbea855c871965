"""One training step as seen by a method: views of the batch, passes, losses and sampled architectures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from random import Random
from typing import Protocol

import torch
from torch import Tensor

from .. import augment
from ..arch.cost import cost
from ..arch.plan import Plan, plan
from ..arch.space import Arch, Space
from ..augment import View, masks
from ..augment.boxes import moved
from ..augment.transform import Transform, transform, transform_both
from ..config.schedule import Constant
from ..core.boxes import CLASS, COLUMNS
from ..core.errors import BadInput, Diverged
from ..core.progress import Stages
from ..data import Data
from ..methods import Draw, Method, Pass
from ..nets.net import Net
from ..nets.regularisers import Noise
from ..tasks import Target, Task
from .device import Runtime
from .difficulty import Difficulty
from .teacher import Teacher


class Host(Protocol):
    """What a step needs from its trainer. It updates `macs`, `magnitude` and `magnitudes`."""

    method: Method
    space: Space
    base: Arch
    plan: Plan
    task: Task
    data: Data
    views: Mapping[str, View]
    transforms: Mapping[str, Transform]
    noise: Noise | None
    teacher: Teacher | None
    difficulty: Difficulty
    runtime: Runtime
    stages: Stages
    seed: int
    step: int
    macs: float
    magnitude: float
    magnitudes: float

    @property
    def net(self) -> Net: ...

    @property
    def frozen(self) -> bool: ...

    @property
    def progress(self) -> float: ...

    @property
    def drives(self) -> bool: ...


class Step(Draw):
    """Implements `methods.Step` for one batch: raw uint8 images [N, C, H, W] and their labels [N]."""

    def __init__(self, trainer: Host, images: Tensor, labels: Tensor):
        t = trainer
        super().__init__(t.space, t.base, t.plan.classes, t.step, t.progress, Random(f"{t.seed}/{t.step}/archs"))
        self._trainer, self._images, self._labels, self._runs = t, images, labels, 0
        self._drawn: list[Pass] | None = None

    @property
    def passes(self) -> list[Pass]:
        """The passes drawn by the method, on first access."""
        if self._drawn is None:
            self._drawn = self._trainer.method.passes(self)
        return self._drawn

    def view(self, name: str) -> tuple[Tensor, Target]:
        """(x, target) of the recipe's `[views.NAME]`, drawn from (seed, step, name), with the teacher's soft target."""
        t = self._trainer
        if name not in t.views:
            raise BadInput(f"the recipe has no [views.{name}], which this method needs")
        key = f"{t.seed}/{t.step}/{name}{t.runtime.ranks.key}"
        generator = torch.Generator().manual_seed(Random(key).getrandbits(62))
        guided = bool(t.difficulty) and name == "train"
        view = replace(t.views[name], magnitude=Constant(t.magnitude)) if guided and t.drives else t.views[name]
        images, labels = self._images, self._labels
        if t.data.targets == "boxes":
            with t.stages("augment"):
                if t.data.masks is None:
                    images, labels = moved(view, images, labels, generator, t.data.flip)
                else:
                    most = int((labels[..., CLASS] >= 0).sum(1).max())  # of this batch: masks take memory
                    labels = labels[:, : max(1, most)]
                    masks_of = t.data.masks.at(labels[..., COLUMNS], images.shape[-1])
                    images, labels = masks.moved(view, images, labels, masks_of, generator, t.data.flip)
            view = replace(view, flip=False, crop=0.0)  # done

        def make() -> Tensor:
            look = {"mean": t.data.mean, "std": t.data.std, "flip": t.data.flip, "progress": t.progress}
            with t.stages("augment"):
                return augment.make_view(view, images, generator, **look)

        seen, weight, judged = self._guided(make) if guided else (make(), None, None)
        x, labels = augment.mix(view, seen, labels, len(t.data.classes), generator)
        soft = None
        if t.teacher and t.task.soft_weight:
            known = judged is not None and x is seen  # mixing makes new images, which need new logits
            soft = t.task.soft(judged if known else self._taught(x), t.task.temperature)
        return x, Target(labels, soft, weight)

    def _taught(self, x: Tensor) -> Tensor:
        """The teacher's logits on x; their MACs are counted."""
        t = self._trainer
        t.macs += t.teacher.macs * len(x)
        with t.stages("teacher"), t.runtime.autocast():
            return t.teacher(augment.resize(x, t.plan.resolution))

    def _guided(self, make: Callable[[], Tensor]) -> tuple[Tensor, Tensor | None, Tensor]:
        """The training view shaped by the recipe's [difficulty], the weight of each image (None: equal), and the
        teacher's logits on the view.

        Raises Diverged if the logits are not finite: NaN would silently select arbitrary images or magnitude 0."""
        t, how = self._trainer, self._trainer.difficulty
        versions = [make() for _ in range(how.candidates if how.policy == "keep" else 1)]
        logits = torch.stack([self._taught(x) for x in versions])
        scores = torch.stack([how.of(each, self._labels) for each in logits])
        mean_score = t.runtime.ranks.mean(scores.mean().item())
        if not math.isfinite(mean_score):
            remedy = "the teacher's outputs are not finite: give another teacher.source, or train that one again"
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
        """Apply the recipe's `[transforms.NAME]`, with new draws for every pass; returns x itself if there is none."""
        t = self._trainer
        if name not in t.transforms:
            return x
        seed = Random(f"{t.seed}/{t.step}/{name}/{self._runs}{t.runtime.ranks.key}").getrandbits(62)
        with t.stages("augment"):
            return transform(t.transforms[name], x, torch.Generator().manual_seed(seed))

    @property
    def aligned(self) -> bool:
        return getattr(self._trainer.task, "aligned", True)

    def retold(self, name: str, x: Tensor, target: Target, soft: Tensor) -> tuple[Tensor, Tensor | Target]:
        """`transform` of x, and what an output on that is matched to: `soft`, or the target moved with the images if
        the task's outputs on two views do not align."""
        t = self._trainer
        if self.aligned:
            return self.transform(name, x), soft
        if name not in t.transforms:
            return x, target
        seed = Random(f"{t.seed}/{t.step}/{name}/{self._runs}{t.runtime.ranks.key}").getrandbits(62)
        with t.stages("augment"):
            both = transform_both if t.data.masks is None else masks.transformed
            seen, boxes = both(t.transforms[name], x, target.labels, torch.Generator().manual_seed(seed))
        return seen, Target(boxes)

    def run(self, x: Tensor, arch: Arch) -> Tensor:
        """The architecture's logits on x, which is resized to its resolution here: the Net itself never resizes."""
        p = plan(self.space, arch, self.classes)
        t = self._trainer
        t.macs += cost(p).macs * len(x)
        self._runs += 1
        with t.stages("forward"), t.runtime.autocast():
            x = augment.resize(x, p.resolution)
            if not t.noise:
                return t.net(x, p, frozen=True) if t.frozen else t.net(x, p)
            key = f"{t.seed}/{t.step}/noise/{self._runs}{t.runtime.ranks.key}"
            with t.runtime.seeded(Random(key).getrandbits(62)):
                return t.net(x, p, t.noise, frozen=True) if t.frozen else t.net(x, p, t.noise)

    def loss(self, out: Tensor, target: Target) -> Tensor:
        return self._trainer.task.loss(out, target)

    def soft(self, out: Tensor) -> Tensor:
        return self._trainer.task.soft(out)

    def match(self, out: Tensor, soft: Tensor | Target) -> Tensor:
        if isinstance(soft, Target):
            return self._trainer.task.loss(out, Target(soft.labels))
        return self._trainer.task.match(out, soft)
