"""Image folders, one sub-folder per class: every image is checked once, then read into memory or streamed."""

from __future__ import annotations

import hashlib
import logging
import os
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..core.errors import BadInput, arg
from ..core.progress import Progress
from . import picture, pixel_cache
from .layout import Listing
from .picture import Unreadable
from .record import DIGEST, Record
from .split import MemorySplit, Split
from .stream import StreamSplit, squared

LARGEST = 224  # px; larger images are streamed, in crops of this size
PROBED = 100_000  # headers read; of more images an evenly spaced sample
ALL_DECODED = 50_000  # up to this many streamed images all are decoded before training; else one in SAMPLED
SAMPLED = 100
NAMED = 20  # unreadable images that an error lists

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Folder:
    """An image folder before any image is decoded.

    Attributes:
        size: px; the images' own size in memory, or the size of the crops if streamed.
        mode: Pillow's mode of images in memory, "L" (grey) or "RGB"; None if streamed.
        background: the colour behind transparent images.
        stats: int64 [n, 3] per file: bytes, modification time, inode change time.
        place: the cache file of what is found out about the images; None means no caching.
        kept: the contents of that file, if it exists.
        bad: the images that cannot be read, with the reasons, by index, once the folder has been read; None: they are
            refused.
    """

    listing: Listing
    size: int
    mode: str | None
    background: str
    stats: np.ndarray
    place: Path | None
    kept: pixel_cache.Kept | None
    bad: dict[int, str] | None = None

    def read(self, name: str, workers: int) -> tuple[Split, Record]:
        """(all images as one split, their record without splits).

        Raises BadInput listing the images that cannot be read, unless they are to be noted in `bad`."""
        found, kept = self.listing, self.kept
        targets = found.labels if found.values is None else found.values.float()
        if found.masks is not None:
            targets = torch.cat([targets, found.masks.numbers[..., None]], 2)
        whole = found.targets == "boxes"
        if self.mode is None:
            digests = kept.digests if kept else self._checked()
            split: Split = StreamSplit(
                found.root, found.files, targets, size=self.size, workers=workers, background=self.background,
                whole=whole, skip=self.bad is not None,
            )  # fmt: skip
        else:
            pixels, digests = (kept.pixels, kept.digests) if kept else self._decoded()
            split = MemorySplit(pixels, targets)
        sizes = torch.from_numpy(self.stats[:, 0].copy())
        record = Record(
            name, found.classes, {}, found.files, found.labels, sizes=sizes, digests=digests, values=found.values
        )
        return split, record

    def _decoded(self) -> tuple[Tensor, Tensor]:
        """Decode all images: uint8 [n, 1 or 3, size, size], and the files' digests [n, 16]."""
        count, channels = len(self.listing.files), len(self.mode)
        pixels = np.zeros((count, self.size, self.size, channels), dtype=np.uint8)
        digests = np.zeros((count, DIGEST), dtype=np.uint8)

        def work(i: int, content: bytes) -> None:
            digests[i] = _digest(content)
            image = picture.pixels(content, self.mode, self.background)
            if whole:
                image = squared(torch.from_numpy(image.copy()).permute(2, 0, 1), self.size).permute(1, 2, 0).numpy()
            pixels[i] = image.reshape(self.size, self.size, channels)

        whole = self.listing.targets == "boxes"
        # single-threaded: with small images most of the time is spent in Python, and threads doubled it
        _each(self.listing, range(count), work, threads=1, bad=self.bad)
        tensors = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(digests)
        if self.place and pixel_cache.worth(count) and not whole and not self.bad:
            pixel_cache.write(self.place, pixel_cache.Kept(tensors[1], *tensors[:1]))
        return tensors

    def _checked(self) -> Tensor:
        """The files' digests [n, 16], after decoding each image, or a sample if there are many."""
        digests = np.zeros((len(self.listing.files), DIGEST), dtype=np.uint8)

        def work(i: int, content: bytes) -> None:
            digests[i] = _digest(content)
            picture.check(content)

        begun = time.monotonic()
        _each(self.listing, self._to_decode(), work, threads=os.cpu_count() or 1, bad=self.bad)
        found = torch.from_numpy(digests)
        if self.place and time.monotonic() - begun > pixel_cache.WORTH_SECONDS and not self.bad:
            pixel_cache.write(self.place, pixel_cache.Kept(found))
        return found

    def _to_decode(self) -> np.ndarray:
        """Indices of the images decoded before training: all, or if there are many, a sample plus all of small val and
        test splits."""
        count = len(self.listing.files)
        if count <= ALL_DECODED:
            return np.arange(count)
        chosen = np.zeros(count, dtype=bool)
        chosen[::SAMPLED] = True
        for split, places in self.listing.given.items():
            if split != "train" and len(places) <= ALL_DECODED:  # a bad test image would end a run at its end
                chosen[places.numpy()] = True
        return np.flatnonzero(chosen)


def _digest(content: bytes) -> np.ndarray:
    return np.frombuffer(hashlib.blake2b(content, digest_size=DIGEST).digest(), dtype=np.uint8)


