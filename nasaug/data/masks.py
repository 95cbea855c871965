"""Masks of objects: read from COCO's polygons and run-length encodings, and decoded at any size.

pycocotools encodes and decodes. A split's labels then have one more column than boxes alone: each object's number here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.units import finite

RLE = dict[str, Any]  # pycocotools': "size" [h, w] and "counts", compressed

# By EXIF orientation, how a stored mask [h, w] is turned to the image as shown
_TURNS = {
    2: lambda m: m[:, ::-1], 3: lambda m: m[::-1, ::-1], 4: lambda m: m[::-1], 5: lambda m: m.T,
    6: lambda m: m.T[:, ::-1], 7: lambda m: m[::-1, ::-1].T, 8: lambda m: m.T[::-1],
}  # fmt: skip


@dataclass
class Masks:
    """The masks of a data set's objects by number, each of the size of its own image, and the objects' numbers by image
    and row of its boxes: float32 [n, most], -1 where there is none."""

    rles: list[RLE]
    numbers: Tensor
    _sized: dict[tuple[int, int], RLE] = field(default_factory=dict)

    def at(self, numbers: Tensor, size: int) -> Tensor:
        """uint8 0 or 1 [N, M, size, size]: the masks of objects [N, M], squared as their images are."""
        found = torch.zeros(*numbers.shape, size, size, dtype=torch.uint8)
        for place in (numbers >= 0).nonzero().tolist():
            found[tuple(place)] = torch.from_numpy(self._one(int(numbers[tuple(place)]), size))
        return found.to(numbers.device)

    def _one(self, number: int, size: int) -> np.ndarray:
        from pycocotools import mask
        from torchvision.transforms.v2 import functional as TF

        if (number, size) not in self._sized:
            whole = torch.from_numpy(mask.decode(self.rles[number])).float()[None]
            small = TF.resize(whole, [size, size], antialias=True)[0] >= 0.5
            self._sized[number, size] = mask.encode(np.asfortranarray(small.numpy().astype(np.uint8)))
        return mask.decode(self._sized[number, size])


def encoded(given: Any, width: int, height: int, orientation: int = 1) -> RLE | str:
    """A COCO annotation's `segmentation` on an image of this size, turned by its EXIF orientation; or what is wrong
    with it."""
    from pycocotools import mask

    if given is None or given == [] or given == "":
        return "has no segmentation"
    if isinstance(given, list):
        for polygon in given:
            if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2 or not all(map(finite, polygon)):
                return "has a polygon that is not a list of at least three points x, y"
            if max(map(abs, polygon)) > 2 * max(width, height):  # pycocotools would follow such an edge pixel by pixel
                return "has a polygon that reaches far beyond its image"
        rle = mask.merge(mask.frPyObjects([[*map(float, polygon)] for polygon in given], height, width))
    elif isinstance(given, dict):
        size, counts = given.get("size"), given.get("counts")
        if not isinstance(size, list) or len(size) != 2 or not isinstance(counts, (str, list)):
            return 'has a segmentation without "size" and "counts"'
        if size != [height, width]:
            return f"has a mask of size {size} on an image of {width:g} x {height:g} (size is [height, width])"
        runs = counts if isinstance(counts, list) else _runs(counts)
        whole = runs is not None and all(isinstance(run, int) and run >= 0 for run in runs)
        if not whole or sum(runs or ()) != height * width:
            return f"has a run-length encoding whose runs are not those of {height * width} pixels"
        rle = mask.frPyObjects({"size": size, "counts": runs}, height, width)
    else:
        return f"has a segmentation that is neither polygons nor a run-length encoding ({str(given):.30})"
    if not mask.area(rle):
        return "has a mask without pixels"
    if orientation in _TURNS:
        rle = mask.encode(np.asfortranarray(_TURNS[orientation](mask.decode(rle))))
    return rle


def _runs(counts: str) -> Sequence[int] | None:
    """The runs in COCO's compressed string: six bits a character from "0" on, the sixth marks that more follow; from
    the fourth run on differences from the run two before. None if it is no such string. pycocotools does not check."""
    runs: list[int] = []
    value = shift = 0
    for character in counts:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 30:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        value -= (1 << shift) if bits & 16 else 0
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return runs if not shift else None
