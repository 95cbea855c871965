"""Random Erasing: sets a random rectangle of an image to the mean colour."""

from __future__ import annotations

import math

import torch
from torch import Tensor

TRIES = 10  # rectangles sampled per image; the first that fits is erased


def erase(
    x: Tensor,
    probability: float,
    generator: torch.Generator,
    *,
    scale: tuple[float, float] = (0.02, 0.33),
    ratio: tuple[float, float] = (0.3, 3.3),
) -> Tensor:
    """Set a random rectangle of each image to 0 with this probability (Zhong et al., AAAI 2020), like torchvision.

    Args:
        x: float [n, c, h, w], normalised; not modified. The result has the same memory layout.
        generator: on the CPU; advances by an amount that depends only on n.
        scale: range of the rectangle's area as a fraction of the image.
        ratio: range of its height / width, sampled log-uniformly.
    """
    n, _, height, width = x.shape
    asked = torch.rand(n, generator=generator) < probability
    area, aspect = torch.rand(2, TRIES, n, generator=generator, dtype=torch.float64)
    place = torch.rand(2, n, generator=generator, dtype=torch.float64)

    area = height * width * (scale[0] + (scale[1] - scale[0]) * area)
    aspect = (math.log(ratio[0]) + math.log(ratio[1] / ratio[0]) * aspect).exp()
    tall, wide = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    fits = (tall < height) & (wide < width) & asked
    first = fits.byte().argmax(dim=0, keepdim=True)
    size = torch.stack([tall, wide]).gather(1, first.expand(2, 1, n)).squeeze(1)
    start = (place * (torch.tensor([[height], [width]]) - size + 1)).floor()
    end = torch.where(fits.any(dim=0), start + size, 0.0)  # empty if none fits or the image is not selected

    (top, left), (bottom, right) = torch.stack([start, end]).long().to(x.device).unsqueeze(-1)
    rows, columns = torch.arange(height, device=x.device), torch.arange(width, device=x.device)
    rows, columns = (top <= rows) & (rows < bottom), (left <= columns) & (columns < right)
    return x.clone().masked_fill_((rows[:, :, None] & columns[:, None, :]).unsqueeze(1), 0)
