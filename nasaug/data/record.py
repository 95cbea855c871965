"""The record of which image is in which split: drawn from the images' names, stored in each run, and checked whenever a
run is resumed or its weights or cells are used again."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..core import tensorfile
from ..core.errors import BadInput, arg
from .layout import kind_of, some
from .split import first_of_each, held_in_order

FILE = "data.safetensors"
FORMAT = "nasaug-data/1"
SPLITS = ("train", "val", "test", "spare")  # spare: images left out because of data.train_images
PAIRS = (("train", "val"), ("train", "test"), ("val", "test"))
DIGEST = 16  # bytes of a file's hash


@dataclass(frozen=True)
class Record:
    """The images of a data set by split.

    Attributes:
        name: the value of --data.
        classes: names, by label.
        whole: a hash of each split, for data sets that are not folders; else empty.
        files: paths relative to the data's root, bytes [n].
        labels: int64 [n]; splits: uint8 [n], indices into SPLITS.
        sizes: int64 [n], bytes.
        digests: uint8 [n, 16], of the files' content; zeros for files that were not read (see `nasaug.data.folder`).
        values: float64 [n] for regression or the boxes of detection, where all images have one label; else None.
    """

    name: str
    classes: tuple[str, ...]
    whole: dict[str, str] = field(default_factory=dict)
    files: np.ndarray = field(default_factory=lambda: np.array([], dtype="S1"))
    labels: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    splits: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.uint8))
    sizes: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    digests: Tensor = field(default_factory=lambda: torch.zeros(0, DIGEST, dtype=torch.uint8))
    values: Tensor | None = None

    def places(self, split: str) -> Tensor:
        """Indices of a split's images in `files`, ascending."""
        return torch.nonzero(self.splits == SPLITS.index(split)).flatten()

    def key(self, *splits: str) -> str:
        """A hash of the classes and the images of these splits, independent of where the images are stored."""
        digest = hashlib.sha256(repr(self.classes).encode(errors="surrogateescape"))
        for split in splits:
            digest.update(f"{split} {self.whole.get(split, '')}".encode())
            places = self.places(split)
            read = self.known[places]
            labels = self.labels[places].numpy().astype(">i8")
            said = [labels.view(np.uint8).reshape(-1, 8), self.digests[places].numpy()]
            if self.values is not None:
                numbers = self.values[places].flatten(1) if self.values.dim() > 1 else self.values[places][:, None]
                said.append(numbers.numpy().astype(">f8").view(np.uint8))
            content = np.concatenate(said, axis=1)
            for row in sorted(row.tobytes() for row in content[read.numpy()]):
                digest.update(row)
            for i in places[~read].tolist():  # sorted by name
                value = "" if self.values is None else f" {self.values[i].tolist()!r}"
                digest.update(self.files[i] + f" {self.sizes[i]} {self.labels[i]}{value}".encode())
        return digest.hexdigest()[:16]

    @property
    def in_classes(self) -> str:
        """What a message adds to a number of images; nothing for regression."""
        return "" if self.values is not None else f" in {len(self.classes)} classes"

    @property
    def known(self) -> Tensor:
        """Which files' content was read, bool [n]."""
        return (self.digests != 0).any(1)

    @cached_property
    def whole_key(self) -> str:
        """The key of all images, including the test images."""
        return self.key(*SPLITS)

    def trained_on_in(self, split: str, other: Record) -> int:
        """How many images of this record's `split` are training images of `other`, byte for byte."""
        theirs = set(other._contents("train"))
        return sum(content in theirs for content in self._contents(split))

    def _contents(self, split: str) -> list[bytes]:
        places = self.places(split)
        return [row.tobytes() for row in self.digests[places[self.known[places]]].numpy()]

    def seen_again(self) -> dict[tuple[str, str], int]:
        """How many images of the second split of each pair are also in the first, byte for byte."""
        of = {split: Counter(self._contents(split)) for split in SPLITS[:3]}
        counts = {(a, b): sum(of[b][content] for content in of[a].keys() & of[b].keys()) for a, b in PAIRS}
        return {pair: count for pair, count in counts.items() if count}

    def save(self, folder: Path) -> None:
        """Write the record into a run's folder."""
        tensorfile.write(
            folder / FILE,
            {
                "names": torch.frombuffer(bytearray(b"\0".join(self.files.tolist()) + b"\0"), dtype=torch.uint8),
                "labels": self.labels, "splits": self.splits, "sizes": self.sizes, "digests": self.digests,
                **({} if self.values is None else {"values": self.values}),
            },
            {"format": FORMAT, "name": os.fsencode(self.name).hex(), "whole": self.whole,
             "classes": [os.fsencode(name).hex() for name in self.classes]},
        )  # fmt: skip

    @classmethod
    def of_run(cls, folder: Path) -> Record | None:
        """The record of a run; None if it has none, as runs of older versions."""
        path = folder / FILE
        if not path.is_file():
            return None
        tensors, state = tensorfile.read(path)
        try:
            if state["format"] != FORMAT:
                raise KeyError(state["format"])
            names = bytes(tensors["names"].numpy()).split(b"\0")[:-1]
            there = ("labels", "splits", "sizes", "digests", *(["values"] if "values" in tensors else []))
            rows = {name: tensors[name] for name in there}
            if {len(t) for t in rows.values()} != {len(names) if tensors["names"].numel() > 1 else 0}:
                raise KeyError("rows")
            whole = state["whole"]
            wrong = [
                row for row, kind in _KINDS.items()
                if rows[row].dtype != kind or rows[row].shape[1:] != _SHAPES.get(row, ())
            ]  # fmt: skip
            if wrong or not isinstance(whole, dict):
                raise KeyError(*wrong, "whole")
            name, *classes = (os.fsdecode(bytes.fromhex(text)) for text in (state["name"], *state["classes"]))
        except (KeyError, ValueError, TypeError) as error:
            raise BadInput(f"{path} is not a record of a run's data ({error}); restore it, or start anew") from error
        files = np.array(names if len(rows["labels"]) else [], dtype=None if len(rows["labels"]) else "S1")
        return cls(name, tuple(classes), whole, files, **rows)


