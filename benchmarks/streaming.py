"""Throughput of decoding, cropping and resizing photographs, and what it means for ImageNet.

    python benchmarks/streaming.py [--images 400] [--rounds 5]

Writes docs/results/streaming.md. ImageNet is not available here, so the script generates JPEG files of 500 x 375 px at
quality 90, textured to be close to ImageNet's 110 KB. Rates are per core (CPU time), nasaug and Pillow alternating.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))

from bench import processor  # noqa: E402
from cells import write  # noqa: E402

from nasaug.data import DataConfig, load, stream  # noqa: E402

SIZES = 144, 224
WIDTH, HEIGHT, QUALITY, TEXTURE = 500, 375, 90, 90
IMAGENET, EPOCHS, CORES = 1_271_167, 155, 96  # training images, published epochs; cores of a usual machine with 8 GPUs


def photographs(folder: Path, count: int) -> float:
    """Write JPEG files of smooth shapes with fine texture, in two classes under train/ and test/; returns their mean
    size in bytes."""
    rng, sizes = np.random.default_rng(0), []
    for part, many in (("train", count), ("test", 4)):
        for i in range(many):
            path = folder / part / f"class{i % 2}" / f"{i:05}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            shapes = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
            shapes = np.asarray(shapes.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)).astype(np.int16)
            texture = Image.fromarray(rng.integers(0, TEXTURE, (HEIGHT // 2, WIDTH // 2, 3), dtype=np.uint8))
            texture = np.asarray(texture.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)).astype(np.int16)
            pixels = np.clip(shapes + texture - TEXTURE // 2, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(path, quality=QUALITY)
            sizes.append(path.stat().st_size)
    return float(np.mean(sizes))


def rate(split, size: int) -> float:
    """Images per second and core, over one epoch of random crops."""
    begun, seen = time.process_time(), 0
    for images, _, _ in split.batches(50, seed=0, epoch=0):
        seen += len(images)
        assert images.shape[-1] == size
    return seen / (time.process_time() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    o = parser.parse_args()
    torch.set_num_threads(1)
    ours, rates = stream.decode_jpeg, {}
    with tempfile.TemporaryDirectory() as place:
        mean_bytes = photographs(Path(place), o.images)
        for size in SIZES:
            split = load(DataConfig(place, memory_mb=0, workers=0, val_images=20), size=size).train
            for _ in range(o.rounds):
                for name, decoder in (("torchvision", ours), ("Pillow", None)):
                    stream.decode_jpeg = decoder
                    rates.setdefault((size, name), []).append(rate(split, size))
            stream.decode_jpeg = ours
    middle = {key: median(values) for key, values in rates.items()}
    table = [
        f"| {size} | {middle[size, 'torchvision']:.0f} | {middle[size, 'Pillow']:.0f} | "
        f"{middle[size, 'torchvision'] / middle[size, 'Pillow']:.2f} |"
        for size in SIZES
    ]
    each = middle[224, "torchvision"]
    hours = IMAGENET / each / 3600
    lines = [
        "`python benchmarks/streaming.py`", "",
        f"JPEG files of {WIDTH} x {HEIGHT} px and {mean_bytes / 1000:.0f} KB, made here, decoded, cropped at random",
        f"and resized; images a second of one core ({processor()}), the middle of {o.rounds} rounds, both in turn.", "",
        "| px | torchvision's decoder | Pillow's | ratio |", "| --- | --- | --- | --- |", *table, "",
        f"At that rate an epoch of ImageNet at 224 px takes {hours:.2f} core hours to decode. A machine with 8 GPUs",
        f"and {CORES} cores decodes {CORES * each:,.0f} images a second at most, and the {EPOCHS} epochs of the",
        f"published training in {EPOCHS * hours / CORES:.1f} hours, if each GPU takes {CORES * each / 8:,.0f} images",
        "a second. **What a GPU takes was not measured**: none was at hand. What the same epochs take on this machine",
        "is in [growth.md](growth.md).",
    ]  # fmt: skip
    figures = {"bytes": mean_bytes, "rates": {f"{name} {size}": values for (size, name), values in rates.items()}}
    write("streaming", "Decoding photographs", lines, figures)


if __name__ == "__main__":
    main()
