"""Object detection: an anchor-free single-shot head on three maps, FCOS's targets and losses, AP50.

Tian et al., FCOS, ICCV 2019 (arXiv 1904.01355, with centre sampling and centerness beside the boxes). Losses and
non-maximum suppression are torchvision's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..arch.blocks import Spec
from ..arch.plan import LEVEL, LEVELS, Head
from ..core.boxes import CLASS, FLAG, PLAIN
from ..core.metric import Metric
from ..data import Data, Info
from . import precision
from .base import Settings, Target, register

BOX, EXTRA = 4, 5  # values of a point beside the classes: four distances, and the centerness
PRIOR = math.log(0.01 / 0.99)  # of an object at a point: added to the logits, so that training starts there
REACH = 4.0  # an object is found on the first map on which it measures at most so many pixels
RADIUS = 1.5  # a point is of an object if it lies within so many pixels of the object's centre, and in its box
FAR = 8.0  # the exponent of a distance in pixels is at most this
ALPHA, GAMMA = 0.25, 2.0  # focal loss (Lin et al., ICCV 2017)
NAMING = 1.0  # weight of the cross-entropy among the classes where an object is: see `Detect`
LEAST_SCORE, OVERLAP, CANDIDATES, MOST = 0.01, 0.6, 300, 100  # of detections: see `Detect.answer`


class Points(NamedTuple):
    """The points of a net's output, the pixels of its maps: centres x, y [P, 2], the pixel's side [P], and the map's
    number [P]; all lengths are shares of the image."""

    centre: Tensor
    side: Tensor
    level: Tensor


@register
@dataclass(frozen=True, slots=True)
class Detect:
    """Detection of objects of `classes` classes.

    A net's output is [N, P, classes + 5]: for each pixel of the three maps a logit per class, the logarithms of the
    distances to the left, top, right and bottom side of the box in pixels of that map, and the centerness. Labels are
    [N, most boxes, 6], as in `nasaug.core.boxes`.

    The loss is focal loss + GIoU loss + cross-entropy of the centerness + NAMING times the cross-entropy among the
    classes (softmax) at the points with an object, each summed and divided by the number of those points. FCOS has not
    the last one; but focal loss weights a wrong class by its probability squared, and so small nets found objects long
    before they could name them (docs/howto/detection.md). Points in difficult objects and crowds count in none of
    them."""

    name: ClassVar[str] = "detect"
    targets: ClassVar[str] = "boxes"
    metric: ClassVar[Metric] = Metric("ap50", "%")
    aligned: ClassVar[bool] = False

    classes: int
    temperature: float = 1.0
    hard: float = 1.0
    soft_weight: float = 0.0

    @property
    def head(self) -> Head:
        return head_of(self.classes)

    @classmethod
    def outputs(cls, info: Info) -> Head:
        """Raises MissingExtra without pycocotools, so that a search does not fail at its first evaluation."""
        precision.need_pycocotools()
        return head_of(info.classes)

    @classmethod
    def of_data(cls, data: Data, settings: Settings) -> Detect:
        """Raises MissingExtra without pycocotools, so that no command fails after its work, when it scores."""
        precision.need_pycocotools()
        return cls(len(data.classes), settings.temperature, settings.hard, settings.soft_weight)

    @classmethod
    def of_facts(cls, facts: Mapping[str, Any]) -> Detect:
        return cls(len(facts["classes"]))

    @property
    def facts(self) -> dict[str, Any]:
        return {"task": self.name, "fit": "whole"}

    # --- learning ----------------------------------------------------------------------------------------------

    def loss(self, out: Tensor, target: Target) -> Tensor:
        """Mean over the points with an object, for outputs [N, P, classes + 5] and boxes [N, most, 6]."""
        out = out.float()
        loss = self._loss(out, target.labels)
        if target.soft is None:
            return loss
        return self.hard * loss + self.soft_weight * self.match(out, target.soft)

    def _loss(self, out: Tensor, labels: Tensor) -> Tensor:
        from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

        points = points_of(out)
        owner, ignored = assigned(points, labels)
        mine = labels.gather(1, owner.clamp_min(0)[..., None].expand(*owner.shape, labels.shape[2]))  # [N, P, 6]
        positive = owner >= 0
        wanted = torch.zeros_like(out[..., : self.classes])
        label = mine[..., CLASS].clamp_min(0).long()
        wanted.scatter_(2, label[..., None], positive[..., None].to(wanted.dtype))
        named = F.cross_entropy(out[..., : self.classes][positive], label[positive], reduction="sum")
        focal = sigmoid_focal_loss(out[..., : self.classes] + PRIOR, wanted, ALPHA, GAMMA)
        total = (focal.sum(2) * ~ignored).sum() + NAMING * named
        found, boxes = self._boxes(out, points)[positive], mine[..., :4][positive]
        total = total + generalized_box_iou_loss(found, boxes, reduction="sum")
        centre = points.centre.expand(len(out), -1, 2)[positive]
        sides = torch.cat([centre - boxes[:, :2], boxes[:, 2:] - centre], 1).clamp_min(0)  # left, top, right, bottom
        across, down = sides[:, ::2], sides[:, 1::2]
        one, two = (each.amin(1) / each.amax(1).clamp_min(1e-9) for each in (across, down))
        centred = torch.sqrt(one * two)
        total = total + F.binary_cross_entropy_with_logits(out[..., -1][positive], centred, reduction="sum")
        return total / positive.sum().clamp_min(1)

    def soft(self, out: Tensor, temperature: float = 1.0) -> Tensor:
        """Detached [N, P, classes + 5], with probabilities instead of logits."""
        out = out.detach().float()
        classes = torch.sigmoid((out[..., : self.classes] + PRIOR) / temperature)
        return torch.cat([classes, out[..., self.classes : -1], torch.sigmoid(out[..., -1:])], 2)

    def match(self, out: Tensor, soft: Tensor, weight: Tensor | None = None) -> Tensor:
        """The distance from another net's output on the same points: cross-entropies and a smooth L1 of the boxes, each
        point weighted by the other net's probability that it has an object."""
        out, c = out.float(), self.classes
        each = F.binary_cross_entropy_with_logits(out[..., :c] + PRIOR, soft[..., :c], reduction="none").sum(2)
        each = each + F.binary_cross_entropy_with_logits(out[..., -1], soft[..., -1], reduction="none")
        each = each + F.smooth_l1_loss(out[..., c:-1], soft[..., c:-1], reduction="none").sum(2)
        there = soft[..., :c].amax(2)
        there = there if weight is None else there * weight[:, None]
        return (each * there).sum() / there.sum().clamp_min(1e-6)

    # --- detections --------------------------------------------------------------------------------------------

    def _boxes(self, out: Tensor, points: Points) -> Tensor:
        """[N, P, 4]: x1, y1, x2, y2 as shares of the image."""
        distances = out[..., self.classes : -1].clamp(max=FAR).exp() * points.side[:, None]
        return torch.cat([points.centre - distances[..., :2], points.centre + distances[..., 2:]], 2)

    def answer(self, out: Tensor) -> Tensor:
        """[N, MOST, 6]: the detections x1, y1, x2, y2 (shares of the image), class and score, best first; missing ones
        have class -1.

        A score is the root of the class's probability times the centerness. The CANDIDATES best of at least LEAST_SCORE
        are kept, less those that overlap a better one of their class by more than OVERLAP."""
        from torchvision.ops import batched_nms

        out = out.detach().float()
        images, count = len(out), min(CANDIDATES, out.shape[1] * self.classes)
        scores = torch.sqrt(torch.sigmoid(out[..., : self.classes] + PRIOR) * torch.sigmoid(out[..., -1:]))
        best, index = scores.flatten(1).topk(count)
        label, place = index % self.classes, index // self.classes
        boxes = self._boxes(out, points_of(out)).clamp(0, 1).gather(1, place[..., None].expand(-1, -1, 4))
        image = torch.arange(images, device=out.device)[:, None].expand_as(label)
        rows = torch.cat([boxes, label[..., None].to(boxes.dtype), best[..., None]], 2)
        sized = (boxes[..., 2:] > boxes[..., :2]).all(2)
        rows, image = (each[(best >= LEAST_SCORE) & sized] for each in (rows, image))
        kept = batched_nms(rows[:, :4], rows[:, 5], image * self.classes + rows[:, 4].long(), OVERLAP)
        found = out.new_full((images, MOST, 6), -1.0)
        rows, image = rows[kept], image[kept]  # by falling score
        order = image.argsort(stable=True)
        rows, image = rows[order], image[order]
        counts = torch.bincount(image, minlength=images)
        rank = torch.arange(len(rows), device=out.device) - (counts.cumsum(0) - counts)[image]
        found[image[rank < MOST], rank[rank < MOST]] = rows[rank < MOST]
        return found

    def judge(self, out: Tensor, labels: Tensor) -> Tensor:
        """[N, MOST + most boxes, 7]: the image's detections and its objects, as `precision.average_precision` reads
        them."""
        found = self.answer(out)
        kind = torch.where(found[..., CLASS] < 0, precision.NOTHING, precision.FOUND)
        flag = torch.where(labels[..., CLASS] < 0, precision.NOTHING, precision.THERE + labels[..., FLAG].long())
        there = torch.cat([labels[..., : CLASS + 1], torch.ones_like(labels[..., :1]), flag[..., None]], 2)
        return torch.cat([torch.cat([found, kind[..., None].to(found.dtype)], 2), there.to(found.dtype)], 1)

    def score(self, judged: Sequence[Tensor]) -> float:
        """AP50 in percent, the mean over the classes: the area under each one's curve, as Pascal VOC from 2010 on."""
        return precision.mean(precision.average_precision(judged).values())

    def figures(self, judged: Sequence[Tensor]) -> dict[str, Any]:
        """Further figures of a finished net: AP50 over 11 recalls (VOC 2007) and COCO's mAP in percent."""
        eleven = precision.average_precision(judged, precision.ELEVEN)
        coco = precision.average_precision(judged, precision.HUNDRED_AND_ONE, precision.COCO)
        return {"ap50_11_points": precision.mean(eleven.values()), "coco_map": precision.mean(coco.values())}

    def standard_error(self, score: float, images: int) -> float:
        """As if the score were the share of so many objects that are found."""
        share = min(max(score / 100, 0.0), 1.0)
        return 100 * (share * (1 - share) / images) ** 0.5


