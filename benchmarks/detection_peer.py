"""torchvision's SSDLite on the canvases that detection.py wrote, with the same split, views, optimiser and schedule.

    python benchmarks/detection_peer.py FOLDER/voc --macs 19.3M [--resolution 96] [--seconds 600] [--lr 0.05]
        [--set a.b=c]

MobileNetV3 without weights, its width cut to so many MACs at that resolution, its anchors fitted to the canvases.
`seconds` are those of the process's CPU time in training.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path

import torch
from detection_loop import trained
from torch import Tensor, nn

from nasaug.config import layers
from nasaug.core.boxes import CLASS, COLUMNS
from nasaug.core.files import bundled
from nasaug.core.units import parse_quantity
from nasaug.data import DataConfig, Split, load
from nasaug.tasks import Detect, precision
from nasaug.training.recipe import Recipe

SCALES = (0.15, 0.6)  # the canvases' objects have 0.13 to 0.57 of the image's side; published for COCO: 0.2 to 0.95
WIDTHS = [i / 100 for i in range(10, 201, 5)]


def ssdlite(classes: int, resolution: int, width: float) -> nn.Module:
    """As torchvision's ssdlite320_mobilenet_v3_large builds it without weights, at another resolution and width."""
    from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
    from torchvision.models.detection.ssd import SSD
    from torchvision.models.detection.ssdlite import SSDLiteHead, _mobilenet_extractor
    from torchvision.models.mobilenetv3 import MobileNetV3, _mobilenet_v3_conf

    norm = partial(nn.BatchNorm2d, eps=0.001, momentum=0.03)
    setting, last = _mobilenet_v3_conf("mobilenet_v3_large", width_mult=width, reduced_tail=True)
    backbone = _mobilenet_extractor(MobileNetV3(setting, last, norm_layer=norm), 6, norm)
    anchors = DefaultBoxGenerator([[2, 3]] * 6, min_ratio=int(100 * SCALES[0]), max_ratio=int(100 * SCALES[1]))
    with torch.no_grad():
        channels = [x.shape[1] for x in backbone.eval()(torch.zeros(1, 3, 320, 320)).values()]
    head = SSDLiteHead(channels, anchors.num_anchors_per_location(), classes + 1, norm)
    kept = {"score_thresh": 0.01, "nms_thresh": 0.55, "detections_per_img": 100, "topk_candidates": 300}
    half = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
    return SSD(backbone, anchors, (resolution, resolution), classes + 1, head=head, **kept, **half)


def macs_of(net: nn.Module, resolution: int) -> int:
    """Multiply-accumulates of the backbone and the head on one image."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net.head(list(net.backbone(torch.zeros(1, 3, resolution, resolution)).values()))
    return counter.get_total_flops() // 2


def of_macs(classes: int, resolution: int, macs: int) -> tuple[float, nn.Module]:
    """The width whose MACs are nearest, and its net."""
    nets = {width: ssdlite(classes, resolution, width).eval() for width in WIDTHS}
    width = min(nets, key=lambda w: abs(macs_of(nets[w], resolution) - macs))
    torch.manual_seed(0)
    return width, ssdlite(classes, resolution, width)


def wanted(boxes: Tensor, side: int) -> dict[str, Tensor]:
    """An image's boxes, [most, 6], as torchvision's detectors take them: class 0 is the background."""
    own = boxes[boxes[:, CLASS] >= 0]
    return {"boxes": own[:, :4] * side, "labels": own[:, CLASS].long() + 1}


def ap50(net: nn.Module, split: Split, side: int) -> float:
    """AP50 in percent, by the evaluator that judges nasaug's nets."""
    net.eval()
    judged = []
    for images, boxes in split.ordered(64, side):
        with torch.inference_mode():
            found = net(list(images.float() / 255))
        rows = torch.full((len(images), 100 + boxes.shape[1], precision.COLUMNS), -1.0)
        for i, each in enumerate(found):
            own = torch.cat([each["boxes"] / side, each["labels"][:, None] - 1, each["scores"][:, None]], 1)
            rows[i, : len(own), :COLUMNS], rows[i, : len(own), precision.KIND] = own, precision.FOUND
        there = boxes[..., CLASS] >= 0
        rows[:, 100:, : CLASS + 1] = boxes[..., : CLASS + 1]
        rows[:, 100:, precision.KIND] = torch.where(there, precision.THERE, precision.NOTHING).float()
        judged.append(rows)
    net.train()
    return Detect(0).score(judged)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--macs", type=lambda text: parse_quantity(text, "macs"), required=True)
    parser.add_argument("--resolution", type=int, default=96)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--set", action="append", default=[], metavar="a.b=c", help="keys of the recipe")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    recipe, side = layers.load(bundled("recipes") / "detect.toml", Recipe, sets=asked.set), asked.resolution
    data = load(DataConfig(str(asked.data), workers=0), size=side)
    width, net = of_macs(len(data.classes), side, asked.macs)
    print(f"SSDLite, width {width:g}: {macs_of(net.eval(), side) / 1e6:.2f}M MACs", flush=True)

    def loss(seen: Tensor, boxes: Tensor) -> Tensor:
        return sum(net(list(seen), [wanted(each, side) for each in boxes]).values())

    begun = time.process_time()
    epochs = trained(net, loss, data, recipe.views["train"], seconds=asked.seconds, batch=recipe.batch, lr=asked.lr,
                     weight_decay=recipe.weight_decay, warmup=recipe.warmup)  # fmt: skip
    took = time.process_time() - begun
    val, test = ap50(net, data.val, side), ap50(net, data.finish(), side)
    print(f"SSDLite: AP50 {test:.2f} (validation {val:.2f}), {epochs:.1f} epochs, {took:.0f} s of CPU")


if __name__ == "__main__":
    main()
