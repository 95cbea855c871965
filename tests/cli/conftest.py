"""A folder in which both commands were run, created once."""

import shutil
import signal
from pathlib import Path

import pytest
from PIL import Image

from support.commands import SEARCH, TRAIN, done, lay_out, tree


@pytest.fixture(autouse=True)
def like_anywhere_else(monkeypatch, tmp_path):
    """No data on disk or to download, and a terminal of the usual width."""
    monkeypatch.delenv("NASAUG_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture(autouse=True)
def blank_pictures(monkeypatch):
    """Figures are put together but not rendered, which takes a third of a small search. The commands that run in
    fixtures of a file or of the session do render them, as do the tests of reporting."""

    def blank(figure, file, *, format, **_):
        if format == "svg":
            file.write(b'<svg viewBox="0 0 9 9"></svg>')
        else:
            Image.new("L", (9, 9)).save(file, format)

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", blank)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A folder in which both commands were run in turn. All test files use it, so none may change it."""
    folder = tmp_path_factory.mktemp("finished")
    lay_out(folder)
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        done(*SEARCH)
        done(*TRAIN)
    before = tree(folder)
    yield folder
    assert tree(folder) == before


@pytest.fixture
def here(finished, tmp_path, monkeypatch):
    """A copy of it as the working directory."""
    folder = shutil.copytree(finished, tmp_path / "here")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def no_nohup():
    """SIGHUP is not ignored, however the tests were started."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def photos(here):
    """An image folder of three classes, grey, 12 px."""
    for i in range(90):
        folder = Path("photos", "abc"[i % 3])
        folder.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((12, 12), i).save(folder / f"{i}.png")
    return ("--data", "photos", "--set", "data.train_images=0")
