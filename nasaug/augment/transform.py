"""Transforms of a finished view, for passes that need another version of the same images: GradAug's T."""

from __future__ import annotations

import math
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge, Le, Lt
from torch import Tensor

from ..core.checked import Told, checked
from .boxes import transformed


@checked()
class Transform:
    """The recipe's `[transforms.NAME]` table. Sampled per image; bilinear interpolation, zeros outside."""

    rotate: Annotated[float, Ge(0), Le(180), Told("must be an angle in degrees", "give 0 (none) to 180")] = 0.0
    """Largest rotation in degrees, in either direction."""
    crop: Annotated[float, Ge(0), Lt(1), Told("must be a share of the image's side", "give 0 (none) to below 1")] = 0.0
    """Crop a random square with at least 1 - crop of the side and resize it back."""


def transform(how: Transform, x: Tensor, generator: torch.Generator) -> Tensor:
    """Transform x [n, c, h, w]; returns the same shape in channels-last. `generator` is on the CPU."""
    if not how.rotate and not how.crop:
        return x
    return _moved(x, _maps(how, len(x), generator))


def transform_both(how: Transform, x: Tensor, boxes: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """`transform` of images and of their boxes, as in `nasaug.core.boxes`."""
    if not how.rotate and not how.crop:
        return x, boxes
    theta = _maps(how, len(x), generator)
    return _moved(x, theta), transformed(boxes, theta)


def _maps(how: Transform, n: int, generator: torch.Generator) -> Tensor:
    """[n, 2, 3]: affine maps from the coordinates of the result, -1 to 1, to those of the image."""
    angle, side, *centre = torch.rand(4, n, generator=generator)
    angle = (2 * angle - 1) * math.radians(how.rotate)
    side = 1 - how.crop * side
    right, down = ((2 * c - 1) * (1 - side) for c in centre)
    cos, sin = side * angle.cos(), side * angle.sin()
    return torch.stack([torch.stack([cos, -sin, right], 1), torch.stack([sin, cos, down], 1)], 1)


def _moved(x: Tensor, theta: Tensor) -> Tensor:
    grid = F.affine_grid(theta.to(x.device), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False).contiguous(memory_format=torch.channels_last)
