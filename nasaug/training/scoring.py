"""The evaluation protocol for networks, the same for every method: narrow, calibrate, compute the task's metric.

Calibration images are sampled once per run from the training split, seeded and without replacement, with evaluation
transforms. They are prepared once per resolution.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import augment
from ..arch.plan import Plan
from ..core.metric import WORST
from ..data import Data, Split
from ..nets.net import Net
from ..tasks import Target, Task
from .device import Runtime

BATCH, SMALL_BATCH, SMALL = 256, 512, 32  # batch size above and up to SMALL px
CACHED = 700_000_000  # bytes: the largest cache of one split's prepared images at one resolution
CACHED_IN_ALL = 3_000_000_000


class Judged(NamedTuple):
    """A net's score in the task's metric, and its mean loss, on one split.

    The loss ranks nets more reliably: it depends on all outputs, not only on which is highest."""

    score: float
    loss: float


class Scorer:
    """Calibrates and evaluates finished nets on one data set."""

    def __init__(self, data: Data, task: Task, runtime: Runtime, calibration: int, seed: int = 0):
        self.data, self.task, self.runtime = data, task, runtime
        self.calibration = data.train.take(calibration, seed)
        self.seen = data.train.take(len(data.val), seed + 1)  # not augmented, for the training score
        self._cache: dict[tuple[Split, int], list[tuple[Tensor, Tensor]]] = {}

    def batches(self, split: Split, resolution: int) -> Iterator[tuple[Tensor, Tensor]]:
        """(normalised images, labels) of this rank's share of the split's batches at `resolution`, cached within the
        limits above."""
        key = (split, resolution)
        if key not in self._cache:
            needed, held = self._bytes(split, resolution), sum(self._bytes(*there) for there in self._cache)
            if needed > CACHED or held + needed > CACHED_IN_ALL:
                return self._prepare(split, resolution)
            self._cache[key] = list(self._prepare(split, resolution))
        return iter(self._cache[key])

    def _bytes(self, split: Split, resolution: int) -> float:
        """Size in bytes of a split's prepared images: 3 channels of float32."""
        return len(split) * 12 * resolution**2 / self.runtime.ranks.count

    def _prepare(self, split: Split, resolution: int) -> Iterator[tuple[Tensor, Tensor]]:
        device, ranks = self.runtime.device, self.runtime.ranks
        batch = SMALL_BATCH if resolution <= SMALL else BATCH
        even = math.ceil(len(split) / math.ceil(len(split) / batch))  # a last batch of one image has no variance
        for images, labels in split.ordered(even, resolution if self.data.streamed else None, ranks.share):
            x = augment.evaluation(images.to(device), mean=self.data.mean, std=self.data.std)
            yield augment.resize(x, resolution), labels.to(device)

    def calibrated(self, net: Net, plan: Plan, frozen: bool = False) -> Net:
        """`net.narrow(plan)` with recalibrated running statistics, in evaluation mode; a `frozen` trunk keeps
        its own."""
        small = net.narrow(plan)
        ranks = self.runtime.ranks
        images = (x for x, _ in self.batches(self.calibration, plan.resolution))
        more = {"frozen": True} if frozen else {}  # nets in int8 have no frozen trunk
        small.calibrate(images, None if ranks.alone else ranks.gathered, **more)
        return small.eval()

    def score(self, net: Net, split: Split) -> float:
        """The task's metric for a calibrated net on `split`."""
        return self.task.score(self.judged(net, split))

    @torch.inference_mode()
    def measured(self, net: Net, split: Split) -> Judged:
        """The task's metric and its mean loss, without a teacher's term, for a calibrated net on `split`."""
        judged, loss = [], 0.0
        for x, labels in self.batches(split, net.plan.resolution):
            out = net(x)
            judged.append(self.task.judge(out, labels))
            loss += self.task.loss(out, Target(labels)).item() * len(labels)
        (loss,) = self.runtime.ranks.sums(loss)
        loss /= len(split)
        return Judged(self.task.score(self._joined(judged)), loss if math.isfinite(loss) else WORST)

    def judged(self, net: Net, split: Split) -> list[Tensor]:
        """The task's figure for each image, such as whether it is correct: [N] per batch, in the split's order."""
        return self.of_each(net, split, self.task.judge)

    @torch.inference_mode()
    def of_each(self, net: Net, split: Split, told: Callable[[Any, Tensor], Tensor]) -> list[Tensor]:
        """What `told` makes of the net's output and the labels of each batch, in the split's order."""
        batches = self.batches(split, net.plan.resolution)
        return self._joined([told(net(x), labels) for x, labels in batches])

    def _joined(self, judged: list[Tensor]) -> list[Tensor]:
        """The batches of all ranks in the split's order, from those of this one: they take turns."""
        ranks = self.runtime.ranks
        if ranks.alone:
            return judged
        shares = ranks.gathered([each.cpu() for each in judged])
        return [shares[i % ranks.count][i // ranks.count] for i in range(sum(map(len, shares)))]
