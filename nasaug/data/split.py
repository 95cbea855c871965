"""A split: labelled images, served as uint8 batches in an order that depends only on the arguments."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

ORDER, TAKE, HOLD_OUT, CROP, FEW = range(5)  # purposes of random numbers; no two share a stream
Share = Callable[[Any], Any]  # the part of a sequence or tensor that this process works on


def whole(items: Any) -> Any:
    """All of it."""
    return items


def random(purpose: int, *key: int) -> np.random.Generator:
    """A generator seeded by (purpose, key): the same in every process, whatever was drawn before."""
    return np.random.default_rng((purpose, *key))


class Split(ABC):
    """Labelled images.

    Attributes:
        labels: int64 [len(self)], the class of each image; or float32, its number.
        size: px, square; the default size at which images are served.
    """

    def __init__(self, labels: Tensor, size: int):
        self.labels, self.size = labels, size

    def __len__(self) -> int:
        return len(self.labels)

    def steps(self, batch: int) -> int:
        """Batches per epoch: the last, incomplete one is dropped unless it is the only one."""
        return max(1, len(self) // batch)

    def order(self, seed: int, epoch: int) -> Tensor:
        """A permutation of the images, int64 [len(self)], determined by (seed, epoch)."""
        return torch.from_numpy(random(ORDER, seed, epoch).permutation(len(self)))

    def batches(
        self, batch: int, *, seed: int, epoch: int, start: int = 0, share: Share = whole
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """One epoch of shuffled training batches, or of the `share` of each, starting at batch number `start`.

        Yields images uint8 [batch, channels, size, size], labels [batch] and the images' indices in this split, int64
        [batch]. `start=k` yields exactly the batches that remain after the first k.
        """
        order = self.order(seed, epoch)
        chosen = [share(order[i * batch : (i + 1) * batch]) for i in range(start, self.steps(batch))]
        for images, index in self._images(chosen, crop=(seed, epoch)):
            yield images, self.labels[index], index

    def ordered(
        self, batch: int, size: int | None = None, share: Share = whole
    ) -> Iterator[tuple[Tensor, Tensor]]:  # fmt: skip
        """Every image once, or those of a `share` of the batches, in order, for evaluation, at `size` px (defaults to
        the split's own size).

        Yields images uint8 [at most batch, channels, size, size] and their labels.
        """
        chosen = share(torch.arange(len(self)).split(batch))
        for images, index in self._images(chosen, size=size):
            yield images, self.labels[index]

    def strict(self) -> Split:
        """The same images, none of which may be skipped if it cannot be read."""
        return self

    def take(self, n: int, seed: int) -> Split:
        """`n` of the images (all, if there are fewer), drawn without replacement with `seed`."""
        return self.subset(torch.from_numpy(random(TAKE, seed).permutation(len(self))[:n]))

    @abstractmethod
    def subset(self, index: Tensor) -> Split:
        """The images with the indices `index`, int64 [n], in that order; copies nothing."""

    @abstractmethod
    def content(self) -> Iterator[bytes]:
        """Bytes that identify this split's images, for hashing."""

    @abstractmethod
    def _images(
        self, chosen: Sequence[Tensor], *, size: int | None = None, crop: tuple[int, int] | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The images of each batch of indices, and the index of the image in each place, which differs from the one
        asked for if that is skipped; `crop` is the (seed, epoch) of random crops, None for no cropping."""


class MemorySplit(Split):
    """Images held in memory, uint8 [n, channels, size, size]; random crops are left to the view."""

    def __init__(self, pixels: Tensor, labels: Tensor, places: Tensor | None = None):
        """`places`: int64 indices into `pixels`, one per label; defaults to all."""
        super().__init__(labels, pixels.shape[-1])
        self._pixels = pixels
        self._places = torch.arange(len(pixels)) if places is None else places

    def subset(self, index: Tensor) -> MemorySplit:
        return MemorySplit(self._pixels, self.labels[index], self._places[index])

    def content(self) -> Iterator[bytes]:
        for images, _ in self.ordered(4096):
            yield images.numpy().tobytes()

    def _images(self, chosen, *, size=None, crop=None):
        for index in chosen:
            yield resize_uint8(self._pixels.index_select(0, self._places[index]), size or self.size), index


def resize_uint8(images: Tensor, size: int) -> Tensor:
    """Resize uint8 [n, c, h, w] to `size` px: bilinear, antialiased; returns the same tensor if it has that size."""
    if images.shape[-2:] == (size, size):
        return images
    resized = F.interpolate(images.float(), (size, size), mode="bilinear", antialias=True)
    return resized.round().clamp(0, 255).to(torch.uint8)


def hold_out(labels: Tensor, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Two sets of indices, (kept, held), ascending: `count` held, stratified by class.

    Every class keeps at least one image, so fewer than `count` are held if classes are that small.

    Args:
        labels: int64 [n].
        count: less than n.
    """
    return held_in_order(labels, count, random(HOLD_OUT, seed).permutation(len(labels)))


def held_in_order(labels: Tensor, count: int, order: np.ndarray) -> tuple[Tensor, Tensor]:
    """`hold_out` of the images that come first in `order`, a permutation, within their class."""
    sizes = np.bincount(labels.numpy())
    quota = _quotas(sizes, count)
    by_class = order[np.argsort(labels.numpy()[order], kind="stable")]
    rank = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)  # within the class
    held = rank < np.repeat(quota, sizes)
    return torch.from_numpy(np.sort(by_class[~held])), torch.from_numpy(np.sort(by_class[held]))


def first_of_each(labels: Tensor, order: np.ndarray, fraction: float = 1.0, shots: int = 0) -> Tensor:
    """Indices, ascending, of the images that come first in `order`, a permutation, within their class: `shots` of each
    class (at most all), or else the `fraction`, rounded, but at least one. Those of a smaller number are among those of
    a larger one."""
    labels = labels if labels.dim() == 1 and not labels.is_floating_point() else torch.zeros(len(labels)).long()
    sizes = np.bincount(labels.numpy())
    wanted = np.full(len(sizes), shots) if shots else np.maximum(1, np.floor(fraction * sizes + 0.5)).astype(int)
    by_class = order[np.argsort(labels.numpy()[order], kind="stable")]
    rank = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)  # within the class
    return torch.from_numpy(np.sort(by_class[rank < np.repeat(wanted, sizes)]))


def _quotas(sizes: np.ndarray, count: int) -> np.ndarray:
    """How many to hold out of classes with these sizes: proportional, by the largest remainder method."""
    most = np.maximum(sizes - 1, 0)
    exact = sizes * count / sizes.sum()
    quota = exact.astype(int)
    room = np.flatnonzero(quota < most)
    largest = room[np.argsort((quota - exact)[room], kind="stable")]
    quota[largest[: count - quota.sum()]] += 1
    return quota
