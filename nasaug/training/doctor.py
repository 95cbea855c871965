"""What this machine has for nasaug, and how fast it is: versions, devices, kernels, data, disk space, extras."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import re
import shutil
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

from ..arch import archfile
from ..augment import ops  # noqa: F401  registers the workload of its kernels
from ..core.errors import BadInput, RunFault
from ..core.files import cache_folder
from ..core.units import format_duration
from ..data.builtin import NAMED, there
from ..kernels import build, choice
from ..kernels.fused import summed_in_place
from ..nets.net import Net
from ..rundirs.folder import cores, describe_environment
from .device import devices

NET, PX, CLASSES, BATCH = "mobilenetv2-tiny", 32, 10, 64  # the net whose training is timed
STEPS, ROUNDS = 3, 3
EPOCH = 50_000  # images
LITTLE_BYTES = 5 * 1024**3  # less disk space than this is told
FOR_TESTS = ("all", "dev", "robust")  # extras that a user has no use for
EXTRAS = {
    "data": "the data set digits", "track": "curves for TensorBoard", "export": "ONNX and int8 files, method qat",
    "executorch": "files for ExecuTorch", "postgres": "a search by several machines", "detect": "boxes and masks",
    "docs": "the documentation as a site",
}  # fmt: skip


def examine() -> dict[str, Any]:
    """The findings, as values for JSON; takes a few seconds. Raises RunFault if a training step does not work."""
    environment = describe_environment()
    speed = _speed()
    found = {
        "python": environment["python"], "versions": environment["versions"], "platform": environment["platform"],
        "processor": environment["processor"], "cores": cores(), "memory": _memory(), "devices": devices(),
        "kernels": _kernels(), "training": speed, "data": {name: _said(there(name)) for name in NAMED},
        "disk": _disk(), "extras": _extras(),
    }  # fmt: skip
    return found | {"advice": _advice(found)}


def _said(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _memory() -> int | None:
    """The machine's memory in bytes; None where it is not told."""
    with contextlib.suppress(ValueError, OSError, AttributeError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _kernels() -> dict[str, Any]:
    """The compiled kernels: for which vector unit, or why there are none, and what each gains over torch here."""
    library = build.library()
    return {
        "unit": library.unit if library else None, "why_not": build.why_not(),
        "gains": {kind: {"times": round(times, 2), "used": used} for kind, (times, used) in choice.gains().items()},
    }  # fmt: skip


def _speed() -> dict[str, Any]:
    """Images per second of training steps of one small net on the CPU, with the kernels as chosen and without any."""
    torch.manual_seed(0)
    net = Net(archfile.read(NET, resolution=PX, classes=CLASSES).plan).train()
    parameters = list(net.parameters())
    for p in parameters:
        p.grad = torch.zeros_like(p)
    images = torch.randn(BATCH, 3, PX, PX).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(BATCH) % CLASSES

    def steps() -> float:
        begun = time.perf_counter()
        for _ in range(STEPS):
            loss = torch.nn.functional.cross_entropy(net(images), labels)
            with summed_in_place(parameters):
                loss.backward()
        if not torch.isfinite(loss):
            raise RunFault(f"a training step on this machine gives a loss of {loss.item()}; set NASAUG_KERNELS=off")
        return BATCH * STEPS / (time.perf_counter() - begun)

    def plain() -> float:
        with choice.forced(False):
            return steps()

    steps(), plain()
    rates = [(steps(), plain()) for _ in range(ROUNDS)]
    ours, torchs = (median(each) for each in zip(*rates, strict=True))
    return {"network": NET, "resolution": PX, "images_per_s": round(ours), "without_kernels": round(torchs)}


def _disk() -> dict[str, Any]:
    """Free bytes, and whether one may write, where runs and the cache are."""
    places = {"here": Path.cwd()}
    with contextlib.suppress(BadInput):
        places["cache"] = cache_folder()
    found = {}
    for name, path in places.items():
        near = next(folder for folder in (path, *path.parents) if folder.is_dir())
        free = shutil.disk_usage(near).free
        found[name] = {"path": str(path), "free": free, "writable": os.access(near, os.W_OK)}
    return found


def _extras() -> dict[str, Any]:
    """For each extra what it is for and the packages that it lacks; empty where nasaug is not installed."""
    try:
        needed = importlib.metadata.requires("nasaug") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    extras: dict[str, Any] = {}
    for line in needed:
        named = re.match(r"([\w.-]+)", line)
        extra = re.search(r"extra\s*==\s*[\"']([\w-]+)", line)
        if named and extra and extra[1] not in FOR_TESTS:
            of = extras.setdefault(extra[1], {"for": EXTRAS.get(extra[1], ""), "missing": []})
            of["missing"] += [] if _installed(named[1]) else [named[1]]
    return extras


def _installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _advice(found: dict[str, Any]) -> list[str]:
    """What is slow or missing here, and what to do about it, in sentences."""
    told = []
    if len(found["devices"]) == 1:
        epoch = format_duration(EPOCH / found["training"]["images_per_s"])
        told.append(
            f"there is no GPU: an epoch of {EPOCH:,} images takes about {epoch} for {NET} at {PX} px, and in "
            "proportion for more MACs; ImageNet's recipes (1.28M images of 160 px and more, 150 epochs and more) are "
            "for GPUs"
        )
    if found["kernels"]["unit"] is None and len(found["devices"]) == 1:
        remedy = "install gcc or clang" if "compiler" in found["kernels"]["why_not"] else "torch computes everything"
        told.append(f"there are no compiled kernels ({found['kernels']['why_not']}): {remedy}")
    for name, place in found["disk"].items():
        if not place["writable"]:
            remedy = "go to" if name == "here" else "set XDG_CACHE_HOME to"
            told.append(f"{place['path']} cannot be written: {remedy} a folder of your own")
        elif place["free"] < LITTLE_BYTES:
            told.append(f"only {place['free'] / 1024**3:.1f} GB are free in {place['path']}")
    missing = [name for name, extra in found["extras"].items() if extra["missing"] and name != "executorch"]
    if missing:
        told.append(f"extras that are not installed: pip install 'nasaug[{','.join(missing)}]'")
    if not found["extras"]:
        told.append("nasaug is not installed, only found: pip install -e . makes the command and its extras known")
    if found["data"]["fashion-mnist"] is None:
        told.append("Fashion-MNIST, the default, is not here: it is downloaded at first use")
    return told
