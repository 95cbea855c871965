"""A disk that fills up, and one that is read-only, under real commands: small tmpfs mounts, which need root."""

import os
import shutil
import subprocess
import sys

import pytest

from support.commands import SEARCH, TRAIN, lay_out

MOUNT = shutil.which("mount")


def mounted(folder, options):
    return subprocess.run([MOUNT, "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True).returncode == 0


@pytest.fixture
def small(tmp_path):
    """A function that makes a tmpfs of so many KB."""
    made = []
    if MOUNT is None or not hasattr(os, "geteuid") or os.geteuid():
        pytest.skip("mounting needs root")

    def make(kb):
        folder = tmp_path / f"disk{kb}"
        folder.mkdir()
        if not mounted(folder, f"size={kb}k"):
            pytest.skip("this machine mounts no tmpfs")
        made.append(folder)
        return folder

    yield make
    for folder in made:
        subprocess.run(["umount", "-l", folder], check=True)


def nasaug(folder, *command):
    return subprocess.run(
        [sys.executable, "-m", "nasaug", *command], cwd=folder, capture_output=True, text=True, timeout=300
    )


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("searched")
    lay_out(folder)
    assert nasaug(folder, *SEARCH).returncode == 0
    return folder


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kb", [16, 40, 90, 200])
def test_a_full_disk_is_a_line_and_the_run_goes_on_once_there_is_space(small, searched, kb):
    disk = small(kb)
    command = (*TRAIN, "--set", "epochs=4", "--set", "evaluate_every=1", "--run", str(disk / "r"))
    ended = nasaug(searched, *command)
    if ended.returncode == 0:
        assert kb > 40
        return
    assert ended.returncode in (1, 2) and "Traceback" not in ended.stderr, ended.stderr
    assert "No space left on device; free some space" in ended.stderr.splitlines()[-1]
    subprocess.run([MOUNT, "-o", "remount,size=20m", disk], check=True)
    begun = (disk / "r" / "job.json").is_file()
    if not begun:
        shutil.rmtree(disk / "r", ignore_errors=True)
    again = nasaug(searched, *(("netaug-train", "--resume", "--run", str(disk / "r")) if begun else command))
    assert again.returncode == 0 and (disk / "r" / "result.json").is_file(), again.stderr


@pytest.mark.timeout(900)
def test_a_read_only_folder_is_refused_before_anything_runs(small, searched):
    disk = small(2000)
    subprocess.run([MOUNT, "-o", "remount,ro", disk], check=True)
    ended = nasaug(searched, *TRAIN, "--run", str(disk / "r"))
    assert ended.returncode == 2 and "Read-only file system" in ended.stderr.splitlines()[-1], ended.stderr
