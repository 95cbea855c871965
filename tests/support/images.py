"""Small data sets that tests make for themselves."""

import gzip
import struct

import numpy as np
import torch
from PIL import Image

from nasaug.data import DataConfig, load
from nasaug.data.split import MemorySplit


def write_fashion_mnist(folder, train=600, test=100, suffix=".gz", side=28):
    """Made-up Fashion-MNIST: an image's first two pixels are its number; class = number modulo 10."""
    folder.mkdir(parents=True, exist_ok=True)
    opener = gzip.open if suffix else open
    for part, first, count in (("train", 0, train), ("t10k", 10_000, test)):
        numbers = np.arange(first, first + count)
        pixels = np.zeros((count, side, side), dtype=np.uint8)
        pixels[:, 0, 0], pixels[:, 0, 1] = numbers // 256, numbers % 256
        labels = (numbers % 10).astype(np.uint8)
        for kind, array in (("images-idx3", pixels), ("labels-idx1", labels)):
            with opener(folder / f"{part}-{kind}-ubyte{suffix}", "wb") as file:
                header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
                file.write(header + array.tobytes())


def numbers(split):
    images = torch.cat([images for images, _ in split.ordered(64)])
    return (images[:, 0, 0, 0].int() * 256 + images[:, 0, 0, 1]).tolist()


def contents(split, size=None):
    """The bytes of each image, in the split's order."""
    return [image.numpy().tobytes() for images, _ in split.ordered(8, size) for image in images]


def write_folder(folder, classes=("cat", "dog"), each=30, size=(8, 8), mode="RGB", seed=0):
    """PNG files of noise, `folder`/CLASS/N.png."""
    rng = np.random.default_rng(seed)
    for name in classes:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(each):
            array = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(array).convert(mode).save(folder / name / f"{i:03}.png")
    return folder


def config(path, **options):
    return DataConfig(str(path), **options)


def same(left, right):
    left, right = list(left), list(right)
    assert len(left) == len(right) > 0
    return all(torch.equal(a, b) for x, y in zip(left, right, strict=True) for a, b in zip(x, y, strict=True))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-20])


def memory_split(n=70):
    numbered = torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1)
    return MemorySplit(numbered.expand(n, 1, 4, 4), torch.arange(n))


def stream_split(tmp_path, workers=0):
    folder = write_folder(tmp_path / "streamed", each=35, size=(20, 14))
    return load(config(folder, memory_mb=0, workers=workers), size=12).train
