"""Where does a detection fall short: places, names or steps? A short plain training, counted in seconds of CPU time.

    python benchmarks/detection_probe.py FOLDER/voc [--seconds 60] [--resolution 96] [--set lr=0.1 …] [--test]
        [--naming 1] [--alpha 0.25] [--gamma 2]

On FOLDER/voc, which detection.py wrote, it trains the network PLAIN and prints, for validation and for as many training
images: AP50; AP50 with all classes taken as one; by the objects' size in pixels how many were found (a detection of any
class at IoU 0.5 with a score of at least 0.05), and which part of those has the right class.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import torch
from detection import plain
from detection_loop import trained
from torch import Tensor

from nasaug.arch import archfile
from nasaug.augment import evaluation
from nasaug.config import layers
from nasaug.core.boxes import CLASS
from nasaug.core.files import bundled
from nasaug.data import Data, DataConfig, Split, load
from nasaug.nets.net import Net
from nasaug.tasks import Detect, Target, detect, precision
from nasaug.training.recipe import Recipe

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--arch", help="default: PLAIN")
    for key, usual in (("seconds", 60.0), ("naming", 1.0), ("alpha", 0.25), ("gamma", 2.0)):
        parser.add_argument(f"--{key}", type=float, default=usual)
    parser.add_argument("--resolution", type=int, default=96)
    parser.add_argument("--set", action="append", default=[], metavar="a.b=c", help="keys of the recipe detect.toml")
    parser.add_argument("--test", action="store_true", help="also AP50 on the test images")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    detect.NAMING, detect.ALPHA, detect.GAMMA = asked.naming, asked.alpha, asked.gamma
    recipe = layers.load(bundled("recipes") / "detect.toml", Recipe, sets=asked.set)
    data = load(DataConfig(str(asked.data), workers=0), size=asked.resolution)
    task = Detect(len(data.classes))
    with tempfile.TemporaryDirectory() as folder:
        arch = asked.arch or str(plain(Path(folder) / "plain.json"))
        net = Net(archfile.read(arch, resolution=asked.resolution, classes=task.head).plan).train()
    net.start_as_identities()

    def loss(seen: Tensor, boxes: Tensor) -> Tensor:
        return task.loss(net((seen - mean) / std), Target(boxes))

    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in (data.mean, data.std))
    epochs = trained(net, loss, data, recipe.views["train"], seconds=asked.seconds, batch=recipe.batch, lr=recipe.lr,
                     weight_decay=recipe.weight_decay, warmup=recipe.warmup)  # fmt: skip
    net.eval()
    some = data.train.subset(torch.arange(2 * len(data.val)))
    told = {"epochs": round(epochs, 1), "validation": errors(net, task, data, data.val),
            "training": errors(net, task, data, some)}  # fmt: skip
    if asked.test:
        told["test"] = errors(net, task, data, data.finish())
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
