"""The commands of all how-to pages, in the folder of a reader who has searched and trained before. Some minutes."""

import shutil

import pytest

from support.canvases import voc_folder
from support.commands import QUICK, SEARCH, TRAIN, done, lay_out
from support.images import write_folder
from support.pages import ROOT, blocks, run_page

HOW_TO = sorted((ROOT / "docs" / "howto").glob("*.md"))
PAGES = [page for page in HOW_TO if any(block.kind == "console" for block in blocks(page))]


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """A search, two trainings and small data sets."""
    folder = tmp_path_factory.mktemp("reader")
    lay_out(folder)
    write_folder(folder / "photos", ("cat", "dog", "eel"), each=60, size=(12, 12))
    voc_folder(folder / "VOCdevkit")
    write_folder(folder / "ages", ("some",), each=120, size=(12, 12))
    rows = [f"some/{i:03}.png,{i}.5" for i in range(120)]
    (folder / "ages" / "labels.csv").write_text("\n".join(["file,value", *rows]))
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        done(*SEARCH)
        done(*TRAIN)
        done("train", *QUICK, "--arch", "found.json", "--method", "baseline")
    return folder


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_can_be_followed(page, prepared, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(shutil.copytree(prepared, tmp_path / "here"))
    assert run_page(page) >= 1
