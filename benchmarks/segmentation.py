"""Instance segmentation end to end: discs, squares and triangles on canvases, in COCO's layout with masks.

    python benchmarks/segmentation.py FOLDER [--images 600] [--test 150] [--method baseline]

writes such a set, trains on it by `nasaug train` and prints mask mAP and the time. Tests use its functions.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

CLASSES = ["disc", "square", "triangle"]
SIDES = (80, 128)  # px of the canvases, each side drawn on its own
OBJECTS, SIZES = (1, 4), (20, 48)  # per canvas, and their side in px
OVERLAP = 0.15  # of two objects' boxes, as a share of the smaller one


class Thing(NamedTuple):
    """An object: its class, its box x, y, width, height, its pixels, bool [h, w] of the canvas, and its COCO
    segmentation."""

    label: int
    box: tuple[int, int, int, int]
    mask: np.ndarray
    segmentation: Any


def canvases(
    count: int, seed: int, sides: tuple[int, int] = SIDES, sizes: tuple[int, int] = SIZES,
    objects: tuple[int, int] = OBJECTS,
) -> list[tuple[np.ndarray, list[Thing]]]:  # fmt: skip
    """(pixels uint8 [h, w, 3], objects) of each canvas: shapes in random colours on a background of blurred noise."""
    rng = np.random.default_rng(seed)
    return [_canvas(rng, sides, sizes, objects) for _ in range(count)]


def _canvas(rng, sides, sizes, objects) -> tuple[np.ndarray, list[Thing]]:
    height, width = rng.integers(sides[0], sides[1] + 1, 2).tolist()
    coarse = rng.integers(0, 120, (8, 8, 3), dtype=np.uint8)
    canvas = np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)).astype(np.float32)
    placed: list[Thing] = []
    for _ in range(rng.integers(objects[0], objects[1] + 1)):
        for _ in range(20):
            side = int(rng.integers(sizes[0], sizes[1] + 1))
            x, y = int(rng.integers(0, width - side + 1)), int(rng.integers(0, height - side + 1))
            if all(_shared((x, y, side, side), thing.box) < OVERLAP for thing in placed):
                break
        else:
            continue
        thing = shape(int(rng.integers(len(CLASSES))), x, y, side, height, width)
        canvas[thing.mask] = rng.integers(150, 256, 3)
        for other in placed:
            other.mask[thing.mask] = False  # it is hidden there
        placed.append(thing)
    canvas += rng.normal(0, 12, canvas.shape)
    return canvas.clip(0, 255).astype(np.uint8), [_cut(thing) for thing in placed]


def shape(label: int, x: int, y: int, side: int, height: int, width: int) -> Thing:
    """A shape of this class, whole, in a box at x, y on a canvas of this size."""
    down, right = np.mgrid[:height, :width] + 0.5
    inside = (right > x) & (right < x + side) & (down > y) & (down < y + side)
    if label == 0:
        inside &= (right - x - side / 2) ** 2 + (down - y - side / 2) ** 2 < side**2 / 4
    elif label == 2:
        inside &= abs(right - x - side / 2) < (down - y) / 2
    corners = ((x, y, x + side, y, x + side, y + side, x, y + side), (x + side / 2, y, x + side, y + side, x, y + side))
    polygon = [[*map(float, corners[label - 1])]] if label else None
    return Thing(label, (x, y, side, side), inside, polygon)


def _cut(thing: Thing) -> Thing:
    """The shape with the segmentation of what is seen of it: runs, unless it is a polygon that is seen whole."""
    whole = shape(thing.label, *thing.box[:3], *thing.mask.shape)
    if thing.segmentation is not None and (whole.mask == thing.mask).all():
        return thing
    rows, columns = np.nonzero(thing.mask)
    x, y = int(columns.min()), int(rows.min())
    box = x, y, int(columns.max()) + 1 - x, int(rows.max()) + 1 - y
    return thing._replace(box=box, segmentation=runs(thing.mask))


def runs(mask: np.ndarray) -> dict[str, Any]:
    """COCO's uncompressed run-length encoding."""
    flat = np.concatenate([[0], mask.flatten(order="F").astype(int), [2]])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    counts = np.diff(np.concatenate([[0], edges]))
    return {"size": list(mask.shape), "counts": counts.tolist()}


def _shared(a, b) -> float:
    width, height = (min(a[i] + a[i + 2], b[i] + b[i + 2]) - max(a[i], b[i]) for i in (0, 1))
    return max(width, 0) * max(height, 0) / min(a[2] * a[3], b[2] * b[3])


def write(folder: Path, sets: dict[str, list[tuple[np.ndarray, list[Thing]]]]) -> None:
    """The canvases in COCO's layout: annotations/instances_ROLE.json, and the images in ROLE/."""
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    for role, drawn in sets.items():
        (folder / role).mkdir(exist_ok=True)
        images, rows = [], []
        for i, (pixels, things) in enumerate(drawn):
            height, width, _ = pixels.shape
            Image.fromarray(pixels).save(folder / role / f"{i:05}.png")
            images.append({"id": i + 1, "file_name": f"{i:05}.png", "width": width, "height": height})
            for thing in things:
                rows.append({"id": len(rows) + 1, "image_id": i + 1, "category_id": thing.label + 1, "iscrowd": 0,
                             "bbox": thing.box, "area": int(thing.mask.sum()),
                             "segmentation": thing.segmentation})  # fmt: skip
        kinds = [{"id": i + 1, "name": name} for i, name in enumerate(CLASSES)]
        whole = {"images": images, "annotations": rows, "categories": kinds}
        (folder / f"annotations/instances_{role}.json").write_text(json.dumps(whole))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--test", type=int, default=150)
    parser.add_argument("--arch", default="mobilenetv2-tiny")
    parser.add_argument("--resolution", type=int, default=96)
    parser.add_argument("--method", default="baseline")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[])
    asked = parser.parse_args()
    import nasaug

    place = asked.folder / "shapes"
    if not place.exists():
        write(place, {"train": canvases(asked.images, 1), "test": canvases(asked.test, 2)})
    begun = time.perf_counter()
    run = asked.folder / f"{asked.arch}-{asked.resolution}-{asked.method}-{asked.seed}"
    result = nasaug.train(
        asked.arch, data=place, method=asked.method, resolution=asked.resolution, run=run, seed=asked.seed,
        recipe="segment", set=asked.set, on_event=print,
    )  # fmt: skip
    figures = {key: round(result.more[key], 2) for key in ("mask_ap50", "box_map", "box_ap50")}
    print(f"mask mAP {result.test_score:.2f} {figures}, {result.macs / 1e6:.1f}M MACs in the plan, "
          f"{result.epochs:.1f} epochs, {time.perf_counter() - begun:.0f} s with loading and tests")  # fmt: skip


if __name__ == "__main__":
    main()
