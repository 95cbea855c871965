"""Folders of images, one sub-folder a class: every image is looked at once, then read into memory or streamed."""

from __future__ import annotations

import hashlib
import logging
import os
import statistics
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..core.errors import BadInput
from ..core.progress import Progress
from . import picture, pixel_cache
from .layout import Listing
from .picture import Unreadable
from .record import DIGEST, Record
from .split import MemorySplit, Split
from .stream import StreamSplit

LARGEST = 224  # px: larger images are streamed, in crops of this size
PROBED = 100_000  # headers read; where there are more images, an even sample of them
ALL_DECODED = 50_000  # streamed images up to which each is decoded once before training; of more, one in SAMPLED is
SAMPLED = 100
NAMED = 20  # bad images that an error names

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Folder:
    """An image folder before any image is decoded.

    Attributes:
        size: px; the images' own in memory, that of the crops where they are streamed.
        mode: Pillow's mode of images in memory, "L" (grey) or "RGB"; None where they are streamed.
        background: the colour that lies under transparent images.
        stats: int64 [n, 3] of the files: bytes, and the times of content and of inode.
        place: where what is found out is kept for the next run, or is to be; None: nowhere.
        kept: what is there.
    """

    listing: Listing
    size: int
    mode: str | None
    background: str
    stats: np.ndarray
    place: Path | None
    kept: pixel_cache.Kept | None

    def read(self, name: str, workers: int) -> tuple[Split, Record]:
        """(all images as one split, their record, which splits none yet).

        Raises BadInput that names the images which cannot be read."""
        found, kept = self.listing, self.kept
        targets = found.labels if found.values is None else found.values.float()
        if self.mode is None:
            digests = kept.digests if kept else self._checked()
            split: Split = StreamSplit(
                found.root, found.files, targets, size=self.size, workers=workers, background=self.background
            )
        else:
            pixels, digests = (kept.pixels, kept.digests) if kept else self._decoded()
            split = MemorySplit(pixels, targets)
        sizes = torch.from_numpy(self.stats[:, 0].copy())
        record = Record(
            name, found.classes, {}, found.files, found.labels, sizes=sizes, digests=digests, values=found.values
        )
        return split, record

    def _decoded(self) -> tuple[Tensor, Tensor]:
        """uint8 [n, 1 or 3, size, size], and the files' digests [n, 16]."""
        count, channels = len(self.listing.files), len(self.mode)
        pixels = np.empty((count, self.size, self.size, channels), dtype=np.uint8)
        digests = np.zeros((count, DIGEST), dtype=np.uint8)

        def work(i: int, content: bytes) -> None:
            digests[i] = _digest(content)
            pixels[i] = picture.pixels(content, self.mode, self.background).reshape(self.size, self.size, channels)

        # in one thread: with small images most of the time is Python's own, and threads made it twice as long
        _each(self.listing, range(count), work, threads=1)
        tensors = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(digests)
        if self.place and pixel_cache.worth(count):
            pixel_cache.write(self.place, pixel_cache.Kept(tensors[1], *tensors[:1]))
        return tensors

    def _checked(self) -> Tensor:
        """The files' digests [n, 16] after each image, or of many a sample, was decoded."""
        digests = np.zeros((len(self.listing.files), DIGEST), dtype=np.uint8)

        def work(i: int, content: bytes) -> None:
            digests[i] = _digest(content)
            picture.check(content)

        begun = time.monotonic()
        _each(self.listing, self._to_decode(), work, threads=os.cpu_count() or 1)
        found = torch.from_numpy(digests)
        if self.place and time.monotonic() - begun > pixel_cache.WORTH_SECONDS:
            pixel_cache.write(self.place, pixel_cache.Kept(found))
        return found

    def _to_decode(self) -> np.ndarray:
        """Places of the images that are decoded before training: all, or of many all of small splits and a sample of
        the others."""
        count = len(self.listing.files)
        if count <= ALL_DECODED:
            return np.arange(count)
        chosen = np.zeros(count, dtype=bool)
        chosen[::SAMPLED] = True
        for split, places in self.listing.given.items():
            if split != "train" and len(places) <= ALL_DECODED:  # else a bad test image ends a run at its very end
                chosen[places.numpy()] = True
        return np.flatnonzero(chosen)


