"""A cache, in the user's cache directory, of what was found out about a folder's images, which takes many seconds.

Entries are keyed by the folder's path and the names, sizes and times of its images, so a changed folder is examined
again. Failures here are never errors: the images themselves are still there.
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

WORTH = 5000  # images; fewer are decoded within a second
WORTH_SECONDS = 2.0  # of checking images whose pixels are not cached
LARGEST = 500_000_000  # bytes of pixels; writing them takes twice as much memory
SETTLED_NS = 2_000_000_000  # a file changed more recently may change again within its file system's clock resolution
KEPT = 4  # folders; the least recently read ones are deleted

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kept:
    """Cached data of a folder's images: digests of their files, uint8 [n, 16], and for images held in memory their
    pixels, uint8 [n, channels, size, size]."""

    digests: Tensor
    pixels: Tensor | None = None


def worth(count: int) -> bool:
    """Whether this many images are worth caching."""
    return count >= WORTH


def place(root: str, background: str, files: np.ndarray, stats: np.ndarray) -> Path | None:
    """The cache file for these image files (paths relative to `root`, as bytes), existing or not.

    None if one of them was changed within the last seconds: another change might leave its size and times the same."""
    if time.time_ns() - int(stats[:, 1:].max(initial=0)) < SETTLED_NS:
        return None
    digest = hashlib.sha256(f"{background} {len(files)}".encode())
    digest.update(files.tobytes() + stats.tobytes())
    whose = hashlib.sha256(os.fsencode(root)).hexdigest()[:16]
    with suppress(BadInput):  # no home directory, so no cache
        return cache_folder() / "decoded" / f"{whose}-{digest.hexdigest()[:16]}.safetensors"
    return None


def read(path: Path, count: int) -> Kept | None:
    """The cached data of `count` images, memory-mapped; None if there are none."""
    try:
        if not path.is_file():
            return None
        found, _ = tensorfile.read(path)
        os.utime(path)  # marks it as recently read
        kept = Kept(found["digests"], found.get("pixels"))
    except (BadInput, OSError, KeyError):
        return None
    whole = len(kept.digests) == count and (kept.pixels is None or len(kept.pixels) == count)
    return kept if whole else None


def write(path: Path, kept: Kept) -> None:
    """Write the cache file, replacing the folder's previous one."""
    if kept.pixels is not None and kept.pixels.numel() > LARGEST:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = {} if kept.pixels is None else {"pixels": kept.pixels}
        tensorfile.write(path, {"digests": kept.digests, **pixels}, {})
        others = sorted((p for p in path.parent.glob("*.safetensors") if p != path), key=lambda p: -p.stat().st_mtime)
        same = [p for p in others if p.name.partition("-")[0] == path.name.partition("-")[0]]
        for left in {*same, *others[KEPT - 1 :]}:
            with suppress(FileNotFoundError):  # another run deleted it first
                left.unlink()
    except (BadInput, RunFault, OSError, MemoryError) as error:
        log.info("what is known of the images is not kept: %s", error)
