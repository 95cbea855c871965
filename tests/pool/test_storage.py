"""The storage of a search: which run its study belongs to, and invalid storages."""

import gc
import os

import pytest

from nasaug.cli.options import option
from nasaug.core.errors import BadInput, written
from nasaug.pool.storage import check_storage, open_storage, own_storage
from support.searches import run, search_of


def test_a_storage_that_holds_another_runs_study_is_refused_unless_resumed(tmp_path):
    """Its scores belong to another supernet and another budget."""
    search = search_of(tmp_path / "study.db", trials=2)
    check_storage(search.storage, resumed=False)
    run(search)
    with pytest.raises(BadInput, match="another run's study"):
        check_storage(search.storage, resumed=False)
    check_storage(search.storage, resumed=True)


def test_a_storage_that_cannot_be_used_is_refused_in_one_line(tmp_path):
    for url in ("nonsense", "sqlite:////no/such/folder/study.db", "nodatabase://x"):
        with pytest.raises(BadInput, match="storage") as refused:
            open_storage(url)
        assert "\n" not in str(refused.value)


def test_a_runs_own_storage_works_whatever_its_name_and_leaves_no_descriptor_open(tmp_path):
    odd = tmp_path / os.fsdecode(b"caf\xe9")
    odd.mkdir()
    before = os.listdir("/dev/fd")
    with own_storage(odd) as url:
        check_storage(url, resumed=False)
    gc.collect()  # the storage's own connections
    assert (odd / "study.db").is_file() and len(os.listdir("/dev/fd")) <= len(before)


def test_its_errors_have_parts_without_passwords(tmp_path):
    with pytest.raises(BadInput) as refused:
        open_storage("nodatabase://me:secret@x")
    error = refused.value
    assert (error.field, error.value) == ("storage", "nodatabase://me:***@x") and error.rule
    assert error.remedy == "give a URL like sqlite:///study.db, or none" and "secret" not in str(error)
    assert written(error.line, option).startswith("--storage nodatabase://me:***@x: ")
