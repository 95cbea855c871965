"""Detection sets that tests make: digits on canvases, by benchmarks/detection.py, and labels as tensors."""

import importlib.util
from functools import cache
from pathlib import Path

import numpy as np
import torch

from nasaug.core.boxes import CLASS, COLUMNS

_FILE = Path(__file__).parents[2] / "benchmarks" / "detection.py"


@cache
def detection():
    """The module benchmarks/detection.py."""
    spec = importlib.util.spec_from_file_location("detection", _FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def shapes():
    """(grey images, labels) of three classes that are told apart at a glance: a square, a ring and a cross."""
    square, ring, cross = images = np.zeros((3, 28, 28), np.uint8)
    square[4:24, 4:24] = 220
    ring[4:24, 4:24], ring[9:19, 9:19] = 220, 0
    cross[11:17, 4:24], cross[4:24, 11:17] = 220, 220
    return images, np.array([0, 1, 2])


def drawn(count, seed=0, sides=(64, 64), sizes=(14, 26), objects=(0, 3)):
    """Canvases with these shapes."""
    return detection().canvases(*shapes(), count, seed, sides, sizes, objects)


def labels_of(canvases, most=4):
    """Their boxes as labels, float32 [n, most, 6]."""
    labels = torch.zeros(len(canvases), most, COLUMNS)
    labels[:, :, CLASS] = -1
    for i, (pixels, objects) in enumerate(canvases):
        height, width, _ = pixels.shape
        for j, (x1, y1, x2, y2, label) in enumerate(objects):
            labels[i, j] = torch.tensor([x1 / width, y1 / height, x2 / width, y2 / height, label, 0])
    return labels


def pixels_of(canvases):
    """Their pixels, uint8 [n, 3, h, w]; canvases of one size."""
    return torch.from_numpy(np.stack([pixels for pixels, _ in canvases])).permute(0, 3, 1, 2).contiguous()


def voc_folder(folder):
    """A detection set in Pascal VOC's layout: 40 training and 6 test canvases of three shapes."""
    names = ["square", "ring", "cross"]
    detection().write_voc(folder, {"train": drawn(40, sides=(40, 56)), "test": drawn(6, 9, sides=(40, 56))}, names)
