"""Signals that stop a run (SIGINT, SIGTERM, SIGHUP), handled at points where its state is consistent."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from .streams import mute_unheard

# A further signal within this many seconds is the same request: when SIGTERM goes to every process of a job, for
# example, both the system and the parent may deliver it.
SAME_WITHIN_S = 3.0


LEFT = "NASAUG_STOPS_WITH_PARENT"  # set for a process whose standard input is a pipe from the process that started it


class Stopped(BaseException):
    """A signal stopped the run after its checkpoint was written. The exit code is 128 + `signum`.

    `verb` and `run` name the command and run directory to resume, `resume` is the whole command where there is no run;
    None if there is nothing to resume."""

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.signum = signum
        self.verb: str | None = None
        self.run: Path | None = None
        self.resume: str | None = None


class Pending:
    """The signal received while stops were deferred, if any."""

    signum: int | None = None

    def check(self) -> None:
        """Raise Stopped if a signal arrived. Called where the state is consistent."""
        if self.signum is not None:
            raise Stopped(self.signum)


HANG_UP = [signal.SIGHUP] if hasattr(signal, "SIGHUP") else []  # Windows has none


def stop_signals() -> list[signal.Signals]:
    """The signals that stop a run: SIGINT, SIGTERM, and SIGHUP (a lost ssh connection) unless ignored (nohup)."""
    hang_up = [s for s in HANG_UP if signal.getsignal(s) is not signal.SIG_IGN]
    return [signal.SIGINT, signal.SIGTERM, *hang_up]


@contextlib.contextmanager
def deferred_stop() -> Iterator[Pending]:
    """Within the block, stop signals only take effect at `Pending.check` and at its end."""
    pending = Pending()
    if threading.current_thread() is not threading.main_thread():
        yield pending
        return

    def note(signum, frame):
        if _is_first(signum):
            pending.signum = signum

    with _handled_by(note):
        yield pending
    pending.check()  # a signal may have arrived after the last check


@contextlib.contextmanager
def raised_stop() -> Iterator[None]:
    """Within the block, a stop signal raises Stopped immediately, and a second one ends the process: for the command
    line only, which owns its process."""

    def stop(signum, frame):
        if _is_first(signum):
            raise Stopped(signum)

    with _handled_by(stop):
        before, _Heard.exits = _Heard.exits, True
        try:
            yield
        finally:
            _Heard.exits = before


class _Heard:
    """When the first signal arrived since the outermost context above was entered (None: not yet), their depth, and
    whether a second signal ends the process."""

    first: float | None = None
    depth = 0
    exits = False


def _is_first(signum: int) -> bool:
    """Whether this signal is the first. A second one after SAME_WITHIN_S, unless it is SIGHUP, ends the process of the
    command line, and raises KeyboardInterrupt in a caller's own process, such as a notebook's."""
    mute_unheard()
    now = time.monotonic()
    if _Heard.first is None:
        _Heard.first = now
        return True
    if signum not in HANG_UP and now - _Heard.first > SAME_WITHIN_S:
        if _Heard.exits:
            os._exit(128 + signum)
        raise KeyboardInterrupt
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
    """Processes started inside the block never receive stop signals: their parent receives them and ends its children.

    The signals are blocked in the parent while it forks, so a new process has no window in which it could be hit."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM, *HANG_UP])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def stop_when_left() -> None:
    """If LEFT is set, stop this process as SIGTERM does once the one that started it has ended, by whatever signal:
    the pipe then has no other end."""
    if os.environ.pop(LEFT, None):
        threading.Thread(target=_stop_at_end_of_input, daemon=True).start()


def _stop_at_end_of_input() -> None:
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
