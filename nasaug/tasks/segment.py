"""Instance segmentation: torchvision's Mask R-CNN on the maps of a net, mask mAP.

He et al., ICCV 2017 (arXiv 1703.06870). The FPN's lateral convolutions are the task's head in the plan; all other parts
of Mask R-CNN are `nasaug.nets.two_stage`, beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Ge, Le, MultipleOf
from torch import Tensor

from ..arch.blocks import Spec
from ..arch.cost import cost
from ..arch.plan import LEVEL, MOST_LEVELS, Head, Plan
from ..core.boxes import CLASS, COLUMNS, CROWD, FLAG, PLAIN
from ..core.checked import Count, Told, checked
from ..core.errors import BadInput
from ..core.metric import Metric
from ..core.units import format_quantity
from ..data import Data, Info
from ..data.masks import Masks
from . import precision
from .base import Settings, Target, register

LEAST = 1.0  # px: boxes with a shorter side are not learnt
Eighths = Annotated[int, Ge(8), Le(1024), MultipleOf(8), Told("must be a multiple of 8", "give 8, 16, … to 1024")]


@checked("segment")
class SegmentConfig:
    """The sizes of Mask R-CNN's parts: the recipe's `[segment]` table. torchvision's own are 256, 1024, 256, 8, 100."""

    width: Eighths = 32
    """Channels of the FPN: outputs of the lateral convolutions and of the FPN, inputs of all heads."""
    box_width: Count = 128
    """Features of the box head's two linear layers."""
    mask_width: Eighths = 32
    """Channels of the mask head's two convolutions and its transposed one."""
    anchor: Count = 4
    """The anchors' side in pixels of the map they are on: small, because images are."""
    detections: Annotated[int, Ge(1), Le(100)] = 20
    """The most objects that are found in an image."""


