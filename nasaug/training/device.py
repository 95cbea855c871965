"""The machine: device, threads and precision. The only module that names a kind of accelerator."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from ..core.errors import BadInput, unknown
from ..kernels import choice

DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class Runtime:
    """Where a run computes. `autocast` is bfloat16 on an accelerator that has it, where asked for; `profile`: its
    stages are timed."""

    device: torch.device
    bf16: bool = False
    profile: bool = False

    @property
    def accelerated(self) -> bool:
        return self.device.type != "cpu"

    def autocast(self) -> contextlib.AbstractContextManager:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def synchronize(self) -> None:
        if self.accelerated:
            torch.cuda.synchronize(self.device)

    @contextlib.contextmanager
    def seeded(self, seed: int) -> Iterator[None]:
        """torch's global generators at `seed`, as they were afterwards: for operators that take no generator."""
        devices = [self.device] if self.accelerated else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            yield

    def peak_memory(self) -> int | None:
        """Bytes: the most that was held at once, on an accelerator by tensors, else by the whole process; None where
        the system does not tell (Windows)."""
        if self.accelerated:
            return torch.cuda.max_memory_allocated(self.device)
        try:
            import resource
        except ImportError:
            return None
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def describe(self) -> str:
        if self.accelerated:
            return torch.cuda.get_device_name(self.device)
        threads = torch.get_num_threads()
        return f"CPU, {threads} thread{'s' if threads > 1 else ''}, {choice.described()}"


def open_runtime(name: str = "auto", bf16: bool = False, profile: bool = False) -> Runtime:
    """The device `auto`, `cpu` or `cuda`. Raises BadInput where it is unknown or absent."""
    if name not in DEVICES:
        raise unknown("@device", name, DEVICES)
    _keep_freed_memory()
    present = torch.cuda.is_available()
    if name == "cuda" and not present:
        rule, remedy = "no CUDA device is visible to torch here", "use cpu, or auto"
        line = f"@device cuda: {rule}; {remedy.replace('cpu', '@device cpu')}"
        raise BadInput(line, field="device", value=name, rule=rule, remedy=remedy, arguments={"device": None})
    if name == "cpu" or not present:
        return Runtime(torch.device("cpu"), profile=profile)
    torch.backends.cudnn.benchmark = False  # random slice shapes would re-tune it at every step
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    return Runtime(torch.device("cuda", 0), bf16, profile)


def _keep_freed_memory() -> None:
    """Have glibc keep freed blocks instead of giving them back: a step re-uses the same activations, and
    faulting their pages in again costs an eighth of it (docs/performance.md). Elsewhere: no effect."""
    trim_threshold, mmap_threshold = -1, -3  # malloc.h: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(mmap_threshold, 2**30)
