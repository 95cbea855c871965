"""The data sets known by name: where they are searched for, and how their formats are read."""

from __future__ import annotations

import gzip
import importlib
import importlib.util
import os
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.errors import BadInput, MissingExtra, arg
from ..core.files import cache_folder
from .folder import LARGEST
from .layout import Listing
from .split import MemorySplit, Split, hold_out, resize_uint8

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")  # package dataset-fashion-mnist
FASHION = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
DIGITS_PX, DIGITS_TEST, DIGITS_SEED = 28, 360, 0

Read = tuple[tuple[str, ...], Split, Split]  # classes, train, test


@dataclass(frozen=True)
class Named:
    """A known data set: its properties, known without opening a file, and a function that either reads it into memory
    (`read`) or returns the image folder to stream it from, or its listing (`folder`)."""

    classes: int
    size: int
    read: Callable[[], Read] | None = None
    flip: bool = True
    folder: Callable[[], str | Listing] | None = None

    @property
    def streamed(self) -> bool:
        return self.folder is not None


def _torchvision() -> Any:
    """torchvision.datasets, imported on demand: it takes seconds, and not all sets need it."""
    return importlib.import_module("torchvision.datasets")


def _places(*below: str) -> Iterator[Path]:
    """Where data are searched for: `below` $NASAUG_DATA, then below the user's cache directory."""
    given = os.environ.get("NASAUG_DATA")
    if given:
        yield from (Path(given, name) for name in below)
    with suppress(BadInput):  # no home directory, so no cache
        yield from (cache_folder() / name for name in below)


def _missing(name: str, ways: str, error: Exception | None = None) -> BadInput:
    failed = f" and the download failed ({str(error).splitlines()[0]})" if error else ""
    with suppress(BadInput):  # no home directory, so no cache
        ways = f" or into {cache_folder() / name}{ways}"
    return BadInput(
        f"{name} was not found{failed}: set NASAUG_DATA and put it into $NASAUG_DATA/{name}{ways}; "
        f"or choose {arg.data} digits, or the path of an image folder"
    )


def _download(name: str, make: Callable[[str], object], ways: str) -> Path:
    """Let `make(folder)` download into a new cache directory and return that; nothing is left behind if it fails."""
    try:
        target = cache_folder() / name
    except BadInput as error:
        raise _missing(name, ways, error) from error
    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache_folder(), prefix=".download-") as folder:
            made = Path(folder, name)
            made.mkdir()
            make(str(made))
            made.rename(target)
    except (OSError, RuntimeError, EOFError) as error:
        with suppress(OSError):  # other processes may have put something there
            cache_folder().rmdir()
        raise _missing(name, ways, error) from error
    return target


# Fashion-MNIST: four files in the idx format


def _fashion_mnist() -> Read:
    place = _find_fashion_mnist()
    train, test = _idx_split(place, "train"), _idx_split(place, "t10k")
    return FASHION, train, test


def _fashion_mnist_there() -> Path | None:
    raw = "FashionMNIST/raw"  # torchvision's layout
    places = (*_places(".", raw, "fashion-mnist", f"fashion-mnist/{raw}"), DEBIAN_FASHION_MNIST)
    return next((place for place in places if _idx_file(place, "train-images-idx3-ubyte")), None)


def _find_fashion_mnist() -> Path:
    if (place := _fashion_mnist_there()) is not None:
        return place
    raw = "FashionMNIST/raw"
    ways = " (four idx files); or install the Debian package dataset-fashion-mnist"
    return _download("fashion-mnist", lambda folder: _torchvision().FashionMNIST(folder, download=True), ways) / raw


def _idx_file(place: Path, name: str) -> Path | None:
    return next((path for path in (place / name, place / f"{name}.gz") if path.is_file()), None)


def _idx_split(place: Path, part: str) -> Split:
    pixels = _idx(place, f"{part}-images-idx3-ubyte")
    labels = _idx(place, f"{part}-labels-idx1-ubyte")
    if pixels.ndim != 3 or labels.shape != pixels.shape[:1]:
        raise BadInput(f"the {part} images and labels in {str(place)!r} do not belong together: replace them")
    return MemorySplit(pixels[:, None], labels.long())


