"""Tables as text: plain lines, and on a terminal also a rule below the header."""

import io
import sys

import pytest

from nasaug.reporting import tables
from support.terminals import on_a_terminal

HEAD = ["arm", "n", "difference", "verdict"]
ROWS = [["baseline", "5", "-", "reference"], ["netaug+mixup", "12", "-2.92 [-4.21, -1.63]", "worse"]]
PLAIN = """\
arm            n            difference  verdict
baseline       5                     -  reference
netaug+mixup  12  -2.92 [-4.21, -1.63]  worse"""


@pytest.fixture
def terminal(monkeypatch):
    """Makes stdout a terminal with that many columns."""

    def begin(columns):
        stdout = io.StringIO()
        stdout.isatty = lambda: True
        monkeypatch.setattr("sys.stdout", stdout)
        monkeypatch.setenv("COLUMNS", str(columns))

    return begin


def test_plain_lines_whatever_the_environment_says_of_a_terminal(monkeypatch):
    assert tables.text(HEAD, ROWS, left=(0, -1)) == PLAIN
    for name, value in {"COLUMNS": "20", "FORCE_COLOR": "1", "TTY_COMPATIBLE": "1", "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)
    assert tables.text(HEAD, iter(ROWS), left=(0, 3)) == PLAIN


def test_a_line_is_never_cut_or_broken():
    wide = ["x" * 3000, *(f"{i} " * 50 for i in range(20))]
    (line,) = tables.text(wide, []).splitlines()
    assert line.split("  ")[0] == wide[0] and line.endswith(wide[-1].rstrip())


def test_a_terminal_gets_a_rule_if_it_is_wide_enough(terminal):
    terminal(60)
    head, rule, *rows = tables.text(HEAD, ROWS, left=(0, -1)).splitlines()
    assert set(rule) == {"─"} and len(rule) >= max(map(len, rows))
    assert [row.split() for row in rows] == [line.split() for line in PLAIN.splitlines()[1:]]
    terminal(len(PLAIN.splitlines()[-1]))
    assert tables.text(HEAD, ROWS, left=(0, -1)) == PLAIN


def test_a_command_on_a_terminal_writes_no_colours():
    command = [sys.executable, "-m", "nasaug", "profile", "--arch", "mobilenetv2-tiny"]
    written, _ = on_a_terminal(command, 120, both=False, TERM="xterm-256color")
    lines = written.split("\r\n")
    assert lines[0].startswith("layer ") and set(lines[1]) == {"─"} and "\x1b" not in written
    assert lines[2].split()[:3] == ["stem", "conv", "3->16"]


@pytest.mark.parametrize(
    "cell, shown",
    [
        ("[b]net[/b] [red]", "[b]net[/b] [red]"),
        (":smile: https://x.org", ":smile: https://x.org"),
        ("a\nb\t", r"a\nb\t"),
        ("caf\udce9 \x1b[31m", r"caf\udce9 \x1b[31m"),
        ("", ""),
    ],
)
def test_a_cell_is_shown_as_it_is_and_in_one_line(cell, shown):
    width = max(len(shown), len("name"))
    assert tables.text(["name", "n"], [[cell, "1"]]) == f"{'name':{width}}  n\n{shown:{width}}  1"


def test_wide_characters_take_two_columns():
    lines = tables.text(["name", "n"], [["日本語", "1"], ["latin", "2"]]).splitlines()
    assert lines == ["name    n", "日本語  1", "latin   2"]


def test_a_table_without_rows_is_its_head():
    assert tables.text(["arm", "n"], []) == "arm  n"
