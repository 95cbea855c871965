"""What was found out about a folder's images, kept in the user's cache: the next run reads in a moment what took many
seconds.

A file is found by the folder's path and by the names, sizes and times of its images, so a changed folder is looked at
anew. Whatever goes wrong here is no error: the images themselves are still there.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from ..core import tensorfile
from ..core.errors import BadInput, RunFault
from ..core.files import cache_folder

WORTH = 5000  # images: fewer are decoded in a second
WORTH_SECONDS = 2.0  # of looking at images that are not kept themselves
LARGEST = 500_000_000  # bytes of pixels; writing them takes as many twice
SETTLED_NS = 2_000_000_000  # a file changed so shortly ago may change again within what its file system's clock tells
KEPT = 4  # folders; those read longest ago go first

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kept:
    """Of a folder's images: digests of their files, uint8 [n, 16], and pixels, uint8 [n, channels, size, size], where
    they go into memory."""

    digests: Tensor
    pixels: Tensor | None = None


def worth(count: int) -> bool:
    """Whether so many images are worth to be kept."""
    return count >= WORTH


def place(root: str, background: str, files: np.ndarray, stats: np.ndarray) -> Path | None:
    """Where what is known of these files (paths below `root`, as bytes) is kept, or would be.

    None where one of them was changed a moment ago: the next change might leave its size and times as they are."""
    if time.time_ns() - int(stats[:, 1:].max(initial=0)) < SETTLED_NS:
        return None
    digest = hashlib.sha256(f"{background} {len(files)}".encode())
    digest.update(files.tobytes() + stats.tobytes())
    whose = hashlib.sha256(os.fsencode(root)).hexdigest()[:16]
    with suppress(BadInput):  # no home, so no cache
        return cache_folder() / "decoded" / f"{whose}-{digest.hexdigest()[:16]}.safetensors"
    return None


def read(path: Path, count: int) -> Kept | None:
    """What is kept there of `count` images, mapped from the disk; None where nothing is."""
    try:
        if not path.is_file():
            return None
        found, _ = tensorfile.read(path)
        os.utime(path)  # read just now
        kept = Kept(found["digests"], found.get("pixels"))
    except (BadInput, OSError, KeyError):
        return None
    whole = len(kept.digests) == count and (kept.pixels is None or len(kept.pixels) == count)
    return kept if whole else None


def write(path: Path, kept: Kept) -> None:
    """Keep it, in place of what the same folder held before."""
    if kept.pixels is not None and kept.pixels.numel() > LARGEST:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = {} if kept.pixels is None else {"pixels": kept.pixels}
        tensorfile.write(path, {"digests": kept.digests, **pixels}, {})
        others = sorted((p for p in path.parent.glob("*.safetensors") if p != path), key=lambda p: -p.stat().st_mtime)
        same = [p for p in others if p.name.partition("-")[0] == path.name.partition("-")[0]]
        for left in {*same, *others[KEPT - 1 :]}:
            with suppress(FileNotFoundError):  # another run was sooner
                left.unlink()
    except (BadInput, RunFault, OSError, MemoryError) as error:
        log.info("what is known of the images is not kept: %s", error)
