"""Views of images with boxes: torchvision's v2 transforms move both, image by image, before what leaves boxes alone.

Boxes are float32 [n, most, 6], as in `nasaug.data.boxes`: corners as shares of the image, class (-1: no box), flag.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..data.boxes import CLASS

if TYPE_CHECKING:
    from . import View

LEAST = 1.5  # px: a box of which less is left on a side is dropped
ASPECTS = (0.5, 2.0)  # of the crops, as in SSD (Liu et al., ECCV 2016)


def moved(view: View, images: Tensor, boxes: Tensor, generator: torch.Generator, flip: bool) -> tuple[Tensor, Tensor]:
    """The images, uint8 [n, c, h, w], and their boxes after the view's zoom, crops and mirroring.

    A zoomed-out or cropped image is resized to its size again. Boxes are clipped; those of which next to nothing is left
    are dropped. `generator` is on the CPU and advances by one draw; torch's global one is left as it was."""
    geometry = _geometry(view, images.shape[-2], images.shape[-1], flip)
    if geometry is None:
        return images, boxes
    seed = int(torch.randint(2**62, (), generator=generator).item())
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU too
        pairs = [_moved_one(geometry, image, own) for image, own in zip(images.cpu(), boxes.cpu(), strict=True)]
    seen, found = zip(*pairs, strict=True)
    return torch.stack(seen).to(images.device), torch.stack(found).to(boxes.device)


def _geometry(view: View, height: int, width: int, flip: bool):
    """torchvision's transforms for the view; None if it moves nothing."""
    from torchvision.transforms import v2

    steps: list = []
    if view.zoom_out > 1:
        steps.append(v2.RandomZoomOut(fill=127, side_range=(1.0, view.zoom_out), p=0.5))
    if view.iou_crop:
        steps.append(v2.RandomApply([v2.RandomIoUCrop(min_aspect_ratio=ASPECTS[0], max_aspect_ratio=ASPECTS[1])], view.iou_crop))
    if steps:
        steps.append(v2.Resize([height, width], antialias=True))
    pad = round(view.crop * min(height, width))
    if pad:
        steps.append(v2.RandomCrop([height, width], padding=pad, fill=127))
    if view.flip and flip:
        steps.append(v2.RandomHorizontalFlip())
    return v2.Compose([*steps, v2.SanitizeBoundingBoxes(min_size=LEAST, labels_getter=_facts)]) if steps else None


def _facts(sample: tuple) -> Tensor:
    return sample[2]


def _moved_one(geometry, image: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """One image with its boxes, [most, 6]; the result has as many rows."""
    from torchvision import tv_tensors

    height, width = image.shape[-2:]
    scale = boxes.new_tensor([width, height, width, height])
    own = boxes[boxes[:, CLASS] >= 0]
    corners = tv_tensors.BoundingBoxes(own[:, :4] * scale, format="XYXY", canvas_size=(height, width))
    seen, corners, facts = geometry(tv_tensors.Image(image), corners, own[:, CLASS:])
    found = torch.zeros_like(boxes)
    found[:, CLASS] = -1
    found[: len(facts)] = torch.cat([corners.as_subclass(Tensor) / scale, facts], 1)
    return seen.as_subclass(Tensor), found


def transformed(boxes: Tensor, theta: Tensor) -> Tensor:
    """The boxes after `nasaug.augment.transform`, by its maps `theta` [n, 2, 3] from the result's coordinates (-1 to 1)
    to the image's: the upright boxes around the moved ones, clipped."""
    whole = torch.cat([theta.double(), theta.new_tensor([0, 0, 1.0]).double().expand(len(theta), 1, 3)], 1)
    x, y = (2 * boxes[..., i : 4 : 2].double() - 1 for i in (0, 1))
    corners = torch.stack([x[..., [0, 1, 0, 1]], y[..., [0, 0, 1, 1]], torch.ones_like(x[..., [0, 0, 0, 0]])], -1)
    at = torch.einsum("nij,nmcj->nmci", whole.inverse().to(boxes.device), corners)[..., :2]
    at = ((at + 1) / 2).clamp(0, 1).to(boxes.dtype)
    low, high = at.amin(2), at.amax(2)
    gone = ((high - low) <= 0).any(2)
    found = torch.cat([low, high, boxes[..., CLASS:]], 2)
    found[..., CLASS] = torch.where(gone, -1.0, boxes[..., CLASS])
    return found
