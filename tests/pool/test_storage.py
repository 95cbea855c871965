"""The storage of a search: which run its study belongs to, and invalid storages."""

import pytest

from nasaug.core.errors import BadInput
from nasaug.pool.storage import check_storage, open_storage
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
