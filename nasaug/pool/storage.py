"""The storage of a search's Optuna study: a file in the run directory, or any Optuna storage URL."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from ..core.errors import BadInput, RunFault, arg, told_by
from ..core.files import named_in_utf8
from ..rundirs.folder import without_passwords

STUDY = "nasaug"  # the study's name in a storage


def open_storage(url: str):
    """The Optuna storage of a URL; `journal:PATH` is a journal file. Raises BadInput if it cannot be opened."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        return unchecked_storage(url)
    except (SQLAlchemyError, ImportError, ValueError, OSError) as error:
        rule, remedy = without_passwords(f": {told_by(error)}"), "give a URL like sqlite:///study.db, or none"
        shown = without_passwords(url)
        raise BadInput.of(argument="storage", value=shown, rule=rule, remedy=remedy, apart=True) from None


def unchecked_storage(url: str):
    """Like `open_storage`, but raises the library's own errors."""
    import optuna
    from optuna.storages.journal import JournalFileBackend

    if url.startswith("journal:"):
        backend = JournalFileBackend(url.removeprefix("journal:"))
        return optuna.storages.JournalStorage(backend)
    return optuna.storages.RDBStorage(url)


def absolute_storage(url: str) -> str:
    """The URL with an absolute file path, so that it stays valid if the run is resumed in another directory."""
    for scheme in ("sqlite:///", "journal:"):
        path = url.removeprefix(scheme)
        if path != url and path and not path.startswith(":"):
            return scheme + os.path.abspath(path)
    return url


def check_storage(url: str, resumed: bool) -> None:
    """Open a storage, which may create a file. Raises BadInput if that fails or it contains another run's study."""
    import optuna

    held = optuna.get_all_study_names(open_storage(url))
    if STUDY in held and not resumed:
        rule, remedy = "holds another run's study", f"{arg.resume} that run, or give another storage"
        raise BadInput.of(argument="storage", value=without_passwords(url), rule=rule, remedy=remedy)


@contextlib.contextmanager
def own_storage(run: Path) -> Iterator[str]:
    """The URL of the study in a run directory, whatever characters its name contains, valid inside the block."""
    from sqlalchemy.engine import URL

    with named_in_utf8(run) as folder:
        yield URL.create("sqlite", database=f"{folder}/study.db").render_as_string()


@contextlib.contextmanager
def storage_faults(url: str) -> Iterator[None]:
    """Raises RunFault if an opened storage fails later, for example because of a full disk or a lost connection."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (StorageInternalError, SQLAlchemyError) as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        failed = f"the study in {without_passwords(url)} cannot be read or written: {reason}"
        raise RunFault(f"{failed}; fix that, or free some space if a disk is full; then {arg.resume}") from error
