import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from nasaug.core import files
from nasaug.core.errors import BadInput, RunFault
from nasaug.core.files import bundled, read_json, read_toml, whole_file, write_json, write_whole, write_with_names


@pytest.mark.parametrize("kind", ["search_spaces", "recipes"])
def test_shipped_folders_are_found_in_the_checkout(kind):
    assert bundled(kind).is_dir()


def test_writes_whole_and_leaves_no_other_file(tmp_path):
    path = tmp_path / "a.txt"
    write_whole(path, "one")
    write_whole(path, "zwölf")
    assert path.read_bytes() == "zwölf".encode()
    assert os.listdir(tmp_path) == ["a.txt"]


def test_what_a_killed_writer_left_goes_with_the_next_write_and_a_living_ones_stays(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    kept = [f".a.json.{os.getppid()}.tmp", ".a.json.mine.tmp", f".b.json.{dead.pid}.tmp"]
    for name in (f".a.json.{dead.pid}.tmp", *kept):
        (tmp_path / name).write_text("half")
        os.utime(tmp_path / name, (0, 0))
    kept.append(f".a.json.{dead.pid}0.tmp")  # recent enough to be in use by a process on another machine
    (tmp_path / kept[-1]).write_text("half")
    write_json(tmp_path / "a.json", {})
    assert sorted(os.listdir(tmp_path)) == sorted([*kept, "a.json"])


def test_a_block_that_fails_leaves_the_old_content(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyError), whole_file(path) as file:
        file.write(b"half")
        raise KeyError
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize(
    ("number", "kind", "remedy"),
    [
        (errno.ENOSPC, RunFault, "free some space"),
        (errno.EIO, RunFault, "give a path on another"),
        (errno.EACCES, BadInput, "give a path"),
    ],
)
def test_a_failed_write_is_one_line_and_leaves_the_old_content(tmp_path, monkeypatch, number, kind, remedy):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail(_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(kind) as failed:
        write_whole(path, "new")
    message = str(failed.value)
    assert all(part in message for part in (str(path), os.strerror(number), remedy)) and "\n" not in message
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_disk_that_takes_no_more_is_a_fault_of_the_run(tmp_path):
    """With a real file-size limit, which the system enforces in the middle of a write."""
    path = tmp_path / "big"
    path.write_text("old")
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "from nasaug.core.errors import RunFault; from nasaug.core.files import write_whole\n"
        f"try: write_whole({str(path)!r}, bytes(100_000))\n"
        "except RunFault as fault: print(fault)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"cannot write {path}: File too large")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["big"]


@pytest.mark.parametrize("place", ["no/such/folder.json", "file/below.json", "folder"])
def test_a_place_that_cannot_be_written_is_bad_input(tmp_path, place):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(BadInput, match=place):
        write_json(tmp_path / place, {})
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_json_round_trip_and_no_figures_that_json_lacks(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"format": "nasaug-arch/1", "x": [1, 2.5, None, "ü"]})
    assert read_json(path, "nasaug-arch/1")["x"] == [1, 2.5, None, "ü"]
    with pytest.raises(RunFault, match="not finite"):
        write_json(path, {"loss": float("nan")})
    assert json.loads(path.read_text())["x"][0] == 1


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "No such file"),
        (b'{"format": "nasaug-arch/1",\n "plan": [1, 2', "line 2: broken or cut-off JSON"),
        (b"", "line 1: broken or cut-off JSON"),
        (b"[1]", "has \"format\" None, but 'nasaug-arch/1' is needed"),
        (b'{"format": "nasaug-arch/2"}', "has \"format\" 'nasaug-arch/2', but 'nasaug-arch/1' is needed"),
        (b"\x80\x02PK", "not a text file"),
    ],
)
def test_json_that_cannot_be_used_is_told_in_one_line(tmp_path, content, told):
    path = tmp_path / "found.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadInput) as refused:
        read_json(path, "nasaug-arch/1")
    assert str(path) in str(refused.value) and told in str(refused.value) and "\n" not in str(refused.value)


BYTES = os.fsdecode(b"caf\xe9"), os.fsdecode(b"caf\xe8"), "caf\\udce9", "café", "\ud800"


