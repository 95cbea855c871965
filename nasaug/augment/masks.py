"""Views of images with boxes and masks: the masks are moved as further channels of their image.

Labels are those of boxes (`nasaug.core.boxes`); those of a view have the pixels of each object's mask, 0 or 1, after
these columns: float32 [n, most, COLUMNS + h * w].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..core.boxes import CLASS, COLUMNS
from . import boxes
from .transform import Transform, transform_both

if TYPE_CHECKING:
    from . import View


def moved(
    view: View, images: Tensor, labels: Tensor, masks: Tensor, generator: torch.Generator, flip: bool
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """`nasaug.augment.boxes.moved` of uint8 images [n, c, h, w], their boxes [n, most, COLUMNS + …] and their masks,
    uint8 0 or 1 [n, most, h, w]."""
    channels, most = images.shape[1], masks.shape[1]
    rows = torch.arange(most, device=labels.device, dtype=labels.dtype).expand(len(labels), most)[..., None]
    both = torch.cat([images, masks * 255], 1)
    both, found = boxes.moved(view, both, torch.cat([labels[..., :COLUMNS], rows], 2), generator, flip)
    masks = both[:, channels:] > boxes.GREY  # grey is what the images are padded with
    order = found[..., COLUMNS].long()[..., None, None].expand_as(masks)  # boxes may have been dropped
    return both[:, :channels], joined(found[..., :COLUMNS], masks.gather(1, order))


def transformed(
    how: Transform, x: Tensor, labels: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """`nasaug.augment.transform.transform_both` of normalised images and of a view's labels."""
    masks = pixels(labels, x.shape[-1])
    both, found = transform_both(how, torch.cat([x, masks.to(x.dtype)], 1), labels[..., :COLUMNS], generator)
    channels = x.shape[1]
    seen = both[:, :channels].contiguous(memory_format=torch.channels_last)
    return seen, joined(found, both[:, channels:] >= 0.5)


def joined(found: Tensor, masks: Tensor) -> Tensor:
    """Boxes [n, most, COLUMNS] and masks [n, most, h, w] as labels; objects without pixels are dropped."""
    found = found.clone()
    found[..., CLASS] = torch.where(masks.flatten(2).any(2), found[..., CLASS], -1.0)
    return torch.cat([found, masks.flatten(2).to(found.dtype)], 2)


def pixels(labels: Tensor, side: int) -> Tensor:
    """The masks in a view's labels, bool [n, most, side, side]."""
    return labels[..., COLUMNS:].unflatten(2, (side, side)) > 0
