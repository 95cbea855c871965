"""Where does a detection fall short: places, names or steps? A short plain training, counted in seconds of CPU time.

    python benchmarks/detection_probe.py FOLDER/voc [--seconds 60] [--resolution 80] [--batch 16] [--lr 0.2]
        [--naming 1] [--alpha 0.25] [--gamma 2]

On FOLDER/voc, which detection.py wrote, it trains the network PLAIN and prints, for validation and for as many training
images: AP50; AP50 with all classes taken as one; by the objects' size in pixels how many were found (a detection of any
class at IoU 0.5 with a score of at least 0.05), and which part of those has the right class.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from pathlib import Path

import torch
from detection import plain

from nasaug.arch import archfile
from nasaug.augment import View, evaluation
from nasaug.augment.boxes import moved
from nasaug.core.boxes import CLASS
from nasaug.data import Data, DataConfig, Split, load
from nasaug.nets.net import Net
from nasaug.tasks import Detect, Target, detect, precision

SEEN = 0.05  # score


def errors(net: Net, task: Detect, data: Data, split: Split) -> dict:
    """What is right and wrong on `split`, whose images are prepared as `data`'s."""
    from torchvision.ops import box_iou

    judged, size = [], net.plan.resolution
    with torch.inference_mode():
        for images, labels in split.ordered(100):
            judged.append(task.judge(net(evaluation(images, data.mean, data.std)), labels))
    one = [rows.clone() for rows in judged]
    for rows in one:
        rows[..., CLASS] = torch.where(rows[..., CLASS] >= 0, 0.0, -1.0)
    found: dict[int, list[bool]] = {}
    named: dict[int, list[bool]] = {}
    for rows in torch.cat(judged):
        there = rows[rows[:, precision.KIND] == precision.THERE]
        seen = rows[(rows[:, precision.KIND] == precision.FOUND) & (rows[:, precision.SCORE] > SEEN)]
        for own, overlaps in zip(there, box_iou(there[:, :4], seen[:, :4]), strict=True):
            px = int((own[2:4] - own[:2]).max() * size / 10) * 10
            hits = overlaps >= 0.5
            found.setdefault(px, []).append(bool(hits.any()))
            if hits.any():
                best = (overlaps * seen[:, precision.SCORE] * hits).argmax()
                named.setdefault(px, []).append(bool(seen[best, CLASS] == own[CLASS]))

    def shares(by: dict[int, list[bool]]) -> dict[str, float]:
        return {f"{px} to {px + 9} px": round(sum(each) / len(each), 2) for px, each in sorted(by.items())}

    merged = precision.mean(precision.average_precision(one).values())
    return {"ap50": round(task.score(judged), 1), "as_one_class": round(merged, 1), "found": shares(found),
            "named_right": shares(named)}  # fmt: skip


def trained(net: Net, task: Detect, data: Data, asked: argparse.Namespace) -> float:
    """Trains for so many seconds of CPU time; returns the epochs."""
    decayed, rest = ([p for p in net.parameters() if (p.dim() > 1) is many] for many in (True, False))
    groups = [{"params": decayed, "weight_decay": 4e-5}, {"params": rest, "weight_decay": 0.0}]
    optimiser = torch.optim.SGD(groups, lr=asked.lr, momentum=0.9, nesterov=True, fused=True)
    view, generator = View(crop=0.125), torch.Generator().manual_seed(0)
    begun, images, epoch, warm = time.process_time(), 0, 0, 0.05
    while True:
        for raw, labels, _ in data.train.batches(asked.batch, seed=0, epoch=epoch):
            done = (time.process_time() - begun) / asked.seconds
            if done >= 1:
                return images / len(data.train)
            rate = done / warm if done < warm else 0.5 * (1 + math.cos(math.pi * (done - warm) / (1 - warm)))
            for group in optimiser.param_groups:
                group["lr"] = asked.lr * max(rate, 1e-3)
            seen, boxes = moved(view, raw, labels, generator, data.flip)
            loss = task.loss(net(evaluation(seen, data.mean, data.std)), Target(boxes))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            images += len(raw)
        epoch += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--arch", help="default: PLAIN")
    for key, usual in (("seconds", 60.0), ("lr", 0.2), ("naming", 1.0), ("alpha", 0.25), ("gamma", 2.0)):
        parser.add_argument(f"--{key}", type=float, default=usual)
    parser.add_argument("--resolution", type=int, default=80)
    parser.add_argument("--batch", type=int, default=16)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    detect.NAMING, detect.ALPHA, detect.GAMMA = asked.naming, asked.alpha, asked.gamma
    data = load(DataConfig(str(asked.data), workers=0), size=asked.resolution)
    task = Detect(len(data.classes))
    with tempfile.TemporaryDirectory() as folder:
        arch = asked.arch or str(plain(Path(folder) / "plain.json"))
        net = Net(archfile.read(arch, resolution=asked.resolution, classes=task.head).plan).train()
    net.start_as_identities()
    epochs = trained(net, task, data, asked)
    net.eval()
    some = data.train.subset(torch.arange(2 * len(data.val)))
    told = {"epochs": round(epochs, 1), "validation": errors(net, task, data, data.val),
            "training": errors(net, task, data, some)}  # fmt: skip
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
