"""Detection end to end: Fashion-MNIST images or digits placed on canvases, in Pascal VOC's or COCO's layout.

    python benchmarks/detection.py FOLDER [--layout voc|coco] [--images 1500] [--source fashion-mnist|digits]

writes such a set, trains on it by `nasaug train` and prints AP50 and the time. Tests use its functions. The network is
`plain` by default: see PLAIN. detection_peer.py trains torchvision's SSDLite on the same set.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

import numpy as np
from PIL import Image

SIDES = (112, 160)  # px of the canvases, each side drawn on its own
OBJECTS, SIZES = (0, 6), (20, 64)  # per canvas, and their side in px
OVERLAP = 0.2  # of two objects, as a share of the smaller one


# (width, blocks) of the convolutions of 3x3 after a stem of 16 channels; each row halves the image. On a CPU, a plain
# convolution computes more MACs in the same time than a depthwise one, and this one sees small objects early
PLAIN = ((24, 2), (64, 4), (96, 2), (128, 2))


class Canvas(NamedTuple):
    """A canvas, uint8 [h, w, 3], with its objects (x1, y1, x2, y2, class); their pixels are the box."""

    pixels: np.ndarray
    objects: list[tuple[int, int, int, int, int]]


def canvases(
    images: np.ndarray, labels: np.ndarray, count: int, seed: int, sides: tuple[int, int] = SIDES,
    sizes: tuple[int, int] = SIZES, objects: tuple[int, int] = OBJECTS,
) -> list[Canvas]:  # fmt: skip
    """Canvases with grey images, uint8 [n, h, w], in random colours on a background of blurred noise."""
    rng = np.random.default_rng(seed)
    return [_canvas(images, labels, rng, sides, sizes, objects) for _ in range(count)]


def _canvas(images, labels, rng, sides, sizes, objects) -> Canvas:
    height, width = rng.integers(sides[0], sides[1] + 1, 2)
    coarse = rng.integers(0, 120, (8, 8, 3), dtype=np.uint8)
    canvas = np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)).astype(np.float32)
    canvas += rng.normal(0, 8, canvas.shape)
    placed: list[tuple[int, int, int, int, int]] = []
    for _ in range(rng.integers(objects[0], objects[1] + 1)):
        for _ in range(20):
            i, side = rng.integers(len(images)), int(rng.integers(sizes[0], sizes[1] + 1))
            ink = np.argwhere(images[i] > 30)
            (top, left), (bottom, right) = ink.min(0), ink.max(0) + 1
            shape = images[i][top:bottom, left:right]
            scale = side / max(shape.shape)
            h, w = (max(4, round(n * scale)) for n in shape.shape)
            y, x = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
            box = (x, y, x + w, y + h, int(labels[i]))
            if all(_shared(box, other) < OVERLAP for other in placed):
                break
        else:
            continue
        ink = np.array(Image.fromarray(shape).resize((w, h), Image.Resampling.BILINEAR)).astype(np.float32)[..., None]
        colour = rng.integers(150, 256, 3)
        place = canvas[y : y + h, x : x + w]
        cover = np.minimum(ink / 60, 1)
        place[:] = place * (1 - cover) + cover * ink / 255 * colour
        placed.append(box)
    return Canvas(canvas.clip(0, 255).astype(np.uint8), placed)


def _shared(a, b) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    areas = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2, _ in (a, b)]
    return max(width, 0) * max(height, 0) / min(areas)


def source(name: str, train: bool) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """(grey images uint8 [n, h, w], labels, class names) of a data set that nasaug knows by name."""
    from nasaug.data import DataConfig, load

    data = load(DataConfig(name))
    split = data.train if train else data.finish()
    parts = [(images[:, 0].numpy(), labels.numpy()) for images, labels in split.ordered(4096)]
    images, labels = (np.concatenate(each) for each in zip(*parts, strict=True))
    return images, labels, list(data.classes)


def write_voc(folder: Path, sets: dict[str, list[Canvas]], classes: list[str]) -> None:
    """The canvases in Pascal VOC's layout, with a list in ImageSets/Main for each of `sets`."""
    for below in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / below).mkdir(parents=True, exist_ok=True)
    for role, drawn in sets.items():
        names = [f"{role}_{i:05}" for i in range(len(drawn))]
        (folder / f"ImageSets/Main/{role}.txt").write_text("\n".join(names) + "\n")
        for name, canvas in zip(names, drawn, strict=True):
            Image.fromarray(canvas.pixels).save(folder / f"JPEGImages/{name}.jpg", quality=95)
            (folder / f"Annotations/{name}.xml").write_text(voc_xml(name, canvas, classes))


