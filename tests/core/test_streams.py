"""Standard streams that are closed, full, without a reader or in a poor encoding, in real processes."""

import os
import subprocess
import sys

import pytest

from nasaug.core.streams import command_line, this_command

JOB = """
import sys
from nasaug.core.streams import flush, open_streams, tell
open_streams()
kept = open(sys.argv[1], "wb")
for text in ("caf\\udce9 \\u00d7", "second"):
    tell(text, sys.stdout)
    tell("a word to stderr", sys.stderr)
flush()
kept.write(b"the result")
"""


def job(tmp_path, shell: str, **environment: str) -> tuple[int, str, str, bytes]:
    """(exit code, stdout, stderr, contents of its file) of the job above, started with these shell redirections."""
    command = f'exec "$0" -c "$1" "$2" {shell}'
    args = ["bash", "-c", command, sys.executable, JOB, str(tmp_path / "kept")]
    done = subprocess.run(args, capture_output=True, env=os.environ | environment)
    out, err = (said.decode(errors="replace") for said in (done.stdout, done.stderr))
    return done.returncode, out, err, (tmp_path / "kept").read_bytes()


@pytest.mark.parametrize("shell", [">&-", "2>&-", "<&-", "<&- >&- 2>&-", ">/dev/full", "2>/dev/full", "1</dev/null"])
def test_a_stream_that_takes_nothing_costs_nothing(tmp_path, shell):
    code, out, err, kept = job(tmp_path, shell)
    assert code == 0 and kept == b"the result"
    assert ("second" in out) == (shell in ("2>&-", "<&-", "2>/dev/full"))
    if shell == ">/dev/full":
        assert err.count("No space left on device") == 1 and err.count("a word to stderr") == 2


def test_a_reader_that_goes_away_costs_nothing_and_nothing_is_said_of_it(tmp_path):
    code, out, err, kept = job(tmp_path, '| true; exit "${PIPESTATUS[0]}"')
    assert kept == b"the result" and "stdout" not in err and (code, out) == (0, "")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1:strict", "utf-8"])
def test_signs_that_a_stream_cannot_show_are_escaped(tmp_path, encoding):
    code, out, _, kept = job(tmp_path, "", LC_ALL="C", PYTHONIOENCODING=encoding)
    assert code == 0 and kept == b"the result"
    sign = {"ascii": "\\xd7", "utf-8": "×", "latin-1:strict": "\ufffd"}[encoding]
    assert out.startswith(f"caf\\udce9 {sign}\n")


def test_a_pipe_that_does_not_wait_gets_all_that_it_has_room_for(tmp_path):
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    code = "for n in range(3): tell(str(n) * 60_000, sys.stdout)\ntell('end', sys.stderr)"
    code = f"import sys\nfrom nasaug.core.streams import tell\n{code}"
    done = subprocess.Popen([sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert done.stderr.read().startswith(b"end")
    assert os.read(reader, 60_000) == b"0" * 60_000
    os.close(reader)
    done.wait()


@pytest.mark.parametrize("name", [b"plain", b"caf\xe9", b"caf\xe95", b"it's \xff $HOME", b"a\\b\xe9\nc", "né".encode()])
def test_a_command_line_names_what_it_is_made_of(name):
    said = command_line("printf", "%s", os.fsdecode(name))
    assert said.isprintable() or b"\n" in name
    assert subprocess.run(["bash", "-c", said], capture_output=True, check=True).stdout == name


@pytest.mark.parametrize(("script", "shown"), [
    ("/deep/venv/bin/nasaug", "nasaug train --arch 'a b'"),
    ("/deep/nasaug/__main__.py", "python -m nasaug train --arch 'a b'"),
    ("mine.py", "/deep/python mine.py train --arch 'a b'"),
])  # fmt: skip
def test_a_command_is_shown_as_it_is_typed_without_the_machines_paths(monkeypatch, script, shown):
    monkeypatch.setattr(sys, "argv", [script, "train", "--arch", "a b"])
    monkeypatch.setattr(sys, "orig_argv", ["/deep/python", *sys.argv])
    assert this_command() == shown
