"""A small data set in memory whose images are numbered, and a scorer for it."""

import torch

from nasaug.data import Data
from nasaug.data.split import MemorySplit
from nasaug.tasks import Classify
from nasaug.training.device import Runtime
from nasaug.training.scoring import Scorer

CPU = Runtime(torch.device("cpu"))


def images_and_labels(count, first, size, classes):
    """Grey noise, brighter for higher classes; image i encodes i + `first` in its first two pixels."""
    generator = torch.Generator().manual_seed(first)
    labels = torch.arange(count) % classes
    pixels = torch.randint(0, 100, (count, 1, size, size), generator=generator)
    pixels += (labels * 150 // classes).view(-1, 1, 1, 1)
    places = torch.arange(first, first + count)
    pixels[:, 0, 0, 0], pixels[:, 0, 0, 1] = places // 256, places % 256
    return pixels.to(torch.uint8), labels


def toy_data(train=96, val=40, test=8, size=16, classes=4):
    """A data set in memory; images are numbered consecutively over training, validation and test."""
    parts, first = [], 0
    for count in (train, val, test):
        parts.append(MemorySplit(*images_and_labels(count, first, size, classes)))
        first += count
    names = tuple(f"class {i}" for i in range(classes))
    return Data("toy", names, flip=True, train=parts[0], val=parts[1], test=parts[2])


def numbers(split):
    """The numbers of a split's images, in order."""
    pixels = torch.cat([images for images, _ in split.ordered(64)])[:, 0, 0, :2].long()
    return (pixels[:, 0] * 256 + pixels[:, 1]).tolist()


def scorer_of(data, calibration=64, seed=0):
    """The scorer of a classification on the CPU."""
    return Scorer(data, Classify(len(data.classes)), CPU, calibration, seed)
