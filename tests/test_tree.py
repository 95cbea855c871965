"""No tracked file contains an absolute path of a development machine or the host of a private registry."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Except /proc and /dev, which are the same on every machine, and bare folder names, like /tmp.
PATH = re.compile(
    r"(?<![\w.~$)}-])/(?:home|root|work|workspace|scratch|data|datasets|tmp|Users|mnt|media|opt|srv|usr|var|etc)/[^\s/\"'`)]\S*"
    r"|\b[A-Z]:[\\/]+Users\b\S*", re.IGNORECASE,
)  # fmt: skip
HOST = re.compile(
    r"\b[\w.-]*(?:pypi|pythonhosted|artifactory|nexus|registry|mirror)[\w.-]*\.(?:org|com|net|io|dev)\b"
    r"|\b[\w-]+\.(?:internal|intranet|lan|corp)\b(?!\()"
    r"|\bhttps?://(?:\d|localhost\b|[\w.-]+:\d)\S*", re.IGNORECASE,
)  # fmt: skip
ALLOWED = {
    "/usr/bin/env": "finds a program, and is where every Unix has it",
    "/usr/share/datasets/fashion-mnist": "is where Debian's package has the data",
    "/usr/aarch64-linux-gnu": "is where Debian's cross compiler has ARM's libraries",
    "/usr/lib/postgresql": "is where Debian's package has the programs of its versions",
    "/usr/lib/postgresql/*/bin/initdb": "is one of them",
    "/tmp/x.db": "is in a URL that nasaug must refuse: nothing is written there",
}


def found_in(text):
    """Machine-specific paths and hosts in a text, except the allowed ones."""
    found = [re.split(r"[\"'`,;)<]", match.group())[0] for kind in (PATH, HOST) for match in kind.finditer(text)]
    return [name for name in found if name not in ALLOWED]


def text_files(root):
    """Files tracked by git; without git, as in an unpacked sdist, all files except caches and builds."""
    try:
        told = subprocess.run(["git", "-C", root, "ls-files", "-z"], capture_output=True).stdout.decode()
    except FileNotFoundError:
        told = ""
    paths = [root / name for name in told.split("\0") if name]
    if not paths:
        for folder, below, names in os.walk(root):
            below[:] = [b for b in below if b not in ("build", "dist", "runs", "__pycache__") and b[0] != "."]
            paths += [Path(folder, name) for name in names]
    contents = {path: path.read_bytes() for path in paths if path.is_file() and not path.is_symlink()}
    return {path: content.decode(errors="replace") for path, content in contents.items() if b"\0" not in content}


def test_no_file_names_a_path_or_a_registry_of_some_machine():
    files = text_files(ROOT)
    assert ROOT / "docs/results/guided.json" in files and ROOT / "nasaug/__init__.py" in files
    found = {str(path.relative_to(ROOT)): names for path, text in files.items() if (names := found_in(text))}
    assert not found, "name the data or a relative path instead, or add what is the same everywhere to ALLOWED"


# Split strings, so that this file contains none itself.
@pytest.mark.parametrize(
    "pieces",
    [("/ho", "me/ann/photos"), ("/ro", "ot/.cache/x"), ("/wo", "rk/exp/cifar"), ("/tm", "p/data"), ("/Us", "ers/ann"),
     ("/us", "r/share/datasets/mine"), ("C:\\Us", "ers\\ann"), ("C:\\\\Us", "ers\\\\ann"), ("py", "pi.org"),
     ("packages.artif", "actory.acme.com"), ("http:", "//localhost:8080/simple"), ("http:", "//10.0.0.7/simple"),
     ("build7.inter", "nal")],
)  # fmt: skip
def test_a_path_or_a_registry_is_found_in_whatever_form(pieces):
    name = "".join(pieces)
    for text in (f' "data": "{name}",', f"see `{name}`", f"--data={name} --jobs 2", f"a\n{name}\nb", f"({name})"):
        assert found_in(text) == [name]
    assert found_in("file://" + name) or name[0] != "/"


@pytest.mark.parametrize(
    "text",
    [*ALLOWED, "/proc/cpuinfo", "/dev/full", "/tmp", "in /tmp/ or /home", "nasaug/data/work/x", "{folder}/home/x",
     "https://arxiv.org/abs/2110.08890", "https://example.org/usr/x", "mirrored.flip", "$NASAUG_DATA/tmp/x"],
)  # fmt: skip
def test_what_is_the_same_on_every_machine_may_be_named(text):
    assert found_in(f'"{text}"') == []


def test_without_git_the_files_below_a_folder_are_looked_through(tmp_path):
    for name in ("a.md", "docs/b.json", ".venv/c.py", "runs/d.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text")
    (tmp_path / "image.png").write_bytes(b"\x89PNG\0")
    assert set(text_files(tmp_path)) == {tmp_path / "a.md", tmp_path / "docs/b.json"}
