"""Programs on a terminal of their own."""

import contextlib
import os
import pty
import subprocess


def on_a_terminal(command, columns, *, both=True, **environment):
    """What a command writes to a terminal of this width (with `both`, its errors too), and its exit status.

    It is read while the command runs: a terminal holds 4 KB, and whoever writes more waits for a reader."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"COLUMNS": str(columns)} | environment
    written = b""
    with subprocess.Popen(command, stdout=theirs, stderr=theirs if both else None, env=environment) as process:
        os.close(theirs)
        with contextlib.suppress(OSError):  # the other end is closed
            while more := os.read(ours, 1 << 16):
                written += more
    os.close(ours)
    return written.decode(), process.returncode