def _idx(place: Path, name: str) -> Tensor:
    """Read an idx file's uint8 array, plain or gzipped: 0, 0, 8, number of dimensions; big-endian sizes; bytes."""
    path = _idx_file(place, name)
    if path is None:
        raise BadInput(f"{str(place)!r} lacks {name}: complete or remove this folder")
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            zeros, kind, ndim = struct.unpack(">HBB", file.read(4))
            shape = struct.unpack(f">{ndim}I", file.read(4 * ndim))
            array = np.frombuffer(file.read(), dtype=np.uint8)
        if (zeros, kind) != (0, 8):
            raise ValueError("not an idx file of bytes")
        return torch.from_numpy(array.reshape(shape).copy())
    except (OSError, EOFError, zlib.error, struct.error, ValueError) as error:
        raise BadInput(f"cannot read {str(path)!r} ({error}): replace it") from error


# CIFAR and ImageNet: torchvision's formats


def _cifar(kind_name: str, name: str) -> Callable[[], Read]:
    def read() -> Read:
        kind = getattr(_torchvision(), kind_name)
        place = next((p for p in _places(".", name) if (p / kind.base_folder).is_dir()), None)
        if place is None:
            ways = f" (unpacked, as {kind.base_folder}/)"
            place = _download(name, lambda folder: kind(folder, download=True), ways)
        try:
            train, test = (kind(str(place), train=which) for which in (True, False))
        except (RuntimeError, OSError, EOFError) as error:
            raise BadInput(f"{name} in {str(place)!r} is damaged ({error}): replace or remove it") from error
        return tuple(train.classes), _from_arrays(train), _from_arrays(test)

    return read


def _from_arrays(data: Any) -> Split:
    pixels = torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous()
    return MemorySplit(pixels, torch.tensor(data.targets, dtype=torch.int64))


def _imagenet() -> str:
    for place in _places("imagenet"):
        if (place / "ILSVRC2012_devkit_t12.tar.gz").is_file():
            _unpack_imagenet(place)
        if (place / "train").is_dir() and (place / "val").is_dir():
            return str(place)
    raise _missing("imagenet", ", fetched by hand: as train/ and val/, or as its three ILSVRC2012 archives")


def _unpack_imagenet(place: Path) -> None:
    """Let torchvision unpack the archives, once, into train/ and val/ with class folders."""
    try:
        for split in ("train", "val"):
            _torchvision().ImageNet(str(place), split=split)
    except (RuntimeError, OSError, EOFError) as error:
        raise BadInput(f"cannot unpack the ILSVRC2012 archives in {str(place)!r} ({error})") from error


# The sets that trained networks are transferred to: the listings of torchvision's loaders, streamed


