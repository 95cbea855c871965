import io
import re
import sys
from types import SimpleNamespace

import pytest

from nasaug.cli import terminal
from nasaug.cli.terminal import Terminal
from nasaug.core import course, progress
from nasaug.core.progress import (
    Advance,
    Ended,
    Line,
    Progress,
    Stages,
    expect,
    heard_by,
    say,
    share_of_stage,
    stage,
    stages_of,
    whole_left,
)
from support import terminals

JOB = """
import contextlib, time
from nasaug.cli.terminal import Terminal
from nasaug.core.progress import Progress, expect, heard_by, say, stage, stages_of
with contextlib.closing(Terminal()) as terminal, heard_by(terminal), stages_of("supernet", "candidates"):
    expect("candidates", 60)
    with stage("supernet"), Progress("supernet", 4, unit="images", per_step=128) as job:
        for done in range(1, 5):
            time.sleep(0.1)
            job.update(done, best=(-88.12, "best top-1 88.12 %"), base=2.3456 / done)
            if done == 2:
                say("a line of text")
        # fails here
print("the result")
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
    monkeypatch.setattr(course, "time", made)
    return made


def test_a_file_has_a_line_after_ten_seconds_then_one_every_thirty_and_one_at_the_end(clock, capsys):
    with heard_by(Terminal()), Progress("train", 100, unit="images", per_step=128) as job:
        for second in range(1, 81):
            clock.now = 100.0 + second
            job.update(second, best=(-88.12, "best top-1 88.12 %") if second > 30 else None, base=1 / second, wide=2.0)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "train 10/100 128 images/s, base 0.1, wide 2, 1 m 30 s left",
        "train 40/100 128 images/s, best top-1 88.12 %, 1 m left",
        "train 70/100 128 images/s, best top-1 88.12 %, 30 s left",
        "train 80/100 128 images/s, best top-1 88.12 %, 20 s left",
    ]


def test_a_job_of_hours_has_ever_fewer_lines(clock, capsys):
    with heard_by(Terminal()), Progress("train", 7200) as job:
        for second in range(1, 7201):
            clock.now = 100.0 + second
            job.update(second)
    lines = capsys.readouterr().err.splitlines()
    assert 60 < len(lines) < 80 and lines[-1] == "train 7200/7200 1 steps/s, took 2 h"


def stages(clock, step=1.0):
    """Two stages of ten seconds each, the first of two jobs, which the estimates take for half as long."""
    with stages_of("supernet", "candidates"):
        expect("supernet", 5.0)
        expect("candidates", 5.0)
        expect("no stage of it", 99.0)
        with stage("supernet"):
            for part in range(2):
                with share_of_stage(part / 2, part / 2 + 0.5), Progress(f"part {part + 1}", 5) as job:
                    for done in range(1, 6):
                        clock.now += step
                        job.update(done, best=(part - 9.0, f"best {9 - part}"))
        with stage("candidates"), Progress("candidates", 10) as job:
            for done in range(1, 11):
                clock.now += step
                job.update(done, best=(-90.0, "best top-1 90.00 %"))


def test_the_time_left_counts_all_stages_and_is_refined_by_what_they_took(clock):
    heard = []
    with heard_by(heard.append):
        stages(clock)
    first, *_ = (event.stage for event in heard)
    assert (first.name, first.number, first.of, first.left, first.whole) == ("supernet", 1, 2, 5.0, 10.0)
    # after a tenth of the stage its own speed counts, for the stages to come as well
    reached = {(e.title, e.done): e.stage for e in heard if isinstance(e, Advance) and not e.over}
    assert reached["part 1", 1].whole == pytest.approx(9 + 10) and reached["part 2", 3].left == pytest.approx(2)
    assert reached["part 2", 3].best == "best 9"  # of the first part
    begun = reached["candidates", 0]
    assert begun.best == "" and begun.whole == pytest.approx(10) and begun.known
    ended = [event.stage for event in heard if isinstance(event, Ended)]
    assert [(each.name, each.seconds, each.whole) for each in ended] == [
        ("supernet", 10.0, 10.0), ("candidates", 10.0, 0.0)
    ]  # fmt: skip


def test_a_short_stage_says_nothing_of_those_to_come(clock):
    heard = []
    with heard_by(heard.append), stages_of("supernet", "candidates"):
        expect("supernet", 0.2)
        expect("candidates", 6.0)
        with stage("supernet"), Progress("supernet", 2) as job:
            clock.now += 2
            job.update(1)
            within = next(event.stage for event in reversed(heard) if isinstance(event, Advance))
            clock.now += 2
            job.update(2)
    assert within.left == pytest.approx(2) and heard[-1].stage.whole == 6.0


def test_a_stage_counts_by_its_length_in_what_those_to_come_are_expected_to_take(clock):
    heard = []
    with heard_by(heard.append), stages_of("supernet", "candidates", "finalists"):
        for name, expected in (("supernet", 30.0), ("candidates", 6.0), ("finalists", 100.0)):
            expect(name, expected)
        for name, took in (("supernet", 30.0), ("candidates", 24.0)):
            with stage(name), Progress(name, 1) as job:
                clock.now += took
                job.update(1)
    assert [event.stage.whole for event in heard if isinstance(event, Ended)] == [106.0, pytest.approx(150.0)]


def test_what_is_not_known_is_said_and_stages_that_are_left_out_do_no_harm(clock):
    heard = []
    with heard_by(heard.append), stages_of("shapes", "supernet", "candidates"):
        expect("supernet", 10.0)
        with stage("supernet"), Progress("supernet", 10, begun=5) as job:
            clock.now += 5
            job.update(10)
        with stage("finalists"), Progress("x", 2):
            pass
    half = heard[0].stage
    assert (half.number, half.share, half.whole, half.known) == (2, 0.5, 5.0, False)
    assert whole_left(half) == "more than 5.0 s left in all"
    assert [event.stage for event in heard if isinstance(event, Advance) and event.title == "x"] == [None, None]


def test_a_file_has_one_line_for_each_stage_whatever_it_consists_of(clock, capsys):
    with heard_by(Terminal()):
        stages(clock, step=0.9)
    assert capsys.readouterr().err.splitlines() == [
        "supernet (stage 1 of 2) took 9.0 s; about 9.0 s left in all", "candidates (stage 2 of 2) took 9.0 s"
    ]  # fmt: skip
    with heard_by(Terminal()):
        stages(clock, step=4.0)
    assert capsys.readouterr().err.splitlines()[:2] == [
        "supernet (stage 1 of 2) part 1 30%, 0.25 steps/s, best 9, 28 s left in this stage, about 1 m 8 s left in all",
        "supernet (stage 1 of 2) took 40 s; about 40 s left in all",
    ]


def test_steps_done_before_a_resume_do_not_count_in_the_rate(clock, capsys):
    with heard_by(Terminal()), Progress("train", 100, begun=90) as job:
        clock.now = 105.0
        job.update(100)
    assert capsys.readouterr().err == "train 100/100 2 steps/s, took 5.0 s\n"


def test_a_job_that_was_stopped_before_its_first_step_says_nothing(clock, capsys):
    with heard_by(Terminal()), Progress("trainings", 2):
        pass
    assert capsys.readouterr().err == ""


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


def on_a_terminal(columns, code=JOB, **environment):
    return terminals.on_a_terminal([sys.executable, "-c", code], columns, **{"TERM": "xterm"} | environment)


def plain(shown):
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)


@pytest.mark.parametrize("columns", [100, 40])
def test_on_a_terminal_one_live_block_as_wide_as_it(columns):
    shown, _ = on_a_terminal(columns)
    lines = plain(shown).replace("\r", "\n").split("\n")
    assert [line for line in lines if len(line) > columns and " took " not in line] == []
    assert any("stage 1 of 2: supernet" in line for line in lines) and "━" in shown
    assert re.search(r"4/4 · \d[\d,]* images/s", plain(shown)) and "a line of text" in lines
    assert re.search(r"^supernet \(stage 1 of 2\) took \d\.\d s; about 1 m left in all$", "\n".join(lines), re.M)
    assert shown.rstrip().endswith("the result") and not re.search(r"\[\?25l(?!.*\[\?25h)", shown, re.S)  # the cursor


def test_a_block_leaves_nothing_behind_at_an_error():
    shown, code = on_a_terminal(80, JOB.replace("# fails here", "raise SystemExit(3)"))
    last = shown.rpartition("\x1b[2K")[2]  # what follows the last erased line
    assert code == 3 and "━" in shown and "━" not in last and "stage" not in last


def test_a_terminal_that_cannot_redraw_gets_lines_and_no_color_is_kept():
    dumb, _ = on_a_terminal(80, TERM="dumb")
    assert "\x1b" not in dumb and "━" not in dumb and "supernet (stage 1 of 2) took" in dumb
    coloured, _ = on_a_terminal(80)
    plain_one, _ = on_a_terminal(80, NO_COLOR="1")
    colour = r"\x1b\[[0-9;]*[39]\d[0-9;]*m"
    assert re.search(colour, coloured) and not re.search(colour, plain_one) and "━" in plain_one


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


def test_the_only_stage_of_a_command_has_no_number(clock, capsys):
    with heard_by(Terminal()), stages_of("finalists"):
        expect("finalists", 20.0)
        with stage("finalists"), Progress("finalist 1 of 1", 10) as job:
            clock.now += 20
            job.update(10)
    assert capsys.readouterr().err.splitlines()[-1] == "finalists took 20 s"
