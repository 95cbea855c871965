"""Data sets as three splits: training, validation (held out of training), and test, which is read once.

Small sets are held in memory as uint8 tensors and augmented in batches (`nasaug.augment`); large ones are streamed from
files. A split's order and random crops depend only on (seed, epoch, index).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

from ..core.boxes import CLASS
from ..core.checked import Count, Told, checked
from ..core.errors import BadInput, unknown
from . import boxes
from .builtin import NAMED, Named
from .folder import Folder, probe
from .layout import Listing, kind_of, some
from .masks import Masks
from .numbers import listing
from .picture import check_background
from .record import SPLITS, WORDS, Like, Record, check_few, check_train_images, draw, few, resume
from .split import FEW, MemorySplit, Split, first_of_each, hold_out, random
from .stream import StreamSplit
from .unreadable import replaced

__all__ = ["Data", "DataConfig", "Info", "Like", "Record", "Split", "describe", "load", "names", "whole_of"]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # torchvision's
MEASURED = 10_000  # images from which mean and std are computed
Whole = Annotated[int, Ge(0)]
LOOKED_AT, FLAT = 16, 0.01  # images checked for uniform colour; its limit for the std of pixels in [0, 1]


@checked("data")
class DataConfig:
    """Which images, and how they are split: the recipe's `[data]` table."""

    name: str = "fashion-mnist"
    """fashion-mnist, cifar10, cifar100, imagenet, imagenet21k-p, food101, flowers102, cars, cub200, pets, digits, or
    the path of an image folder."""
    targets: str = ""
    """A CSV in or beside the image folder with a number (column `value`) for each image (column `file`); or, of several
    annotations of boxes, the JSON file or the folder with Annotations/ to use. Empty: boxes if the folder has
    annotations in Pascal VOC's or COCO's layout; labels.csv if it has that and no class folders; else the folders are
    classes."""
    val_images: Count = 5000
    """Validation images, held out of the training split; at most a tenth of it."""
    train_images: Whole = 0
    """Train on this many of the remaining images, stratified by class; 0 = all."""
    fraction: Annotated[float, Gt(0), Le(1), Told("must be a share", "give above 0, to 1")] = 1.0
    """Train on this share of those images, rounded within each class; a smaller share lies within a larger one."""
    shots: Whole = 0
    """Train on so many of those images of each class; 0 = all."""
    split_seed: Whole = 0
    """Seed of all these draws, independent of the run's own seed."""
    workers: Whole = 2
    """Decoding processes of streamed sets; 0 = decode in the main process."""
    memory_mb: Whole = 2000
    """Folders whose uint8 pixels take at most this many MB are held in memory; larger ones are streamed."""
    keep_decoded: bool = True
    """Cache what was found out about a folder's images (and small images themselves, if there are many) in the user's
    cache directory for the next run."""
    background: str = "white"
    """The colour behind transparent images: a name, #rrggbb or rgb(r,g,b)."""
    on_bad_image: Literal["error", "skip"] = "error"
    """Training images that cannot be read: refuse them, or let others take their places (and count them)."""

    def __post_init__(self) -> None:
        check_background(self.background)
        if self.targets and self.name in NAMED:
            rule = f"applies to image folders, but {self.name} has its own classes"
            raise BadInput(f"data.targets = {self.targets} {rule}; leave it out, or give an image folder by its path")
        if self.shots and self.fraction != 1:
            rule = f"and data.fraction = {self.fraction:g} both say how many images to train on"
            raise BadInput.of(field="data.shots", value=self.shots, rule=rule, remedy="leave one of them out")


@dataclass(frozen=True, slots=True)
class Info:
    """Properties of a data set, known before its images are read; `size` in px is the largest resolution served."""

    name: str
    classes: int
    size: int
    streamed: bool
    targets: str = "classes"
    """"classes", "numbers" (one per image) or "boxes"."""

    @property
    def told(self) -> str:
        return "one number per image" if self.targets == "numbers" else f"{self.classes} classes"