def _listed(name: str, kind_name: str, base: str, train: Sequence[str], ways: str, fetched: bool = True):
    """The function that lists a set of torchvision's: `base` is its folder, `train` the names of its training splits.
    Without `fetched` it cannot be downloaded."""

    def listed() -> Listing:
        kind = getattr(_torchvision(), kind_name)
        place = next((p for p in _places(".", name) if (p / base).is_dir()), None)
        if place is None and not fetched:
            raise _missing(name, ways)
        place = place or _download(name, lambda folder: kind(folder, download=True), ways)
        try:
            parts = [kind(str(place), split=split) for split in (*train, "test")]
            samples = [_samples(part) for part in parts]
        except (RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
            told = str(error).splitlines()[0]
            raise BadInput(f"{name} in {str(place)!r} is damaged ({told}): replace or remove it") from error
        classes = getattr(parts[0], "classes", None)  # torchvision has not always known those of Flowers102
        classes = classes or [f"class {i + 1}" for i in range(NAMED[name].classes)]
        return _of_samples(place / base, classes, [pair for part in samples[:-1] for pair in part], samples[-1])

    return listed


def _samples(data: Any) -> list[tuple[str, int]]:
    """(image file, label) of a torchvision set, which its loaders keep under several names."""
    if hasattr(data, "_samples"):
        return [(str(file), int(label)) for file, label in data._samples]
    found = data._image_files if hasattr(data, "_image_files") else data._images
    return [(str(file), int(label)) for file, label in zip(found, data._labels, strict=True)]


def _of_samples(
    root: Path, classes: Sequence[str], train: Sequence[tuple[str, int]], test: Sequence[tuple[str, int]]
) -> Listing:  # fmt: skip
    pairs = [*train, *test]
    paths = [os.path.relpath(file, root) for file, _ in pairs]
    if outside := next((path for path in paths if path.split(os.sep)[0] == os.pardir), None):
        raise BadInput(f"a list in {str(root)!r} names {outside!r}, which lies outside: replace or remove the set")
    files = np.array([os.fsencode(path) for path in paths])
    labels = torch.tensor([label for _, label in pairs], dtype=torch.int64)
    given = {"train": torch.arange(len(train)), "test": torch.arange(len(train), len(pairs))}
    return Listing(str(root), tuple(map(str, classes)), files, labels, given)


def _cub200() -> Listing | str:
    """Its own layout, which torchvision has no loader for, or an image folder with train/ and test/."""
    for place in _places("CUB_200_2011", "cub200/CUB_200_2011", "cub200"):
        if (place / "train_test_split.txt").is_file():
            return _of_cub(place)
    for place in _places("cub200"):
        if place.is_dir():
            return str(place)
    raise _missing("cub200", ", fetched by hand: unpacked, as CUB_200_2011/, or as train/ and test/")


def _of_cub(place: Path) -> Listing:
    def rows(name: str) -> dict[str, str]:
        lines = (place / name).read_text().splitlines()
        return dict(line.split(maxsplit=1) for line in lines if line.strip())

    try:
        files, labels, in_train, classes = map(rows, ("images.txt", "image_class_labels.txt", *_CUB))
        pairs = [(number, (str(place / "images" / file), int(labels[number]) - 1)) for number, file in files.items()]
        parts = [[pair for number, pair in pairs if in_train[number].strip() == which] for which in "10"]
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(f"cub200 in {str(place)!r} is damaged ({error}): replace or remove it") from error
    return _of_samples(place, list(classes.values()), *parts)


_CUB = ("train_test_split.txt", "classes.txt")


def _imagenet21k() -> str:
    for place in _places("imagenet21k-p"):
        if place.is_dir():
            return str(place)
    raise _missing("imagenet21k-p", ", fetched by hand: as imagenet21k_train/ and imagenet21k_val/")


# scikit-learn's digits


def _digits() -> Read:
    try:
        datasets = importlib.import_module("sklearn.datasets")
    except ModuleNotFoundError as error:
        raise MissingExtra("scikit-learn", "data", f"{arg.data} digits") from error
    digits = datasets.load_digits()
    labels = torch.from_numpy(digits.target).long()
    pixels = (torch.from_numpy(digits.images)[:, None] * (255 / 16)).round().to(torch.uint8)
    everything = MemorySplit(resize_uint8(pixels, DIGITS_PX), labels)
    kept, held = hold_out(labels, DIGITS_TEST, DIGITS_SEED)
    return tuple("0123456789"), everything.subset(kept), everything.subset(held)


_CARS = (
    ", fetched by hand, as stanford_cars/ with devkit/, cars_train/, cars_test/ and cars_test_annos_withlabels.mat: "
    "the official download is dead"
)
NAMED = {
    "fashion-mnist": Named(10, 28, _fashion_mnist),
    "cifar10": Named(10, 32, _cifar("CIFAR10", "cifar10")),
    "cifar100": Named(100, 32, _cifar("CIFAR100", "cifar100")),
    "imagenet": Named(1000, LARGEST, folder=_imagenet),
    "digits": Named(10, DIGITS_PX, _digits, flip=False),
    "food101": Named(101, LARGEST, folder=_listed("food101", "Food101", "food-101", ["train"], " (as food-101/)")),
    "flowers102": Named(
        102, LARGEST,
        folder=_listed("flowers102", "Flowers102", "flowers-102", ["train", "val"], " (as flowers-102/)"),
    ),
    "cars": Named(
        196, LARGEST, folder=_listed("cars", "StanfordCars", "stanford_cars", ["train"], _CARS, fetched=False)
    ),
    "cub200": Named(200, LARGEST, folder=_cub200),
    "pets": Named(
        37, LARGEST,
        folder=_listed("pets", "OxfordIIITPet", "oxford-iiit-pet", ["trainval"], " (as oxford-iiit-pet/)"),
    ),
    "imagenet21k-p": Named(10_450, LARGEST, folder=_imagenet21k),
}

# the folder by which a set is recognised, in one of the places or in a folder named like the set
_SIGNS = {
    "cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python", "imagenet": "imagenet", "food101": "food-101",
    "flowers102": "flowers-102", "cars": "stanford_cars", "cub200": "CUB_200_2011", "pets": "oxford-iiit-pet",
    "imagenet21k-p": "imagenet21k-p",
}  # fmt: skip


def there(name: str) -> Path | None:
    """Where a named set is on this machine, without reading or downloading it; None if it is not there. Of `digits`,
    which come with scikit-learn, the place of that."""
    if name == "fashion-mnist":
        return _fashion_mnist_there()
    if name == "digits":
        found = importlib.util.find_spec("sklearn")
        return None if found is None or found.origin is None else Path(found.origin).parent
    own = ("cub200",) if name == "cub200" else ()  # which may be an image folder too
    return next((place for place in _places(_SIGNS[name], f"{name}/{_SIGNS[name]}", *own) if place.is_dir()), None)
