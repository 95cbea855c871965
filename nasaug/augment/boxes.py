"""Views of images with boxes: what moves both, by torchvision's v2, before what leaves boxes alone.

Boxes are float32 [n, most, 6], as in `nasaug.core.boxes`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.boxes import CLASS

if TYPE_CHECKING:
    from . import View

GREY = 127  # around a shifted or zoomed-out image
LEAST = 1.5  # px: a box of which less is left on a side is dropped
ASPECTS = (0.5, 2.0)  # of the crops, as in SSD (Liu et al., ECCV 2016)
STRETCH = 4 / 3  # the most by which scale jitter stretches one side against the other, as in Inception's crops


def moved(view: View, images: Tensor, boxes: Tensor, generator: torch.Generator, flip: bool) -> tuple[Tensor, Tensor]:
    """The images, uint8 [n, c, h, w], and their boxes after the view's zoom, crops and scale jitter, its shift (`crop`:
    padded with grey, not reflected, which would show objects without boxes) and mirroring.

    A zoomed-out or cropped image is resized to its size again. Boxes are clipped; those of which next to nothing is
    left are dropped. `generator` is on the CPU, and torch's global one is left as it was."""
    from torchvision.transforms.v2 import functional as TF

    n, _, height, width = images.shape
    if view.zoom_out > 1 or view.iou_crop:
        images, boxes = _zoomed(view, images, boxes, generator)
    if view.scale_jitter > 1:
        images, boxes = _jittered(view.scale_jitter, images, boxes, generator)
    boxes = boxes.clone()
    if pad := round(view.crop * min(height, width)):
        whole = TF.pad(images, [pad], fill=[GREY] * images.shape[1])
        places = torch.randint(0, 2 * pad + 1, (n, 2), generator=generator)
        pairs = zip(whole, places.tolist(), strict=True)
        images = torch.stack([x[:, top : top + height, left : left + width] for x, (top, left) in pairs])
        by = (pad - places.flip(1)).repeat(1, 2) / torch.tensor([width, height] * 2)
        boxes[..., :CLASS] = (boxes[..., :CLASS] + by[:, None].to(boxes.device)).clamp(0, 1)
    if view.flip and flip:
        mirrored = torch.rand(n, generator=generator) < 0.5
        images = torch.where(mirrored[:, None, None, None].to(images.device), TF.horizontal_flip(images), images)
        turned = boxes.clone()
        turned[..., 0], turned[..., 2] = 1 - boxes[..., 2], 1 - boxes[..., 0]
        boxes = torch.where(mirrored[:, None, None].to(boxes.device), turned, boxes)
    sides = (boxes[..., 2:CLASS] - boxes[..., :2]) * boxes.new_tensor([width, height])
    boxes[..., CLASS][(sides < LEAST).any(2)] = -1
    return images, boxes


def _zoomed(view: View, images: Tensor, boxes: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """torchvision's RandomZoomOut and RandomIoUCrop, image by image."""
    from torchvision.transforms import v2

    steps: list = []
    if view.zoom_out > 1:
        steps.append(v2.RandomZoomOut(fill=GREY, side_range=(1.0, view.zoom_out), p=0.5))
    if view.iou_crop:
        crop = v2.RandomIoUCrop(min_aspect_ratio=ASPECTS[0], max_aspect_ratio=ASPECTS[1])
        steps.append(v2.RandomApply([crop], view.iou_crop))
    resize = v2.Resize(list(images.shape[-2:]), antialias=True)
    geometry = v2.Compose([*steps, resize, v2.SanitizeBoundingBoxes(min_size=LEAST, labels_getter=_facts)])
    seed = int(torch.randint(2**62, (), generator=generator).item())
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU too
        pairs = [_zoomed_one(geometry, image, own) for image, own in zip(images.cpu(), boxes.cpu(), strict=True)]
    seen, found = zip(*pairs, strict=True)
    return torch.stack(seen).to(images.device), torch.stack(found).to(boxes.device)


def _jittered(most: float, images: Tensor, boxes: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Large-scale jitter (Ghiasi et al., arXiv:2012.07177, A.2): each image is resized by a factor drawn log-uniformly
    from 1 / most to `most`, its sides stretched against each other by up to STRETCH, and placed at random over the
    frame, grey around it. Boxes whose centre leaves the frame are dropped.

    Bilinear without antialiasing, as GradAug's transforms."""
    scale, stretch, *places = torch.rand(4, len(images), generator=generator, dtype=torch.float64) * 2 - 1
    scale, stretch = scale * math.log(most), stretch * math.log(STRETCH) / 2
    zero, rows = torch.zeros(len(images)), []
    for i, (place, sign) in enumerate(zip(places, (1, -1), strict=True)):
        factor = (scale + sign * stretch).exp()
        # from the frame's coordinates, -1 to 1, to the image's: a smaller image lies in the frame, a larger covers it
        row = [zero, zero, place.float() * (1 - 1 / factor).float()]
        row[i] = (1 / factor).float()
        rows.append(torch.stack(row, 1))
    theta = torch.stack(rows, 1)
    grid = F.affine_grid(theta.to(images.device), list(images.shape), align_corners=False)
    seen = F.grid_sample(images.float() - GREY, grid, align_corners=False) + GREY
    found = transformed(boxes, theta, inside=True)
    return seen.round_().clamp_(0, 255).to(torch.uint8), found


def _facts(sample: tuple) -> Tensor:
    return sample[2]


def _zoomed_one(geometry: Callable, image: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """One image with its boxes, [most, 6]; the result has as many rows."""
    from torchvision import tv_tensors

    height, width = image.shape[-2:]
    scale = boxes.new_tensor([width, height, width, height])
    own = boxes[boxes[:, CLASS] >= 0]
    corners = tv_tensors.BoundingBoxes(own[:, :CLASS] * scale, format="XYXY", canvas_size=(height, width))
    seen, corners, facts = geometry(tv_tensors.Image(image), corners, own[:, CLASS:])
    found = torch.zeros_like(boxes)
    found[:, CLASS] = -1
    found[: len(facts)] = torch.cat([corners.as_subclass(Tensor) / scale, facts], 1)
    return seen.as_subclass(Tensor), found


def transformed(boxes: Tensor, theta: Tensor, inside: bool = False) -> Tensor:
    """The boxes after `nasaug.augment.transform`, by its maps `theta` [n, 2, 3] from the result's coordinates (-1 to 1)
    to the image's: the upright boxes around the moved ones, clipped; with `inside` those alone whose centre is there.
    """
    whole = torch.cat([theta.double(), theta.new_tensor([0, 0, 1.0]).double().expand(len(theta), 1, 3)], 1)
    x, y = (2 * boxes[..., i : 4 : 2].double() - 1 for i in (0, 1))
    corners = torch.stack([x[..., [0, 1, 0, 1]], y[..., [0, 0, 1, 1]], torch.ones_like(x[..., [0, 0, 0, 0]])], -1)
    at = torch.einsum("nij,nmcj->nmci", whole.inverse().to(boxes.device), corners)[..., :2]
    at = (at + 1) / 2
    centre = at.mean(2)
    at = at.clamp(0, 1).to(boxes.dtype)
    low, high = at.amin(2), at.amax(2)
    gone = ((high - low) <= 0).any(2)
    if inside:
        gone |= ((centre < 0) | (centre > 1)).any(2)
    found = torch.cat([low, high, boxes[..., CLASS:]], 2)
    found[..., CLASS] = torch.where(gone, -1.0, boxes[..., CLASS])
    return found
