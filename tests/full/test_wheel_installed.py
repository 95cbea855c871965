"""The wheel in an empty environment of each Python on this machine that can have it. Downloads torch: minutes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYENV = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")


def pythons():
    """An interpreter for each version from 3.11 on: this one, those on PATH, and pyenv's."""
    found = {sys.version_info[:2]: sys.executable}
    places = [shutil.which(f"python3.{minor}") for minor in range(11, 16)] + [*PYENV.glob("3.*/bin/python")]
    for place in filter(None, places):
        told = subprocess.run([place, "-c", "import sys; print(*sys.version_info[:2])"], capture_output=True, text=True)
        if told.returncode == 0 and (version := tuple(map(int, told.stdout.split()))) >= (3, 11):
            found.setdefault(version, str(place))
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder]
    subprocess.run(command, cwd=ROOT, check=True)
    return next(folder.glob("*.whl"))


@pytest.mark.timeout(3000)
@pytest.mark.parametrize("python", pythons().values(), ids=[f"{major}.{minor}" for major, minor in pythons()])
def test_an_empty_environment_searches_with_the_wheel(python, wheel, tmp_path):
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}

    def ran(*command):
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    ran(python, "-m", "venv", "empty")
    ran("empty/bin/pip", "install", "-q", f"{wheel}[data]")
    assert wheel.name.split("-")[1] in ran("empty/bin/nasaug", "--version")
    assert "mobilenetv2-tiny" in ran("empty/bin/nasaug", "list", "archs")
    small = "--data digits --mac-budget 100k --trials 4 --set train_macs=1e9".split()
    ran("empty/bin/nasaug", "search", *small)
    assert (tmp_path / "found.json").is_file()
