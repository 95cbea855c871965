import urllib.error

import pytest

from nasaug.data import DataConfig, builtin
from support.images import write_fashion_mnist


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """No data on this machine and no downloads, unless the test provides them."""

    def refuse(*_, **__):
        raise urllib.error.URLError("no network in tests")

    monkeypatch.delenv("NASAUG_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user-cache"))
    monkeypatch.setattr(builtin, "DEBIAN_FASHION_MNIST", tmp_path / "no-debian")
    monkeypatch.setattr("urllib.request.urlopen", refuse)


@pytest.fixture
def fashion(tmp_path, monkeypatch):
    write_fashion_mnist(tmp_path / "fashion-mnist")
    monkeypatch.setenv("NASAUG_DATA", str(tmp_path))
    return DataConfig()
