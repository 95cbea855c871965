"""Standard streams that are closed, full, or cannot show every sign: what is told there may be lost, a result never."""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import sys
from typing import TextIO


def open_streams() -> None:
    """Make all three streams usable; to be called before any file is opened, which would get a closed one's number.

    A sign that a stream cannot show is written as Python writes it in source, like \\xe9, and a byte of a name that is
    not UTF-8 like \\udce9."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:  # closed, so it is the lowest free number, or one below it is
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError):  # a test's own stream, say
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def tell(text: str, stream: TextIO) -> None:
    """A line, at once. Where it cannot be written, it and all that follows on that stream are lost: no fault."""
    try:
        print(text, file=stream, flush=True)
    except BlockingIOError:  # a pipe that does not wait for its reader: the rest follows with the next line
        pass
    except (OSError, ValueError) as error:
        _mute(stream)
        if stream is sys.stdout and not isinstance(error, BrokenPipeError):  # whoever runs `| head` knows
            reason = getattr(error, "strerror", None) or error
            tell(f"nasaug: stdout cannot be written to ({reason}); what is told there is lost from here on", sys.stderr)


def flush() -> None:
    """Write what waits in stdout, where a reader that went away is still handled; what stderr cannot take is lost."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    try:
        sys.stdout.flush()
    except BlockingIOError:
        os.set_blocking(sys.stdout.fileno(), True)
        sys.stdout.flush()
    except OSError:
        _mute(sys.stdout)  # else the interpreter's own flush fails once more, and changes the exit code
        raise


def mute_unheard() -> None:
    """Let what is told to a terminal that hung up, or into a pipe that nobody reads, be lost and be no fault."""
    for number in (1, 2) if hasattr(select, "poll") else ():
        poll = select.poll()
        poll.register(number, 0)  # tells of errors alone
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


def command_line(*words: object) -> str:
    """The words as a shell takes them; bytes that are not UTF-8 as bash, zsh and ksh write them: $'caf\\xe9'."""
    return " ".join(map(_quoted, map(str, words)))


def _quoted(word: str) -> str:
    quoted = shlex.quote(word)
    try:
        quoted.encode()
    except UnicodeEncodeError:
        escaped = word.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
        # three octal digits, since hexadecimal ones would go on into a digit that follows
        return "$'" + "".join(f"\\{ord(c) - 0xDC00:03o}" if "\udc80" <= c <= "\udcff" else c for c in escaped) + "'"
    return quoted
