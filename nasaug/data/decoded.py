"""Decoded images of folders, kept in the user's cache: the next run reads in a moment what took many seconds.

A file is found by the folder's path and by the names, sizes and times of its images, so a changed folder is decoded
anew. Whatever goes wrong here is no error: the images themselves are still there.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
from torch import Tensor

from nasaug import checkpoint
from nasaug.errors import BadInput, RunFault
from nasaug.files import cache_folder

WORTH = 5000  # images: fewer are decoded in a second
LARGEST = 500_000_000  # bytes of pixels; writing them takes as many twice
MOST = LARGEST // (3 * 32**2)  # images whose files are asked for their times
KEPT = 4  # folders; those read longest ago go first

log = logging.getLogger(__name__)


def place(root: str, parts: Mapping[str, np.ndarray]) -> Path | None:
    """Where the pixels of these files (paths below `root`, as bytes) are kept, or would be; None where it is not worth
    it, or they are too many."""
    if not WORTH <= sum(map(len, parts.values())) <= MOST:
        return None
    digest = hashlib.sha256()
    for name, files in parts.items():
        digest.update(f"{name} {len(files)}".encode())
        facts = []
        for file in files:
            with suppress(OSError):  # decoding will tell
                stat = os.stat(os.path.join(os.fsencode(root), file))
                facts += [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]  # what unpacks sets the former back
        digest.update(files.tobytes() + np.array(facts, dtype=np.int64).tobytes())
    whose = hashlib.sha256(os.fsencode(root)).hexdigest()[:16]
    with suppress(BadInput):  # no home, so no cache
        return cache_folder() / "decoded" / f"{whose}-{digest.hexdigest()[:16]}.safetensors"
    return None


def read(path: Path, parts: Mapping[str, np.ndarray]) -> dict[str, Tensor] | None:
    """uint8 [n, channels, size, size] of each part, mapped from the disk; None where they are not there."""
    try:
        if not path.is_file():
            return None
        found, _ = checkpoint.read(path)
        os.utime(path)  # read just now
    except (BadInput, OSError):
        return None
    if {name: len(files) for name, files in parts.items()} != {name: len(t) for name, t in found.items()}:
        return None
    return found


def write(path: Path, pixels: Mapping[str, Tensor]) -> None:
    """Keep `pixels`, in place of what the same folder held before."""
    if sum(t.numel() for t in pixels.values()) > LARGEST:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        checkpoint.write(path, pixels, {})
        others = sorted((p for p in path.parent.glob("*.safetensors") if p != path), key=lambda p: -p.stat().st_mtime)
        same = [p for p in others if p.name.partition("-")[0] == path.name.partition("-")[0]]
        for left in {*same, *others[KEPT - 1 :]}:
            left.unlink()
    except (BadInput, RunFault, OSError, MemoryError) as error:
        log.info("decoded images are not kept: %s", error)
