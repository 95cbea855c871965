"""Streaming images that do not fit in memory: worker processes decode them from their files, batch by batch.

A worker's random draws depend only on (seed, epoch, index of the image), so any number of workers, and a resumed epoch,
give the same batches.
"""

from __future__ import annotations

import atexit
import contextlib
import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..core.errors import BadInput, RunFault, arg
from ..core.progress import say
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
        whole: bool = False, skip: bool = False, skipped: dict[str, str] | None = None,
    ):  # fmt: skip
        """`files`: paths relative to `root`, bytes [n], in one array (reference counting would make workers copy a list
        of strings page by page). `workers`: decoding processes, 0 for none. `background`: the colour behind
        transparent images. `skip`: another image of the batch takes the place of one that cannot be read; `skipped`
        notes those, with the reasons by their paths."""
        super().__init__(labels, size)
        self._root, self._files, self._workers, self._background = root, files, workers, background
        self._whole, self._skip, self.skipped = whole, skip, {} if skipped is None else skipped
        self.decoded, self.decoding = 0, 0.0  # images decoded so far, and the seconds this took, summed over workers

    def subset(self, index: Tensor) -> StreamSplit:
        return self._of(index, self._skip)

    def strict(self) -> StreamSplit:
        return self._of(torch.arange(len(self)), False)

    def _of(self, index: Tensor, skip: bool) -> StreamSplit:
        return StreamSplit(
            self._root, self._files[index.numpy()], self.labels[index], size=self.size, workers=self._workers,
            background=self._background, whole=self._whole, skip=skip, skipped=self.skipped,
        )  # fmt: skip

    def content(self) -> Iterator[bytes]:
        yield self._files.tobytes()

    def _images(self, chosen, *, size=None, crop=None):
        loader = DataLoader(
            _Decoder(self._root, self._files, size or self.size, crop, self._background, self._whole, self._skip),
            batch_size=None,
            sampler=chosen,
            num_workers=self._workers,
            generator=torch.Generator(),  # else it would advance the global one
        )
        # else a signal to the process group would end the workers before the training is saved
        with deaf_children(), _no_handler_left():
            batches = iter(loader)
        for made in _alive(batches):
            if isinstance(made, BadInput):
                raise made
            images, index, bad, seconds = made
            self.decoded, self.decoding = self.decoded + len(images), self.decoding + seconds
            for path, reason in bad.items():
                if not self.skipped:
                    say(f"warning: {path!r} cannot be read ({reason}); others take the place of such training images")
                self.skipped.setdefault(path, reason)
            yield images, index


@contextlib.contextmanager
def _no_handler_left() -> Iterator[None]:
    """Keeps the handler of SIGCHLD. That of torch would raise the end of a worker wherever the program is at that
    moment, past all that waits for it; asking for a batch finds it too, within five seconds."""
    if threading.current_thread() is not threading.main_thread():  # where torch sets none
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


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
    """Maps indices, int64 [n], to images, uint8 [n, 3, size, size], the index of each, what cannot be read (reasons by
    path), and the seconds taken; or to the BadInput that names a bad file.

    With `skip`, the next image of the batch that can be read takes the place of one that cannot."""

    def __init__(
        self, root: str, files: np.ndarray, size: int, crop: tuple[int, int] | None, background: str,
        whole: bool = False, skip: bool = False,
    ):  # fmt: skip
        self.root, self.files, self.size, self.crop, self.background = root, files, size, crop, background
        self.whole, self.skip = whole, skip
        # import before workers are forked, since each would otherwise spend seconds on it; images in memory do not need
        # it
        import torchvision.transforms.v2.functional  # noqa: F401

        picture.jpeg_decoder()

    def __getitem__(self, index: Tensor) -> tuple[Tensor, Tensor, dict[str, str], float] | BadInput:
        begun = time.perf_counter()
        images = torch.empty(len(index), 3, self.size, self.size, dtype=torch.uint8)
        bad: dict[str, str] = {}
        empty: list[int] = []
        for slot, place in enumerate(index.tolist()):
            path = os.path.join(self.root, os.fsdecode(self.files[place]))
            try:
                images[slot] = self._cut(decoded(np.fromfile(path, dtype=np.uint8), self.background), place)
            except (Unreadable, OSError, MemoryError) as error:
                if not self.skip or len(empty) + 1 == len(index):
                    return BadInput(f"cannot read the image {path!r} ({error}); remove it, and go on with {arg.resume}")
                bad[os.fsdecode(self.files[place])] = str(error)
                empty.append(slot)
        if empty:
            index, there = index.clone(), [slot for slot in range(len(index)) if slot not in empty]
            for slot in empty:
                instead = next((other for other in there if other > slot), there[0])
                images[slot], index[slot] = images[instead], index[instead]
        return images, index, bad, time.perf_counter() - begun

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