def voc_xml(name: str, canvas: Canvas, classes: list[str]) -> str:
    """An annotation file of Pascal VOC."""
    height, width, _ = canvas.pixels.shape
    objects = "".join(
        f"<object><name>{escape(classes[label])}</name><difficult>0</difficult><truncated>0</truncated><bndbox>"
        f"<xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for x1, y1, x2, y2, label in canvas.objects
    )
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation><filename>{name}.jpg</filename>{size}{objects}</annotation>"


def write_coco(folder: Path, sets: dict[str, list[Canvas]], classes: list[str]) -> None:
    """The canvases in COCO's layout: annotations/instances_ROLE.json, and the images in ROLE/."""
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    for role, drawn in sets.items():
        (folder / role).mkdir(exist_ok=True)
        images, rows = [], []
        for i, canvas in enumerate(drawn):
            height, width, _ = canvas.pixels.shape
            Image.fromarray(canvas.pixels).save(folder / role / f"{i:012}.jpg", quality=95)
            images.append({"id": i + 1, "file_name": f"{i:012}.jpg", "width": width, "height": height})
            for x1, y1, x2, y2, label in canvas.objects:
                w, h = x2 - x1, y2 - y1
                rows.append({"id": len(rows) + 1, "image_id": i + 1, "category_id": label + 1, "bbox": [x1, y1, w, h],
                             "area": w * h, "iscrowd": 0})  # fmt: skip
        kinds = [{"id": i + 1, "name": name} for i, name in enumerate(classes)]
        whole = {"images": images, "annotations": rows, "categories": kinds}
        (folder / f"annotations/instances_{role}.json").write_text(json.dumps(whole))


def plain(path: Path) -> Path:
    """`path`, an arch file of the network PLAIN."""
    from nasaug.arch.archfile import ArchFile
    from nasaug.arch.blocks import Spec
    from nasaug.arch.plan import from_specs

    specs = [Spec("stem", "conv", 16, kernel=3, stride=2, act="relu6")]
    for i, (width, blocks) in enumerate(PLAIN, 1):
        specs += [
            Spec(f"s{i}.b{j + 1}", "conv", width, kernel=3, stride=1 + (j == 0), act="relu6") for j in range(blocks)
        ]
    specs += [Spec("pool", "pool"), Spec("classifier", "linear", 10)]
    ArchFile(from_specs(specs, 96, 10), "plain").save(path)
    return path


WRITE = {"voc": write_voc, "coco": write_coco}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layout", choices=WRITE, default="voc")
    parser.add_argument("--source", choices=("fashion-mnist", "digits"), default="fashion-mnist")
    parser.add_argument("--images", type=int, default=1500)
    parser.add_argument("--test", type=int, default=500)
    parser.add_argument("--arch", default="plain")
    parser.add_argument("--resolution", type=int, default=96)
    parser.add_argument("--method", default="baseline")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[])
    asked = parser.parse_args()
    import nasaug

    place = asked.folder / asked.layout
    if not place.exists():
        sets = {}
        for role, count, seed in (("train", asked.images, 1), ("test", asked.test, 2)):
            images, labels, classes = source(asked.source, role == "train")
            sets[role] = canvases(images, labels, count, seed)
        WRITE[asked.layout](place, sets, classes)
    arch = plain(asked.folder / "plain.json") if asked.arch == "plain" else asked.arch
    begun, cpu = time.perf_counter(), time.process_time()
    run = asked.folder / f"{asked.layout}-{asked.arch}-{asked.resolution}-{asked.method}-{asked.seed}"
    result = nasaug.train(
        arch, data=place, method=asked.method, resolution=asked.resolution, run=run, seed=asked.seed,
        recipe="detect", set=asked.set, on_event=print,
    )  # fmt: skip
    figures = {key: round(result.more[key], 2) for key in ("ap50_11_points", "coco_map")}
    took = f"{time.perf_counter() - begun:.0f} s ({time.process_time() - cpu:.0f} s of CPU)"
    print(f"{asked.layout}: AP50 {result.test_score:.2f} {figures}, {result.macs / 1e6:.1f}M MACs, "
          f"{result.epochs:.1f} epochs, {took} with loading, evaluations and tests")  # fmt: skip


if __name__ == "__main__":
    main()
