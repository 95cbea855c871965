"""A second signal: it ends the command line's process, and never that of a caller from Python. A parent's end."""

import signal
import subprocess
import sys

import pytest

from nasaug.core import signals
from nasaug.core.signals import deferred_stop, raised_stop


class Ended(BaseException):
    """Raised in place of the end of this process."""


@pytest.fixture
def twice(monkeypatch):
    """A function that sends SIGINT twice, as two requests."""
    def end(code):
        raise Ended(code)

    def send():
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(signals, "SAME_WITHIN_S", -1.0)
    monkeypatch.setattr(signals.os, "_exit", end)
    return send


def test_a_second_signal_is_an_exception_in_the_process_of_a_caller(twice):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        with deferred_stop():
            twice()
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_signal_ends_the_command_line_and_nothing_after_it(twice):
    with pytest.raises(Ended, match="130"):
        with raised_stop():
            with deferred_stop():
                twice()
    with pytest.raises(KeyboardInterrupt):
        with deferred_stop():
            twice()


LEFT_BEHIND = """
import os, subprocess, sys, time
from nasaug.core.signals import LEFT
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdin=subprocess.PIPE, env=os.environ | {LEFT: "1"})
time.sleep(60)
"""
CHILD = """
import time
from nasaug.core.signals import Stopped, raised_stop, stop_when_left
try:
    with raised_stop():
        stop_when_left()
        print("running", flush=True)
        time.sleep(60)
except Stopped as stop:
    print("stopped by", stop, flush=True)
"""


def test_a_process_stops_when_the_one_that_started_it_is_killed():
    parent = subprocess.Popen([sys.executable, "-c", LEFT_BEHIND, CHILD], stdout=subprocess.PIPE, text=True)
    assert parent.stdout.readline() == "running\n"
    parent.kill()
    assert parent.stdout.read() == "stopped by SIGTERM\n"
    parent.wait()