@cache
def head_of(classes: int) -> Head:
    """Two depthwise-separable convolutions on each map, the last one to the outputs. They are wider for more classes,
    at least as wide as the outputs."""
    width = 8 * math.ceil((40 + classes) / 8)
    specs: list[Spec] = []
    for i in range(LEVELS):
        specs += [
            Spec(f"detect{i}.reduce", "conv", width, act="relu6", source=f"{LEVEL}{i}"),
            Spec(f"detect{i}.dw1", "depthwise", kernel=3, act="relu6"),
            Spec(f"detect{i}.mid", "conv", width, act="relu6"),
            Spec(f"detect{i}.dw2", "depthwise", kernel=3, act="relu6"),
            Spec(f"detect{i}.out", "pointwise", classes + EXTRA),
        ]
    return Head(classes + EXTRA, tuple(specs), pooled=False)


@cache
def _largest(points: int) -> int:
    """The side n of the largest map: there are n^2 points on it and, halved and rounded up, on the next ones. They rise
    with n, so their number tells it."""
    n = max(1, math.isqrt(points * 3 // 4) - 3)
    while (there := sum(side**2 for side in sides(n))) < points:
        n += 1
    if there != points:
        raise ValueError(f"{points} points are not those of {LEVELS} maps, each half the size of the one before")
    return n


def sides(largest: int) -> list[int]:
    """The sides of the maps, in pixels."""
    found = [largest]
    while len(found) < LEVELS:
        found.append(-(-found[-1] // 2))
    return found


def points_of(out: Tensor) -> Points:
    """The points of an output [N, P, …], row by row, map by map."""
    return _points(out.shape[1], out.device)


@cache
def _points(count: int, device: torch.device) -> Points:
    centres, lengths, levels = [], [], []
    for level, side in enumerate(sides(_largest(count))):
        middle = (torch.arange(side, device=device) + 0.5) / side
        centres.append(torch.stack(torch.meshgrid(middle, middle, indexing="xy"), 2).view(-1, 2))
        lengths.append(torch.full((side**2,), 1.0 / side, device=device))
        levels.append(torch.full((side**2,), level, device=device))
    return Points(torch.cat(centres), torch.cat(lengths), torch.cat(levels))


def fits(inside: Tensor, away: Tensor, side: Tensor) -> Tensor:
    """Whether points may find a box: in it, and not too far `away` from its centre in either direction."""
    return inside & (away < RADIUS * side)


def assigned(points: Points, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(the box that each point is to find, int64 [N, P], -1: none; whether it is ignored, bool [N, P]).

    Each box belongs to one map, by its longer side (REACH). It is found from the points of that map in it and near its
    centre (RADIUS), and from the nearest one if there is none; a point in several boxes finds the smallest."""
    corners, there = labels[..., :4], labels[..., CLASS] >= 0
    low, high = corners[..., None, :2], corners[..., None, 2:]  # [N, M, 1, 2]
    size, centre = high - low, (low + high) / 2
    inside = ((points.centre > low) & (points.centre < high)).all(3)  # [N, M, P]
    ignored = (inside & (there & (labels[..., FLAG] != PLAIN))[..., None]).any(1)
    longest = size.amax(3)  # [N, M, 1]
    side_of = points.side.new_zeros(LEVELS).index_copy_(0, points.level.flip(0), points.side.flip(0))
    level = (longest > REACH * side_of[:-1]).sum(2, keepdim=True)  # [N, M, 1]
    away = (points.centre - centre).abs().amax(3)
    on_level = points.level == level
    mine = on_level & fits(inside, away, points.side)
    nearest = torch.where(on_level, away, math.inf).argmin(2, keepdim=True)
    mine = mine | (~mine.any(2, keepdim=True) & torch.zeros_like(mine).scatter_(2, nearest, True))
    mine &= (there & (labels[..., FLAG] == PLAIN))[..., None]
    area = torch.where(mine, size.prod(3), math.inf)
    least, owner = area.min(1)
    owner = torch.where(least < math.inf, owner, -1)
    return owner, ignored & (owner < 0)