def test_names_that_are_not_utf8_are_read_as_they_were_written(tmp_path):
    json_file, toml_file = tmp_path / f"{BYTES[0]}.json", tmp_path / f"{BYTES[0]}.toml"
    write_json(json_file, {"format": "nasaug-arch/1", "names": BYTES})
    assert read_json(json_file, "nasaug-arch/1")["names"] == list(BYTES)
    assert json_file.read_bytes().decode()  # valid for any JSON reader
    write_with_names(toml_file, "".join(f"n{i} = '{name}'\n" for i, name in enumerate(BYTES[:4])))
    assert list(read_toml(toml_file).values()) == list(BYTES[:4])
    write_whole(tmp_path / "page.html", BYTES[0])
    assert (tmp_path / "page.html").read_text() == "caf\\udce9"


@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", b"\xef\xbb\xbf" * 2])
def test_the_mark_that_an_editor_puts_first_and_its_line_ends_go_unnoticed(tmp_path, mark):
    (tmp_path / "a.json").write_bytes(mark + b'{"format": "nasaug-arch/1",\r\n "x": 1}\r\n')
    (tmp_path / "a.toml").write_bytes(mark + b"a = 1\r\n[b]\r\nc = 'x'\r\n")
    assert read_json(tmp_path / "a.json", "nasaug-arch/1")["x"] == 1
    assert read_toml(tmp_path / "a.toml") == {"a": 1, "b": {"c": "x"}}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_utf_16_is_told_as_such(tmp_path, encoding):
    for name, text, read in (
        ("a.toml", "epochs = 2\n", read_toml),
        ("a.json", '{"format": "x"}', lambda path: read_json(path, "x")),
    ):
        (tmp_path / name).write_bytes(text.encode(encoding))
        with pytest.raises(BadInput) as refused:
            read(tmp_path / name)
        told = "is UTF-16 text, .*; save it as UTF-8" if encoding != "utf-32" else "UTF-16|not valid TOML|JSON"
        assert re.search(f"{name}.*({told})", str(refused.value)) and "\n" not in str(refused.value)


def test_toml_that_is_no_text_is_told_as_such(tmp_path):
    (tmp_path / "a.toml").write_bytes(b"a = 1\n\x80\x02PK")
    with pytest.raises(BadInput, match=r"not a text file \(byte 6 is not UTF-8\)"):
        read_toml(tmp_path / "a.toml")


@pytest.mark.parametrize(
    ("number", "kind", "todo"),
    [
        (errno.ENOLCK, RunFault, "has no locks"), (errno.EMFILE, RunFault, "ulimit -n"),
        (errno.EIO, RunFault, "check its disk"), (errno.EFBIG, RunFault, "ulimit -f"),
        (errno.ESTALE, RunFault, "mount its network folder"), (errno.ELOOP, BadInput, "fix that, or give a path"),
        (errno.ENAMETOOLONG, BadInput, "a shorter name"), (errno.EROFS, BadInput, "that can be written to"),
    ],
)  # fmt: skip
def test_a_failed_write_has_the_remedy_of_its_reason(number, kind, todo):
    error = files.write_error("a.txt", OSError(number, os.strerror(number)))
    assert type(error) is kind and todo in str(error) and "free some space" not in str(error)


def test_what_may_not_be_read_is_told_so(monkeypatch):
    def denied(_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(files.Path, "read_bytes", denied)
    with pytest.raises(BadInput, match="Permission denied; give one that you may read"):
        read_toml("a.toml")


def test_no_home_is_bad_input_that_names_the_way_out(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "~nobody-at-all")  # which Python finds no home for, as where the system names none
    with pytest.raises(BadInput, match="no home folder.*XDG_CACHE_HOME"):
        files.cache_folder()


def test_toml_errors_name_file_and_line(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text("a = 1\nb = \n")
    with pytest.raises(BadInput) as refused:
        read_toml(path)
    message = str(refused.value)
    assert str(path) in message and "line 2" in message and "\n" not in message
    with pytest.raises(BadInput, match="cannot read"):
        read_toml(tmp_path)


def test_a_name_that_is_not_utf_8_has_another_in_utf_8_and_leaves_no_descriptor_open(empty_folder):
    odd = Path(os.fsdecode(b"caf\xe9"))
    odd.mkdir()
    (odd / "x").write_text("here")
    before = os.listdir("/dev/fd")
    with files.named_in_utf8(odd) as name:
        assert name.encode() and Path(name, "x").read_text() == "here"
    assert os.listdir("/dev/fd") == before
    with files.named_in_utf8("plain") as name:
        assert name == "plain"