class Data:
    """A data set in three splits.

    Attributes:
        name: as in the recipe.
        classes: their names, by label; for numbers, the name of their column.
        targets: the kind of a split's labels, "classes", "numbers" or "boxes".
        size: px, square; the largest resolution served.
        flip: whether a mirrored image keeps its class.
        streamed: whether training batches are random crops already.
        mean, std: per channel, of training pixels in [0, 1] (streamed: ImageNet's).
        train, val: the splits for training and for model selection.
        record: which image is in which split.
        notes: what a user should know about the images before training, one line each.
        masks: those of the objects, whose numbers are then the last column of the labels; None: boxes alone.
        few: how the training images are fewer than there are, for people; empty: all of them.
        bad: the training images that could not be read so far, whose places others take.
    """

    def __init__(
        self, name: str, classes: tuple[str, ...], *, flip: bool, train: Split, val: Split, test: Split,
        record: Record | None = None, notes: tuple[str, ...] = (), masks: Masks | None = None, few: str = "",
        bad: tuple[str, ...] = (),
    ):  # fmt: skip
        self.name, self.classes, self.flip = name, classes, flip
        self.notes, self.masks, self.few, self._bad = notes, masks, few, bad
        self.record = record or _whole_record(name, classes, {"train": train, "val": val, "test": test})
        self.train, self.val, self._test = train, val, test
        self.targets = kind_of(train.labels)
        self._finished = False
        self.streamed = not isinstance(train, MemorySplit)
        self.size = train.size
        self.mean, self.std = (IMAGENET_MEAN, IMAGENET_STD) if self.streamed else _statistics(train)

    @property
    def bad(self) -> set[str]:
        return {*self._bad, *(self.train.skipped if isinstance(self.train, StreamSplit) else ())}

    @property
    def test(self) -> Split:
        """The test split, after `finish`; raises RuntimeError before."""
        if not self._finished:
            raise RuntimeError("the test split is read once, at the end: call finish()")
        return self._test

    def finish(self) -> Split:
        """End model selection and return the test split. Raises RuntimeError on a second call."""
        if self._finished:
            raise RuntimeError("the test split was already read; it can only be read once")
        self._finished = True
        return self._test

    @cached_property
    def key(self) -> str:
        """Hash of the classes, the way images are served, and the training and validation images."""
        if self.record.whole:
            return _digest((self.classes, self.size, self.streamed), self.train, self.val)
        return _digest((self.record.key("train", "val"), self.size, self.streamed))

    @cached_property
    def val_key(self) -> str:
        """Hash of the validation images: a training with the same hash has seen none of them."""
        if self.record.whole:
            return _digest((self.classes, self.streamed), self.val)
        return _digest((self.record.key("val"), self.streamed))

    @property
    def info(self) -> Info:
        return Info(self.name, len(self.classes), self.size, self.streamed, self.targets)

    def told(self) -> str:
        """A line that describes the data, and one more for each note."""
        few = f" ({self.few})" if self.few else ""
        counts = {f"training{few}": self.train, "validation": self.val, "test": self._test}
        images = ", ".join(f"{len(split):,} {what}" for what, split in counts.items())
        what = f"{len(self.classes)} class{'es' * (len(self.classes) != 1)} ({some(self.classes)})"
        if self.targets == "numbers":
            what = f"numbers from {self.train.labels.min().item():.4g} to {self.train.labels.max().item():.4g}"
        if self.targets == "boxes":
            what += f" and {int((self.train.labels[:, :, CLASS] >= 0).sum()):,} training boxes"
        line = f"data {self.name}: {what}; {images} images"
        return "\n  ".join((line, *self.notes))


def _digest(what: tuple, *splits: Split) -> str:
    digest = hashlib.sha256(repr(what).encode())
    for split in splits:
        digest.update(split.labels.numpy().tobytes())
        for chunk in split.content():
            digest.update(chunk)
    return digest.hexdigest()[:16]


def _whole_record(name: str, classes: tuple[str, ...], splits: dict[str, Split]) -> Record:
    """The record of images that are in memory and do not come from a folder."""
    return Record(name, classes, {split: _digest((), images) for split, images in splits.items()})


