"""How much longer the evaluation of corrupted images takes than that of the images as they are, on one thread.

    python benchmarks/speed_corruptions.py FOLDER [--arch mobilenetv2-tiny] [--resolution 32] [--repeats 9]

FOLDER holds images of 32 px (.jpg or .png, at any depth). For each corruption: the least CPU time over the repeats,
which alternate with the plain evaluation, as a ratio to its least; the worst severity counts. Nothing is trained.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from nasaug import augment
from nasaug.arch import archfile
from nasaug.arch.cost import cost
from nasaug.data.picture import decoded
from nasaug.nets.net import Net
from nasaug.robustness.constants import COMMON, EXTRA, SEVERITIES
from nasaug.robustness.corruptions import BLOCK, corrupt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--arch", default="mobilenetv2-tiny")
    parser.add_argument("--resolution", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=9)
    o = parser.parse_args()
    torch.set_num_threads(1)
    paths = sorted(path for path in o.folder.rglob("*") if path.suffix in (".jpg", ".png"))
    paths = paths[:: max(1, len(paths) // BLOCK)][:BLOCK]
    images = torch.stack([decoded(np.fromfile(path, np.uint8), "white") for path in paths])
    plan = archfile.read(o.arch, resolution=o.resolution, classes=10).plan
    net = Net(plan)
    net.calibrate([augment.resize(augment.evaluation(images, [0.5] * 3, [0.25] * 3), o.resolution)]).eval()

    @torch.inference_mode()
    def seconds(name: str = "", severity: int = 0) -> float:
        begun = time.process_time()
        seen = corrupt(images, name, severity) if name else images
        net(augment.resize(augment.evaluation(seen, [0.5] * 3, [0.25] * 3), o.resolution)).argmax(1)
        return time.process_time() - begun

    print(f"{o.arch} at {o.resolution} px, {cost(plan).macs / 1e6:.2f}M MACs, {len(images)} images a batch")
    for name in (*COMMON, *EXTRA):
        ratios = []
        for severity in SEVERITIES:
            seconds(name, severity)
            both = [(seconds(), seconds(name, severity)) for _ in range(o.repeats)]
            plain, corrupted = (min(times) for times in zip(*both, strict=True))
            ratios.append(corrupted / plain)
        print(f"{name:16s} {max(ratios):6.2f}   by severity {' '.join(f'{r:.2f}' for r in ratios)}", flush=True)
    print(f"plain: {1e6 * plain / len(images):.0f} us an image")


if __name__ == "__main__":
    main()
