"""Device, threads and precision. The only module that refers to a specific kind of accelerator."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from ..core.errors import BadInput, arg, unknown, with_value
from ..kernels import choice
from .ranks import Ranks, of_process

DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class Runtime:
    """The device of a run, and the processes that train together. `bf16` enables bfloat16 autocast on an accelerator,
    `profile` the timing of stages."""

    device: torch.device
    bf16: bool = False
    profile: bool = False
    ranks: Ranks = Ranks()

    @property
    def accelerated(self) -> bool:
        return self.device.type != "cpu"

    def autocast(self) -> contextlib.AbstractContextManager:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def release(self) -> None:
        """Give freed memory back, so that another batch can be tried."""
        if self.accelerated:
            torch.cuda.empty_cache()

    def synchronize(self) -> None:
        if self.accelerated:
            torch.cuda.synchronize(self.device)

    @contextlib.contextmanager
    def seeded(self, seed: int) -> Iterator[None]:
        """Seed torch's global generators within the block, then restore them: for operators that take no generator."""
        devices = [self.device] if self.accelerated else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            yield

    def peak_memory(self) -> int | None:
        """Peak memory in bytes: of tensors on an accelerator, else of the whole process; None if unavailable
        (Windows)."""
        if self.accelerated:
            return torch.cuda.max_memory_allocated(self.device)
        try:
            import resource
        except ImportError:
            return None
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def describe(self) -> str:
        if self.accelerated:
            return torch.cuda.get_device_name(self.device) + self._together()
        threads = torch.get_num_threads()
        return f"CPU, {threads} thread{'s' if threads > 1 else ''}, {choice.described()}{self._together()}"

    def _together(self) -> str:
        return "" if self.ranks.alone else f", {self.ranks.count} processes"


def open_runtime(name: str = "auto", bf16: bool = False, profile: bool = False) -> Runtime:
    """The runtime of device `auto`, `cpu` or `cuda`. Raises BadInput if it is unknown or absent."""
    if name not in DEVICES:
        raise unknown(arg.device, name, DEVICES)
    _keep_freed_memory()
    present = torch.cuda.is_available()
    if name == "cuda" and not present:
        rule, remedy = ": no CUDA device is visible to torch here", f"use {with_value('device')} cpu, or auto"
        raise BadInput.of(argument="device", value=name, rule=rule, remedy=remedy)
    if name == "cpu" or not present:
        return Runtime(torch.device("cpu"), profile=profile, ranks=of_process())
    torch.backends.cudnn.benchmark = False  # random slice shapes would trigger autotuning at every step
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    ranks = of_process()
    if not ranks.alone:
        torch.cuda.set_device(ranks.local)  # NCCL's
    return Runtime(torch.device("cuda", ranks.local), bf16, profile, ranks)


def devices() -> list[dict[str, Any]]:
    """The devices that torch can use here: what the option takes, the name, and the memory in bytes where known."""
    found: list[dict[str, Any]] = [{"device": "cpu", "name": open_runtime("cpu").describe()}]
    for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        known = torch.cuda.get_device_properties(i)
        found.append({"device": "cuda", "name": known.name, "memory": known.total_memory})
    return found


def out_of_memory(error: Exception) -> bool:
    """Whether the error is one of those by which torch tells that memory is used up."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _keep_freed_memory() -> None:
    """Make glibc keep freed memory instead of returning it to the system: every step reuses the same activation
    buffers, and page-faulting them in again takes an eighth of a step (docs/explanation/performance.md). No effect
    without glibc."""
    trim_threshold, mmap_threshold = -1, -3  # malloc.h: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(mmap_threshold, 2**30)
