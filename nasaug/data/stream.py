"""Streaming images that do not fit in memory: worker processes decode them from their files, batch by batch.

A worker's random draws depend only on (seed, epoch, index of the image), so any number of workers, and a resumed epoch,
give the same batches.
"""

from __future__ import annotations

import atexit
import math
import multiprocessing
import os
import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..core.errors import BadInput, RunFault, arg
from ..core.signals import deaf_children
from . import picture
from .picture import Unreadable, decoded
from .split import CROP, Split, random

AREA, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)  # random crops: Szegedy et al., CVPR 2015, as in torchvision
CENTRE = 0.875  # share of the shorter side that the centre crop covers in evaluation: 224 of 256 px
LONGEST = 3  # maximum aspect ratio; longer images are cut before resizing, since a strip would exhaust memory


class StreamSplit(Split):
    """Images decoded on demand, with three channels.

    Training batches hold random resized crops, ordered ones the centre of each image; or both hold `whole` images,
    squared, as boxes need them.
    """

    def __init__(
        self, root: str, files: np.ndarray, labels: Tensor, *, size: int, workers: int, background: str = "white",
        whole: bool = False,
    ):  # fmt: skip
        """`files`: paths relative to `root`, bytes [n], in one array (reference counting would make workers copy a list
        of strings page by page). `workers`: decoding processes, 0 for none. `background`: the colour behind
        transparent images."""
        super().__init__(labels, size)
        self._root, self._files, self._workers, self._background = root, files, workers, background
        self._whole = whole
        self.decoded, self.decoding = 0, 0.0  # images decoded so far, and the seconds this took, summed over workers

    def subset(self, index: Tensor) -> StreamSplit:
        files = self._files[index.numpy()]
        same = {"size": self.size, "workers": self._workers, "background": self._background, "whole": self._whole}
        return StreamSplit(self._root, files, self.labels[index], **same)

    def content(self) -> Iterator[bytes]:
        yield self._files.tobytes()

    def _images(self, chosen, *, size=None, crop=None):
        loader = DataLoader(
            _Decoder(self._root, self._files, size or self.size, crop, self._background, self._whole),
            batch_size=None,
            sampler=chosen,
            num_workers=self._workers,
            generator=torch.Generator(),  # else it would advance the global one
        )
        with deaf_children():  # else a signal to the process group would end the workers before the training is saved
            batches = iter(loader)
        for made in _alive(batches):
            if isinstance(made, BadInput):
                raise made
            images, seconds = made
            self.decoded, self.decoding = self.decoded + len(images), self.decoding + seconds
            yield images


def _alive(batches: Iterator) -> Iterator:
    """The loader's batches; a killed worker (no memory, no shared memory) raises a one-line RunFault."""
    while True:
        try:
            made = next(batches)
        except StopIteration:
            return
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise RunFault(f"a decoding process failed ({reason}); try {arg.set} data.workers=0") from error
        yield made


@atexit.register
def _end_workers() -> None:
    """Kill remaining workers at exit: multiprocessing would send SIGTERM, which they ignore."""
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()


class _Decoder(Dataset):
    """Maps indices, int64 [n], to images, uint8 [n, 3, size, size], and the seconds taken; or to the BadInput that
    names a bad file."""

    def __init__(
        self, root: str, files: np.ndarray, size: int, crop: tuple[int, int] | None, background: str,
        whole: bool = False,
    ):  # fmt: skip
        self.root, self.files, self.size, self.crop, self.background = root, files, size, crop, background
        self.whole = whole
        # import before workers are forked, since each would otherwise spend seconds on it; images in memory do not need
        # it
        import torchvision.transforms.v2.functional  # noqa: F401

        picture.jpeg_decoder()

    def __getitem__(self, index: Tensor) -> tuple[Tensor, float] | BadInput:
        begun = time.perf_counter()
        images = torch.empty(len(index), 3, self.size, self.size, dtype=torch.uint8)
        for slot, place in enumerate(index.tolist()):
            path = os.path.join(self.root, os.fsdecode(self.files[place]))
            try:
                images[slot] = self._cut(decoded(np.fromfile(path, dtype=np.uint8), self.background), place)
            except (Unreadable, OSError, MemoryError) as error:
                return BadInput(f"cannot read the image {path!r} ({error}); remove it, and go on with {arg.resume}")
        return images, time.perf_counter() - begun

    def _cut(self, image: Tensor, place: int) -> Tensor:
        if self.whole:
            return squared(image, self.size)
        if self.crop is not None:
            from torchvision.transforms.v2 import functional as TF

            box = crop_box(*image.shape[1:], random(CROP, *self.crop, place))
            return TF.resized_crop(image, *box, [self.size, self.size], antialias=True)
        return central(image, self.size, CENTRE)


def squared(images: Tensor, size: int) -> Tensor:
    """Whole images, uint8 [..., 3, h, w], resized to a square whatever their aspect ratio, as SSD's input is."""
    from torchvision.transforms.v2 import functional as TF

    return TF.resize(images, [size, size], antialias=True)


def central(image: Tensor, size: int, share: float) -> Tensor:
    """The central square of images, uint8 [..., 3, h, w], covering `share` of the shorter side, resized to `size`."""
    from torchvision.transforms.v2 import functional as TF

    height, width = image.shape[-2:]
    longest = LONGEST * min(height, width)
    image = TF.center_crop(image, [min(height, longest), min(width, longest)])
    return TF.center_crop(TF.resize(image, [math.ceil(size / share)], antialias=True), [size])


def crop_box(height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a random crop, distributed as in torchvision's RandomResizedCrop."""
    for _ in range(10):
        area = height * width * rng.uniform(*AREA)
        ratio = math.exp(rng.uniform(*np.log(RATIO)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
    w = min(width, round(height * RATIO[1]))
    h = min(height, round(width / RATIO[0]))
    return (height - h) // 2, (width - w) // 2, h, w
