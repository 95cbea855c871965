"""Folders of images, one sub-folder a class: checked, then read into memory or streamed."""

from __future__ import annotations

import logging
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets import ImageFolder

from nasaug.data import decoded
from nasaug.data.split import MemorySplit, Split, hold_out
from nasaug.data.stream import UNREADABLE, StreamSplit
from nasaug.errors import BadInput

LARGEST = 224  # px: larger images are streamed, in crops of this size
PROBED = 100_000  # headers read; where there are more images, an even sample of them
TEST_SHARE, TEST_SEED = 0.2, 0  # of a folder without a test split; never another, whatever the recipe says

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """One split: paths below the root, as bytes [n], and labels, int64 [n]."""

    files: np.ndarray
    labels: Tensor

    def subset(self, index: Tensor) -> Part:
        return Part(self.files[index.numpy()], self.labels[index])


@dataclass(frozen=True)
class Listing:
    """The files of an image folder, by split."""

    root: str
    classes: tuple[str, ...]
    train: Part
    val: Part | None
    test: Part

    @property
    def parts(self) -> dict[str, Part]:
        there = {"train": self.train, "val": self.val, "test": self.test}
        return {name: part for name, part in there.items() if part}


@dataclass(frozen=True)
class Folder:
    """An image folder before any image is decoded.

    Attributes:
        size: px; the images' own in memory, that of the crops where they are streamed.
        mode: Pillow's mode of images in memory, "L" (grey) or "RGB"; None where they are streamed.
        kept: where their decoded pixels are kept, or are to be; None: nowhere.
        pixels: of each part, where they were kept.
    """

    listing: Listing
    size: int
    mode: str | None
    kept: Path | None = None
    pixels: Mapping[str, Tensor] | None = None

    def read(self, workers: int) -> tuple[Split, Split | None, Split]:
        """(train, val or None, test); BadInput where images for memory cannot be read."""
        found, parts = self.listing, self.listing.parts
        if self.mode is None:
            splits: dict[str, Split] = {
                name: StreamSplit(found.root, part.files, part.labels, size=self.size, workers=workers)
                for name, part in parts.items()
            }
        else:
            pixels = self.pixels or self._decoded()
            splits = {name: MemorySplit(pixels[name], part.labels) for name, part in parts.items()}
        return splits["train"], splits.get("val"), splits["test"]

    def _decoded(self) -> dict[str, Tensor]:
        root = self.listing.root
        log.info("reading the images of %s", root)
        parts = self.listing.parts.items()
        pixels = {name: _decode(root, part.files, self.size, self.mode) for name, part in parts}
        if self.kept:
            decoded.write(self.kept, pixels)
        return pixels


def probe(listing: Listing, memory: int, size: int | None = None, keep: bool = True) -> Folder:
    """What a folder holds: from the pixels that an earlier run kept, else from the headers of its files.

    `keep`: use such pixels, and keep those that will be decoded. Else as `_probe`."""
    files = {name: part.files for name, part in listing.parts.items()}
    kept = decoded.place(listing.root, files) if keep else None
    pixels = decoded.read(kept, files) if kept else None
    if pixels is not None and sum(t.numel() for t in pixels.values()) <= memory:
        channels, side = pixels["train"].shape[1:3]
        return Folder(listing, side, "L" if channels == 1 else "RGB", kept, pixels)
    return replace(_probe(listing, memory, size), kept=kept)


