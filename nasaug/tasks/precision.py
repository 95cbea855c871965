"""Average precision of detections, by pycocotools: Pascal VOC's AP50 and COCO's mAP.

pycocotools matches detections with objects: in the order of their scores, each with the free object of the same class
that it overlaps most, at or above the threshold. It also averages precision over recalls. VOC's figures differ from
COCO's in the recalls alone: 11 from 0 to 1 (VOC 2007), or those of every object found (VOC 2010).
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
from torch import Tensor

from ..core.boxes import CROWD
from ..core.errors import MissingExtra

CLASS, SCORE, KIND = 4, 5, 6  # columns after x1, y1, x2, y2
NOTHING, FOUND, THERE = -1, 0, 1  # kinds of rows: none, a detection, an object (plus the object's flag)
COLUMNS = 7
SCALE = 1000.0  # boxes are shares of the image; pycocotools computes in pixels, and overlaps do not depend on it
AP50 = (0.5,)
COCO = tuple(np.linspace(0.5, 0.95, 10))


def need_pycocotools() -> None:
    """Raises MissingExtra, with pip's command."""
    if find_spec("pycocotools") is None:
        raise MissingExtra("pycocotools", "detect", "detection")


def average_precision(
    judged: Sequence[Tensor], recalls: Sequence[float] | None = None, overlaps: Sequence[float] = AP50
) -> dict[int, float]:
    """For each class that has objects its average precision, 0 to 1, a mean over `overlaps` (thresholds of IoU).

    Args:
        judged: [N, rows, 7] per batch: x1, y1, x2, y2, class, score, kind. Difficult objects and crowds count neither
            as found nor as missed, and a detection of one not as wrong; a crowd is overlapped by a detection's share
            inside it.
        recalls: over which precision is averaged; None: those of every object, which gives the area under the
            interpolated curve (VOC 2010).
    """
    rows = _rows(judged)
    found: dict[int, float] = {}
    for label in np.unique(rows[rows[:, 1 + KIND] == THERE][:, 1 + CLASS]).astype(int).tolist():
        own = rows[rows[:, 1 + CLASS] == label]
        count = int((own[:, 1 + KIND] == THERE).sum())
        at = np.arange(1, count + 1) / count if recalls is None else np.asarray(recalls)
        found[label] = _of_class(own, at, overlaps)
    return found


def mean(figures: Iterable[float]) -> float:
    """The mean over classes in percent; 0 if there are none."""
    return 100.0 * float(np.mean([*figures] or [0.0]))


ELEVEN = tuple(np.linspace(0, 1, 11))
HUNDRED_AND_ONE = tuple(np.linspace(0, 1, 101))


def _rows(judged: Sequence[Tensor]) -> np.ndarray:
    """All rows [n, 1 + 7], each after the number of its image."""
    parts, first = [], 0
    for batch in judged:
        values = batch.detach().cpu().double().numpy()
        image = np.broadcast_to(np.arange(first, first + len(values))[:, None, None], (*values.shape[:2], 1))
        whole = np.concatenate([image, values], 2).reshape(-1, 1 + COLUMNS)
        parts.append(whole[whole[:, 1 + KIND] != NOTHING])
        first += len(values)
    return np.concatenate(parts) if parts else np.zeros((0, 1 + COLUMNS))


def _of_class(rows: np.ndarray, recalls: np.ndarray, overlaps: Sequence[float]) -> float:
    """The average precision of one class, from its rows."""
    objects, detections = [], []
    for number, row in enumerate(rows, 1):
        x1, y1, x2, y2 = row[1:5] * SCALE
        entry: dict[str, Any] = {
            "id": number, "image_id": int(row[0]), "category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": (x2 - x1) * (y2 - y1),
        }  # fmt: skip
        if row[1 + KIND] == FOUND:
            detections.append(entry | {"score": row[1 + SCORE]})
        else:
            flag = int(row[1 + KIND]) - THERE
            objects.append(entry | {"iscrowd": int(flag > 0), "crowd": int(flag == CROWD)})
    if not detections:
        return 0.0
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        evaluator = _evaluator(objects, detections)
        evaluator.params.recThrs, evaluator.params.iouThrs = recalls, np.asarray(overlaps)
        evaluator.params.areaRng, evaluator.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluator.params.maxDets = [len(detections)]
        evaluator.evaluate()
        evaluator.accumulate()
    return float(np.maximum(evaluator.eval["precision"], 0).mean())


def _evaluator(objects: list[dict[str, Any]], detections: list[dict[str, Any]]) -> Any:
    from pycocotools.cocoeval import COCOeval

    class Evaluator(COCOeval):
        """Difficult objects are ignored as crowds are, but overlapped as objects."""

        def computeIoU(self, imgId, catId):  # noqa: N802, N803
            there = self._gts[imgId, catId]
            ignored = [each["iscrowd"] for each in there]
            for each in there:
                each["iscrowd"] = each["crowd"]
            overlaps = super().computeIoU(imgId, catId)
            for each, flag in zip(there, ignored, strict=True):
                each["iscrowd"] = flag
            return overlaps

    return Evaluator(*_sets(objects, detections), "bbox")


def _sets(*of_annotations: list[dict[str, Any]]) -> list[Any]:
    """pycocotools' sets of annotations, with the images and the classes of all of them."""
    from pycocotools.coco import COCO as Coco

    both = [each for lot in of_annotations for each in lot]
    images, classes = (sorted({each[key] for each in both}) for key in ("image_id", "category_id"))
    made = []
    for lot in of_annotations:
        one = Coco()
        one.dataset = {
            "images": [{"id": i} for i in images], "categories": [{"id": i} for i in classes],
            "annotations": lot,
        }  # fmt: skip
        one.createIndex()
        made.append(one)
    return made


def of_overlaps(
    objects: list[dict[str, Any]], detections: list[dict[str, Any]], between: Sequence[np.ndarray],
    thresholds: Sequence[float],
) -> list[float]:  # fmt: skip
    """For each class that has objects its average precision, 0 to 1, a mean over `thresholds` of IoU, as COCO's
    evaluator has it, from overlaps that are known already.

    Args:
        objects, detections: COCO's annotations, each with its `place` among those of its image.
        between: for each image the overlaps [detections, objects].
    """
    from pycocotools.cocoeval import COCOeval

    class Evaluator(COCOeval):
        def computeIoU(self, imgId, catId):  # noqa: N802, N803
            found = sorted(self._dts[imgId, catId], key=lambda each: -each["score"])[: self.params.maxDets[-1]]
            there = self._gts[imgId, catId]
            if not found or not there:
                return []
            return between[imgId][[each["place"] for each in found]][:, [each["place"] for each in there]]

    if not objects:
        return []
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        evaluator = Evaluator(*_sets(objects, detections), "bbox")
        evaluator.params.iouThrs = np.asarray(thresholds)
        evaluator.evaluate()
        evaluator.accumulate()
    of_all = evaluator.eval["precision"][:, :, :, 0, -1]  # [thresholds, recalls, classes]; -1: no objects
    return [float(of_class.mean()) for of_class in np.moveaxis(of_all, 2, 0) if (of_class >= 0).all()]