@register
@dataclass(frozen=True, slots=True)
class Segment:
    """Detection of objects of `classes` classes with their masks.

    A net's output is `nasaug.nets.two_stage.Maps`. Labels are those of boxes with one more column, the object's number
    in `masks`; or a view's, with the pixels of its mask (`nasaug.augment.masks`). The loss is the sum of torchvision's
    five. Difficult objects and crowds are not learnt, and count neither as found nor as missed."""

    name: ClassVar[str] = "segment"
    targets: ClassVar[str] = "boxes"
    metric: ClassVar[Metric] = Metric("mask_map", "%")
    aligned: ClassVar[bool] = False
    moved: ClassVar[str] = "boxes and masks"
    two_stage: ClassVar[bool] = True

    classes: int
    sizes: SegmentConfig = field(default_factory=SegmentConfig)
    masks: Masks | None = field(default=None, compare=False)
    temperature: float = 1.0
    soft_weight: float = 0.0

    @property
    def head(self) -> Head:
        return head_of(self.classes, self.sizes)

    @classmethod
    def outputs(cls, info: Info, sizes: SegmentConfig | None = None) -> Head:
        """Raises MissingExtra without pycocotools, and BadInput for a command that does not give the `sizes`."""
        if sizes is None:
            rule = "is for train, netaug-train and compare alone"
            remedy = "search and prune with another task, and train the net that is found with this one"
            raise BadInput.of(field="task", value=cls.name, rule=rule, remedy=remedy)
        precision.need_pycocotools()
        return head_of(info.classes, sizes)

    @classmethod
    def of_data(cls, data: Data, settings: Settings) -> Segment:
        """Raises MissingExtra without pycocotools."""
        precision.need_pycocotools()
        return cls(len(data.classes), settings.sizes or SegmentConfig(), data.masks)

    @classmethod
    def of_facts(cls, facts: Mapping[str, Any]) -> Segment:
        return cls(len(facts["classes"]), SegmentConfig(**facts["segment"]))

    @property
    def facts(self) -> dict[str, Any]:
        return {"task": self.name, "fit": "whole", "segment": asdict(self.sizes)}

    def beside(self, plan: Plan, parts: Mapping[str, int]) -> tuple[str, dict[str, Any]]:
        """What a net computes beside its plan, as a line and as facts for result.json: MACs of an image, from those of
        its `parts` (`nasaug.nets.two_stage.TwoStage.costs`)."""
        proposals, detections = parts["proposals"], self.sizes.detections
        shares = {
            "FPN": parts["fpn"], "RPN": parts["rpn"], f"{proposals} proposals": proposals * parts["per_proposal"],
            f"{detections} masks": detections * parts["per_mask"],
        }  # fmt: skip
        beside = sum(shares.values())
        told = ", ".join(f"{name} {format_quantity(macs, 'macs')}" for name, macs in shares.items())
        line = (
            f"these {format_quantity(cost(plan).macs, 'macs')} MACs, the parameters and the memory are those of the "
            f"backbone and the FPN's lateral convolutions; beside them {format_quantity(parts['params'], 'params')} "
            f"parameters and at most {format_quantity(beside, 'macs')} MACs: {told}"
        )
        macs = {key: n for key, n in parts.items() if key != "params"} | {"masks": detections, "total": beside}
        known = {"macs_beside": macs, "params_beside": parts["params"]}
        return line, {"macs_of": "backbone and lateral convolutions", **known}

    # --- learning ----------------------------------------------------------------------------------------------

    def loss(self, out: Any, target: Target) -> Tensor:
        """The sum of torchvision's losses, for `Maps` and the labels of a view or of a split."""
        return torch.stack([*out.modules.losses(out, self._targets(target.labels, out.size)).values()]).sum()

    def _targets(self, labels: Tensor, size: int) -> list[dict[str, Tensor]]:
        """torchvision's targets, in px of images of this size."""
        masks = self._masks_of(labels, size)
        boxes = labels[..., :CLASS] * size
        sides = boxes[..., 2:] - boxes[..., :2]
        learnt = (labels[..., CLASS] >= 0) & (labels[..., FLAG] == PLAIN) & (sides >= LEAST).all(2)
        return [
            {"boxes": boxes[i][own], "labels": 1 + labels[i, own, CLASS].long(), "masks": masks[i][own]}
            for i, own in enumerate(learnt)
        ]

    def _masks_of(self, labels: Tensor, size: int) -> Tensor:
        """uint8 [N, most, size, size]."""
        if labels.shape[2] == COLUMNS + 1:
            assert self.masks is not None
            return self.masks.at(labels[..., COLUMNS], size)
        side = round((labels.shape[2] - COLUMNS) ** 0.5)
        masks = labels[..., COLUMNS:].unflatten(2, (side, side))
        if side != size:  # a net of another resolution than the view's
            masks = F.interpolate(masks, (size, size), mode="bilinear", antialias=size < side, align_corners=False)
        return (masks >= 0.5).to(torch.uint8)

    def soft(self, out: Any, temperature: float = 1.0) -> Tensor:
        """Nothing: proposals of two nets differ, so that their outputs cannot be matched."""
        return out.levels[0].new_zeros(0)

    def match(self, out: Any, soft: Tensor, weight: Tensor | None = None) -> Tensor:
        raise NotImplementedError("the outputs of two nets with proposals of their own cannot be matched")

    # --- detections --------------------------------------------------------------------------------------------

    def answer(self, out: Any) -> Tensor:
        """[N, detections, 6 + side * side]: x1, y1, x2, y2 (shares of the image), class, score, and the probabilities
        of the mask's pixels within the box, best first; missing ones have class -1."""
        rows = torch.full((len(out), self.sizes.detections, CLASS + 2 + out.modules.mask_side**2), -1.0)
        for row, found in zip(rows, out.modules.found(out), strict=True):
            columns = (found["boxes"] / out.size, found["labels"][:, None] - 1, found["scores"][:, None])
            rows_found = torch.cat([*columns, found["masks"].flatten(1)], 1)
            row[: len(rows_found)] = rows_found.detach().cpu()
        return rows

    def judge(self, out: Any, labels: Tensor) -> Tensor:
        """[N, detections + most, 4 + 2 * most]: each image's detections and its objects: class, score, area, kind, and
        a detection's overlaps with the image's objects, by masks and then by boxes. In pixels of the image itself."""
        assert self.masks is not None
        return judged(self.answer(out), labels.cpu(), self.masks)

    def score(self, judged: Sequence[Tensor]) -> float:
        """COCO's mask mAP in percent: the mean over the classes and the thresholds of IoU 0.5 to 0.95."""
        return precision.mean(_average(judged, MASKS, precision.COCO))

    def figures(self, judged: Sequence[Tensor]) -> dict[str, Any]:
        """Further figures of a finished net: mask AP50, COCO's box mAP and box AP50, in percent."""
        return {
            "mask_ap50": precision.mean(_average(judged, MASKS, precision.AP50)),
            "box_map": precision.mean(_average(judged, BOXES, precision.COCO)),
            "box_ap50": precision.mean(_average(judged, BOXES, precision.AP50)),
        }

    def standard_error(self, score: float, images: int) -> float:
        """As if the score were the share of so many objects that are found."""
        share = min(max(score / 100, 0.0), 1.0)
        return 100 * (share * (1 - share) / images) ** 0.5


