"""The folder of someone who reads the pages for the first time."""

import pytest

from support.commands import lay_out


@pytest.fixture
def newcomer(tmp_path, monkeypatch):
    """A working directory that is empty but for the recipe of small runs, and a home of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (folder := tmp_path / "here").mkdir()
    lay_out(folder)
    monkeypatch.chdir(folder)