def _probe(listing: Listing, memory: int, size: int | None) -> Folder:
    """Decide from the images' headers whether they go into memory.

    They do if all have one square size, at most 224 px, and their pixels take at most `memory` bytes. Others
    are streamed, at `size` px (default: 224, or what is usual where the images are smaller).

    Raises:
        BadInput: images that are damaged, or of more than 8 bits.
    """
    files = np.concatenate([part.files for part in listing.parts.values()])
    sizes, modes = _headers(listing.root, files[:: -(-len(files) // PROBED)])
    if len(files) > PROBED and _fits(sizes, modes, len(files), memory):
        sizes, modes = _headers(listing.root, files)
    if _fits(sizes, modes, len(files), memory):
        return Folder(listing, sizes[0][0], _mode(modes))
    usual = int(statistics.median(min(sides) for sides in sizes))
    return Folder(listing, size or min(LARGEST, usual), None)


def _fits(sizes: list[tuple[int, int]], modes: set[str], count: int, memory: int) -> bool:
    side = sizes[0][0]
    one_square = set(sizes) == {(side, side)}
    return one_square and side <= LARGEST and count * side**2 * len(_mode(modes)) <= memory


def _mode(modes: set[str]) -> str:
    return "L" if modes <= {"1", "L"} else "RGB"


def find(root: str) -> Listing:
    """List the images of a folder and split them.

    `root` has train/ and test/ (the untouched test split; a val/ beside it is for validation), or train/ and
    val/ (then that is the test split), or the classes themselves: then a fifth of each is the test split.

    Raises:
        BadInput: no images, empty or differing classes, a missing split.
    """
    root = os.path.abspath(root)
    there = [name for name in ("train", "val", "test") if os.path.isdir(os.path.join(root, name))]
    if not there:
        classes, everything = _list(root)
        count = len(everything.labels)
        kept, held = hold_out(everything.labels, round(TEST_SHARE * count), TEST_SEED)
        if not len(held):
            many = f"{count} images in {len(classes)} classes"
            raise BadInput(f"{root!r} has {many}, too few to split: add images")
        return Listing(root, classes, everything.subset(kept), None, everything.subset(held))
    if "train" not in there or len(there) == 1:
        raise BadInput(
            f"{root!r} has only {'/ and '.join(there)}/: give a folder with train/ and test/ (or val/), "
            "or one whose sub-folders are the classes"
        )
    classes, parts = list_splits(root, there)
    test = parts.pop("test") if "test" in parts else parts.pop("val")
    return Listing(root, classes, parts["train"], parts.get("val"), test)


def list_splits(root: str, names: Sequence[str]) -> tuple[tuple[str, ...], dict[str, Part]]:
    """The classes of `root`'s splits, which must be the same, and each split's images."""
    listed = {name: _list(root, name) for name in names}
    classes = listed["train"][0]
    for name, (found, _) in listed.items():
        odd = sorted(set(found) ^ set(classes))
        if odd:
            raise BadInput(f"{root!r}: only one of train/ and {name}/ has {_some(odd)}: make them alike")
    return classes, {name: part for name, (_, part) in listed.items()}


def _list(root: str, split: str = "") -> tuple[tuple[str, ...], Part]:
    """The classes (sorted sub-folders) and images of a split, the paths relative to `root`."""
    folder = os.path.join(root, split) if split else root
    try:
        found = ImageFolder(folder, allow_empty=True)
    except OSError as error:
        raise BadInput(f"no class folders in {folder!r} ({error}): give each class one") from error
    labels = torch.tensor(found.targets, dtype=torch.int64)
    counts = torch.bincount(labels, minlength=len(found.classes)).tolist()
    empty = [name for name, count in zip(found.classes, counts, strict=True) if not count]
    if empty:
        raise BadInput(f"{folder!r} has no images in {_some(empty)}: fill or remove these class folders")
    if len(found.classes) < 2:
        raise BadInput(f"{folder!r} has one class, {found.classes[0]!r}: give at least two class folders")
    files = np.array([os.fsencode(path[len(root) + 1 :]) for path, _ in found.samples])
    return tuple(found.classes), Part(files, labels)


def _some(names: Sequence[str]) -> str:
    """The first few of `names`, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _headers(root: str, files: np.ndarray) -> tuple[list[tuple[int, int]], set[str]]:
    """The (width, height) of each image, and all their Pillow modes."""
    found = _each(root, files, lambda image: (image.size, image.mode))
    deep = sorted({mode for _, mode in found if mode.startswith(("I", "F"))})
    if deep:
        raise BadInput(f"{root!r} has images of more than 8 bits (mode {_some(deep)}): convert them")
    return [size for size, _ in found], {mode for _, mode in found}


def _decode(root: str, files: np.ndarray, size: int, mode: str) -> Tensor:
    """uint8 [n, 1 or 3, size, size]."""
    pixels = np.empty((len(files), size, size, len(mode)), dtype=np.uint8)
    rows = iter(pixels)

    def read(image: Image.Image) -> None:
        next(rows)[:] = np.asarray(image.convert(mode)).reshape(size, size, -1)

    _each(root, files, read)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


def _each(root: str, files: np.ndarray, work: Callable[[Image.Image], object]) -> list:
    """`work` of every image; BadInput naming the first that fails and how many do.

    In one thread: with small images most of the time is Python's own, and threads made it twice as long.
    """
    done, bad = [], []
    for name in files:
        path = os.path.join(root, os.fsdecode(name))
        try:
            with Image.open(path) as image:
                done.append(work(image))
        except UNREADABLE as error:
            bad.append(f"{path!r} ({error})")
    if bad:
        many = f"{len(bad)} of {len(files)} images"
        raise BadInput(f"{many} cannot be read, such as {bad[0]}: repair or remove them")
    return done
