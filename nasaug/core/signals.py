"""Signals that ask a run to end: Ctrl-C, SIGTERM and a hang-up, heard where the state is whole."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from .streams import mute_unheard

# Seconds within which a further signal is the same request: the system and a parent may both send one, as where SIGTERM
# goes to every process of a job.
SAME_WITHIN_S = 3.0


class Stopped(BaseException):
    """A signal asked the run to end; its checkpoint is written. Exit code 128 + `signum`.

    `verb` and `run` say what can be resumed, where there is something."""

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.signum = signum
        self.verb: str | None = None
        self.run: Path | None = None


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


@contextlib.contextmanager
def deferred_stop() -> Iterator[Pending]:
    """Stop signals wait for `check`."""
    pending = Pending()
    if threading.current_thread() is not threading.main_thread():
        yield pending
        return

    def note(signum, frame):
        if _is_first(signum):
            pending.signum = signum

    with _handled_by(note):
        yield pending
    pending.check()  # it may have come after the last one


@contextlib.contextmanager
def raised_stop() -> Iterator[None]:
    """A stop signal raises Stopped wherever the program is."""

    def stop(signum, frame):
        if _is_first(signum):
            raise Stopped(signum)

    with _handled_by(stop):
        yield


class _Heard:
    """When the first signal came, if one did since the outermost of the contexts above was entered, and their depth."""

    first: float | None = None
    depth = 0


def _is_first(signum: int) -> bool:
    """Whether this signal is the first. A later one than its echo ends the process at once, but for a hang-up."""
    mute_unheard()
    now = time.monotonic()
    if _Heard.first is None:
        _Heard.first = now
        return True
    if signum not in HANG_UP and now - _Heard.first > SAME_WITHIN_S:
        os._exit(128 + signum)
    return False


@contextlib.contextmanager
def _handled_by(handler) -> Iterator[None]:
    if not _Heard.depth:
        _Heard.first = None
    before = {s: signal.signal(s, handler) for s in stop_signals()}
    _Heard.depth += 1
    try:
        yield
    finally:
        _Heard.depth -= 1
        for s, theirs in before.items():
            signal.signal(s, theirs)


@contextlib.contextmanager
def deaf_children() -> Iterator[None]:
    """Processes that are begun inside hear no stop signal, ever: whoever began them hears it, and ends them.

    Blocked, not ignored: then there is no moment at which a new process hears it."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM, *HANG_UP])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
