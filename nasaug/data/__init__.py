"""Data sets as three splits: training, validation (held out of training) and the test split, read once.

Small sets live in memory as uint8 tensors and are augmented in batches (`nasaug.augment`); large ones are
streamed from their files. A split's order and random crops depend on (seed, epoch, place) alone.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import cached_property

from nasaug.data.folder import Folder, find, probe
from nasaug.data.named import NAMED
from nasaug.data.split import MemorySplit, Split, hold_out
from nasaug.errors import BadInput, unknown

__all__ = ["Data", "DataConfig", "Info", "Split", "describe", "load", "names"]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # torchvision's
MEASURED = 10_000  # images from which mean and std are taken
LEAST = {"val_images": 1, "train_images": 0, "split_seed": 0, "workers": 0, "memory_mb": 0}


@dataclass(frozen=True, slots=True)
class DataConfig:
    """Which images, and how they are split: the recipe's `[data]` table."""

    name: str = "fashion-mnist"
    """fashion-mnist, cifar10, cifar100, imagenet, digits, or the path of an image folder."""
    val_images: int = 5000
    """Validation images, held out of the training split; at most a tenth of it."""
    train_images: int = 0
    """Train on this many of the images that remain, in proportion to the classes; 0 = all."""
    split_seed: int = 0
    """Seed of both draws, whatever the run's own seed."""
    workers: int = 2
    """Decoding processes of streamed sets; 0 = decode in the main process."""
    memory_mb: int = 2000
    """Folders whose uint8 pixels take at most this many MB live in memory; larger ones are streamed."""
    keep_decoded: bool = True
    """Keep the decoded images of such folders, where they are many, in the user's cache folder for the next run."""

    def __post_init__(self) -> None:
        for name, least in LEAST.items():
            if getattr(self, name) < least:
                raise BadInput(f"data.{name} = {getattr(self, name)} is too small: give at least {least}")


@dataclass(frozen=True, slots=True)
class Info:
    """What a data set is, before its images are read: `size` in px is the largest resolution served."""

    name: str
    classes: int
    size: int
    streamed: bool


class Data:
    """A data set in three splits.

    Attributes:
        name: as in the recipe.
        classes: their names, by label.
        size: px, square; the largest resolution served.
        flip: whether a mirrored image keeps its class.
        streamed: whether training batches are random crops already.
        mean, std: of the three channels of training pixels in [0, 1] (streamed: ImageNet's).
        train, val: the splits to train on, and to choose by.
    """

    def __init__(
        self, name: str, classes: tuple[str, ...], *, flip: bool, train: Split, val: Split, test: Split
    ):
        self.name, self.classes, self.flip = name, classes, flip
        self.train, self.val, self._test = train, val, test
        self._finished = False
        self.streamed = not isinstance(train, MemorySplit)
        self.size = train.size
        self.mean, self.std = (IMAGENET_MEAN, IMAGENET_STD) if self.streamed else _statistics(train)

    @property
    def test(self) -> Split:
        """The test split, after `finish`; RuntimeError before."""
        if not self._finished:
            raise RuntimeError("the test split is read once, at the end: call finish()")
        return self._test

    def finish(self) -> Split:
        """End all choosing and get the test split. A second call raises RuntimeError."""
        if self._finished:
            raise RuntimeError("the test split was read already: it is read once")
        self._finished = True
        return self._test

    @cached_property
    def key(self) -> str:
        """Hash of the classes and of the training and validation images (streamed: their names and size)."""
        return _digest((self.classes, self.size, self.streamed), self.train, self.val)

    @cached_property
    def val_key(self) -> str:
        """Hash of the validation images (streamed: their names): what was trained with the same has seen none of
        them."""
        return _digest((self.classes, self.streamed), self.val)


def _digest(what: tuple, *splits: Split) -> str:
    digest = hashlib.sha256(repr(what).encode())
    for split in splits:
        digest.update(split.labels.numpy().tobytes())
        for chunk in split.content():
            digest.update(chunk)
    return digest.hexdigest()[:16]


def names() -> tuple[str, ...]:
    """The data sets that have a name; the path of an image folder will do as well."""
    return tuple(NAMED)


def describe(config: DataConfig) -> Info:
    """What the data are, from constants or from the headers of the folder's files: no image is decoded."""
    known = NAMED.get(config.name)
    if known:
        return Info(config.name, known.classes, known.size, known.streamed)
    folder = _folder(config)
    return Info(config.name, len(folder.listing.classes), folder.size, folder.mode is None)


def load(config: DataConfig, *, size: int | None = None) -> Data:
    """Read a data set and hold out its validation split.

    Args:
        size: px of streamed images (default: 224, or what is usual where they are smaller); images in memory
            keep their own.

    Raises:
        BadInput: unknown, missing or damaged data; too few images for the splits asked for.
    """
    known = NAMED.get(config.name)
    if known:
        classes, train, val, test = known.read(size or known.size, config.workers)
        if len(classes) != known.classes or (train.size != known.size and not known.streamed):
            found = f"{len(classes)} classes at {train.size} px"
            raise BadInput(f"this is not {config.name}: it has {found}; give an image folder by its path")
    else:
        folder = _folder(config, size)
        classes, (train, val, test) = folder.listing.classes, folder.read(config.workers)
    if val is None:
        train, val = _validation(train, config)
    flip = known.flip if known else True
    return Data(config.name, classes, flip=flip, train=_fewer(train, config), val=val, test=test)


def _folder(config: DataConfig, size: int | None = None) -> Folder:
    path = os.path.expanduser(config.name)
    if os.path.isdir(path):
        return probe(find(path), config.memory_mb * 10**6, size, config.keep_decoded)
    if os.sep in config.name:
        raise BadInput(f"no folder {path!r}: give the path of an image folder, or one of {', '.join(NAMED)}")
    raise unknown("data set", config.name, NAMED, "the path of an image folder")


def _validation(train: Split, config: DataConfig) -> tuple[Split, Split]:
    """(train, val): the seeded, stratified part that is held out."""
    kept, held = hold_out(train.labels, min(config.val_images, len(train) // 10), config.split_seed)
    if not len(held):
        found = f"{len(train)} training images in {len(train.labels.unique())} classes"
        raise BadInput(f"{config.name!r} has {found}: no tenth can be held out for validation; add images")
    return train.subset(kept), train.subset(held)


def _fewer(train: Split, config: DataConfig) -> Split:
    """The part of `train` that `train_images` asks for, seeded and stratified."""
    if not config.train_images:
        return train
    least, most = len(train.labels.unique()), len(train)
    if not least <= config.train_images <= most:
        rule = f"{config.name!r} has {most} images to train on, in {least} classes"
        asked = f"data.train_images = {config.train_images}"
        raise BadInput(f"{asked}, but {rule}: give {least} to {most}, or 0 for all")
    return train.subset(hold_out(train.labels, most - config.train_images, config.split_seed)[0])


def _statistics(train: Split) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, std) of three channels; the std at least one grey level, since constant pixels have none."""
    images, _ = next(train.take(MEASURED, seed=0).ordered(MEASURED))
    pixels = images.float() / 255
    mean = pixels.mean(dim=(0, 2, 3)).tolist()
    std = pixels.std(dim=(0, 2, 3)).clamp(min=1 / 255).tolist()
    return tuple(mean * (3 // len(mean))), tuple(std * (3 // len(std)))
