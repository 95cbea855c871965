"""The part of Mask R-CNN that reads a net's maps: torchvision's FPN, RPN, RoIAlign, box and mask heads.

He et al., Mask R-CNN, ICCV 2017; Lin et al., FPN, CVPR 2017. The FPN's lateral convolutions belong to the plan (they
read maps whose widths differ between nets), so torchvision's FPN begins after them. Everything here has the same shape
for all slices of a net. Normalised by groups, so that no statistics depend on the slice.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign

from ..arch.plan import Head, Plan

GROUP = 4  # channels that are normalised together
RATIOS = (0.5, 1.0, 2.0)  # of the anchors' sides
BOX_PIXELS, MASK_PIXELS, MASK = 7, 14, 28  # the sides of a proposal's features for boxes, for masks; of a mask
BEFORE, PROPOSALS = {"training": 200, "testing": 100}, {"training": 100, "testing": 50}  # around the RPN's NMS
RPN_SAMPLES, BOX_SAMPLES = 128, 32  # of which an image's losses are means
SAMPLES = 1  # of a bin in each direction: bins are small beside the pixels of these maps
LEAST_SCORE = 0.01


class Maps(NamedTuple):
    """A net's output: the maps [N, width, h, w] of the lateral convolutions, the largest first, the side of the images
    in px, and the modules that read the maps."""

    levels: list[Tensor]
    size: int
    modules: TwoStage

    def __len__(self) -> int:
        """The number of images."""
        return len(self.levels[0])


class TwoStage(nn.Module):
    """torchvision's parts of Mask R-CNN, of the sizes in the plan's `Head.beside`; initialised as torchvision does,
    from `seed`. The global generator is left as it was."""

    mask_side = MASK

    def __init__(self, plan: Plan, seed: int):
        super().__init__()
        assert isinstance(plan.classes, Head)
        size = dict(plan.classes.beside)
        width, classes = size["width"], size["classes"] + 1  # class 0 is the background
        strides = [plan.resolution / max(block.out_size) for block in plan.head]
        first = 2 ** round(torch.tensor(strides[0]).log2().item())
        strides = [first * 2**i for i in range(len(strides))]
        names = [str(i) for i in range(len(strides))]
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.fpn = FeaturePyramidNetwork([width] * len(names), width, norm_layer=_norm)
            self.fpn.inner_blocks = nn.ModuleList(nn.Identity() for _ in names)  # they are in the plan
            anchors = AnchorGenerator(tuple((size["anchor"] * stride,) for stride in strides), (RATIOS,) * len(names))
            head = RPNHead(width, len(RATIOS))
            self.rpn = RegionProposalNetwork(
                anchors, head, 0.7, 0.3, RPN_SAMPLES, 0.5, dict(BEFORE), dict(PROPOSALS), nms_thresh=0.7
            )
            pools = [MultiScaleRoIAlign(names, side, SAMPLES) for side in (BOX_PIXELS, MASK_PIXELS)]
            mask = size["mask_width"]
            self.roi_heads = RoIHeads(
                pools[0], TwoMLPHead(width * BOX_PIXELS**2, size["box_width"]),
                FastRCNNPredictor(size["box_width"], classes), 0.5, 0.5, BOX_SAMPLES, 0.25, None, LEAST_SCORE, 0.5,
                size["detections"], pools[1], MaskRCNNHeads(width, (mask, mask), 1, _norm),
                MaskRCNNPredictor(mask, mask, classes),
            )  # fmt: skip

    def read(self, levels: list[Tensor], size: int) -> Maps:
        """The net's output; nothing is computed until losses or detections are asked for."""
        return Maps(levels, size, self)

    def losses(self, maps: Maps, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """torchvision's five losses: objectness, the proposals' boxes, classes, boxes, masks.

        Args:
            targets: of each image `boxes` [n, 4] in px, `labels` int64 [n] from 1, `masks` uint8 [n, size, size].

        The anchors and proposals in them are drawn by a seed that follows from the targets alone, so that the same step
        always has the same losses."""
        seed = int(sum(each["boxes"].double().sum().item() for each in targets) * 1e6) % 2**62
        devices = [] if maps.levels[0].device.type == "cpu" else [maps.levels[0].device]
        with torch.random.fork_rng(devices=devices), _mode(self, True):
            torch.manual_seed(seed)
            return self._run(maps, targets)[1]

    def found(self, maps: Maps) -> list[dict[str, Tensor]]:
        """The detections of each image, best first: `boxes` [n, 4] in px, `labels` from 1, `scores`, `masks` float
        [n, 1, MASK, MASK], probabilities within the box."""
        with _mode(self, False):
            return self._run(maps, None)[0]

    def _run(self, maps: Maps, targets: Any) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        features = self.fpn({str(i): x.float() for i, x in enumerate(maps.levels)})
        shapes = [(maps.size, maps.size)] * len(maps)
        # only the shape of the images is read
        images = ImageList(maps.levels[0].new_empty(()).expand(len(maps), 3, maps.size, maps.size), shapes)
        proposals, of_proposals = self.rpn(images, features, targets)
        found, of_boxes = self.roi_heads(features, proposals, shapes, targets)
        return found, {**of_proposals, **of_boxes}

    @torch.no_grad()
    def costs(self, sides: Sequence[int]) -> Mapping[str, int]:
        """MACs for maps of these sides: of the FPN's outputs and the RPN per image, of the box head per proposal and of
        the mask head per detection; and the numbers of `proposals` and of parameters, `params`."""
        weight = next(self.parameters())
        width = self.rpn.head.cls_logits.in_channels
        maps = [weight.new_zeros(1, width, side, side) for side in sides]
        one, another = (weight.new_zeros(1, width, side, side) for side in (BOX_PIXELS, MASK_PIXELS))
        heads = self.roi_heads
        parts = {
            "fpn": lambda: self.fpn({str(i): x for i, x in enumerate(maps)}), "rpn": lambda: self.rpn.head(maps),
            "per_proposal": lambda: heads.box_predictor(heads.box_head(one)),
            "per_mask": lambda: heads.mask_predictor(heads.mask_head(another)),
        }  # fmt: skip
        found = {"proposals": PROPOSALS["testing"], "params": sum(p.numel() for p in self.parameters())}
        for name, run in parts.items():
            with FlopCounterMode(display=False) as counter:
                run()
            found[name] = counter.get_total_flops() // 2
        return found


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(channels // GROUP, channels)


@contextlib.contextmanager
def _mode(module: nn.Module, training: bool) -> Iterator[None]:
    """Within the block the module is in training mode or not; torchvision decides by it what is computed."""
    before = module.training
    module.train(training)
    try:
        yield
    finally:
        module.train(before)