@cache
def head_of(classes: int, sizes: SegmentConfig) -> Head:
    """The FPN's lateral convolutions on the last four maps, normalised as in torchvision's maskrcnn_resnet50_fpn_v2."""
    specs = (Spec(f"lateral{i}", "conv", sizes.width, source=f"{LEVEL}{i}") for i in range(MOST_LEVELS))
    beside = {"classes": classes, **asdict(sizes)}
    return Head(sizes.width, tuple(specs), pooled=False, beside=tuple(beside.items()))


# --- precision ------------------------------------------------------------------------------------------------

LABEL, SCORE, AREA, KIND, OVERLAPS = 0, 1, 2, 3, 4  # columns of what `judge` gives
MASKS, BOXES = 0, 1  # kinds of overlaps


def judged(found: Tensor, labels: Tensor, masks: Masks) -> Tensor:
    """`Segment.judge` of detections as `Segment.answer` gives them. Overlaps are pycocotools', of the masks pasted into
    the image as torchvision does; a crowd's is a detection's share inside it."""
    from pycocotools import mask

    most = labels.shape[1]
    rows = torch.zeros(len(found), found.shape[1] + most, OVERLAPS + 2 * most)
    rows[..., KIND] = precision.NOTHING
    for i, (own, there) in enumerate(zip(found, labels, strict=True)):
        own, objects = own[own[:, CLASS] >= 0], (there[:, CLASS] >= 0).nonzero()[:, 0].tolist()
        row = rows[i, found.shape[1] :]
        row[:, LABEL] = there[:, CLASS]
        row[objects, KIND] = precision.THERE + there[objects, FLAG]
        rows[i, : len(own), LABEL], rows[i, : len(own), SCORE] = own[:, CLASS], own[:, CLASS + 1]
        rows[i, : len(own), KIND] = precision.FOUND
        if not objects:
            continue
        theirs = [masks.rles[int(there[place, COLUMNS])] for place in objects]
        row[objects, AREA] = torch.tensor(mask.area(theirs).astype(float), dtype=row.dtype)
        if not len(own):
            continue
        height, width = theirs[0]["size"]
        pasted = np.asfortranarray(paste(own, height, width).permute(1, 2, 0).numpy().astype(np.uint8))
        crowds = [int(there[place, FLAG] == CROWD) for place in objects]
        sides = torch.tensor([width, height, width, height]).double()
        boxes = [_as_width(each[:, :CLASS].double() * sides) for each in (own, there[objects])]
        by_kind = (mask.iou(mask.encode(pasted), theirs, crowds), mask.iou(*boxes, crowds))
        for kind, overlaps in enumerate(by_kind):
            columns = [OVERLAPS + kind * most + place for place in objects]
            rows[i, : len(own), columns] = torch.from_numpy(np.asarray(overlaps)).to(rows.dtype)
    return rows


def _as_width(corners: Tensor) -> np.ndarray:
    """x, y, width, height from x1, y1, x2, y2."""
    return torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1).numpy()


def paste(found: Tensor, height: int, width: int) -> Tensor:
    """bool [n, height, width]: the masks of detections [n, …] as `Segment.answer` gives them, in an image of this
    size."""
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    side = round((found.shape[1] - CLASS - 2) ** 0.5)
    boxes = found[:, :CLASS] * torch.tensor([width, height, width, height])
    if not len(found):
        return torch.zeros(0, height, width, dtype=torch.bool)
    masks = found[:, CLASS + 2 :].view(-1, 1, side, side)
    return paste_masks_in_image(masks, boxes, (height, width))[:, 0] >= 0.5


def _average(judged: Sequence[Tensor], kind: int, overlaps: Sequence[float]) -> list[float]:
    """The average precision of each class that has objects, by pycocotools with the overlaps of one `kind`."""
    found: list[dict[str, Any]] = []
    there: list[dict[str, Any]] = []
    between = []
    for image, rows in enumerate(rows.cpu().double() for batch in judged for rows in batch):
        most = (rows.shape[1] - OVERLAPS) // 2
        own, objects = rows[:-most], rows[-most:]
        own, places = own[own[:, KIND] == precision.FOUND], (objects[:, KIND] >= precision.THERE).nonzero()[:, 0]
        for group, members in ((found, own), (there, objects[places])):
            for place, row in enumerate(members.tolist()):
                flags = {"score": row[SCORE], "iscrowd": int(row[KIND] > precision.THERE)}
                named = {"id": len(group) + 1, "image_id": image, "category_id": int(row[LABEL]), "area": row[AREA]}
                group.append({**named, **flags, "place": place})
        between.append(own[:, OVERLAPS + kind * most + places].numpy())
    return precision.of_overlaps(there, found, between, overlaps)
