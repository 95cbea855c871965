"""Closed, full or limited standard streams: messages to them may be lost, but results never are."""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import sys
from pathlib import Path
from typing import TextIO


def open_streams() -> None:
    """Make all three streams usable. Call this before opening any file, which would reuse a closed stream's descriptor.

    Characters that a stream cannot encode are written as Python escapes, like \\xe9, and bytes of a file name that are
    not UTF-8 like \\udce9."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:  # closed: os.open returns this descriptor or a lower free one, and dup2 covers both cases
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError):  # a replacement without reconfigure, as in tests
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def tell(text: str, stream: TextIO) -> None:
    """Print a line and flush. If that fails, it and all later output on the stream are discarded without an error."""
    try:
        print(text, file=stream, flush=True)
    except BlockingIOError:  # a full non-blocking pipe: the rest stays buffered and is written with the next line
        pass
    except (OSError, ValueError) as error:
        _mute(stream)
        if stream is sys.stdout and not isinstance(error, BrokenPipeError):  # `| head` closes it on purpose
            reason = getattr(error, "strerror", None) or error
            tell(f"nasaug: cannot write to stdout ({reason}); all further output to it is lost", sys.stderr)


def flush() -> None:
    """Flush both streams while a broken pipe can still be handled. Raises OSError for stdout; ignores it for stderr."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    try:
        sys.stdout.flush()
    except BlockingIOError:
        os.set_blocking(sys.stdout.fileno(), True)
        sys.stdout.flush()
    except OSError:
        _mute(sys.stdout)  # otherwise the interpreter's flush at exit fails again and changes the exit code
        raise


def mute_unheard() -> None:
    """Redirect stdout and stderr to /dev/null if their terminal has hung up or nobody reads their pipe any more, so
    that writing to them does not fail."""
    for number in (1, 2) if hasattr(select, "poll") else ():
        poll = select.poll()
        poll.register(number, 0)  # reports error conditions only
        if poll.poll(0):
            _to_nothing(number)


def _mute(stream: TextIO) -> None:
    with contextlib.suppress(OSError, ValueError):
        _to_nothing(stream.fileno())
        stream.flush()


def _to_nothing(number: int) -> None:
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, number)
    os.close(nothing)


def nasaug_command(*words: object) -> str:
    """`command_line` for nasaug with these arguments, called as the user called it: by `python -m`, or by its script,
    which is the only way where pipx installed it."""
    return command_line(*(("python", "-m", "nasaug") if _by_module() else ("nasaug",)), *words)


def this_command() -> str:
    """The command of this process as a user would type it: nasaug's without the paths of interpreter and script."""
    if _by_module() or Path(sys.argv[0]).stem == "nasaug":
        return nasaug_command(*sys.argv[1:])
    return command_line(*sys.orig_argv)


def _by_module() -> bool:
    return Path(sys.argv[0]).parts[-2:] == ("nasaug", "__main__.py")


def command_line(*words: object) -> str:
    """The words quoted for a shell. Bytes that are not UTF-8 use the $'…' form of bash, zsh and ksh: $'caf\\351'."""
    return " ".join(map(_quoted, map(str, words)))


def _quoted(word: str) -> str:
    quoted = shlex.quote(word)
    try:
        quoted.encode()
    except UnicodeEncodeError:
        escaped = word.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
        # three octal digits, because a hexadecimal escape would swallow a digit that follows it
        return "$'" + "".join(f"\\{ord(c) - 0xDC00:03o}" if "\udc80" <= c <= "\udcff" else c for c in escaped) + "'"
    return quoted