def probe(
    listing: Listing, memory: int, size: int | None = None, keep: bool = True, background: str = "white",
    skip: bool = False,
) -> Folder:  # fmt: skip
    """Determine what a folder holds, from what an earlier run cached or else from the headers of its files.

    Images are held in memory if all are square with the same size, at most 224 px, and their pixels take at most
    `memory` bytes. Others are streamed, at `size` px (defaults to 224, or to the median size if the images are
    smaller). `keep` uses the cache and adds to it. `skip`: damaged images are noted and not refused.

    Raises BadInput for images that are damaged or have more than 8 bits per channel."""
    bad: dict[int, str] | None = {} if skip else None
    if listing.targets == "boxes":
        return _of_boxes(listing, memory, size, background, bad)
    stats = _stats(listing)
    place = pixel_cache.place(listing.root, background, listing.files, stats) if keep else None
    kept = pixel_cache.read(place, len(listing.files)) if place else None
    if kept is not None and kept.pixels is not None and kept.pixels.numel() <= memory:
        channels, side = kept.pixels.shape[1:3]
        return Folder(listing, side, "L" if channels == 1 else "RGB", background, stats, place, kept, bad)
    many = len(listing.files)
    headers = _headers(listing, range(0, many, -(-many // PROBED)), skip)
    if many > PROBED and _fits(headers, many, memory):
        headers = _headers(listing, range(many), skip)
    if _fits(headers, many, memory):
        return Folder(listing, headers[0][0], _mode(headers), background, stats, place, None, bad)
    usual = int(statistics.median(min(width, height) for width, height, _ in headers))
    return Folder(listing, size or min(LARGEST, usual), None, background, stats, place, kept, bad)


def _of_boxes(
    listing: Listing, memory: int, size: int | None, background: str, bad: dict[int, str] | None
) -> Folder:  # fmt: skip
    """Images with boxes, of any size: whole and squared, at `size` px as in `probe`, in memory if they all fit."""
    many = len(listing.files)
    headers = _headers(listing, range(0, many, -(-many // PROBED)), bad is not None)
    size = size or min(LARGEST, int(statistics.median(min(width, height) for width, height, _ in headers)))
    mode = "RGB" if many * 3 * size**2 <= memory else None
    return Folder(listing, size, mode, background, _stats(listing), None, None, bad)


def _stats(listing: Listing) -> np.ndarray:
    root, rows = os.fsencode(listing.root), np.zeros((len(listing.files), 3), dtype=np.int64)
    for i, file in enumerate(listing.files.tolist()):
        try:
            stat = os.stat(os.path.join(root, file))
        except OSError:  # a dangling link, say; reading it will report the error
            continue
        rows[i] = stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns  # unpacking an archive resets mtime, not ctime
    return rows


def _fits(headers: list[tuple[int, int, str]], count: int, memory: int) -> bool:
    side = headers[0][0]
    one_square = all(header[:2] == (side, side) for header in headers)
    return one_square and side <= LARGEST and count * side**2 * len(_mode(headers)) <= memory


def _mode(headers: list[tuple[int, int, str]]) -> str:
    return "L" if all(mode == "L" for *_, mode in headers) else "RGB"


def _headers(listing: Listing, places: Iterable[int], skip: bool) -> list[tuple[int, int, str]]:
    """Those of the images that have one, of at least one image."""
    found: list[tuple[int, int, str]] = []

    def work(i: int, path: bytes) -> None:
        found.append(picture.header(path))

    _each(listing, places, work, threads=1, whole=False, bad={} if skip else None)
    if not found:  # they are named
        _each(listing, places, work, threads=1, whole=False)
    deep = sorted({mode for *_, mode in found if mode not in ("L", "RGB")})
    if deep:
        raise BadInput(f"{listing.root!r} has images of more than 8 bits (mode {', '.join(deep)}): convert them")
    return found


def _each(
    listing: Listing, places: Iterable[int], work: Callable, *, threads: int, whole: bool = True,
    bad: dict[int, str] | None = None,
) -> None:  # fmt: skip
    """Call `work(place, content)` per image, or `work(place, path)` unless `whole`. Notes those that fail in `bad` if
    that is given; otherwise BadInput lists all of them."""
    root, places = os.fsencode(listing.root), list(places)
    failed: dict[int, str] = {}

    def one(i: int) -> None:
        path = os.path.join(root, listing.files[i])
        try:
            if whole:
                with open(path, "rb") as file:
                    work(i, file.read())
            else:
                work(i, path)
        except (Unreadable, OSError, MemoryError) as error:
            failed[i] = error.strerror or str(error) if isinstance(error, OSError) else str(error) or "too large"

    title = "images checked" if whole else "images listed"
    with Progress(title, len(places), unit="images", quiet=len(places) < 2000) as bar:
        if threads == 1:
            for done, i in enumerate(places, 1):
                one(i)
                if not done % 100:
                    bar.update(done)
        else:
            with ThreadPoolExecutor(threads) as pool:
                for done, _ in enumerate(pool.map(one, places), 1):
                    bar.update(done)
        bar.update(len(places))
    if bad is not None:
        bad |= failed
    elif failed:
        told = f"{len(failed)} of {len(places)} images in {listing.root!r} cannot be read"
        raise BadInput(
            f"{told}, {named(listing, failed)}: repair or remove them, "
            f"or train without those among the training images: {arg.on_bad_image} skip"
        )


def named(listing: Listing, bad: Mapping[int, str]) -> str:
    """The first of the images that cannot be read, with the reasons."""
    names = [f"{os.fsdecode(listing.files[i])!r} ({bad[i]})" for i in sorted(bad)]
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
