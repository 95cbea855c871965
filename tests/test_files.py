import errno
import json
import os
import subprocess
import sys

import pytest

from nasaug import files
from nasaug.errors import BadInput, RunFault
from nasaug.files import bundled, read_json, read_toml, whole_file, write_json, write_whole


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
    kept.append(f".a.json.{dead.pid}0.tmp")  # as new as what a process on another machine would be writing
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
        (errno.EIO, RunFault, "give a path"),
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
    """Under a real limit on the size of a file, as the system enforces it in the midst of writing."""
    path = tmp_path / "big"
    path.write_text("old")
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "from nasaug.errors import RunFault; from nasaug.files import write_whole\n"
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


def test_toml_errors_name_file_and_line(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text("a = 1\nb = \n")
    with pytest.raises(BadInput) as refused:
        read_toml(path)
    message = str(refused.value)
    assert str(path) in message and "line 2" in message and "\n" not in message
    with pytest.raises(BadInput, match="cannot read"):
        read_toml(tmp_path)