def _digest(content: bytes) -> np.ndarray:
    return np.frombuffer(hashlib.blake2b(content, digest_size=DIGEST).digest(), dtype=np.uint8)


def probe(
    listing: Listing, memory: int, size: int | None = None, keep: bool = True, background: str = "white"
) -> Folder:
    """What a folder holds: from what an earlier run kept, else from the headers of its files.

    Images go into memory if all have one square size, at most 224 px, and their pixels take at most `memory` bytes.
    Others are streamed, at `size` px (default: 224, or what is usual where the images are smaller). `keep`: use what
    an earlier run kept, and keep what is found out.

    Raises BadInput for images that are damaged, or of more than 8 bits."""
    stats = _stats(listing)
    place = pixel_cache.place(listing.root, background, listing.files, stats) if keep else None
    kept = pixel_cache.read(place, len(listing.files)) if place else None
    if kept is not None and kept.pixels is not None and kept.pixels.numel() <= memory:
        channels, side = kept.pixels.shape[1:3]
        return Folder(listing, side, "L" if channels == 1 else "RGB", background, stats, place, kept)
    many = len(listing.files)
    headers = _headers(listing, range(0, many, -(-many // PROBED)))
    if len(headers) < many and _fits(headers, many, memory):
        headers = _headers(listing, range(many))
    if _fits(headers, many, memory):
        return Folder(listing, headers[0][0], _mode(headers), background, stats, place, None)
    usual = int(statistics.median(min(width, height) for width, height, _ in headers))
    return Folder(listing, size or min(LARGEST, usual), None, background, stats, place, kept)


def _stats(listing: Listing) -> np.ndarray:
    root, rows = os.fsencode(listing.root), np.zeros((len(listing.files), 3), dtype=np.int64)
    for i, file in enumerate(listing.files.tolist()):
        try:
            stat = os.stat(os.path.join(root, file))
        except OSError:  # a link to nothing, say; reading it will tell
            continue
        rows[i] = stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns  # what unpacks sets the former back
    return rows


def _fits(headers: list[tuple[int, int, str]], count: int, memory: int) -> bool:
    side = headers[0][0]
    one_square = all(header[:2] == (side, side) for header in headers)
    return one_square and side <= LARGEST and count * side**2 * len(_mode(headers)) <= memory


def _mode(headers: list[tuple[int, int, str]]) -> str:
    return "L" if all(mode == "L" for *_, mode in headers) else "RGB"


def _headers(listing: Listing, places: Iterable[int]) -> list[tuple[int, int, str]]:
    found = []
    _each(listing, places, lambda i, path: found.append(picture.header(path)), threads=1, whole=False)
    deep = sorted({mode for *_, mode in found if mode not in ("L", "RGB")})
    if deep:
        raise BadInput(f"{listing.root!r} has images of more than 8 bits (mode {', '.join(deep)}): convert them")
    return found


def _each(listing: Listing, places: Iterable[int], work: Callable, *, threads: int, whole: bool = True) -> None:
    """`work(place, content)` of each image, or `work(place, path)` unless `whole`; BadInput names all that fail."""
    root, places = os.fsencode(listing.root), list(places)
    bad: dict[int, str] = {}

    def one(i: int) -> None:
        path = os.path.join(root, listing.files[i])
        try:
            if whole:
                with open(path, "rb") as file:
                    work(i, file.read())
            else:
                work(i, path)
        except (Unreadable, OSError, MemoryError) as error:
            bad[i] = error.strerror or str(error) if isinstance(error, OSError) else str(error) or "too large"

    title = "images looked at" if whole else "images listed"
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
    if bad:
        names = [f"{os.fsdecode(listing.files[i])!r} ({bad[i]})" for i in sorted(bad)]
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        told = f"{len(bad)} of {len(places)} images in {listing.root!r} cannot be read"
        raise BadInput(f"{told}, {', '.join(names[:NAMED])}{more}: repair or remove them")
