"""The machine: device, threads, precision and signals. The only module that names a kind of accelerator."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from .errors import BadInput, unknown
from .kernels import choice

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
        raise unknown("--device", name, DEVICES)
    _keep_freed_memory()
    present = torch.cuda.is_available()
    if name == "cuda" and not present:
        raise BadInput("--device cuda: no CUDA device is visible to torch here; use --device cpu, or auto")
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


class Stopped(BaseException):
    """A signal asked the run to end; its checkpoint is written. Exit code 128 + `signum`."""

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


class Pending:
    """The signal that came while stops were deferred, if any."""

    signum: int | None = None

    def check(self) -> None:
        """Raise Stopped where a signal came: called at a point where the state is whole."""
        if self.signum is not None:
            raise Stopped(self.signum)


HANG_UP = [signal.SIGHUP] if hasattr(signal, "SIGHUP") else []  # Windows has none


def stop_signals() -> list[signal.Signals]:
    """Those that ask a run to end: Ctrl-C, SIGTERM, and a hang-up (a lost ssh connection) unless ignored (nohup)."""
    hang_up = [s for s in HANG_UP if signal.getsignal(s) is not signal.SIG_IGN]
    return [signal.SIGINT, signal.SIGTERM, *hang_up]


def mute_unheard() -> None:
    """Let what is told to a terminal that hung up, or into a pipe that nobody reads, be lost and be no fault."""
    for stream in (1, 2) if hasattr(select, "poll") else ():
        poll = select.poll()
        poll.register(stream, 0)  # tells of errors alone
        if poll.poll(0):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)


@contextlib.contextmanager
def deferred_stop() -> Iterator[Pending]:
    """Stop signals wait for `check`; a second one ends the process at once, but for a hang-up, which can come twice."""
    pending = Pending()
    if threading.current_thread() is not threading.main_thread():
        yield pending
        return

    def note(signum, frame):
        mute_unheard()
        if pending.signum is not None and signum not in HANG_UP:
            os._exit(128 + signum)
        pending.signum = pending.signum or signum

    before = {s: signal.signal(s, note) for s in stop_signals()}
    try:
        yield pending
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)
    pending.check()  # it may have come after the last one
