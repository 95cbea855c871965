import io
import os
import pty
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest

from nasaug.cli import terminal
from nasaug.cli.terminal import Terminal
from nasaug.core import progress
from nasaug.core.progress import Advance, Line, Progress, Stages, heard_by, say

JOB = """
import time
from nasaug.cli.terminal import Terminal
from nasaug.core.progress import Progress, heard_by
with heard_by(Terminal()), Progress("epoch 1/2", 4, unit="images", per_step=128) as job:
    for done in range(1, 5):
        time.sleep(0.15)
        job.update(done, base=2.3456 / done)
"""


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until `clock.now` is set."""

    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    made = Clock()
    monkeypatch.setattr(progress, "time", made)
    monkeypatch.setattr(terminal, "time", made)
    return made


def test_plain_lines_tell_rate_figures_and_time_left_every_ten_seconds(clock, capsys):
    with heard_by(Terminal()), Progress("train", 100, unit="images", per_step=128) as job:
        for second in range(1, 26):
            clock.now = 100.0 + second
            job.update(second, base=1 / second)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "train 10/100 128 images/s, base 0.1, 1 m 30 s left",
        "train 20/100 128 images/s, base 0.05, 1 m 20 s left",
        "train 25/100 128 images/s, base 0.04, 1 m 15 s left",
    ]


def test_steps_done_before_a_resume_do_not_count_in_the_rate(clock, capsys):
    with heard_by(Terminal()), Progress("train", 100, begun=90) as job:
        clock.now = 105.0
        job.update(100)
    assert capsys.readouterr().err == "train 100/100 2 steps/s, took 5.0 s\n"


def test_quiet_says_nothing(clock, capsys):
    with heard_by(Terminal()), Progress("train", 2, quiet=True) as job:
        clock.now = 200.0
        job.update(2)
    assert capsys.readouterr() == ("", "")


def test_without_a_listener_nothing_is_told_and_with_one_every_event(capsys):
    def job():
        say("hello")
        with Progress("train", 2) as bar:
            bar.update(1, loss=0.5)

    heard = []
    job()
    with heard_by(heard.append):
        job()
        with heard_by(None):  # existing listeners stay
            say("inside")
    assert capsys.readouterr() == ("", "")
    assert heard[0] == Line("hello") and heard[-1] == Line("inside")
    assert [(e.done, e.over) for e in heard if isinstance(e, Advance)] == [(0, False), (1, False), (1, True)]
    assert heard[2].figures == {"loss": 0.5}


def test_on_a_terminal_one_live_bar():
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    subprocess.run([sys.executable, "-c", JOB], stderr=theirs, env=environment, check=True)
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert "epoch 1/2" in shown and "━" in shown
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)
    assert re.search(r"4/4 \d+ images/s, base 0.5864, took 0\.\d s", plain)


def test_stages_are_timed_where_asked_and_told_with_their_rates(monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr(progress, "time", SimpleNamespace(perf_counter=lambda: float(next(clock))))
    settled, stages = [], Stages(True, lambda: settled.append(1))
    for _ in stages.waiting("load", ["a", "b"]):
        with stages("forward"):
            pass
    assert stages.seconds == {"load": 3.0, "forward": 2.0} and len(settled) == 5  # the last wait finds the end
    with stages("evaluate"):
        pass
    rows = [line.split() for line in stages.table(30, 8.0).splitlines()[1:]]
    assert rows[:2] == [["load", "3.00", "38%", "10"], ["forward", "2.00", "25%", "15"]]
    assert rows[2:] == [["evaluate", "1.00", "12%"], ["other", "2.00", "25%"]]
    off = Stages()
    with off("forward"):
        pass
    assert list(off.waiting("load", [1, 2])) == [1, 2] and off.seconds == {}


def test_lines_go_into_a_file_while_a_bar_is_live_on_a_terminal(tmp_path, monkeypatch):
    class Screen(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", screen := Screen())
    with open(tmp_path / "told", "w") as told:
        monkeypatch.setattr(sys, "stdout", told)
        with heard_by(Terminal()), Progress("train", 2) as job:
            say("a line for the file")
            job.update(2)
    assert (tmp_path / "told").read_text() == "a line for the file\n"
    assert "train" in screen.getvalue() and "a line" not in screen.getvalue()
