"""Average precision by pycocotools against the algorithms as published: VOC's development kit, and COCO's evaluator."""

import contextlib
import io

import numpy as np
import pytest
import torch

from nasaug.core.boxes import CLASS
from nasaug.tasks import precision

pytest.importorskip("pycocotools", reason="the extra detect is not installed")
CLASSES, MOST = 4, 6


@pytest.fixture(scope="module")
def judged():
    """Two batches: objects on a grid, so that none overlaps another, some of them difficult or crowds, with detections
    near them, on them twice, of other classes, and elsewhere."""
    rng, images = np.random.default_rng(0), []
    for _ in range(30):
        rows = []
        cells = rng.permutation(9)[: rng.integers(0, MOST)]
        for cell in cells:
            x, y = cell % 3 / 3, cell // 3 / 3
            box = np.array([x, y, x, y]) + rng.uniform(0.02, 0.1, 4) + [0, 0, 0.15, 0.15]
            label, kind = rng.integers(CLASSES), 1 + (rng.random() < 0.15)
            rows.append([*box, label, 1, kind])
            for _ in range(rng.integers(0, 3)):
                wrong = label if rng.random() < 0.8 else rng.integers(CLASSES)
                rows.append([*(box + rng.normal(0, 0.02, 4)), wrong, rng.random(), 0])
        for _ in range(rng.integers(0, 3)):
            x, y = rng.uniform(0, 0.7, 2)
            rows.append([x, y, x + 0.25, y + 0.25, rng.integers(CLASSES), rng.random(), 0])
        rows += [[0, 0, 0, 0, -1, -1, -1]] * (30 - len(rows))
        images.append(rows)
    return [torch.tensor(part) for part in (images[:13], images[13:])]


def voc_ap(judged, label, eleven):
    """voc_eval of the development kit, as detectron and others have it, without the pixel that it adds to each side."""
    images = [row for batch in judged for row in batch.numpy()]
    there = [rows[(rows[:, 6] >= 1) & (rows[:, CLASS] == label)] for rows in images]
    rows_of_class = ((i, row) for i, rows in enumerate(images) for row in rows if row[6] == 0 and row[CLASS] == label)
    found = [(row[5], i, row[:4]) for i, row in rows_of_class]
    count = sum(int((rows[:, 6] == 1).sum()) for rows in there)
    seen = [[False] * len(rows) for rows in there]
    right, wrong = [], []
    for _, i, box in sorted(found, key=lambda each: -each[0]):
        overlaps = [shared(box, row[:4]) for row in there[i]]
        best = int(np.argmax(overlaps)) if overlaps else -1
        hit = best >= 0 and overlaps[best] >= 0.5
        if hit and there[i][best][6] != 1:
            continue
        right.append(hit and not seen[i][best])
        wrong.append(not right[-1])
        if hit:
            seen[i][best] = True
    recall, points = np.cumsum(right) / count, np.cumsum(right) / np.maximum(np.cumsum(right) + np.cumsum(wrong), 1e-9)
    if eleven:
        return sum(max(points[recall >= t], default=0) for t in np.linspace(0, 1, 11)) / 11
    recall, points = np.r_[0, recall, 1], np.r_[0, points, 0]
    points = np.maximum.accumulate(points[::-1])[::-1]
    steps = np.flatnonzero(recall[1:] != recall[:-1])
    return ((recall[steps + 1] - recall[steps]) * points[steps + 1]).sum()


def shared(a, b):
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    common = np.prod(np.maximum(high - low, 0))
    return common / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - common)


@pytest.mark.parametrize("eleven", [True, False])
def test_ap50_is_that_of_pascal_voc(judged, eleven):
    ours = precision.average_precision(judged, precision.ELEVEN if eleven else None)
    assert sorted(ours) == list(range(CLASSES))
    for label, value in ours.items():
        assert value == pytest.approx(voc_ap(judged, label, eleven), abs=1e-4) and 0.1 < value < 0.95


def test_map_is_that_of_coco(judged):
    """pycocotools as its own example calls it, on all classes at once."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    objects, found, images = [], [], []
    for i, rows in enumerate(row for batch in judged for row in batch.tolist()):
        images.append({"id": i + 1, "width": 500, "height": 300})
        for x1, y1, x2, y2, label, score, kind in rows:
            x, y, w, h = x1 * 500, y1 * 300, (x2 - x1) * 500, (y2 - y1) * 300
            row = {"image_id": i + 1, "category_id": int(label) + 1, "bbox": [x, y, w, h], "area": w * h}
            if kind == 1:
                objects.append(row | {"id": len(objects) + 1, "iscrowd": 0})
            elif kind == 0:
                found.append(row | {"score": score})
    easy = [torch.where((b[..., 6:] == 2).expand_as(b), torch.tensor(-1.0, dtype=b.dtype), b) for b in judged]
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = COCO()
        theirs.dataset = {
            "info": {}, "images": images, "annotations": objects,
            "categories": [{"id": k + 1, "name": str(k)} for k in range(CLASSES)],
        }  # fmt: skip
        theirs.createIndex()
        evaluator = COCOeval(theirs, theirs.loadRes(found), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    ours = precision.average_precision(easy, precision.HUNDRED_AND_ONE, precision.COCO)
    assert precision.mean(ours.values()) / 100 == pytest.approx(evaluator.stats[0], abs=1e-4)
    half = precision.average_precision(easy, precision.HUNDRED_AND_ONE)
    assert precision.mean(half.values()) / 100 == pytest.approx(evaluator.stats[1], abs=1e-4) and half != ours


def rows_of(*rows):
    return [torch.tensor([[*rows]], dtype=torch.float64)]


def test_a_difficult_object_and_a_crowd_neither_help_nor_harm():
    box, far = (0.1, 0.1, 0.5, 0.5), (0.6, 0.6, 0.9, 0.9)
    right = [(*box, 0, 1, 1), (*box, 0, 0.5, 0)]
    assert precision.average_precision(rows_of(*right))[0] == pytest.approx(1)
    twice = [(*far, 0, 0.9, 0), (*far, 0, 0.8, 0)]
    assert precision.average_precision(rows_of(*right, *twice))[0] == pytest.approx(1 / 3)
    assert precision.average_precision(rows_of(*right, *twice, (*far, 0, 1, 2)))[0] == pytest.approx(1)
    inside = (0.6, 0.6, 0.7, 0.7, 0, 0.9, 0)  # a ninth of the crowd's box, but wholly in it
    assert precision.average_precision(rows_of(*right, inside, (*far, 0, 1, 3)))[0] == pytest.approx(1)
    assert precision.average_precision(rows_of(*right, inside, (*far, 0, 1, 2)))[0] == pytest.approx(1 / 2)


def test_without_objects_or_detections_there_is_nothing_to_average():
    assert precision.mean(precision.average_precision(rows_of((0, 0, 1, 1, 0, 0.5, 0))).values()) == 0
    assert precision.average_precision(rows_of((0, 0, 1, 1, 2, 1, 1))) == {2: 0.0}