_KINDS = {"labels": torch.int64, "splits": torch.uint8, "sizes": torch.int64, "digests": torch.uint8}
_SHAPES = {"digests": (DIGEST,)}
TEST_SHARE, TEST_SEED = 0.2, 0  # of a folder without a test split; fixed, whatever the recipe says


@dataclass(frozen=True)
class Like:
    """The record of a run whose weights are inherited.

    `whole` says whether its counts of validation and training images and its split seed are the same as now; if not,
    only its choice of test images is reused.
    """

    record: Record
    whole: bool


def draw(
    record: Record, given: Mapping[str, Tensor], val_images: int, train_images: int, split_seed: int,
    like: Like | None = None, fraction: float = 1.0, shots: int = 0,
) -> Record:  # fmt: skip
    """The record with its splits: those defined by folders, and a part drawn by name for each missing one.

    Which images are held out depends on a hash of each image's name, compared within its class. So adding or removing a
    few images moves few others, and the same images stored elsewhere are split alike. Images that are also in `like`
    stay in their splits there, and only the rest is drawn."""
    train, test = SPLITS.index("train"), SPLITS.index("test")
    splits = torch.full((len(record.files),), train, dtype=torch.uint8)
    known = torch.zeros(len(splits), dtype=torch.bool)
    kept = like is not None and like.whole
    if like is not None:
        theirs = _splits_in(like.record, record)
        known = theirs >= 0
        kept = kept and bool(known.any())  # else these are other images, of which nothing is drawn yet
        splits[known] = (theirs if kept else torch.where(theirs == test, test, train))[known].to(torch.uint8)
    for split, places in given.items():
        if split != "train":
            splits[places] = SPLITS.index(split)
        elif "test" in given:  # a test image of the other run is a training image here if the folder says so
            splits[places] = torch.where(splits[places] == test, train, splits[places]).to(torch.uint8)

    def hold_out(split: str, count: int, pool: int, seed: int, fixed: torch.Tensor) -> int:
        """Hold out a share of the training images that are not `fixed`: `count` per `pool` images. Returns the split's
        size.
        """
        code = SPLITS.index(split)
        places = torch.nonzero((splits == train) & ~fixed).flatten()
        wanted = round(count * len(places) / pool)
        if wanted:
            order = np.argsort([_rank(record.files[i], split, seed) for i in places.tolist()], kind="stable")
            splits[places[held_in_order(record.labels[places], wanted, order)[1]]] = code
        return int((splits == code).sum())

    if "test" not in given and not hold_out("test", round(TEST_SHARE * len(splits)), len(splits), TEST_SEED, known):
        many = f"{len(splits)} images{record.in_classes}"
        raise BadInput(f"{record.name!r} has {many}, too few to split: add images")
    fixed = known if kept else torch.zeros_like(known)
    pool = int(((splits == train) | (splits == SPLITS.index("val"))).sum())
    if "val" not in given and not hold_out("val", min(val_images, pool // 10), pool, split_seed, fixed):
        found = f"{pool} training images{record.in_classes}"
        raise BadInput(f"{record.name!r} has {found}: too few to hold out a tenth for validation; add images")
    if train_images and not kept:
        most = int((splits == train).sum())
        check_train_images(record.name, train_images, len(record.classes), most, record.in_classes)
        hold_out("spare", most - train_images, most, split_seed, fixed)
    drawn = replace(record, splits=splits)
    return drawn if kept else few(drawn, fraction, shots, split_seed)[0]


def few(record: Record, fraction: float, shots: int, split_seed: int) -> tuple[Record, Tensor]:
    """The record in which all but a `fraction` of the training images, or `shots` of each class, are spare; and which
    of the training images are kept, by their places in that split. Drawn by name, like the other splits."""
    places = record.places("train")
    if fraction == 1 and not shots:
        return record, torch.arange(len(places))
    check_few(record.name, record.labels[places], record.classes, fraction, shots, record.values is None)
    order = np.argsort([_rank(record.files[i], "few", split_seed) for i in places.tolist()], kind="stable")
    kept = first_of_each(record.labels[places], order, fraction, shots)
    splits = record.splits.clone()
    splits[places] = SPLITS.index("spare")
    splits[places[kept]] = SPLITS.index("train")
    return replace(record, splits=splits), kept


def _splits_in(one: Record, two: Record) -> Tensor:
    """For each file of `two` its split in `one`, under whatever name, int64; -1 if it is not there."""
    there: dict[bytes, int] = {}
    for key, split in zip(_identities(one), one.splits.tolist(), strict=True):
        there[key] = min(split, there.get(key, split))  # a copy in the training split makes all copies training images
    return torch.tensor([there.get(key, -1) for key in _identities(two)], dtype=torch.int64)


def _identities(record: Record) -> list[bytes]:
    """The digest of each file, or its name and size if it was not read."""
    rows = zip(record.files.tolist(), record.sizes.tolist(), record.digests.numpy(), strict=True)
    return [row.tobytes() if row.any() else file + f" {size}".encode() for file, size, row in rows]


def _matched(one: Record, two: Record) -> tuple[Tensor, Tensor]:
    """(for each file of `one` its index in `two` or -1, whether content and class there are the same)."""
    here = {file: i for i, file in enumerate(two.files.tolist())}
    found = torch.tensor([here.get(file, -1) for file in one.files.tolist()], dtype=torch.int64)
    same = found >= 0
    there, places = same.clone(), found[same]
    both = one.known[there] & two.known[places]
    equal = (one.sizes[there] == two.sizes[places]) & (one.labels[there] == two.labels[places])
    if one.values is not None and two.values is not None:
        alike = one.values.shape[1:] == two.values.shape[1:]  # boxes have room for the most that an image has
        same_values = one.values[there] == two.values[places] if alike else torch.zeros_like(equal)
        equal &= same_values.flatten(1).all(1) if same_values.dim() > 1 else same_values
    same[there] = equal & ~(both & (one.digests[there] != two.digests[places]).any(1))
    return found, same


def check_train_images(name: str, asked: int, least: int, most: int, in_classes: str) -> None:
    """Raises BadInput for an impossible number of training images; `least` is the number of classes, one image each."""
    if not least <= asked <= most:
        rule = f"{name!r} has {most} images to train on{in_classes}"
        raise BadInput(f"data.train_images = {asked}, but {rule}: give {least} to {most}, or 0 for all")


def check_few(
    name: str, labels: Tensor, classes: Sequence[str], fraction: float, shots: int, in_classes: bool
) -> None:  # fmt: skip
    """Raises BadInput for more `shots` than a class has training images, for shots without classes, and for a
    `fraction` that leaves a single image."""
    if shots and not in_classes:
        rule = f"counts images of a class, but {name} has none"
        raise BadInput.of(field="data.shots", value=shots, rule=rule, remedy="give data.fraction instead")
    if shots:
        sizes = np.bincount(labels.numpy(), minlength=len(classes))
        small = [f"{classes[i]!r} has {sizes[i]}" for i in np.argsort(sizes, kind="stable") if sizes[i] < shots]
        if small:
            rule = f"is more than some classes of {name} have to train on: {some(small)}"
            remedy = f"give at most {sizes.min()}" if sizes.min() else "give data.fraction instead"
            raise BadInput.of(field="data.shots", value=shots, rule=rule, remedy=remedy, apart=True)
    elif not in_classes and fraction * len(labels) < 1.5:
        rule = f"leaves one of the {len(labels)} training images of {name}"
        raise BadInput.of(field="data.fraction", value=fraction, rule=rule, remedy="give more", apart=True)


def _rank(file: bytes, split: str, seed: int) -> int:
    content = f"{split} {seed} ".encode() + file
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big") >> 1


@dataclass(frozen=True)
class Resumed:
    """The splits that a run was started with, mapped to the images that exist now.

    `places`: indices for each split, int64, in the run's order. A missing training image is replaced by another of its
    class, so that batches and steps stay the same. `gone`: the number of missing images by split."""

    places: dict[str, Tensor]
    gone: dict[str, int]


def resume(begun: Record, now: Record, unread: Collection[int] = ()) -> Resumed:
    """Find a run's images among the current ones, which may be stored elsewhere and some of which may be missing. The
    current ones with the indices `unread` may have changed, since they cannot be read.

    Raises BadInput if there are other images, or if all images of a class or split are missing."""
    other = f"give {arg.data} with the images that it began with, or start a new run"
    had, has = (kind_of(record.labels if record.values is None else record.values) for record in (begun, now))
    if had != has:
        raise BadInput(f"{now.name!r} has {has}, but the run began with {had}; {other}")
    if begun.classes != now.classes:
        had, has = (some(record.classes) for record in (begun, now))
        raise BadInput(f"{now.name!r} has the classes {has}, but the run began with {had}; {other}")
    if begun.whole != now.whole or bool(len(begun.files)) != bool(len(now.files)):
        raise BadInput(f"{now.name!r} has other images than the run began with; {other}")
    found, same = _matched(begun, now)
    there = found >= 0
    changed = there & ~same & ~torch.isin(found, torch.tensor(sorted(unread), dtype=found.dtype))
    new = sorted(set(now.files.tolist()) - set(begun.files.tolist()))
    if changed.any() or new:
        counts = [f"{int(changed.sum())} changed"] * bool(changed.any()) + [f"{len(new)} new"] * bool(new)
        names = [*new, *begun.files[changed.numpy()].tolist()]
        such = os.fsdecode(names[0])
        raise BadInput(
            f"{now.name!r} has other images than the run began with ({', '.join(counts)}, such as {such}); {other}"
        )
    places, gone = {}, {}
    for split in SPLITS:
        meant = begun.places(split)
        missing = meant[~there[meant]]
        if len(missing):
            gone[split] = len(missing)
        if split == "train":
            found = _filled(found, begun, meant, other)
        places[split] = found[meant][found[meant] >= 0]
        if len(meant) and not len(places[split]) and split != "spare":
            raise BadInput(f"{now.name!r} has none of the {len(meant)} {WORDS[split]} images left; {other}")
    return Resumed(places, gone)


WORDS = {"train": "training", "val": "validation", "test": "test", "spare": "spare"}


def _filled(found: Tensor, begun: Record, meant: Tensor, remedy: str) -> Tensor:
    """`found`, with missing training images replaced by images of the same class."""
    found, labels = found.clone(), begun.labels
    for label in labels[meant[found[meant] < 0]].unique().tolist():
        of_class = meant[labels[meant] == label]
        left, lost = of_class[found[of_class] >= 0], of_class[found[of_class] < 0]
        if not len(left):
            whose = f" of class {begun.classes[label]!r}" if begun.values is None else ""
            raise BadInput(f"all training images{whose} are gone; {remedy}")
        found[lost] = found[left][torch.arange(len(lost)) % len(left)]
    return found