def names() -> tuple[str, ...]:
    """The names of the known data sets; everywhere they are accepted, so is the path of an image folder."""
    return tuple(NAMED)


def describe(config: DataConfig) -> Info:
    """The properties of the data, from constants or from the headers of image files; decodes no image."""
    known = NAMED.get(config.name)
    if known:
        return Info(config.name, known.classes, known.size, known.streamed)
    folder = _folder(config)
    return Info(config.name, len(folder.listing.classes), folder.size, folder.mode is None, folder.listing.targets)


def load(
    config: DataConfig, *, size: int | None = None, begun: Record | None = None, parent: Record | None = None,
    like: Like | None = None, masks: bool = False,
) -> Data:  # fmt: skip
    """Read a data set and hold out its validation split.

    Args:
        size: px of streamed images; defaults to 224, or to the median size if the images are smaller. Images in
            memory keep their own size.
        begun: the record of a run that is resumed; each image stays in its split there.
        parent: the record of the job that this training is part of; each image stays in its split there, and `fraction`
            and `shots` choose among its training images.
        like: the record of a run whose weights are inherited; each image that is also there stays in its split.
        masks: read the objects' masks too.

    Raises:
        BadInput: unknown, missing or damaged data; too few images for the splits; images that differ from `begun` or
            `parent`.
    """
    known = NAMED.get(config.name)
    if known and not known.streamed:
        data = _named(known, config)
        if begun:
            resume(begun, data.record)  # raises for different images
        if parent:
            resume(parent, (_named(known, whole_of(config)) if data.few else data).record)
        return data
    folder = _folder(config, size, masks)
    images, record = folder.read(config.name, config.workers)
    gone: dict[str, int] = {}
    there = begun or parent
    if there:
        resumed = resume(there, record, folder.bad or ())
        places, gone, record = resumed.places, resumed.gone, there
        if parent:
            record, kept = few(record, config.fraction, config.shots, config.split_seed)
            places["train"] = places["train"][kept]
    else:
        given, counts = folder.listing.given, (config.val_images, config.train_images, config.split_seed)
        record = draw(record, given, *counts, like, config.fraction, config.shots)
        places = {split: record.places(split) for split in SPLITS}
    if known and len(record.classes) != known.classes:
        found = f"{len(record.classes)} classes"
        raise BadInput(f"this is not {config.name}: it has {found}; give an image folder by its path")
    bad, told_bad = replaced(folder, places)
    splits = {split: images.subset(index) for split, index in places.items() if split != "spare"}
    splits |= {split: splits[split].strict() for split in ("val", "test")}
    found = (*_of_listing(folder.listing), *_of_record(record), *_of_gone(record, gone))
    notes = (*found, *told_bad, *_of_pixels(splits["train"]))
    told = _told_few(config, config.train_images or len(record.places("train")) + len(record.places("spare")))
    known_of = {"record": record, "notes": notes, "masks": folder.listing.masks, "few": told, "bad": tuple(bad)}
    return Data(config.name, record.classes, flip=True, **splits, **known_of)


def _named(known: Named, config: DataConfig) -> Data:
    classes, train, test = known.read()
    if len(classes) != known.classes or train.size != known.size:
        found = f"{len(classes)} classes at {train.size} px"
        raise BadInput(f"this is not {config.name}: it has {found}; give an image folder by its path")
    train, val = _validation(train, config)
    train = _fewer(train, config)
    told = _told_few(config, len(train))
    if told:
        check_few(config.name, train.labels, classes, config.fraction, config.shots, True)
        order = random(FEW, config.split_seed).permutation(len(train))
        train = train.subset(first_of_each(train.labels, order, config.fraction, config.shots))
    return Data(config.name, classes, flip=known.flip, train=train, val=val, test=test, few=told)


def whole_of(config: DataConfig) -> DataConfig:
    """The same data, with all of their training images."""
    return replace(config, fraction=1.0, shots=0)


def _told_few(config: DataConfig, images: int) -> str:
    if config.shots:
        return f"{config.shots} of each class, out of {images:,}"
    return f"{100 * config.fraction:g} % of {images:,}" if config.fraction != 1 else ""


def _folder(config: DataConfig, size: int | None = None, masks: bool = False) -> Folder:
    known = NAMED.get(config.name)
    path = known.folder() if known else os.path.expanduser(config.name)
    size, skip = size or (known.size if known else None), config.on_bad_image == "skip"
    if isinstance(path, Listing):
        return probe(path, 0, size, config.keep_decoded, config.background, skip)
    if os.path.isdir(path):
        found = boxes.find(path, config.targets, masks) or listing(path, config.targets)
        memory = 0 if known else config.memory_mb * 10**6
        return probe(found, memory, size, config.keep_decoded, config.background, skip)
    if os.path.lexists(path):
        raise BadInput(f"{path!r} is not a folder: give the path of an image folder, or one of {', '.join(NAMED)}")
    if os.sep in config.name:
        raise BadInput(f"no folder {path!r}: give the path of an image folder, or one of {', '.join(NAMED)}")
    raise unknown("data set", config.name, NAMED, "the path of an image folder", field="data.name")


def _of_listing(listing: Listing) -> Iterator[str]:
    if listing.left_out:
        yield f"left out: {'; '.join(listing.left_out)}"
    yield from listing.notes


def _of_record(record: Record) -> Iterator[str]:
    for (one, two), count in record.seen_again().items():
        many = f"{count} of the {len(record.places(two))} {WORDS[two]} images"
        yield f"warning: {many} are {WORDS[one]} images too, byte for byte"
    for label, name in enumerate(record.classes):
        digests = record.digests[(record.labels == label) & record.known]
        if len(digests) > 1 and not (digests != digests[0]).any():
            whose = f" of class {name!r}" if record.values is None else ""
            yield f"warning: all {len(digests)} images{whose} are the same"


def _of_gone(record: Record, gone: dict[str, int]) -> Iterator[str]:
    if gone:
        counts = ", ".join(f"{count} {WORDS[split]}" for split, count in gone.items())
        whose = "others of their classes" if record.values is None else "others"
        filled = f"; {whose} take the places of the training images" if "train" in gone else ""
        yield f"warning: images that the run began with are gone ({counts}); all others stay in their splits{filled}"


def _of_pixels(train: Split) -> Iterator[str]:
    images, _ = next(train.take(LOOKED_AT, seed=0).ordered(LOOKED_AT))
    if images.float().std() < FLAT * 255:
        yield f"warning: the {len(images)} training images that were checked are almost a single colour"


def _validation(train: Split, config: DataConfig) -> tuple[Split, Split]:
    """(train, val): a seeded, stratified part is held out as val."""
    kept, held = hold_out(train.labels, min(config.val_images, len(train) // 10), config.split_seed)
    if not len(held):
        found = f"{len(train)} training images in {len(train.labels.unique())} classes"
        raise BadInput(f"{config.name!r} has {found}: too few to hold out a tenth for validation; add images")
    return train.subset(kept), train.subset(held)


def _fewer(train: Split, config: DataConfig) -> Split:
    """The subset of `train` that `train_images` selects, seeded and stratified."""
    if not config.train_images:
        return train
    classes = len(train.labels.unique())
    check_train_images(config.name, config.train_images, classes, len(train), f" in {classes} classes")
    return train.subset(hold_out(train.labels, len(train) - config.train_images, config.split_seed)[0])


def _statistics(train: Split) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, std) of the three channels; the std is at least one grey level, since that of constant pixels is 0."""
    images, _ = next(train.take(MEASURED, seed=0).ordered(MEASURED))
    pixels = images.float() / 255
    mean = pixels.mean(dim=(0, 2, 3)).tolist()
    std = pixels.std(dim=(0, 2, 3)).clamp(min=1 / 255).tolist()
    return tuple(mean * (3 // len(mean))), tuple(std * (3 // len(std)))
